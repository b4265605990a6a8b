//! Writes mail again in place, on a file system whose flush failed.
//!
//! The kernel may have dropped data that it was to write, but still return it to readers. Writing
//! the same bytes again makes the kernel flush them again. Invariants: no message that a reader has
//! removed is restored, and no file that a reader has changed is changed, because what readers saw
//! is true while the file system stays mounted; a removed message is held until the removal is
//! durable, because a crash before that restores a possibly torn file. After the file system was
//! unmounted and mounted again, mail is recovered as after a crash.

use super::super::ledger::deferred_mail::DeferredMail;
use super::super::ledger::logged_message::maildir_header;
use super::compare::{Standing, compare, for_each_piece, is_torn_at, look_into};
use super::listings::names_in;
use super::logged_mailbox::LoggedMailbox;
use super::mbox::open_to_write;
use super::mbox_work::{MboxWork, MboxWorkList};
use super::recheck::Recheck;
use super::worker::{Message, Recovery, Worker, on_own_thread};
use crate::io::Disk;
use crate::log::{CopyLocation, LogError};
use crate::mailbox::MailboxError;
use crate::mailbox::maildir::{Frame, frame_of};
use crate::target::Format;
use std::io;
use std::time::Duration;

/// The result of a recheck.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Rechecked {
    /// The mail that is still held.
    pub(in crate::delivery) left: Vec<DeferredMail>,
    /// Why some mail could not be written again or flushed.
    pub(in crate::delivery) error: Option<MailboxError>,
}

impl<D: Disk> Recovery<'_, D> {
    /// Writes mail again that was stored and may not be durable.
    ///
    /// # Errors
    /// No thread can be started for the work, or it panicked: all of it is still held.
    pub(in crate::delivery) fn recheck(
        &self,
        held: &[DeferredMail],
        how: Recheck,
    ) -> Result<Rechecked, LogError> {
        on_own_thread(|| Worker::new(self, Duration::ZERO).recheck(held, how))
    }
}

impl<D: Disk> Worker<'_, D> {
    fn recheck(mut self, held: &[DeferredMail], how: Recheck) -> Rechecked {
        let mut mboxes = MboxWorkList::default();
        let mut error: Option<MailboxError> = None;
        for deferred in held {
            let message = Message::of(deferred);
            let mut left = Vec::new();
            for waiting in &deferred.recipients {
                let at = usize::try_from(waiting.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = deferred.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.location {
                    _ if !how.concerns(waiting) => left.push(waiting.clone()),
                    CopyLocation::Shared => {}
                    CopyLocation::Mbox { .. } => mboxes.add_waiting(message, waiting),
                    CopyLocation::Maildir { file_name } => {
                        let index = waiting.recipient;
                        let done = match how.is_remounted() {
                            true => self.maildir(message, index, file_name).map(drop),
                            false => self.rewrite_in_maildir(message, index, file_name, how),
                        };
                        left.extend(how.after(waiting.clone(), done.is_ok()));
                        error = error.or(done.err());
                    }
                }
            }
            self.defer(message, left, deferred.wants_room, || {
                deferred.refused.clone()
            });
            self.leave();
        }
        for (target, work) in mboxes.take() {
            let done = match how.is_remounted() {
                true => self.mbox(&target, &work).map(drop),
                false => self.rewrite_in_mbox(&target, &work, how),
            };
            let is_done = done.is_ok();
            error = error.or(done.err());
            for entry in &work.entries {
                let mut all = held.iter();
                let deferred = all.find(|deferred| deferred.envelope.id == entry.envelope.id);
                let refused =
                    || deferred.map_or_else(Vec::new, |deferred| deferred.refused.clone());
                let left = how.after(entry.waiting(), is_done);
                self.defer(entry.message(), left.into_iter().collect(), false, refused);
            }
            self.leave();
        }
        Rechecked {
            left: self.deferred,
            // Mail that recovery must deliver waits for its mailbox, not for the file system.
            error: error.filter(|_| !how.is_remounted()),
        }
    }

    /// Writes a message in a Maildir again, unless a reader has removed or changed it.
    fn rewrite_in_maildir(
        &mut self,
        message: Message<'_>,
        recipient: u32,
        name: &str,
        how: Recheck,
    ) -> Result<(), MailboxError> {
        let disk = self.with.disk;
        let at = usize::try_from(recipient).unwrap_or(usize::MAX);
        let Some(to) = message.envelope.recipients.get(at) else {
            return Ok(());
        };
        let (base, path) = self.enter(&LoggedMailbox::of(to, Format::Maildir))?;
        let failed = |error| MailboxError::from_io(path.display(), DOING, error);
        let header = maildir_header(message.envelope, at);
        let ours = [&header[..], message.content].concat();
        // A reader may move it at the same time.
        for _ in 0..4 {
            let new = existing(disk.open_directory(&base, &path.below("new"))).map_err(failed)?;
            if let Some(new) = &new
                && rewrite_file(disk, (new, name), &ours, how).map_err(failed)?
            {
                return Ok(());
            }
            let Some(cur) =
                existing(disk.open_directory(&base, &path.below("cur"))).map_err(failed)?
            else {
                return flush_removal(disk, new.as_slice(), how).map_err(failed);
            };
            let list = || names_in(disk, &cur);
            let found = self.maildirs.find(path.as_str(), name, list);
            let Some(full) = found.map_err(failed)? else {
                let directories = [new.as_slice(), std::slice::from_ref(&cur)];
                let mut directories = directories.into_iter();
                return directories
                    .try_for_each(|directory| flush_removal(disk, directory, how))
                    .map_err(failed);
            };
            if rewrite_file(disk, (&cur, &full), &ours, how).map_err(failed)? {
                return Ok(());
            }
            self.maildirs.forget(path.as_str());
        }
        Ok(())
    }

    /// Writes the messages in an mbox again, unless a reader has removed the file.
    fn rewrite_in_mbox(
        &mut self,
        target: &LoggedMailbox,
        work: &MboxWork,
        how: Recheck,
    ) -> Result<(), MailboxError> {
        let disk = self.with.disk;
        let (base, path) = self.enter(target)?;
        let failed = |error| MailboxError::from_io(path.display(), DOING, error);
        let (above, name) = (path.parent(), path.name());
        let Some(above) = existing(disk.open_directory(&base, above)).map_err(failed)? else {
            return Ok(());
        };
        if existing(disk.stat_at(&above, name))
            .map_err(failed)?
            .is_none()
        {
            return flush_removal(disk, std::slice::from_ref(&above), how).map_err(failed);
        }
        let (mbox, _) = self.open_mbox(target)?;
        let rewritten = open_to_write(disk, &mbox)
            .and_then(|file| rewrite_messages(disk, &file, work).map(|()| file))
            .and_then(|file| match how.flushes_each() {
                true => disk.sync(&file).and_then(|()| disk.sync(mbox.parent())),
                false => Ok(()),
            });
        mbox.close(disk);
        rewritten.map_err(failed)
    }
}

/// The failed step, in the text of an error.
const DOING: &str = "writing messages again after a failed flush";

/// Why a file is left as it is by a build that cannot make it again.
const TORN: &str = "the beginning of the file is lost; if it was compressed with zstd, build \
                    mailstow-engine with the feature \"zstd\" to write it again";

/// Returns `None` for an error that says that the file is missing.
fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Flushes directories from which a reader has removed messages.
fn flush_removal<D: Disk>(disk: &D, directories: &[D::Handle], how: Recheck) -> io::Result<()> {
    if !how.flushes_each() {
        return Ok(());
    }
    directories
        .iter()
        .try_for_each(|directory| disk.sync(directory))
}

/// Writes a file of a Maildir again, if it is as we wrote it; returns false when it is missing.
fn rewrite_file<D: Disk>(
    disk: &D,
    (directory, name): (&D::Handle, &str),
    ours: &[u8],
    how: Recheck,
) -> io::Result<bool> {
    let Some(file) = existing(disk.open_write(directory, name))? else {
        return Ok(false);
    };
    if compare(disk, &file, ours)? != Standing::Foreign {
        disk.write_at(&file, ours, 0)?;
    } else {
        let Some(frame) = frame_of(ours)? else {
            // A build with zstd tells whose it is, and makes the frame again.
            return match look_into(disk, &file, (ours, 0))? {
                Frame::Torn => Err(io::Error::other(TORN)),
                Frame::OfThis | Frame::Other => Ok(true),
            };
        };
        if compare(disk, &file, &frame)? == Standing::Foreign {
            return Ok(true);
        }
        disk.write_at(&file, &frame, 0)?;
    }
    if how.flushes_each() {
        disk.sync(&file)?;
        disk.sync(directory)?;
    }
    Ok(true)
}

/// Writes messages again where they were appended. A message that a reader has moved is flushed by
/// rewriting the whole file unchanged.
fn rewrite_messages<D: Disk>(disk: &D, file: &D::Handle, work: &MboxWork) -> io::Result<()> {
    let mut is_moved = false;
    for entry in &work.entries {
        let Some((place, ours)) = entry.newest_place() else {
            continue;
        };
        match is_torn_at(disk, file, place, ours)? {
            true => disk.write_at(file, ours, place)?,
            false => is_moved = true,
        }
    }
    if !is_moved {
        return Ok(());
    }
    let mut written = Ok(());
    for_each_piece(disk, file, 0, |offset, piece| {
        written = disk.write_at(file, piece, offset);
        written.is_ok()
    })?;
    written
}

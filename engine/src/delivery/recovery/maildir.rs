//! Finds a message in a Maildir by its name in the log, and writes it again if it is missing or
//! torn.

use super::super::ledger::logged_message::maildir_header;
use super::compare::{Standing, compare, look_into};
use super::listings::names_in;
use super::logged_mailbox::LoggedMailbox;
use super::worker::{Message, PageCache, Worker};
use crate::io::Disk;
use crate::mailbox::maildir::{Frame, Maildir, NameMaker, frame_of};
use crate::mailbox::{Flush, MailboxError, MailboxName};
use crate::target::Format;
use std::io;

impl<D: Disk> Worker<'_, D> {
    /// Restores the copy under its name if it is missing or torn. Returns true when it was written
    /// again.
    pub(super) fn maildir(
        &mut self,
        message: Message<'_>,
        index: u32,
        name: &str,
    ) -> Result<bool, MailboxError> {
        let Message {
            envelope, content, ..
        } = message;
        let with = self.with;
        let disk = with.disk;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(recipient) = envelope.recipients.get(at) else {
            return Ok(false);
        };
        debug_assert_eq!(
            recipient.location.format(),
            Some(Format::Maildir),
            "its copy"
        );
        let logged = LoggedMailbox::of(recipient, Format::Maildir);
        let (base, path) = self.enter(&logged)?;
        let failed = |error| MailboxError::from_io(path.display(), "recovering a message", error);
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(MailboxError::Path {
                mailbox: path.display().to_owned(),
                cause: "the delivery log has an invalid file name for a message",
            });
        }
        let known = (with.durable_dirs, Flush::Later);
        let owner = with.settings.owner_check(logged.owner);
        let mut maildir = Maildir::open(disk, &base, &path, owner, known)?;
        let new = maildir.new_directory();
        let expected = with.pools.mount_point_of(&logged.path);
        let later = with
            .file_systems
            .enter(disk, maildir.device(), (new, &expected))
            .map_err(failed)?;
        with.file_systems
            .enter_all(disk, maildir.chain(), &expected)
            .map_err(failed)?;
        maildir.is_seen(with.durable_dirs);
        let header = maildir_header(envelope, at);
        let ours = [&header[..], content].concat();
        let found = match look(disk, maildir.new_directory(), name, &ours).map_err(failed)? {
            None => self
                .look_in_cur(&base, &path, name, &ours)
                .map_err(failed)?,
            // A program that has the message changed the file, and recovery must not change it.
            Some(Standing::Foreign) => true,
            Some(Standing::Whole) if with.page_cache == PageCache::Trusted => true,
            Some(Standing::Whole | Standing::Torn) => {
                let new = maildir.new_directory();
                disk.remove(new, name).map_err(failed)?;
                false
            }
        };
        if found {
            return Ok(false);
        }
        let names = NameMaker::new(&with.settings.host);
        let how = (&names, with.settings.compress);
        let unpublished = maildir.write_bytes(disk, &base, how, &ours)?;
        if !later {
            disk.sync(unpublished.file()).map_err(failed)?;
        }
        if let Err(error) = maildir.publish_as(disk, &unpublished, name) {
            maildir.discard(disk, &unpublished);
            return Err(error);
        }
        if !later {
            disk.sync(maildir.new_directory()).map_err(failed)?;
        }
        Ok(true)
    }

    /// Finds a copy that a reader has moved to `cur/`. Removes a torn copy, which is then written
    /// again in `new/`.
    fn look_in_cur(
        &mut self,
        base: &D::Handle,
        path: &MailboxName,
        name: &str,
        ours: &[u8],
    ) -> io::Result<bool> {
        let disk = self.with.disk;
        let cur = match disk.open_directory(base, &path.below("cur")) {
            Ok(cur) => cur,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // A reader may change its flags at the same time.
        for _ in 0..4 {
            let list = || names_in(disk, &cur);
            let Some(full) = self.maildirs.find(path.as_str(), name, list)? else {
                return Ok(false);
            };
            match look(disk, &cur, &full, ours)? {
                None => self.maildirs.forget(path.as_str()),
                Some(Standing::Foreign) => return Ok(true),
                Some(Standing::Whole) if self.with.page_cache == PageCache::Trusted => {
                    return Ok(true);
                }
                Some(Standing::Whole | Standing::Torn) => {
                    disk.remove(&cur, &full)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn look<D: Disk>(
    disk: &D,
    directory: &D::Handle,
    name: &str,
    ours: &[u8],
) -> io::Result<Option<Standing>> {
    match disk.open_append(directory, name) {
        Ok(file) => standing_of(disk, &file, ours).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares a file, which may be compressed whatever `store.compress` says now.
fn standing_of<D: Disk>(disk: &D, file: &D::Handle, ours: &[u8]) -> io::Result<Standing> {
    let plain = compare(disk, file, ours)?;
    if plain != Standing::Foreign {
        return Ok(plain);
    }
    let frame = frame_of(ours)?;
    if let Some(frame) = &frame {
        let compressed = compare(disk, file, frame)?;
        if compressed != Standing::Foreign {
            return Ok(compressed);
        }
    }
    // Another version of the library makes different frames, but not much longer ones.
    let most = 2 * (ours.len() + frame.map_or(0, |frame| frame.len())) as u64;
    if disk.stat(file)?.size > most {
        return Ok(Standing::Foreign);
    }
    Ok(match look_into(disk, file, (ours, most))? {
        Frame::OfThis => Standing::Whole,
        Frame::Torn => Standing::Torn,
        Frame::Other => Standing::Foreign,
    })
}

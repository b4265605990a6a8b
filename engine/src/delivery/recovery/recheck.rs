//! Mail that was stored, on a file system whose flush failed: written again where it stands.
//!
//! The kernel may have dropped what it was to write, while reading still shows it. Writing the same
//! bytes again has them flushed again. Invariant: nothing is made that a reader has removed, and
//! nothing is changed that a reader has changed, because what readers saw is true as long as the
//! file system stays mounted. After it was unmounted and mounted again, mail is recovered as after
//! a crash.

use super::super::journal::Found;
use super::super::logged_message::maildir_header;
use super::super::stuck::{Held, Stuck, Waiting};
use super::maildir::names_in;
use super::read::{Standing, compare, for_each_piece, is_torn_at};
use super::survey::Survey;
use super::{LoggedMailbox, Message, Recovery, Run, mbox, on_own_thread};
use crate::io::Disk;
use crate::log::{Accepted, AcceptedRecipient, LogError, Plan, Sequence};
use crate::mailbox::MailboxError;
use crate::mailbox::maildir::frame_of;
use crate::target::Format;
use std::collections::HashSet;
use std::io;
use std::time::Duration;

/// What to write again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Recheck {
    /// What is held for this file system, to be flushed with it.
    Whole {
        /// The file system.
        device: u64,
        /// It was unmounted meanwhile.
        is_remounted: bool,
    },
    /// The same, each file flushed by itself.
    Each {
        /// The file system.
        device: u64,
        /// It was unmounted meanwhile.
        is_remounted: bool,
    },
    /// What could not be flushed by itself before.
    LeftOver {
        /// The file system.
        device: u64,
    },
}

/// Says of a recipient whether its mailbox is on a file system.
type IsThere<'a, R> = dyn Fn(&mut R, &AcceptedRecipient, Format) -> bool + 'a;

/// What came of it.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Rechecked {
    /// What is still held.
    pub(in crate::delivery) left: Vec<Stuck>,
    /// Why something could not be written again or flushed.
    pub(in crate::delivery) error: Option<MailboxError>,
}

impl Recheck {
    fn flushes_each(self) -> bool {
        !matches!(self, Self::Whole { .. })
    }

    fn is_remounted(self) -> bool {
        match self {
            Self::Whole { is_remounted, .. } | Self::Each { is_remounted, .. } => is_remounted,
            Self::LeftOver { .. } => false,
        }
    }

    /// Returns what is still held of a delivery after an attempt.
    fn after(self, mut waiting: Waiting, is_done: bool) -> Option<Waiting> {
        if self.is_remounted() {
            if !is_done {
                // Recovery has to make it.
                waiting.held = Held::Undelivered;
            }
        } else if self.flushes_each() {
            match &mut waiting.held {
                _ if is_done => return None,
                Held::Unflushed { is_left_over, .. } => *is_left_over = true,
                Held::Undelivered | Held::InHand { .. } | Held::Made { .. } => {}
            }
        }
        Some(waiting)
    }

    fn concerns(self, waiting: &Waiting) -> bool {
        match (self, waiting.held) {
            (_, Held::Undelivered | Held::InHand { .. } | Held::Made { .. }) => false,
            (
                Self::Whole { device, .. } | Self::Each { device, .. },
                Held::Unflushed {
                    device: held,
                    is_left_over,
                    ..
                },
            ) => held == device && !is_left_over,
            (
                Self::LeftOver { device },
                Held::Unflushed {
                    device: held,
                    is_left_over,
                    ..
                },
            ) => held == device && is_left_over,
        }
    }
}

impl<D: Disk> Recovery<'_, D> {
    /// Returns the mail in `found`, between these records, that was stored on one of these devices
    /// or cannot be looked at.
    ///
    /// # Errors
    /// The log cannot be read, or there is no thread for the work.
    pub(in crate::delivery) fn hold(
        &self,
        found: &dyn Found,
        range: (Sequence, Sequence),
        (device, now): (u64, u64),
    ) -> Result<Vec<Stuck>, LogError> {
        let held = Held::Unflushed {
            device,
            after: self.file_systems.flush_number(device),
            is_left_over: false,
        };
        on_own_thread(|| {
            let mut run = Run::new(self, Duration::ZERO);
            run.hold(found, range, held, &|run, recipient, format| {
                // One that cannot be looked at may be there.
                let on = run.device(recipient, format);
                on.is_none_or(|on| on == device || on == now)
            })?;
            Ok(run.stuck)
        })?
    }

    /// Returns the mail in `found`, between these records, whose mailboxes `is_there` says yes to.
    /// Asks no file system.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(in crate::delivery) fn hold_by_path(
        &self,
        found: &dyn Found,
        range: (Sequence, Sequence),
        (held, is_there): (Held, &(dyn Fn(&str) -> bool + Sync)),
    ) -> Result<Vec<Stuck>, LogError> {
        on_own_thread(|| {
            let mut run = Run::new(self, Duration::ZERO);
            run.hold(found, range, held, &|_, recipient, _| {
                is_there(&recipient.mailbox)
            })?;
            Ok(run.stuck)
        })?
    }

    /// Writes mail again that was stored and may not be durable.
    ///
    /// # Errors
    /// There is no thread for the work, or it panicked: all of it is still held.
    pub(in crate::delivery) fn recheck(
        &self,
        held: &[Stuck],
        how: Recheck,
    ) -> Result<Rechecked, LogError> {
        on_own_thread(|| Run::new(self, Duration::ZERO).recheck(held, how))
    }
}

impl<D: Disk> Run<'_, D> {
    fn hold(
        &mut self,
        found: &dyn Found,
        (from, until): (Sequence, Sequence),
        held: Held,
        is_there: &IsThere<'_, Self>,
    ) -> Result<(), LogError> {
        let survey = Survey::of(found)?;
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if at < from || at >= until || !seen.insert(envelope.id) {
                return;
            }
            let kept = self.held(&survey, &envelope, (held, is_there));
            let refused = || survey.refused_of(&envelope);
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            self.keep_stuck(message, kept, false, refused);
            self.leave();
        })
    }

    /// Returns the copies of a message that were stored there.
    fn held(
        &mut self,
        survey: &Survey,
        envelope: &Accepted,
        (held, is_there): (Held, &IsThere<'_, Self>),
    ) -> Vec<Waiting> {
        let mut kept = Vec::new();
        for (index, recipient) in (0..).zip(&envelope.recipients) {
            let format = match recipient.plan {
                Plan::Maildir { .. } => Format::Maildir,
                Plan::Mbox { .. } => Format::Mbox,
                Plan::Shared => continue,
            };
            if survey.is_refused(envelope.id, index) || survey.is_settled(envelope.id, index) {
                continue;
            }
            if is_there(self, recipient, format) {
                kept.push(Waiting {
                    recipient: index,
                    places: survey.places(envelope.id, index).to_vec(),
                    held,
                });
            }
        }
        kept
    }

    fn device(&mut self, recipient: &AcceptedRecipient, format: Format) -> Option<u64> {
        let disk = self.with.disk;
        let (base, path) = self.enter(&LoggedMailbox::of(recipient, format)).ok()?;
        let stat = match format {
            Format::Maildir => disk
                .open_directory(&base, &path.below("new"))
                .and_then(|new| disk.stat(&new)),
            Format::Mbox => {
                let (above, name) = (path.parent(), path.name());
                disk.open_directory(&base, above)
                    .and_then(|above| disk.stat_at(&above, name))
            }
        };
        stat.ok().map(|stat| stat.device)
    }

    fn recheck(mut self, held: &[Stuck], how: Recheck) -> Rechecked {
        let mut mboxes = mbox::Gathered::default();
        let mut error: Option<MailboxError> = None;
        for stuck in held {
            let message = Message {
                at: stuck.at,
                envelope: &stuck.envelope,
                content: &stuck.content,
            };
            let mut left = Vec::new();
            for waiting in &stuck.recipients {
                let at = usize::try_from(waiting.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = stuck.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.plan {
                    _ if !how.concerns(waiting) => left.push(waiting.clone()),
                    Plan::Shared => {}
                    Plan::Mbox { .. } => mboxes.add_waiting(message, waiting),
                    Plan::Maildir { file_name } => {
                        let (envelope, index) = (&stuck.envelope, waiting.recipient);
                        let done = match how.is_remounted() {
                            true => self
                                .maildir(envelope, index, file_name, &stuck.content)
                                .map(drop),
                            false => self.rewrite_in_maildir(message, index, file_name, how),
                        };
                        left.extend(how.after(waiting.clone(), done.is_ok()));
                        error = error.or(done.err());
                    }
                }
            }
            self.keep_stuck(message, left, stuck.wants_room, || stuck.refused.clone());
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
                let stuck = all.find(|stuck| stuck.envelope.id == entry.envelope.id);
                let refused = || stuck.map_or_else(Vec::new, |stuck| stuck.refused.clone());
                let left = how.after(entry.waiting(), is_done);
                self.keep_stuck(entry.message(), left.into_iter().collect(), false, refused);
            }
            self.leave();
        }
        Rechecked {
            left: self.stuck,
            // What recovery has to make waits for its mailbox, not for the file system.
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
        // A reader may move it just now.
        for _ in 0..4 {
            if let Some(new) =
                existing(disk.open_directory(&base, &path.below("new"))).map_err(failed)?
                && rewrite_file(disk, (&new, name), &ours, how).map_err(failed)?
            {
                return Ok(());
            }
            let Some(cur) =
                existing(disk.open_directory(&base, &path.below("cur"))).map_err(failed)?
            else {
                return Ok(());
            };
            let list = || names_in(disk, &cur);
            let found = self.maildirs.find(path.as_str(), name, list);
            let Some(full) = found.map_err(failed)? else {
                return Ok(());
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
        work: &mbox::Work,
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
            return Ok(());
        }
        let (mbox, _) = self.open_mbox(target)?;
        let rewritten = mbox::open_to_write(disk, &mbox)
            .and_then(|file| rewrite_messages(disk, &file, work).map(|()| file))
            .and_then(|file| match how.flushes_each() {
                true => disk.sync(&file).and_then(|()| disk.sync(mbox.parent())),
                false => Ok(()),
            });
        mbox.close(disk);
        rewritten.map_err(failed)
    }
}

/// What fails, in the text of an error.
const DOING: &str = "writing messages again after a failed flush";

/// Returns `None` for what is not there.
fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of a Maildir again, if it is as we wrote it; false when it is not there.
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
        let frame = frame_of(ours)?;
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

/// Writes messages again where they were appended. What a reader has moved is flushed by writing
/// the whole file again as it is.
fn rewrite_messages<D: Disk>(disk: &D, file: &D::Handle, work: &mbox::Work) -> io::Result<()> {
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

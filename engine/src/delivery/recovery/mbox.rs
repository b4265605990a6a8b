//! Repairs an mbox: finds its messages where they were appended, then anywhere, and writes missing
//! ones again.
//!
//! For messages that are not in the log, the log has the place and the sums: recovery cuts off a
//! torn one, and leaves a complete one unchanged.

use super::super::ledger::journal::done_records;
use super::compare::{is_torn_at, stands_at};
use super::extent::Torn;
use super::foreign::foreign_up_to;
use super::logged_mailbox::LoggedMailbox;
use super::mbox_plan::{MboxPlan, TornExtents};
use super::mbox_work::{MboxEntry, MboxWork};
use super::search::{search, search_from};
use super::worker::{PageCache, Worker};
use crate::clock;
use crate::io::Disk;
use crate::log::{Done, DoneOutcome};
use crate::mailbox::mbox::{Mbox, MboxCache, Opened};
use crate::mailbox::{Flush, MailboxError};
use std::io;
use std::time::Duration;

/// Pause between two attempts to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of one mbox that are searched for messages. All other mail waits meanwhile.
const SEARCHED_BYTES_MAX: u64 = 2 << 30;
/// Messages that are appended together.
const APPENDED_MAX: usize = 128;

impl<D: Disk> Worker<'_, D> {
    /// Repairs one mbox. Returns how many messages were appended again.
    pub(super) fn mbox(
        &mut self,
        target: &LoggedMailbox,
        work: &MboxWork,
    ) -> Result<u64, MailboxError> {
        let (mut mbox, later) = self.open_mbox(target)?;
        let result = self.repair(&mut mbox, work);
        let result = result.and_then(|rewritten| {
            if !later {
                let synced = self.with.disk.sync(mbox.file());
                synced.map_err(|error| failed(&mbox, error))?;
            }
            Ok(rewritten)
        });
        mbox.close(self.with.disk);
        result
    }

    /// Opens and locks an mbox as its owner. Returns true if a checkpoint flushes it.
    pub(super) fn open_mbox(
        &mut self,
        target: &LoggedMailbox,
    ) -> Result<(Mbox<D::Handle>, bool), MailboxError> {
        let with = self.with;
        let (base, path) = self.enter(target)?;
        let known = (with.durable_dirs, Flush::Later);
        let mbox = loop {
            let (settings, owner) = (with.settings, target.owner);
            let mut alone = MboxCache::default();
            match Mbox::open(with.disk, &base, &path, owner, settings, known, &mut alone)? {
                Opened::Ready(mbox) => break *mbox,
                Opened::Busy(lock) if clock::now() >= self.patient_until => {
                    return Err(MailboxError::Busy {
                        mailbox: path.display().to_owned(),
                        lock,
                    });
                }
                Opened::Busy(_) => std::thread::sleep(LOCK_PAUSE),
            }
        };
        let expected = with.pools.mount_point_of(&target.path);
        let entered = with
            .file_systems
            .enter(with.disk, mbox.device(), (mbox.parent(), &expected))
            .and_then(|later| {
                with.file_systems
                    .enter_all(with.disk, mbox.chain(), &expected)?;
                Ok(later)
            });
        match entered {
            Ok(later) => {
                mbox.is_seen(with.durable_dirs);
                Ok((mbox, later))
            }
            Err(error) => {
                let error = failed(&mbox, error);
                mbox.close(with.disk);
                Err(error)
            }
        }
    }

    fn repair(&self, mbox: &mut Mbox<D::Handle>, work: &MboxWork) -> Result<u64, MailboxError> {
        let disk = self.with.disk;
        let entries = work.entries.as_slice();
        let stands = self.standing(mbox, entries).map_err(|e| failed(mbox, e))?;
        let mut plan = MboxPlan::new(entries, stands, self.searches_all);
        self.write_again(mbox, entries, &mut plan)
            .map_err(|e| failed(mbox, e))?;
        let from = search_from(disk, mbox, entries).map_err(|e| failed(mbox, e))?;
        let bytes = mbox.length().saturating_sub(from);
        if bytes > SEARCHED_BYTES_MAX {
            return Err(failed(mbox, too_long(bytes)));
        }
        self.cut(mbox, work, &mut plan)?;
        if plan.may_be_elsewhere() {
            search(disk, mbox, from, &mut plan).map_err(|e| failed(mbox, e))?;
        }
        let missing = plan.missing();
        // In groups, because the record of their places has a bound.
        for missing in missing.chunks(APPENDED_MAX) {
            self.append(mbox, missing)?;
        }
        Ok(missing.len() as u64)
    }

    /// Returns for each message whether it is at its newest place.
    fn standing(&self, mbox: &Mbox<D::Handle>, entries: &[MboxEntry]) -> io::Result<Vec<bool>> {
        let disk = self.with.disk;
        let stands = |entry: &MboxEntry| match entry.newest_place() {
            Some((place, ours)) if entry.is_pending => stands_at(disk, mbox.file(), place, ours),
            _ => Ok(false),
        };
        entries.iter().map(stands).collect()
    }

    /// Writes messages again that are torn within the file.
    fn write_again(
        &self,
        mbox: &mut Mbox<D::Handle>,
        entries: &[MboxEntry],
        plan: &mut MboxPlan<'_>,
    ) -> io::Result<()> {
        let disk = self.with.disk;
        let is_suspect = self.with.page_cache == PageCache::Suspect;
        let mut file = None;
        for index in plan.rewritable(mbox.length(), is_suspect) {
            let Some((place, ours)) = entries.get(index).and_then(MboxEntry::newest_place) else {
                continue;
            };
            if is_torn_at(disk, mbox.file(), place, ours)? {
                let opened = match file.take() {
                    Some(opened) => opened,
                    None => open_to_write(disk, mbox)?,
                };
                disk.write_at(&opened, ours, place)?;
                file = Some(opened);
                plan.is_rewritten(index);
            }
        }
        if file.is_some() {
            mbox.look_at_end(disk)?;
        }
        Ok(())
    }

    /// Cuts the file off as planned.
    fn cut(
        &self,
        mbox: &mut Mbox<D::Handle>,
        work: &MboxWork,
        plan: &mut MboxPlan<'_>,
    ) -> Result<(), MailboxError> {
        let disk = self.with.disk;
        let length = mbox.length();
        let extents = work.extents.iter().map(|waiting| &waiting.extent);
        let torn = Torn::look(disk, mbox.file(), length, extents, |at| plan.is_taken(at));
        let torn = torn.map_err(|e| failed(mbox, e))?;
        let of_extents = TornExtents {
            first: torn.first,
            flushed_to: torn.flushed_to,
        };
        let Some(cut) = plan.cut(length, of_extents) else {
            return Ok(());
        };
        let with = (work.entries.as_slice(), &torn);
        let foreign = foreign_up_to(disk, mbox.file(), cut.first, with);
        let foreign = foreign.map_err(|e| failed(mbox, e))?;
        let Some(at) = cut.behind(foreign) else {
            return Ok(());
        };
        mbox.cut_to(disk, at)?;
        debug_assert_eq!(mbox.length(), at, "no byte of ours is left after it");
        if torn.first.is_some() {
            // Otherwise the message could come back after the next one: in a sector that both
            // share, they cannot be distinguished.
            disk.sync(mbox.file()).map_err(|e| failed(mbox, e))?;
        }
        plan.is_cut_to(at);
        Ok(())
    }

    /// Appends messages, after the log has their places.
    fn append(
        &self,
        mbox: &mut Mbox<D::Handle>,
        missing: &[&MboxEntry],
    ) -> Result<(), MailboxError> {
        debug_assert!(
            missing.iter().all(|entry| entry.is_pending),
            "refused messages are not appended"
        );
        let mut offset = mbox.next_offset();
        let mut places = Vec::with_capacity(missing.len());
        let mut rendered = Vec::new();
        for entry in missing {
            let length = entry.rendered.len() as u64;
            places.push(Done {
                id: entry.envelope.id,
                recipient: entry.recipient,
                outcome: DoneOutcome::Mbox { offset, length },
            });
            offset += length;
            rendered.extend_from_slice(&entry.rendered);
        }
        let journal = self.with.journal;
        for noted in done_records(&places) {
            journal
                .append_anyway(noted)
                .and_then(|ticket| journal.wait(ticket))
                .map_err(|error| failed(mbox, io::Error::other(error)))?;
        }
        mbox.append_rendered(self.with.disk, &rendered)?;
        debug_assert_eq!(
            mbox.length(),
            offset,
            "the messages are at their logged places"
        );
        Ok(())
    }
}

/// Opens an mbox that is open for appending, to change its content.
pub(super) fn open_to_write<D: Disk>(disk: &D, mbox: &Mbox<D::Handle>) -> io::Result<D::Handle> {
    let file = disk.open_write(mbox.parent(), mbox.path().name())?;
    match disk.stat(&file)?.is_same_file(&disk.stat(mbox.file())?) {
        true => Ok(file),
        // The owner replaced the file in spite of the locks.
        false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
    }
}

/// Returns the error for an mbox that is too long to be read: the owner can extend it to any length
/// without cost, with a hole.
fn too_long(bytes: u64) -> io::Error {
    io::Error::other(format!(
        "another program made it so long that {bytes} bytes had to be read; make it shorter, its \
         mail waits in the delivery log"
    ))
}

fn failed<H>(mbox: &Mbox<H>, error: io::Error) -> MailboxError {
    MailboxError::from_io(mbox.path().display(), "recovering messages", error)
}

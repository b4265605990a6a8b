//! A message for an mbox that is too long for the log: the log is told what will stand where, so
//! that recovery knows a part of it from what other programs wrote.
//!
//! Imports `log`, `mailbox`, `route`. Invariants: the record is durable before the first byte of
//! the message is written, and everything before the message is durable by then, so that of all
//! that stands in the file only the last message can be torn.

use super::job::Job;
use super::keeper::{Keeper, Pass};
use super::round::{OpenMbox, Round, flush_error};
use crate::io::Disk;
use crate::log::{Extent, LogError, Record};
use crate::mailbox::MailboxError;
use crate::mailbox::mbox::{Entry, Mbox};
use crate::status::Status;
use std::io;

/// What a disk writes as a whole, at least.
pub(super) const SECTOR_BYTES: u64 = 512;

/// CRC-32 of the bytes in each sector of a file, from an offset on.
#[derive(Debug)]
pub(super) struct Sums {
    at: u64,
    open: Option<crc32fast::Hasher>,
    ended: Vec<u32>,
}

impl Sums {
    pub(super) fn from(offset: u64) -> Self {
        Self {
            at: offset,
            open: None,
            ended: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = SECTOR_BYTES - self.at % SECTOR_BYTES;
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.open.get_or_insert_default().update(now);
            self.at += now.len() as u64;
            if now.len() == room {
                self.end_sector();
            }
            bytes = later;
        }
    }

    fn end_sector(&mut self) {
        self.ended
            .extend(self.open.take().map(crc32fast::Hasher::finalize));
    }

    /// Where the last byte ended, and the sums.
    pub(super) fn finish(mut self) -> (u64, Vec<u32>) {
        self.end_sector();
        (self.at, self.ended)
    }
}

fn extent_of(job: &Job, offset: u64, entry: &Entry<'_>) -> io::Result<Extent> {
    let mut sums = Sums::from(offset);
    entry.show(|bytes| sums.feed(bytes))?;
    let (end, sums) = sums.finish();
    Ok(Extent {
        mailbox: job.target.path.clone(),
        uid: job.target.uid,
        gid: job.target.gid,
        offset,
        length: end - offset,
        sums,
    })
}

fn note<H>(pass: &Pass<'_, H>, extent: Extent) -> Result<(), LogError> {
    let ticket = pass.journal.append(Record::Extent(extent).encode())?;
    pass.journal.wait(ticket).map(|_| ())
}

impl<'a, D: Disk> Round<'a, D> {
    /// One message after the other, each flushed before the next is noted; the caller flushes
    /// the last.
    pub(super) fn append_noted(
        &mut self,
        keeper: &'a Keeper<D::Handle>,
        mbox: Mbox<D::Handle>,
        jobs: Vec<(Job, Vec<u8>)>,
    ) {
        let disk = &self.shared().disk;
        let pass = match keeper.enter() {
            Ok(pass) => pass,
            Err(error) => {
                mbox.close(disk);
                return refuse_all(jobs, &error.status());
            }
        };
        let floor = keeper.floors.take(|| pass.journal.durable_up_to());
        let mut open = OpenMbox {
            mbox,
            jobs: Vec::new(),
            noted: None,
        };
        let mut jobs = jobs.into_iter();
        while let Some((job, header)) = jobs.next() {
            if let Err(source) = disk.sync(open.mbox.file()) {
                // With the messages before it, which the log has.
                keeper.flush_failed(&source);
                let status = flush_error(job.mailbox(), &source).status();
                refuse_all(std::iter::once((job, header)).chain(jobs), &status);
                return self.take_back(open, &source);
            }
            let mut appended = self.append_one(&pass, &mut open.mbox, &job, &header);
            if let Err(refused) = &appended {
                flush_cut(disk, &open.mbox);
                if refused.is_no_space && keeper.make_room(pass.journal.as_ref()) {
                    appended = self.append_one(&pass, &mut open.mbox, &job, &header);
                    if appended.is_err() {
                        flush_cut(disk, &open.mbox);
                    }
                }
            }
            match appended {
                Ok(()) => open.jobs.push(job),
                Err(refused) => job.refuse(refused.status),
            }
        }
        if open.jobs.is_empty() {
            return open.mbox.close(disk);
        }
        open.noted = Some((floor, pass));
        self.keep_open(open);
    }

    /// Notes one message in the log and appends it.
    fn append_one(
        &self,
        pass: &Pass<'_, D::Handle>,
        mbox: &mut Mbox<D::Handle>,
        job: &Job,
        header: &[u8],
    ) -> Result<(), Refused> {
        let entry = Entry {
            without_status: self.shared().without_status(&job.mail.message),
            header,
            message: &job.mail.message,
        };
        let extent = extent_of(job, mbox.next_offset(), &entry)
            .map_err(|error| MailboxError::from_io(job.mailbox(), "reading the message", error))?;
        note(pass, extent).map_err(|error| Refused {
            status: error.status(),
            is_no_space: false,
        })?;
        let shared = self.shared();
        let results = mbox.append(&shared.disk, &shared.settings, &[entry]);
        let appended = results.into_iter().collect::<Result<(), MailboxError>>();
        appended.map_err(Refused::from)
    }
}

/// Why a message was not appended.
struct Refused {
    status: Status,
    /// The disk of the mailbox is full.
    is_no_space: bool,
}

impl From<MailboxError> for Refused {
    fn from(error: MailboxError) -> Self {
        Self {
            status: error.status(),
            is_no_space: error.is_no_space(),
        }
    }
}

/// What was cut off must not come back with a crash: the log forgets what it was, and of a sector
/// that it shares with what is appended next nobody could tell whose it is.
pub(super) fn flush_cut<D: Disk>(disk: &D, mbox: &Mbox<D::Handle>) {
    if let Err(error) = disk.sync(mbox.file()) {
        let mailbox = mbox.path().display();
        tracing::error!(mailbox, %error, "flushing the end of a mailbox that was cut failed");
    }
}

fn refuse_all(jobs: impl IntoIterator<Item = (Job, Vec<u8>)>, status: &Status) {
    for (job, _) in jobs {
        job.refuse(status.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_the_sectors_of_the_file_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..2000_u32).map(|n| (n % 251) as u8).collect();
        let mut at_once = Sums::from(500);
        at_once.feed(&bytes);
        let mut by_pieces = Sums::from(500);
        for piece in bytes.chunks(7) {
            by_pieces.feed(piece);
        }
        let (end, sums) = at_once.finish();
        assert_eq!(end, 2500);
        assert_eq!((end, sums.clone()), by_pieces.finish());
        let expected = [0..12, 12..524, 524..1036, 1036..1548, 1548..2000];
        let expected: Vec<u32> = expected.map(|r| crc32fast::hash(&bytes[r])).into();
        assert_eq!(sums, expected);
        assert_eq!(Sums::from(9).finish(), (9, Vec::new()));
    }
}

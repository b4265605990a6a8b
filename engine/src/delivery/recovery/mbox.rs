//! Messages for one mbox: looked for where they were appended, then anywhere; written again if
//! need be.
//!
//! Imports the rest of `recovery`, `mailbox`, `io`, `log`. The log has the place of each message
//! before the first byte is written there, so a message without a place was never written, and
//! what stands behind the last whole message is ours exactly if each byte is what one of the
//! messages placed there has, or zero. Only that is ever cut off. Of messages that are not in the
//! log it has the place and the sums: a torn one is cut off, a whole one is not ours to touch.

use super::super::journal::done_records;
use super::super::logged_message::mbox_header;
use super::super::stuck::{Held, Waiting};
use super::extent::Torn;
use super::read::{for_each_piece, is_torn_at, stands_at};
use super::search::{search, search_from};
use super::survey::Survey;
use super::{LoggedMailbox, Message, Run, Trust};
use crate::clock;
use crate::io::Disk;
use crate::log::{Accepted, Done, DoneOutcome, Extent, Plan, Sequence};
use crate::mailbox::mbox::{Mbox, Opened, Siblings, render};
use crate::mailbox::{Flush, MailboxError};
use crate::target::{Format, Owner};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::time::Duration;

/// Between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of one mbox that messages are looked for in. All other mail waits meanwhile.
const SEARCHED_BYTES_MAX: u64 = 2 << 30;
/// Messages appended together.
const APPENDED_MAX: usize = 128;

/// One message for an mbox.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its record in the log.
    pub(super) at: Sequence,
    pub(super) envelope: Accepted,
    pub(super) recipient: u32,
    pub(super) content: Vec<u8>,
    /// It was not refused.
    pub(super) is_pending: bool,
    /// As it stands in the mbox.
    pub(super) rendered: Vec<u8>,
    pub(super) places: Vec<u64>,
    held: Held,
}

impl Entry {
    pub(super) fn message(&self) -> Message<'_> {
        Message {
            at: self.at,
            envelope: &self.envelope,
            content: &self.content,
        }
    }

    /// What has to be remembered when it cannot be seen to now.
    pub(super) fn waiting(&self) -> Waiting {
        let length = self.rendered.len() as u64;
        Waiting {
            recipient: self.recipient,
            places: self.places.iter().map(|place| (*place, length)).collect(),
            held: self.held,
        }
    }

    /// Where it was appended last, and its bytes there.
    pub(super) fn newest_place(&self) -> Option<(u64, &[u8])> {
        let place = self.places.last()?;
        Some((*place, &self.rendered))
    }
}

/// What is to be seen to in one mbox, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) entries: Vec<Entry>,
    /// Messages that are not in the log.
    extents: Vec<Extent>,
}

/// The same by mbox.
#[derive(Debug, Default)]
pub(super) struct Gathered(HashMap<LoggedMailbox, Work>);

impl Gathered {
    pub(super) fn add(&mut self, survey: &Survey, message: Message<'_>, index: u32) {
        let envelope = message.envelope;
        if survey.is_settled(envelope.id, index) {
            return;
        }
        let places = survey.places(envelope.id, index);
        let is_pending = !survey.is_refused(envelope.id, index);
        // Refused and never written: nothing of it can be there.
        if is_pending || !places.is_empty() {
            let places = places.iter().map(|(offset, _)| *offset).collect();
            self.push(message, index, places, (is_pending, Held::Undelivered));
        }
    }

    /// A delivery that could not be seen to before.
    pub(super) fn add_waiting(&mut self, message: Message<'_>, delivery: &Waiting) {
        let places = delivery.places.iter().map(|(offset, _)| *offset).collect();
        self.push(message, delivery.recipient, places, (true, delivery.held));
    }

    /// A message that is not in the log.
    pub(super) fn add_extent(&mut self, extent: &Extent) {
        let target = LoggedMailbox {
            path: extent.mailbox.clone(),
            format: Format::Mbox,
            owner: Owner {
                uid: extent.uid,
                gid: extent.gid,
            },
        };
        let work = self.0.entry(target).or_default();
        work.extents.push(extent.clone());
    }

    fn push(
        &mut self,
        message: Message<'_>,
        index: u32,
        places: Vec<u64>,
        (is_pending, held): (bool, Held),
    ) {
        let Message {
            at: sequence,
            envelope,
            content,
        } = message;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(recipient) = envelope.recipients.get(at) else {
            return;
        };
        let header = mbox_header(envelope, at);
        let mut rendered = Vec::new();
        let without_status = matches!(
            recipient.plan,
            Plan::Mbox {
                without_status: true,
                ..
            }
        );
        let Ok(()) = render((&header, without_status), &mut rendered, |take| {
            take(content);
            Ok::<(), Infallible>(())
        });
        debug_assert!(
            rendered.starts_with(b"From ") && rendered.ends_with(b"\n"),
            "a message in an mbox is whole lines behind its `From ` line"
        );
        let work = self
            .0
            .entry(LoggedMailbox::of(recipient, Format::Mbox))
            .or_default();
        work.entries.push(Entry {
            at: sequence,
            envelope: envelope.clone(),
            recipient: index,
            content: content.to_vec(),
            is_pending,
            rendered,
            places,
            held,
        });
    }

    pub(super) fn take(self) -> impl Iterator<Item = (LoggedMailbox, Work)> {
        self.0.into_iter()
    }
}

impl<D: Disk> Run<'_, D> {
    /// Mends one mbox; tells how many messages were appended again.
    pub(super) fn mbox(
        &mut self,
        target: &LoggedMailbox,
        work: &Work,
    ) -> Result<u64, MailboxError> {
        let (mut mbox, later) = self.open_mbox(target)?;
        let result = self.mend(&mut mbox, work);
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

    pub(super) fn open_mbox(
        &mut self,
        target: &LoggedMailbox,
    ) -> Result<(Mbox<D::Handle>, bool), MailboxError> {
        let with = self.with;
        let (base, path) = self.enter(target)?;
        let known = (with.known, Flush::Later);
        let mbox = loop {
            let (settings, owner) = (with.settings, target.owner);
            let mut alone = Siblings::default();
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
        let expected = with.domains.mount_point_of(&target.path);
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
                mbox.is_seen(with.known);
                Ok((mbox, later))
            }
            Err(error) => {
                let error = failed(&mbox, error);
                mbox.close(with.disk);
                Err(error)
            }
        }
    }

    fn mend(&self, mbox: &mut Mbox<D::Handle>, work: &Work) -> Result<u64, MailboxError> {
        let disk = self.with.disk;
        let entries = work.entries.as_slice();
        let mut stands = self.standing(mbox, entries).map_err(|e| failed(mbox, e))?;
        self.fill(mbox, entries, &mut stands)
            .map_err(|e| failed(mbox, e))?;
        let from = search_from(disk, mbox, entries).map_err(|e| failed(mbox, e))?;
        let bytes = mbox.length().saturating_sub(from);
        if bytes > SEARCHED_BYTES_MAX {
            return Err(failed(mbox, too_long(bytes)));
        }
        debug_assert_eq!(stands.len(), entries.len(), "one answer for each message");
        self.cut(mbox, work, &mut stands)?;
        let lost = |(entry, stands): &(&Entry, &bool)| entry.is_pending && !**stands;
        if entries
            .iter()
            .zip(&stands)
            .any(|both| lost(&both) && (self.searches_all || !both.0.places.is_empty()))
        {
            search(disk, mbox, from, entries, &mut stands).map_err(|e| failed(mbox, e))?;
        }
        let missing: Vec<&Entry> = entries
            .iter()
            .zip(&stands)
            .filter(lost)
            .map(|(entry, _)| entry)
            .collect();
        if missing.is_empty() {
            return Ok(0);
        }
        // Some at a time: what is told of their places has to fit into a record.
        for missing in missing.chunks(APPENDED_MAX) {
            self.append(mbox, missing)?;
        }
        Ok(missing.len() as u64)
    }

    /// Which messages stand at their place.
    fn standing(&self, mbox: &Mbox<D::Handle>, entries: &[Entry]) -> io::Result<Vec<bool>> {
        let disk = self.with.disk;
        let stands = |entry: &Entry| match entry.places.last() {
            Some(place) if entry.is_pending => {
                stands_at(disk, mbox.file(), *place, &entry.rendered)
            }
            _ => Ok(false),
        };
        entries.iter().map(stands).collect()
    }

    /// Writes messages again that are torn within the file: something else may stand behind them
    /// that must stay. When nothing is believed, whole ones are written again too. Where two
    /// messages were to go, it is not known whose the bytes are: there nothing is written.
    fn fill(
        &self,
        mbox: &mut Mbox<D::Handle>,
        entries: &[Entry],
        stands: &mut [bool],
    ) -> io::Result<()> {
        let disk = self.with.disk;
        let mut file = None;
        for (entry, stands) in entries.iter().zip(stands) {
            let Some((place, ours)) = entry.newest_place() else {
                continue;
            };
            let is_wanted = !*stands || self.with.trust == Trust::Nothing;
            let end = place + ours.len() as u64;
            let is_within = end <= mbox.length();
            let is_shared = entries.iter().any(|other| {
                !std::ptr::eq(other, entry)
                    && other.newest_place().is_some_and(|(begin, bytes)| {
                        begin < end && place < begin + bytes.len() as u64
                    })
            });
            if entry.is_pending
                && !is_shared
                && is_wanted
                && is_within
                && is_torn_at(disk, mbox.file(), place, ours)?
            {
                let opened = match file.take() {
                    Some(opened) => opened,
                    None => open_to_write(disk, mbox)?,
                };
                disk.write_at(&opened, ours, place)?;
                file = Some(opened);
                *stands = true;
            }
        }
        if file.is_some() {
            mbox.look_at_end(disk)?;
        }
        Ok(())
    }

    /// Cuts off what is ours behind the last message that is to stay: torn messages, refused
    /// ones, and whole ones behind them, which are appended again.
    fn cut(
        &self,
        mbox: &mut Mbox<D::Handle>,
        work: &Work,
        stands: &mut [bool],
    ) -> Result<(), MailboxError> {
        let disk = self.with.disk;
        let length = mbox.length();
        let entries = work.entries.as_slice();
        let placed = || {
            let all = entries.iter().zip(stands.iter());
            all.filter_map(|(entry, stands)| Some((entry, *entry.places.last()?, *stands)))
        };
        let end = |(entry, place, _): (&Entry, u64, bool)| place + entry.rendered.len() as u64;
        let is_taken = |at: u64| {
            let mut standing = placed().filter(|(_, _, stands)| *stands);
            standing.any(|both| both.1 <= at && at < end(both))
        };
        let torn = Torn::look(disk, mbox.file(), length, &work.extents, is_taken);
        let torn = torn.map_err(|e| failed(mbox, e))?;
        // Where a later message stands by now, a reader has moved what stood there before.
        let is_bad = |(entry, place, stands): &(&Entry, u64, bool)| {
            entry.is_pending && !stands && !is_taken(*place)
        };
        let bad = placed().filter(is_bad).map(|(_, place, _)| place);
        let mut begins: Vec<u64> = bad.chain(torn.first).collect();
        if begins.is_empty() {
            let last_good = placed().filter(|(_, _, stands)| *stands).map(end).max();
            let stays_to = last_good.unwrap_or(0).max(torn.flushed_to);
            let refused = placed().filter(|(_, place, stands)| !stands && *place >= stays_to);
            let first_refused = refused.map(|(_, place, _)| place).min();
            begins.extend(first_refused.or(last_good));
        }
        let Some(first) = begins.iter().min().copied().filter(|at| *at < length) else {
            return Ok(());
        };
        // Where bytes of others stand behind the first, what is ours behind them goes.
        let foreign = foreign_up_to(disk, mbox, first, entries, &torn);
        let foreign = foreign.map_err(|e| failed(mbox, e))?;
        let behind = begins.into_iter().filter(|at| *at >= foreign).min();
        let Some(at) = behind.filter(|at| *at < length) else {
            return Ok(());
        };
        mbox.cut_to(disk, at)?;
        debug_assert_eq!(mbox.length(), at, "nothing of ours is left behind it");
        if torn.first.is_some() {
            // Else it could come back behind what is appended now: of a sector that both share
            // nobody could tell whose it is.
            disk.sync(mbox.file()).map_err(|e| failed(mbox, e))?;
        }
        for (entry, stands) in entries.iter().zip(stands) {
            let end = |place: &u64| place + entry.rendered.len() as u64;
            *stands &= entry.places.last().is_some_and(|place| end(place) <= at);
        }
        Ok(())
    }

    /// Appends messages, their places told to the log before.
    fn append(&self, mbox: &mut Mbox<D::Handle>, missing: &[&Entry]) -> Result<(), MailboxError> {
        debug_assert!(
            missing.iter().all(|entry| entry.is_pending),
            "what was refused is not appended"
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
            "the messages stand where the log was told"
        );
        Ok(())
    }
}

/// Opens an mbox that is open for appending, to change what stands in it.
pub(super) fn open_to_write<D: Disk>(disk: &D, mbox: &Mbox<D::Handle>) -> io::Result<D::Handle> {
    let file = disk.open_write(mbox.parent(), mbox.path().name())?;
    match disk.stat(&file)?.is_same_file(&disk.stat(mbox.file())?) {
        true => Ok(file),
        // Its owner replaced it, in spite of the locks.
        false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
    }
}

/// The owner of an mbox can make it as long as he likes, at no cost with a hole in it.
fn too_long(bytes: u64) -> io::Error {
    io::Error::other(format!(
        "another program made it so long that {bytes} bytes had to be read; make it shorter, its \
         mail waits in the delivery log"
    ))
}

fn failed<H>(mbox: &Mbox<H>, error: io::Error) -> MailboxError {
    MailboxError::from_io(mbox.path().display(), "recovering messages", error)
}

/// Returns where the last byte from `from` on ends that is neither zero nor one that a message of
/// ours has there; `from` when there is none.
fn foreign_up_to<D: Disk>(
    disk: &D,
    mbox: &Mbox<D::Handle>,
    from: u64,
    entries: &[Entry],
    torn: &Torn,
) -> io::Result<u64> {
    let mut covers: Vec<(u64, &[u8])> = entries
        .iter()
        .flat_map(|entry| {
            let rendered = entry.rendered.as_slice();
            entry.places.iter().map(move |place| (*place, rendered))
        })
        .collect();
    covers.sort_unstable_by_key(|(place, _)| *place);
    let mut foreign_up_to = from;
    for_each_piece(disk, mbox.file(), from, |offset, piece| {
        let end = offset + piece.len() as u64;
        let mut here: VecDeque<&(u64, &[u8])> = covers
            .iter()
            .filter(|(place, ours)| *place < end && place + ours.len() as u64 > offset)
            .collect();
        for (at, byte) in (offset..).zip(piece) {
            while let Some((place, ours)) = here.front()
                && place + ours.len() as u64 <= at
            {
                here.pop_front();
            }
            if !is_ours(at, *byte, &here) && !torn.has(at) {
                foreign_up_to = at + 1;
            }
        }
        true
    })?;
    Ok(foreign_up_to)
}

/// Returns true for a zero, for a byte that one of these messages has there, and for a line end
/// that completes an older message and stands between them.
fn is_ours(at: u64, byte: u8, covers: &VecDeque<&(u64, &[u8])>) -> bool {
    let mut is_covered = false;
    for (place, ours) in covers.iter().take_while(|(place, _)| *place <= at) {
        let within = at.checked_sub(*place).and_then(|n| usize::try_from(n).ok());
        if let Some(ours) = within.and_then(|within| ours.get(within)) {
            is_covered = true;
            if *ours == byte {
                return true;
            }
        }
    }
    byte == 0 || (byte == b'\n' && !is_covered)
}

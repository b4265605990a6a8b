//! Which segments are in use and which are free.
//!
//! The table is locked only to look; the disk is touched outside of the lock, so that the log
//! thread never waits for the thread that frees or prepares segments. Invariants: a spare is named
//! `spare-*` durably before anything writes into it, and a segment is named `segment-*` durably
//! before it takes a frame; that is done ahead, so that going on to the next segment costs one
//! flush of its header and no change of names; segments are freed oldest first, each name made
//! durable before the next is changed, so that a crash leaves no gap.

mod freeing;
mod giving;

use super::error::LogError;
use super::listing::is_known_spare;
use super::medium::{Access, LogFile, LogMedium, Pacing};
use super::record::Sequence;
use super::scan::ScanReport;
use super::segment::{BLOCK, FileRole, SegmentHeader, fresh_name, live_name, role};
use super::settings::LogWriterSettings;
use crate::clock;
use crate::io::is_shortage;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// How long the log waits for a file that cannot be opened now, and how often it tries. A shortage
/// is not known to be over before; meanwhile deliveries wait, and none is refused for it.
const SHORTAGE_WAIT: Duration = Duration::from_secs(30);
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// Segments kept ready besides the one in use: the fewest that let the log go on while another
/// is made, and one more, which is made without haste.
pub(super) const SPARES_MIN: usize = 2;
pub(super) const SPARES_WANTED: usize = SPARES_MIN + 1;

/// Segments that a log keeps ready on a full disk: one for what frees others, and one for mail.
pub(super) fn spares_kept(is_recovering: bool) -> usize {
    match is_recovering {
        true => 1,
        false => SPARES_MIN,
    }
}

/// A segment that holds or may hold frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    number: u64,
    first_sequence: u64,
    first_fragment: u32,
    segment_bytes: u64,
}

#[derive(Debug)]
struct Table<F> {
    live: VecDeque<Live>,
    spare: Vec<String>,
    /// Segments named ahead of their need, in order.
    reserved: VecDeque<Reserved<F>>,
    /// Files being made or renamed right now; they count as segments.
    busy: u64,
    number_next: u64,
    fresh_next: u64,
}

impl<F> Table<F> {
    /// Segments that hold no frames.
    fn unused(&self) -> usize {
        self.spare.len() + self.reserved.len()
    }

    /// The next segment has its name; it counted as busy until now.
    fn reserve(&mut self, reserved: Option<Reserved<F>>) {
        if let Some(reserved) = reserved {
            let is_behind = |last: &Reserved<F>| last.number < reserved.number;
            debug_assert!(
                self.reserved.back().is_none_or(is_behind),
                "segments are reserved in the order of their numbers"
            );
            self.busy -= 1;
            self.reserved.push_back(reserved);
        }
    }

    /// All files there are or will be at once.
    fn count(&self) -> u64 {
        (self.live.len() + self.unused()) as u64 + self.busy
    }

    /// All records of the oldest segment come before `sequence`, and it is not the last.
    fn ends_before(&self, sequence: Sequence) -> bool {
        self.live.get(1).is_some_and(|next| {
            next.first_sequence < sequence.0
                || (next.first_sequence == sequence.0 && next.first_fragment == 0)
        })
    }
}

/// A segment whose name is durable and whose header says that it holds no frames.
#[derive(Debug)]
struct Reserved<F> {
    number: u64,
    file: F,
}

/// A segment ready to take frames.
#[derive(Debug)]
pub(crate) struct Opened<F> {
    pub(crate) file: F,
    pub(crate) header: SegmentHeader,
}

/// The table of segments of one open log.
#[derive(Debug)]
pub(crate) struct Segments<M: LogMedium> {
    medium: Arc<M>,
    settings: LogWriterSettings,
    identity: u64,
    table: Mutex<Table<M::File>>,
    /// Held while a segment is reserved, so that they are in the order of their numbers.
    reserving: Mutex<()>,
    /// Segments that do not count against the limit.
    uncounted: AtomicU64,
    /// Spares are given back until then.
    giving_until: Mutex<Option<Instant>>,
}

/// Whether another spare was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// One more segment's room.
    Made,
    /// There are enough, or the limit is reached.
    Enough,
    /// The disk is full: the log stays as large as it is.
    DiskFull,
    /// Too many files are open, or memory is short: to be tried again.
    NotNow,
}

impl<M: LogMedium> Segments<M> {
    /// Takes over what a scan found. Spares of another size, those over the limit, and those that
    /// may hold frames of any number go.
    pub(crate) fn adopt(
        medium: Arc<M>,
        settings: LogWriterSettings,
        report: &ScanReport,
    ) -> Result<Self, LogError> {
        let identity = report.segments.first().map_or_else(
            || medium.fresh_identity(),
            |segment| segment.header.identity,
        );
        let live: VecDeque<Live> = report.segments.iter().map(Live::of).collect();
        debug_assert!(
            live.iter().is_sorted_by(|a, b| a.number < b.number),
            "segments are in the order of their numbers"
        );
        debug_assert!(
            live.back().is_none_or(|l| l.number <= report.number_max),
            "no number is used twice"
        );
        let segments = Self {
            medium,
            identity,
            table: Mutex::new(Table {
                live,
                spare: Vec::new(),
                reserved: VecDeque::new(),
                busy: 0,
                number_next: report.number_max + 1,
                fresh_next: 0,
            }),
            reserving: Mutex::new(()),
            settings,
            uncounted: AtomicU64::new(0),
            giving_until: Mutex::default(),
        };
        for name in segments.named_as_spares(&report.spares)? {
            segments.adopt_spare(&name)?;
        }
        // The process that made or freed them may have been killed before they were durable as
        // spares.
        segments.sync_names("spares")?;
        for number in &report.unreadable {
            segments.set_aside(*number)?;
        }
        Ok(segments)
    }

    /// Renames a segment whose header cannot be read, for the operator to look at. Only a log
    /// opened in spite of its damage comes here.
    fn set_aside(&self, number: u64) -> Result<(), LogError> {
        let name = live_name(number);
        self.medium
            .rename(&name, &format!("damaged-{number:016x}.log"))
            .and_then(|()| self.medium.sync_directory())
            .map_err(|error| LogError::io("set aside", &name, error))
    }

    /// Renames segments that were reserved and not begun: what stands in a spare may be lost, and
    /// a `segment-*` must have its header.
    fn named_as_spares(&self, found: &[String]) -> Result<Vec<String>, LogError> {
        let mut names = Vec::with_capacity(found.len());
        for name in found {
            if !matches!(role(name), FileRole::Live(_)) {
                names.push(name.clone());
                continue;
            }
            let spare = self.unused_name(found);
            self.medium
                .rename(name, &spare)
                .and_then(|()| self.medium.sync_directory())
                .map_err(|error| LogError::io("make a spare of", name, error))?;
            names.push(spare);
        }
        Ok(names)
    }

    fn unused_name(&self, used: &[String]) -> String {
        let mut table = self.table.lock();
        loop {
            let name = fresh_name(table.fresh_next);
            table.fresh_next += 1;
            if !used.contains(&name) {
                return name;
            }
        }
    }

    fn adopt_spare(&self, name: &str) -> Result<(), LogError> {
        let failed = |error| LogError::io("look at", name, error);
        let file = self.medium.open(name, Access::Read).map_err(failed)?;
        let size = file.size().map_err(failed)?;
        let is_known = is_known_spare(&file).map_err(failed)?;
        drop(file);
        let may_stay = self.table.lock().unused() < SPARES_MIN || self.keeps_spares();
        let is_kept = may_stay && self.table.lock().count() < self.limit();
        if size == self.settings.segment_bytes && is_known && is_kept {
            let flushed = self.medium.open(name, Access::Write);
            flushed
                .and_then(|mut file| file.flush())
                .map_err(|error| LogError::io("flush", name, error))?;
            self.table.lock().spare.push(name.to_owned());
            return Ok(());
        }
        self.medium
            .remove(name)
            .map_err(|error| LogError::io("remove", name, error))
    }

    /// Whether fewer than so many segments are ready.
    pub(crate) fn has_fewer_than(&self, count: usize) -> bool {
        self.table.lock().unused() < count
    }

    /// Bytes for frames in all spares.
    pub(crate) fn spare_room(&self) -> u64 {
        self.table.lock().unused() as u64 * self.settings.usable_bytes()
    }

    /// So many bytes are held for long and do not count against the limit.
    pub(crate) fn set_uncounted(&self, bytes: u64) {
        let segments = bytes.div_ceil(self.settings.usable_bytes());
        // Relaxed: one number, of no consequence for others.
        self.uncounted.store(segments, Ordering::Relaxed);
    }

    fn limit(&self) -> u64 {
        self.settings.segments_max() + self.uncounted.load(Ordering::Relaxed)
    }

    /// Segments that hold frames, but for those that do not count.
    pub(crate) fn live_count(&self) -> u64 {
        let live = self.table.lock().live.len() as u64;
        live.saturating_sub(self.uncounted.load(Ordering::Relaxed))
    }

    /// Makes one more spare if fewer than `wanted` are ready and the limit allows; with `force`,
    /// past the limit. One that the log can do without is not made where it would leave too little
    /// room to others. The next segment is named along with it if none is, because each change of
    /// names costs the file system a commit, and all who write to it a wait.
    ///
    /// # Errors
    /// The disk failed. A full disk is no error here.
    pub(crate) fn prepare(
        &self,
        wanted: usize,
        force: bool,
        pacing: &dyn Fn() -> Pacing,
    ) -> Result<Prepared, LogError> {
        let bytes = self.settings.segment_bytes;
        let Some(mut name) = self.name_of_another(wanted, force) else {
            return Ok(Prepared::Enough);
        };
        let is_needed = force || self.has_fewer_than(SPARES_MIN);
        if !is_needed && (self.is_giving() || self.lacks_room_for(bytes)) {
            self.table.lock().busy -= 1;
            return Ok(Prepared::DiskFull);
        }
        let mut made = self.medium.create(&name, bytes, pacing);
        // One of an earlier process may just be on its way to become a segment.
        while made
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        {
            name = self.fresh_name();
            made = self.medium.create(&name, bytes, pacing);
        }
        let done = match made {
            Ok(mut file) => {
                self.sync_with_next(&name)?;
                file.flush().inspect_err(|_| {
                    // Best effort: nothing stands in it yet.
                    drop(self.medium.remove(&name));
                })
            }
            Err(error) => Err(error),
        };
        let mut table = self.table.lock();
        table.busy -= 1;
        match done {
            Ok(()) => {
                table.spare.push(name);
                Ok(Prepared::Made)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Prepared::Enough),
            Err(error) if is_disk_full(&error) => Ok(Prepared::DiskFull),
            Err(error) if is_shortage(&error) => Ok(Prepared::NotNow),
            Err(error) => Err(LogError::io("prepare", &name, error)),
        }
    }

    /// Makes the name of a new file durable, and that of the next segment with it.
    fn sync_with_next(&self, name: &str) -> Result<(), LogError> {
        let _in_order = self.reserving.lock();
        let reserved = match self.rename_next() {
            // The file has its own name all the same.
            Err(error) if error.is_shortage() => None,
            renamed => renamed?,
        };
        self.sync_names(name)?;
        self.table.lock().reserve(reserved);
        Ok(())
    }

    /// The name of a spare to make, which counts as a segment from now on.
    fn name_of_another(&self, wanted: usize, force: bool) -> Option<String> {
        let mut table = self.table.lock();
        let full = table.count() >= self.limit() && !force;
        if table.unused() >= wanted || full {
            return None;
        }
        table.busy += 1;
        drop(table);
        Some(self.fresh_name())
    }

    fn fresh_name(&self) -> String {
        let mut table = self.table.lock();
        let mut name = fresh_name(table.fresh_next);
        while table.spare.contains(&name) {
            table.fresh_next += 1;
            name = fresh_name(table.fresh_next);
        }
        table.fresh_next += 1;
        name
    }

    /// A spare to try the medium on.
    pub(crate) fn scratch(&self) -> Option<String> {
        self.table.lock().spare.first().cloned()
    }

    /// Names one segment ahead of its need, if none is and there is a spare.
    ///
    /// # Errors
    /// The disk failed, or there is a shortage, after which it can be tried again.
    pub(crate) fn reserve(&self) -> Result<(), LogError> {
        let _in_order = self.reserving.lock();
        if let Some(reserved) = self.rename_next()? {
            self.sync_names(&live_name(reserved.number))?;
            self.table.lock().reserve(Some(reserved));
        }
        Ok(())
    }

    /// Gives a spare the name of the next segment, if none is named ahead; the name is not durable
    /// yet.
    fn rename_next(&self) -> Result<Option<Reserved<M::File>>, LogError> {
        let (spare, number, newest) = {
            let mut table = self.table.lock();
            if !table.reserved.is_empty() {
                return Ok(None);
            }
            let Some(spare) = table.spare.pop() else {
                return Ok(None);
            };
            table.busy += 1;
            let number = table.number_next;
            table.number_next += 1;
            let newest = table.live.back();
            debug_assert!(
                newest.is_none_or(|l| l.number < number),
                "no number is used twice"
            );
            let newest = newest.map_or((0, 0), |l| (l.first_sequence, l.first_fragment));
            (spare, number, newest)
        };
        let header = SegmentHeader {
            reserved: true,
            // Should the newest get lost, this tells that it was there.
            first_sequence: newest.0,
            first_fragment: newest.1,
            ..self.header(number)
        };
        let name = live_name(number);
        let mut file = self.medium.open(&spare, Access::Write).map_err(|error| {
            if is_shortage(&error) {
                let mut table = self.table.lock();
                table.busy -= 1;
                // Numbers are given out by those who hold `reserving`, as this thread does.
                debug_assert_eq!(
                    table.number_next,
                    number + 1,
                    "no other thread took a number"
                );
                table.number_next = number;
                table.spare.push(spare.clone());
            }
            LogError::io("open", &spare, error)
        })?;
        write_header(&mut file, &header)
            .map_err(|error| LogError::io("write the header of", &spare, error))?;
        self.medium
            .rename(&spare, &name)
            .map_err(|error| LogError::io("name", &name, error))?;
        Ok(Some(Reserved { number, file }))
    }

    fn sync_names(&self, name: &str) -> Result<(), LogError> {
        self.medium
            .sync_directory()
            .map_err(|error| LogError::io("make durable the name of", name, error))
    }

    /// Makes the next segment the newest; its first frame is the given one.
    ///
    /// # Errors
    /// The disk failed, or there is no spare.
    pub(crate) fn begin(
        &self,
        first_sequence: u64,
        first_fragment: u32,
    ) -> Result<Opened<M::File>, LogError> {
        self.begin_with(|header| SegmentHeader {
            first_sequence,
            first_fragment,
            ..header
        })
    }

    /// Makes the next segment the newest, as the first one since the log was opened.
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub(crate) fn begin_after_open(
        &self,
        report: &ScanReport,
    ) -> Result<Opened<M::File>, LogError> {
        let next = report.next_sequence.0;
        // An unfinished record has its number, as a whole one has.
        let was_cut = report.cut.iter().any(|cut| cut.0 + 1 == next);
        self.begin_with(|header| SegmentHeader {
            first_sequence: next,
            after_open: true,
            follows_whole: next > 1 && !was_cut,
            ..header
        })
    }

    fn begin_with(
        &self,
        complete: impl FnOnce(SegmentHeader) -> SegmentHeader,
    ) -> Result<Opened<M::File>, LogError> {
        let Reserved { number, mut file } = self.next_reserved()?;
        let header = complete(self.header(number));
        write_header(&mut file, &header)
            .map_err(|error| LogError::io("write the header of", &live_name(number), error))?;
        let mut table = self.table.lock();
        table.busy -= 1;
        let begun = Live {
            number,
            first_sequence: header.first_sequence,
            first_fragment: header.first_fragment,
            segment_bytes: header.segment_bytes,
        };
        debug_assert!(
            table
                .live
                .back()
                .is_none_or(|newest| newest.precedes(&begun)),
            "segments are begun in order"
        );
        table.live.push_back(begun);
        Ok(Opened { file, header })
    }

    /// The next segment, reserved now if that was not done ahead. Waits out a shortage.
    fn next_reserved(&self) -> Result<Reserved<M::File>, LogError> {
        let until = clock::now() + SHORTAGE_WAIT;
        let mut is_late = false;
        loop {
            let mut table = self.table.lock();
            if let Some(reserved) = table.reserved.pop_front() {
                table.busy += 1;
                return Ok(reserved);
            }
            drop(table);
            if std::mem::replace(&mut is_late, true) {
                return Err(LogError::Full {
                    bytes_max: self.settings.log_bytes_max,
                });
            }
            while let Err(error) = self.reserve() {
                if !error.is_shortage() || clock::now() >= until {
                    return Err(error);
                }
                std::thread::sleep(SHORTAGE_PAUSE);
            }
        }
    }

    fn header(&self, number: u64) -> SegmentHeader {
        SegmentHeader {
            identity: self.identity,
            number,
            segment_bytes: self.settings.segment_bytes,
            first_sequence: 0,
            first_fragment: 0,
            after_open: false,
            follows_whole: false,
            reserved: false,
            created_ns: u64::try_from(clock::since_epoch().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl Live {
    /// Whether `next` may be the segment behind this one. One without frames begins where this
    /// one begins.
    fn precedes(&self, next: &Self) -> bool {
        let first = |live: &Self| (live.first_sequence, live.first_fragment);
        self.number < next.number && first(self) <= first(next)
    }

    fn of(segment: &super::scan::ScannedSegment) -> Self {
        Self {
            number: segment.header.number,
            first_sequence: segment.header.first_sequence,
            first_fragment: segment.header.first_fragment,
            segment_bytes: segment.header.segment_bytes,
        }
    }
}

fn write_header<F: LogFile>(file: &mut F, header: &SegmentHeader) -> io::Result<()> {
    debug_assert_eq!(
        SegmentHeader::decode(&header.encode()),
        Ok(*header),
        "the header can be read again"
    );
    let mut block = super::buffer::AlignedBuffer::new(super::segment::BLOCK_BYTES);
    block.put(&header.encode());
    file.write_and_flush(block.bytes(), 0)
}

/// No space, or over a quota.
fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

const _: () = assert!(BLOCK == super::segment::BLOCK_BYTES as u64);

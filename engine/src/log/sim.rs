//! A disk that forgets and fails, in memory, repeatable from a seed.
//!
//! Rules: bytes written and names changed are kept apart from
//! what is durable; a crash keeps, loses or tears each of them, sector by sector and name by name,
//! as the seed says; operation N can fail or be the last before the crash; a failed flush drops the
//! bytes it was to make durable and later flushes say success (as Linux does). Operations are
//! counted from 0, so that `seed` and operation replay a failure.

use super::disk_space::DiskSpace;
use super::medium::{Access, LogFile, LogMedium, Pacing};
use crate::io::sim::{LogDisk, SimRandom};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;
use std::io;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// Nothing.
    None,
    /// The power is lost while operation `at` is in progress.
    Crash {
        /// Number of the operation, from 0.
        at: u64,
    },
    /// Operation `at` fails; the disk lives on.
    Error {
        /// Number of the operation, from 0.
        at: u64,
        /// With this.
        kind: io::ErrorKind,
    },
    /// The thread that makes a file next panics.
    PanicInCreate,
    /// Every flush of frames fails, whatever else is done meanwhile; the disk lives on.
    FrameFlush {
        /// With this.
        kind: io::ErrorKind,
    },
}

/// How a crash treats what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// The first sectors are kept.
    Prefix,
    /// Each sector for itself: torn and reordered.
    Scattered,
}

#[derive(Clone, Debug, Default)]
struct SimData {
    /// Shorter than `live` until the first flush.
    durable: Vec<u8>,
    live: Vec<u8>,
    /// Written since the last flush: offset and length.
    unsynced: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
struct SimState {
    random: SimRandom,
    fault: SimFault,
    operations: u64,
    crashed: bool,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    files: BTreeMap<u64, SimData>,
    file_next: u64,
    /// Size of the file system, in bytes; without one it is never full.
    capacity: Option<u64>,
    /// Bytes that mailboxes on it take.
    others: u64,
    /// Flushes make nothing durable but the headers of segments.
    forgets_frames: bool,
}

/// The disk. Clones are handles of the same disk.
#[derive(Clone, Debug)]
pub struct SimMedium(Arc<Mutex<SimState>>);

/// An open file of it.
#[derive(Debug)]
pub struct SimFile {
    medium: SimMedium,
    id: u64,
}

impl SimMedium {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SimState {
            random: SimRandom::new(seed),
            fault: SimFault::None,
            operations: 0,
            crashed: false,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            files: BTreeMap::new(),
            file_next: 0,
            capacity: None,
            others: 0,
            forgets_frames: false,
        })))
    }

    /// Has every flush of frames say success and make nothing durable from now on.
    pub fn forget_frames(&self) {
        self.0.lock().forgets_frames = true;
    }

    /// The file system, which mailboxes may be on, too, has so many bytes from now on.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes of its files.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Mailboxes take `used` bytes and are about to take more; how many more there is room for.
    pub(crate) fn room_beside(&self, used: u64) -> u64 {
        let mut state = self.0.lock();
        state.others = used;
        state.free()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// What is to go wrong from now on.
    pub fn set_fault(&self, fault: SimFault) {
        self.0.lock().fault = fault;
    }

    /// The power goes, between two operations.
    pub fn power_off(&self) {
        self.0.lock().crashed = true;
    }

    /// Whether the power is gone.
    pub fn is_crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// The disk as it is found after the power went now: a new disk, with a new seed.
    pub fn after_crash(&self, seed: u64) -> Self {
        let mut random = SimRandom::new(seed);
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        for change in &state.unsynced_names {
            if random.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for (id, data) in &state.files {
            if names.values().any(|named| named == id) {
                files.insert(*id, data.survive(&mut random));
            }
        }
        let (file_next, forgets_frames) = (state.file_next, state.forgets_frames);
        drop(state);
        Self(Arc::new(Mutex::new(SimState {
            random,
            fault: SimFault::None,
            operations: 0,
            crashed: false,
            durable_names: names.clone(),
            names,
            unsynced_names: Vec::new(),
            files,
            file_next,
            capacity: None,
            others: 0,
            forgets_frames,
        })))
    }

    /// Flips a bit of a file's durable bytes, for tests of damage.
    pub fn flip(&self, name: &str, offset: usize) {
        let mut state = self.0.lock();
        let id = state.names.get(name).copied();
        if let Some(data) = id.and_then(|id| state.files.get_mut(&id)) {
            for bytes in [&mut data.live, &mut data.durable] {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= 1;
                }
            }
        }
    }

    /// Puts a file of these durable bytes under a name, in place of one that has it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let id = state.file_next;
        state.file_next += 1;
        let data = SimData {
            durable: bytes.clone(),
            live: bytes,
            unsynced: Vec::new(),
        };
        state.files.insert(id, data);
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Takes a name away, durably.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn lose(&self, name: &str) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Returns the names and bytes of all files.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        let bytes = |id: &u64| state.files.get(id).map(|data| data.live.clone());
        let names = state.names.iter();
        names
            .map(|(name, id)| (name.clone(), bytes(id).unwrap_or_default()))
            .collect()
    }

    /// Counts an operation. `Ok(true)`: it takes place and then the power goes.
    fn operate(state: &mut SimState) -> io::Result<bool> {
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        let number = state.operations;
        state.operations += 1;
        match state.fault {
            SimFault::Crash { at } if at == number => {
                state.crashed = true;
                Ok(true)
            }
            SimFault::Error { at, kind } if at == number => Err(kind.into()),
            _ => Ok(false),
        }
    }

    /// An operation whose effect may or may not survive the crash it meets.
    fn change<R>(&self, effect: impl FnOnce(&mut SimState) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.0.lock();
        let crash = Self::operate(&mut state)?;
        let result = effect(&mut state)?;
        if crash {
            return Err(io::Error::other("the power went"));
        }
        Ok(result)
    }
}

impl SimState {
    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|id| self.files.get(id));
        named.map(|data| data.live.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        let taken = self.used() + self.others;
        self.capacity
            .map_or(u64::MAX, |bytes| bytes.saturating_sub(taken))
    }
}

impl NameChange {
    /// Does nothing where the file is missing: a change this one builds on was lost.
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl SimData {
    /// The file after a crash.
    fn survive(&self, random: &mut SimRandom) -> Self {
        let mut bytes = self.durable.clone();
        let fate = match random.below(4) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            2 => Fate::Prefix,
            _ => Fate::Scattered,
        };
        if fate != Fate::Lost {
            bytes.resize(self.live.len(), 0);
        }
        for (offset, length) in &self.unsynced {
            let sectors = length.div_ceil(SECTOR_BYTES);
            let prefix = usize::try_from(random.below(sectors as u64 + 1)).unwrap_or(0);
            for sector in 0..sectors {
                let keep = match fate {
                    Fate::Kept => true,
                    Fate::Lost => false,
                    Fate::Prefix => sector < prefix,
                    Fate::Scattered => random.below(2) == 0,
                };
                let from = offset + sector * SECTOR_BYTES;
                let to = (from + SECTOR_BYTES).min(offset + length);
                if let (true, Some(old), Some(new)) =
                    (keep, bytes.get_mut(from..to), self.live.get(from..to))
                {
                    old.copy_from_slice(new);
                }
            }
        }
        Self {
            durable: bytes.clone(),
            live: bytes,
            unsynced: Vec::new(),
        }
    }

    fn make_durable(&mut self, but_frames: bool) {
        self.durable.resize(self.live.len(), 0);
        // What stands at the start is a header.
        let is_due = |(from, _): &mut (usize, usize)| *from == 0 || !but_frames;
        for (offset, length) in self.unsynced.extract_if(.., is_due) {
            let range = offset..offset + length;
            if let (Some(old), Some(new)) =
                (self.durable.get_mut(range.clone()), self.live.get(range))
            {
                old.copy_from_slice(new);
            }
        }
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl LogDisk for SimMedium {
    fn is_crashed(&self) -> bool {
        Self::is_crashed(self)
    }

    fn power_off(&self) {
        Self::power_off(self);
    }

    fn room_beside(&self, used: u64) -> u64 {
        Self::room_beside(self, used)
    }
}

impl LogMedium for SimMedium {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.change(|state| Ok(state.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str, bytes: u64, _pacing: &dyn Fn() -> Pacing) -> io::Result<SimFile> {
        let mut state = self.0.lock();
        if state.fault == SimFault::PanicInCreate {
            state.fault = SimFault::None;
            drop(state);
            std::panic::resume_unwind(Box::new("planted"));
        }
        drop(state);
        let id = self.change(|state| {
            if state.free() < bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let id = state.file_next;
            state.file_next += 1;
            let length = usize::try_from(bytes).map_err(io::Error::other)?;
            let data = SimData {
                durable: Vec::new(),
                live: vec![0; length],
                unsynced: vec![(0, length)],
            };
            state.files.insert(id, data);
            let change = NameChange::Create(name.to_owned(), id);
            change.apply(&mut state.names);
            state.unsynced_names.push(change);
            Ok(id)
        })?;
        Ok(SimFile {
            medium: self.clone(),
            id,
        })
    }

    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        if self.list()?.iter().any(|known| known == name) {
            self.remove(name)?;
        }
        let mut file = self.create(name, content.len() as u64, &|| Pacing::Hurry)?;
        file.write_at(content, 0)?;
        file.flush()?;
        self.sync_directory()
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<SimFile> {
        let id =
            self.change(|state| state.names.get(name).copied().ok_or_else(|| missing(name)))?;
        Ok(SimFile {
            medium: self.clone(),
            id,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            if !state.names.contains_key(from) {
                return Err(missing(from));
            }
            if state.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let change = NameChange::Rename(from.to_owned(), to.to_owned());
            change.apply(&mut state.names);
            state.unsynced_names.push(change);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            let change = NameChange::Remove(name.to_owned());
            change.apply(&mut state.names);
            state.unsynced_names.push(change);
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        // A crash while it runs leaves each change as the seed says.
        if Self::operate(&mut state)? {
            return Err(io::Error::other("the power went"));
        }
        state.unsynced_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    /// Overwrites the scratch file as trying flushes does.
    fn tune(&self, scratch: &str) -> io::Result<()> {
        let mut file = self.open(scratch, Access::Write)?;
        file.write_and_flush(&[0; 4096], 0)
    }

    fn volume(&self) -> io::Result<Option<DiskSpace>> {
        let state = self.0.lock();
        Ok(state.capacity.map(|bytes| DiskSpace {
            bytes,
            free_bytes: state.free(),
        }))
    }

    fn describe(&self) -> String {
        "simulated disk".to_owned()
    }

    fn fresh_identity(&self) -> u64 {
        self.0.lock().random.draw()
    }
}

impl LogFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.medium.change(|state| {
            let length = state.files.get(&self.id).map_or(0, |data| data.live.len());
            Ok(length as u64)
        })
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.medium.change(|state| {
            let data = state.files.get(&self.id).ok_or_else(|| missing("file"))?;
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.live.len());
            let rest = data.live.get(from..).unwrap_or_default();
            let length = rest.len().min(bytes.len());
            if let (Some(to), Some(from)) = (bytes.get_mut(..length), rest.get(..length)) {
                to.copy_from_slice(from);
            }
            Ok(length)
        })
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.medium.change(|state| {
            let data = state
                .files
                .get_mut(&self.id)
                .ok_or_else(|| missing("file"))?;
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let to = from + bytes.len();
            let room = data.live.get_mut(from..to);
            room.ok_or(io::ErrorKind::StorageFull)?
                .copy_from_slice(bytes);
            data.unsynced.push((from, bytes.len()));
            Ok(())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.medium.0.lock();
        let operated = match (state.fault, state.files.get(&self.id)) {
            // What stands at the start is a header.
            (SimFault::FrameFlush { kind }, Some(data))
                if data.unsynced.iter().any(|(from, _)| *from > 0) =>
            {
                Err(kind.into())
            }
            _ => SimMedium::operate(&mut state),
        };
        let crash = match operated {
            Ok(crash) => crash,
            Err(error) => {
                if !state.crashed
                    && let Some(data) = state.files.get_mut(&self.id)
                {
                    data.live = data.durable.clone();
                    data.unsynced.clear();
                }
                return Err(error);
            }
        };
        if crash {
            return Err(io::Error::other("the power went"));
        }
        let but_frames = state.forgets_frames;
        if let Some(data) = state.files.get_mut(&self.id) {
            data.make_durable(but_frames);
        }
        Ok(())
    }
}

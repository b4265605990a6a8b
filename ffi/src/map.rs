//! Recipient maps without a handle: open, look up, build, change.
//!
//! An open map is checked periodically for a new file and changes; lookups take no lock.

use crate::boundary::{Kind, Pool, mailstow_map, mailstow_map_builder};
use crate::failure::Failure;
use crate::result::{MAILSTOW_INVALID, MAILSTOW_NOT_FOUND};
use mailstow_engine::address::fold_case;
use mailstow_engine::map::{BuildOptions, Change, MapHandle, PendingChanges, TableId, change};
use mailstow_engine::{MapBuilder, octets};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A map that was changed with mailstow_map_change(3) or `mailstow map set` is not replaced.
pub const MAILSTOW_CHANGES_REFUSE: u32 = 0;
/// Such changes are applied to the new map, too.
pub const MAILSTOW_CHANGES_KEEP: u32 = 1;
/// Such changes are discarded.
pub const MAILSTOW_CHANGES_DISCARD: u32 = 2;

/// How often the map is checked for replacement or changes.
const LOOK_INTERVAL_NS: u64 = 200_000_000;

/// An open map.
#[derive(Debug)]
pub(crate) struct Map {
    handle: MapHandle,
    /// When it was last checked.
    looked: AtomicU64,
}

/// A map under construction.
#[derive(Debug)]
pub(crate) struct Builder {
    /// Never contended: one thread uses it at a time.
    builder: Mutex<MapBuilder<'static>>,
    tables: HashMap<Box<str>, TableId>,
}

impl Kind for Map {
    type Handle = mailstow_map;
    const NUMBER: u64 = 5;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Map> = Pool::new();
        &POOL
    }
}

impl Kind for Builder {
    type Handle = mailstow_map_builder;
    const NUMBER: u64 = 6;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Builder> = Pool::new();
        &POOL
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl Map {
    pub(crate) fn open(file: &[u8]) -> Result<Self, Failure> {
        Ok(Self {
            handle: MapHandle::open(path(file))?,
            looked: AtomicU64::new(now()),
        })
    }

    /// Passes the value of `key` in `table` to `take`.
    pub(crate) fn look_up(
        &self,
        table: &[u8],
        key: &[u8],
        take: impl FnOnce(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let now = now();
        let looked = self.looked.load(Ordering::Relaxed);
        if now.saturating_sub(looked) > LOOK_INTERVAL_NS {
            self.looked.store(now, Ordering::Relaxed);
            self.handle.refresh()?;
        }
        // Tables have the names of parameters.
        let table = str::from_utf8(table).map_err(|_| MAILSTOW_NOT_FOUND)?;
        let key = octets::text(key);
        let key = fold_case(&key);
        let view = self.handle.view();
        match view.get(table, &key)? {
            Some(value) => take(&octets::octets(&value)),
            None => Err(MAILSTOW_NOT_FOUND.into()),
        }
    }
}

/// Time in ticks of the kernel; costs no system call.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

impl Builder {
    pub(crate) fn new(file: &[u8], changes: u32) -> Result<Self, Failure> {
        let options = BuildOptions {
            pending_changes: match changes {
                MAILSTOW_CHANGES_REFUSE => PendingChanges::Refuse,
                MAILSTOW_CHANGES_KEEP => PendingChanges::Keep,
                MAILSTOW_CHANGES_DISCARD => PendingChanges::Discard,
                _ => return Err(MAILSTOW_INVALID.into()),
            },
            ..BuildOptions::default()
        };
        Ok(Self {
            builder: Mutex::new(MapBuilder::new(path(file), options)?),
            tables: HashMap::new(),
        })
    }

    /// Adds a key; the first value of a key counts.
    pub(crate) fn add(&mut self, table: &[u8], key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let builder = self.builder.get_mut();
        let builder = builder.unwrap_or_else(PoisonError::into_inner);
        let table = octets::text(table);
        let known = self.tables.get(&*table).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let id = builder.table(&table)?;
                self.tables.insert((&*table).into(), id);
                id
            }
        };
        let (key, value) = (octets::text(key), octets::text(value));
        Ok(builder.add(id, &fold_case(&key), &value)?)
    }

    /// Installs the map; returns the number of its keys.
    pub(crate) fn finish(self) -> Result<u64, Failure> {
        let builder = self.builder.into_inner();
        let builder = builder.unwrap_or_else(PoisonError::into_inner);
        Ok(builder.finish()?.stats.keys)
    }
}

/// Sets a key in a table, or removes it.
pub(crate) fn edit_of(table: &[u8], key: &[u8], value: Option<&[u8]>) -> Change {
    let table = octets::text(table).into_owned();
    let key = fold_case(&octets::text(key)).into_owned();
    match value {
        Some(value) => Change::Set {
            table,
            key,
            value: octets::text(value).into_owned(),
        },
        None => Change::Unset { table, key },
    }
}

/// Changes keys of a map durably, all or none.
pub(crate) fn edit(file: &[u8], changes: &[Change]) -> Result<(), Failure> {
    Ok(change(path(file), changes)?)
}

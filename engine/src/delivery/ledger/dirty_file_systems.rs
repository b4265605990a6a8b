//! File systems with mail that is durable in the delivery log only.
//!
//! Each file system is flushed separately. A file system whose flush failed is suspect: the kernel
//! may have dropped the data, reports the error only once, and still returns the data to readers.
//! Mail that the log has for a suspect file system is written again, and then flushed through a
//! handle that was opened after the failure.
//!
//! Invariants: a file system is entered before anything is written there. Its sync handle was
//! opened before everything that the next flush covers, so that a flush through it reports every
//! error. The next handle is opened before that flush begins, so that one always exists. When
//! descriptors are short, the flush uses the existing handle, which stays: it also reports every
//! error, but only to one flush. So the flushes of a file system come one after the other. A
//! suspect file system has no handle until the next attempt to flush it begins, so that it can be
//! unmounted. No thread waits for a flush that does not end: the mail in the log for that file
//! system is held until the flush ends.

pub(in crate::delivery) mod flush;

use crate::clock;
use crate::io::{Disk, Mount};
use crate::log::Sequence;
use crate::mailbox::Unflushed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First pause after an attempt to flush a suspect file system failed; it doubles up to the
/// longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The file systems that mail was written to. None is forgotten: a delivery that entered one before
/// a checkpoint may write there after it.
#[derive(Debug)]
pub(in crate::delivery) struct FileSystems<H> {
    known: Mutex<HashMap<u64, FileSystem<H>>>,
    /// The log has nothing for it before this record.
    low: AtomicU64,
}

#[derive(Debug)]
struct FileSystem<H> {
    /// A flush of the whole file system can be relied on.
    whole: bool,
    mount: Option<Mount>,
    /// `None` while it is suspect.
    sync_handle: Option<Arc<H>>,
    /// Everything in the log for it before this record was flushed, or is deferred.
    flushed_below: Sequence,
    suspect: Option<Suspect>,
    /// When the flush in progress began.
    flushing_since: Option<Duration>,
    /// How many flushes were begun.
    flushes: u64,
    /// How many flushes failed.
    failures: u64,
    /// Mailboxes on it have paths that lead through other mount points.
    has_strays: bool,
}

/// A file system whose flush failed.
#[derive(Clone, Debug)]
struct Suspect {
    cause: Arc<io::Error>,
    /// Since the UNIX epoch.
    since: Duration,
    /// How many attempts to flush it again failed.
    attempts: u32,
    next_attempt: Instant,
    stage: Stage,
}

/// The progress of an attempt to flush a suspect file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// The handle is open. Deliveries whose records come before `until` may have written data
    /// before the handle was opened, and must have ended before the log is read.
    Opened {
        until: Sequence,
        now: u64,
        is_remounted: bool,
    },
    /// The mail in the log was written again.
    Rewritten,
}

/// A suspect file system, as operators know it.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct SuspectState {
    pub(in crate::delivery) mount_point: PathBuf,
    pub(in crate::delivery) cause: Arc<io::Error>,
    pub(in crate::delivery) since: Duration,
    pub(in crate::delivery) attempts: u32,
    pub(in crate::delivery) next_attempt: Instant,
}

/// What is mounted at the mount point of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Mounted {
    /// The file system itself.
    Same,
    /// Another file system, or the same one after it was unmounted.
    Other,
    /// Nothing.
    Nothing,
}

/// The state with which an attempt to flush a suspect file system continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Attempt {
    pub(in crate::delivery) device: u64,
    /// Its device number now; another one if another file system was mounted in its place.
    pub(in crate::delivery) now: u64,
    /// It was unmounted since, and is mounted again.
    pub(in crate::delivery) is_remounted: bool,
    /// It is a later attempt: each file is flushed separately, to find those that fail.
    pub(in crate::delivery) is_repeated: bool,
}

impl<H> Default for FileSystems<H> {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            low: AtomicU64::new(0),
        }
    }
}

impl<H> FileSystem<H> {
    fn fails(&mut self, error: &Arc<io::Error>) {
        let now = clock::now();
        self.failures += 1;
        self.sync_handle = None;
        let suspect = self.suspect.get_or_insert_with(|| Suspect {
            cause: Arc::clone(error),
            since: clock::since_epoch(),
            attempts: 0,
            next_attempt: now,
            stage: Stage::Waiting,
        });
        if suspect.stage != Stage::Waiting {
            suspect.cause = Arc::clone(error);
            let pause = PAUSE * (1 << suspect.attempts.min(10));
            suspect.next_attempt = now + pause.min(PAUSE_MAX);
            suspect.attempts = suspect.attempts.saturating_add(1);
            suspect.stage = Stage::Waiting;
        }
    }

    fn is_mounted_on(&self, point: &Path) -> bool {
        self.mount
            .as_ref()
            .is_some_and(|mount| mount.point == point)
    }

    /// Returns true while data written there may not be durable.
    fn is_unsure(&self) -> bool {
        self.suspect.is_some() || self.flushing_since.is_some()
    }

    /// Returns true if its flush does not end and the log can hold its mail meanwhile. Mail for
    /// file systems outside their mount points cannot be separated without asking the file system.
    fn can_be_held(&self) -> bool {
        self.flushing_since.is_some() && !self.has_strays
    }

    fn mount_point(&self) -> PathBuf {
        let mount = self.mount.as_ref();
        mount.map_or_else(PathBuf::new, |mount| mount.point.clone())
    }
}

impl<H> FileSystems<H> {
    /// Returns an error for a file system whose flush failed and did not succeed since.
    pub(in crate::delivery) fn check(&self, device: u64) -> io::Result<()> {
        let known = self.known.lock();
        let suspect = known.get(&device).and_then(|known| known.suspect.as_ref());
        match suspect.filter(|suspect| suspect.attempts > 0) {
            // The recipient is not the cause.
            Some(suspect) => Err(io::Error::other(format!(
                "its file system could not be flushed to disk: {}",
                suspect.cause
            ))),
            None => Ok(()),
        }
    }

    /// Notes that data will be written on the file system of the directory `near`, which is mounted
    /// on `expected` by the path of the mailbox. Returns false if no checkpoint can flush it, so
    /// that the data must be flushed at once.
    ///
    /// # Errors
    /// No handle can be opened.
    pub(in crate::delivery) fn enter<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        device: u64,
        (near, expected): (&H, &Path),
    ) -> io::Result<bool> {
        if let Some(known) = self.known.lock().get_mut(&device) {
            known.has_strays |= !known.is_mounted_on(expected);
            return Ok(known.whole);
        }
        let whole = disk.can_checkpoint(near);
        let sync_handle = Some(Arc::new(disk.open_directory(near, "")?));
        let mount = disk.mount_of(near).ok();
        let is_stray = mount.as_ref().is_none_or(|mount| mount.point != expected);
        let entered = FileSystem {
            whole,
            mount,
            sync_handle,
            flushed_below: Sequence(self.low.load(Ordering::Acquire)),
            suspect: None,
            flushing_since: None,
            flushes: 0,
            failures: 0,
            has_strays: is_stray,
        };
        // When two threads enter it at once, the older handle is kept.
        self.known.lock().entry(device).or_insert(entered);
        Ok(whole)
    }

    /// As [`FileSystems::enter`], for directories. Flushes those at once that are on file systems
    /// that no checkpoint can flush.
    pub(in crate::delivery) fn enter_all<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        directories: &[Unflushed<H>],
        expected: &Path,
    ) -> io::Result<()> {
        for directory in directories {
            let near = (&directory.handle, expected);
            if !self.enter(disk, directory.device, near)? {
                disk.sync(&directory.handle)?;
            }
        }
        Ok(())
    }

    /// Notes that a flush of one file system failed which may have covered logged mail.
    pub(in crate::delivery) fn fails(&self, device: u64, error: &Arc<io::Error>) {
        let mut known = self.known.lock();
        if let Some(file_system) = known.get_mut(&device).filter(|known| known.whole) {
            let mount_point = file_system.mount_point();
            file_system.fails(error);
            drop(known);
            log_failure(&mount_point, error);
        }
    }

    /// Notes that flushes may have failed whose results are lost.
    pub(in crate::delivery) fn all_fail(&self, error: &Arc<io::Error>) {
        let mut known = self.known.lock();
        for file_system in known.values_mut().filter(|known| known.whole) {
            file_system.fails(error);
        }
    }

    /// Returns how many flushes have failed, of all file systems.
    pub(in crate::delivery) fn failures(&self) -> u64 {
        let known = self.known.lock();
        known.values().map(|known| known.failures).sum()
    }

    /// Returns the file systems that are or were mounted there.
    pub(in crate::delivery) fn mounted_at(&self, point: &Path) -> Vec<u64> {
        let known = self.known.lock();
        let there = known.iter().filter(|(_, known)| known.is_mounted_on(point));
        there.map(|(device, _)| *device).collect()
    }

    /// Returns the first record of the log that a suspect file system, or one with a flush in
    /// progress, needs.
    pub(in crate::delivery) fn needed_from(&self) -> Option<Sequence> {
        let known = self.known.lock();
        let not_durable = known.values().filter(|known| known.is_unsure());
        not_durable.map(|known| known.flushed_below).min()
    }

    /// As [`FileSystems::needed_from`], once the mail for file systems whose flush does not end is
    /// held.
    pub(in crate::delivery) fn needed_from_once_held(&self) -> Option<Sequence> {
        let known = self.known.lock();
        let is_needed = |known: &&FileSystem<H>| known.is_unsure() && !known.can_be_held();
        let not_durable = known.values().filter(is_needed);
        not_durable.map(|known| known.flushed_below).min()
    }

    /// Returns true while one is suspect.
    pub(in crate::delivery) fn has_suspects(&self) -> bool {
        let known = self.known.lock();
        known.values().any(|known| known.suspect.is_some())
    }

    /// Returns the suspect file systems whose attempt is due, and those with an attempt in
    /// progress.
    pub(in crate::delivery) fn suspects_due(&self, now: Instant) -> Vec<u64> {
        let known = self.known.lock();
        let is_due = |suspect: &Suspect| match suspect.stage {
            Stage::Waiting => suspect.next_attempt <= now,
            Stage::Opened { .. } | Stage::Rewritten => true,
        };
        let suspects = known.iter();
        suspects
            .filter(|(_, known)| known.suspect.as_ref().is_some_and(is_due))
            .map(|(device, _)| *device)
            .collect()
    }

    /// Returns when the next attempt is due; `None` while nothing is suspect.
    pub(in crate::delivery) fn next_attempt(&self) -> Option<Instant> {
        let known = self.known.lock();
        let suspects = known.values().filter_map(|known| known.suspect.as_ref());
        suspects.map(|suspect| suspect.next_attempt).min()
    }

    /// Begins or continues an attempt. `barrier` appends a record after all others and returns its
    /// sequence when it is durable. `None` while the attempt cannot begin.
    pub(in crate::delivery) fn begin<D: Disk<Handle = H>, E>(
        &self,
        disk: &D,
        device: u64,
        barrier: impl FnOnce() -> Result<Sequence, E>,
    ) -> Result<Option<(Attempt, Sequence)>, E> {
        let known = self.known.lock();
        let Some((mount, suspect)) = known
            .get(&device)
            .and_then(|known| Some((known.mount.clone(), known.suspect.clone()?)))
        else {
            return Ok(None);
        };
        drop(known);
        let attempt = |now, is_remounted| Attempt {
            device,
            now,
            is_remounted,
            is_repeated: suspect.attempts > 0,
        };
        if let Stage::Opened {
            until,
            now,
            is_remounted,
        } = suspect.stage
        {
            return Ok(Some((attempt(now, is_remounted), until)));
        }
        let opened = open_again(disk, mount.as_ref());
        let until = barrier()?;
        let mut known = self.known.lock();
        let Some(file_system) = known.get_mut(&device) else {
            return Ok(None);
        };
        let (now, is_remounted) = match &opened {
            Ok(opened) => (opened.device, mount.as_ref() != Some(&opened.mount)),
            Err(_) => (device, false),
        };
        if let Some(suspect) = &mut file_system.suspect {
            suspect.stage = Stage::Opened {
                until,
                now,
                is_remounted,
            };
        }
        match opened {
            Ok(opened) => {
                file_system.sync_handle = Some(Arc::new(opened.sync_handle));
                file_system.mount = Some(opened.mount);
                Ok(Some((attempt(now, is_remounted), until)))
            }
            Err(error) => {
                let (mount_point, error) = (file_system.mount_point(), Arc::new(error));
                file_system.fails(&error);
                drop(known);
                log_failure(&mount_point, &error);
                Ok(None)
            }
        }
    }

    /// Returns what is mounted at the mount point of a file system. Does not access any file
    /// system.
    pub(in crate::delivery) fn mounted<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        device: u64,
    ) -> Mounted {
        let known = self.known.lock();
        let mount = known.get(&device).and_then(|known| known.mount.clone());
        drop(known);
        let Some(mount) = mount else {
            return Mounted::Same;
        };
        match disk.mounted_on(&mount.point) {
            Ok(Some(id)) if id == mount.id => Mounted::Same,
            Ok(Some(_)) => Mounted::Other,
            Ok(None) | Err(_) => Mounted::Nothing,
        }
    }

    /// Returns where a file system is mounted; empty when that is not known.
    pub(in crate::delivery) fn mount_point(&self, device: u64) -> PathBuf {
        let known = self.known.lock();
        known
            .get(&device)
            .map_or_else(PathBuf::new, FileSystem::mount_point)
    }

    /// Returns the record before which all logged mail for a file system is durable there, or
    /// deferred.
    pub(in crate::delivery) fn flushed_below(&self, device: u64) -> Sequence {
        let known = self.known.lock();
        let known = known.get(&device);
        known.map_or(Sequence(u64::MAX), |known| known.flushed_below)
    }

    /// Notes that the logged mail before `until` is deferred.
    pub(in crate::delivery) fn is_held(&self, device: u64, until: Sequence) {
        debug_assert!(until.0 > 0, "something before it is held");
        if let Some(file_system) = self.known.lock().get_mut(&device) {
            file_system.flushed_below = until.max(file_system.flushed_below);
        }
    }

    /// Notes that the logged mail was written again.
    pub(in crate::delivery) fn is_rewritten(&self, device: u64) {
        let mut known = self.known.lock();
        let suspect = known.get_mut(&device).and_then(|k| k.suspect.as_mut());
        if let Some(suspect) = suspect {
            debug_assert_ne!(
                suspect.stage,
                Stage::Rewritten,
                "mail is written again once in an attempt"
            );
            suspect.stage = Stage::Rewritten;
        }
    }

    /// Notes that the log has nothing before this record that mailboxes need.
    pub(in crate::delivery) fn log_begins_at(&self, below: Sequence) {
        self.low.fetch_max(below.0, Ordering::AcqRel);
    }

    /// Returns true while some file system is written to and not flushed yet.
    pub(in crate::delivery) fn awaits_flush(&self) -> bool {
        let known = self.known.lock();
        let mut suspects = known.values().filter_map(|known| known.suspect.as_ref());
        suspects.any(|suspect| suspect.stage == Stage::Rewritten)
    }

    /// Returns the suspect file systems for operators.
    pub(in crate::delivery) fn suspects(&self) -> Vec<(u64, SuspectState)> {
        let known = self.known.lock();
        let state = |(device, known): (&u64, &FileSystem<H>)| {
            let suspect = known.suspect.as_ref()?;
            Some((
                *device,
                SuspectState {
                    mount_point: known.mount_point(),
                    cause: Arc::clone(&suspect.cause),
                    since: suspect.since,
                    attempts: suspect.attempts,
                    next_attempt: suspect.next_attempt,
                },
            ))
        };
        known.iter().filter_map(state).collect()
    }

    /// Returns true while mailboxes are flushed.
    #[cfg(test)]
    pub(in crate::delivery) fn is_flushing(&self) -> bool {
        let known = self.known.lock();
        known.values().any(|known| known.flushing_since.is_some())
    }

    /// Makes every attempt due now.
    #[cfg(test)]
    pub(in crate::delivery) fn hurry(&self) {
        for file_system in self.known.lock().values_mut() {
            if let Some(suspect) = &mut file_system.suspect {
                suspect.next_attempt = clock::now();
            }
        }
    }
}

/// A suspect file system that was opened again.
struct Opened<H> {
    sync_handle: H,
    mount: Mount,
    device: u64,
}

/// Opens a handle on a suspect file system, or on the file system that was mounted in its place.
fn open_again<D: Disk>(disk: &D, mount: Option<&Mount>) -> io::Result<Opened<D::Handle>> {
    let Some(mount) = mount else {
        let cause = "its mount point is unknown; restart mailstow";
        return Err(io::Error::other(cause));
    };
    if disk.mounted_on(&mount.point)?.is_none() {
        return Err(io::Error::other("it is not mounted"));
    }
    let sync_handle = disk.open_root(&mount.point)?;
    Ok(Opened {
        mount: disk.mount_of(&sync_handle)?,
        device: disk.stat(&sync_handle)?.device,
        sync_handle,
    })
}

fn log_failure(mount_point: &Path, error: &io::Error) {
    tracing::error!(
        file_system = %mount_point.display(),
        %error,
        "flushing mailboxes to disk failed; the delivery log keeps their mail until it is durable"
    );
}

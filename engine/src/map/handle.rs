//! The map of a long-running process: one view that is replaced while others read it.
//!
//! Invariants: reading takes no lock; a new file that cannot be opened never takes the place of a
//! view that answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::edit::{self, CHANGES_MERGE_AT};
use super::error::MapError;
use super::view::MapView;
use crate::supervisor::{SupervisedThread, Supervisor};
use crate::swap::Swap;
use crate::sync::{Arc, Condvar, Mutex, OnceLock, wait_timeout};

/// Memory that one map may take on any machine.
const MEMORY_MIN_BYTES: usize = 64 * 1024 * 1024;

/// The current view of the map at one path. Shared between threads.
#[derive(Debug)]
pub struct MapHandle {
    path: PathBuf,
    view: Swap<MapView>,
    refreshing: Mutex<()>,
}

impl MapHandle {
    /// Opens the map at `path`.
    ///
    /// # Errors
    /// As [`MapView::open`].
    pub fn open(path: &Path) -> Result<Self, MapError> {
        Ok(Self {
            path: path.to_owned(),
            view: Swap::new(Arc::new(MapView::open(path)?)),
            refreshing: Mutex::new(()),
        })
    }

    /// The map's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The current view. Keep it for the length of one transaction, so that all its lookups see
    /// the same map. Takes no lock.
    pub fn view(&self) -> Arc<MapView> {
        self.view.load()
    }

    /// Looks whether the map or its change log were replaced or grew, and then opens them anew;
    /// also when the view has taken more memory than a map may, of which a new view has none. True
    /// if there is a new view. Costs two stat(2) when nothing changed.
    ///
    /// # Errors
    /// As [`MapView::open`]; the old view stays in use.
    pub fn refresh(&self) -> Result<bool, MapError> {
        let _one_at_a_time = self.refreshing.lock();
        let view = self.view();
        if view.is_current()? && view.copied_bytes() <= memory_max() {
            return Ok(false);
        }
        let view = MapView::open(&self.path)?;
        self.view.replace(Arc::new(view));
        Ok(true)
    }

    /// Refreshes, and merges the changes into a new map when they have become many. True if
    /// there is a new view. `go_on` is asked now and then; false gives the merge up.
    ///
    /// # Errors
    /// As [`MapHandle::refresh`] and [`edit::merge`]; the old view stays in use.
    pub fn maintain(&self, mut go_on: impl FnMut() -> bool) -> Result<bool, MapError> {
        let fresh = self.refresh()?;
        if self.view().changes() < CHANGES_MERGE_AT {
            return Ok(fresh);
        }
        edit::merge(&self.path, |_, _| go_on())?;
        Ok(self.refresh()? || fresh)
    }
}

/// Memory that one map may take, in bytes: a quarter of the machine's.
fn memory_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let system = rustix::system::sysinfo();
        let bytes = u64::from(system.mem_unit).saturating_mul(system.totalram);
        usize::try_from(bytes / 4).map_or(usize::MAX, |bytes| bytes.max(MEMORY_MIN_BYTES))
    })
}

/// A thread that maintains a map until it is dropped.
#[derive(Debug)]
pub struct MapMaintainer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<SupervisedThread>,
}

impl MapMaintainer {
    /// Calls [`MapHandle::maintain`] every `interval`. Trouble is logged once, until it changes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        supervisor: &Supervisor,
        handle: Arc<MapHandle>,
        interval: Duration,
    ) -> Result<Self, MapError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let path = handle.path.clone();
        let seen = Arc::clone(&stop);
        let thread = supervisor
            .spawn("mailstow-map", 0, move || keep(&handle, interval, &seen))
            .map_err(|source| MapError::io(&path, "start the thread that maintains", source))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for MapMaintainer {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        self.thread = None;
    }
}

fn keep(handle: &MapHandle, interval: Duration, stop: &(Mutex<bool>, Condvar)) {
    let mut trouble = String::new();
    loop {
        {
            let mut stopped = stop.0.lock();
            let until = crate::clock::now() + interval;
            while !*stopped {
                let left = until.saturating_duration_since(crate::clock::now());
                if left.is_zero() {
                    break;
                }
                stopped = wait_timeout(&stop.1, stopped, left);
            }
            if *stopped {
                return;
            }
        }
        match handle.maintain(|| !*stop.0.lock()) {
            Ok(true) => {
                tracing::debug!(map = %handle.path.display(), "recipient map replaced");
                trouble.clear();
            }
            Ok(false) => trouble.clear(),
            Err(MapError::Stopped) => {}
            Err(error) => {
                let text = error.to_string();
                if text != trouble {
                    tracing::warn!(map = %handle.path.display(), %error, "recipient map kept");
                    trouble = text;
                }
            }
        }
    }
}

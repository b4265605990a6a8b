//! Questions to the files of accounts: each place that may not answer has its own threads.
//!
//! A place is a file server, or a directory that a file system is mounted on. One that hangs keeps
//! its own threads, and soon whatever is asked there is answered at once with an error. Places
//! beyond a bound share the threads of one. Links may lead to a file system that hangs, also from a
//! list of root's aliases: each user, root included, gets a part of the threads. Invariant: nothing
//! here asks a file system except on these threads.

use super::pool::{Pool, Threads};
use crate::io::{MountWatch, Mounts};
use crate::limits::{
    FILE_SYSTEM_THREADS_MAX, FILE_SYSTEM_THREADS_OF_USER, FILE_SYSTEM_TIMEOUT,
    FILE_SYSTEMS_ASKED_MAX,
};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::table::TableError;
use crate::table::attempt::{Answer, Asker, Asking, Reply};
use std::collections::HashMap;
use std::path::Path;

const THREADS: Threads = Threads {
    most: FILE_SYSTEM_THREADS_MAX,
    most_of_user: FILE_SYSTEM_THREADS_OF_USER,
    yielding: false,
    hang_after: Some(FILE_SYSTEM_TIMEOUT),
};

/// The places, with their threads.
#[derive(Debug)]
pub(crate) struct Places {
    mounted: OnceLock<Mounted>,
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    others: Arc<Pool>,
}

/// What is mounted, as the kernel told it last.
#[derive(Debug)]
struct Mounted {
    /// `None` if the kernel does not report changes: then what was mounted at the start counts.
    watch: Option<MountWatch>,
    is_unread: AtomicBool,
    /// How often reading began.
    reads: AtomicU64,
    /// The newest table, and which reading gave it.
    mounts: Mutex<(u64, Arc<Mounts>)>,
}

/// Asks about files, on the threads of their places.
#[derive(Debug)]
pub(crate) struct FileAsker {
    asker: Asker,
    places: Arc<Places>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            mounted: OnceLock::new(),
            pools: Mutex::default(),
            others: Arc::new(Pool::new(THREADS)),
        }
    }
}

impl Places {
    /// Returns the place of a file, in words.
    fn of(&self, path: &Path) -> String {
        let mounted = self.mounted.get_or_init(Mounted::new);
        mounted.now().place_of(path)
    }

    /// Returns the threads of a place.
    fn threads(&self, place: &str) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(place) {
            return Arc::clone(pool);
        }
        if pools.len() >= FILE_SYSTEMS_ASKED_MAX {
            // One that is being asked has a second owner.
            pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.is_at_work());
        }
        if pools.len() >= FILE_SYSTEMS_ASKED_MAX {
            return Arc::clone(&self.others);
        }
        let pool = Arc::new(Pool::new(THREADS));
        pools.insert(place.to_owned(), Arc::clone(&pool));
        pool
    }
}

impl Mounted {
    fn new() -> Self {
        // Before the table is read, so that no change is missed.
        let watch = MountWatch::new().ok();
        let mounts = Mounts::read();
        Self {
            watch,
            is_unread: AtomicBool::new(mounts.is_err()),
            reads: AtomicU64::new(0),
            mounts: Mutex::new((0, Arc::new(mounts.unwrap_or_default()))),
        }
    }

    /// Returns what is mounted now. While a change is read, others get what was mounted before.
    fn now(&self) -> Arc<Mounts> {
        let is_changed = self.watch.as_ref().is_some_and(MountWatch::is_changed);
        if is_changed | self.is_unread.swap(false, Ordering::AcqRel) {
            let number = self.reads.fetch_add(1, Ordering::AcqRel) + 1;
            match Mounts::read() {
                Ok(mounts) => self.replace(number, mounts),
                Err(_) => self.is_unread.store(true, Ordering::Release),
            }
        }
        Arc::clone(&self.mounts.lock().1)
    }

    /// Takes the table that was read, unless one is there whose reading began later.
    fn replace(&self, number: u64, mounts: Mounts) {
        let mut newest = self.mounts.lock();
        if number > newest.0 {
            *newest = (number, Arc::new(mounts));
        }
    }
}

impl FileAsker {
    /// For files that errors call `name`.
    pub(crate) fn new(name: &str, places: &Arc<Places>) -> Self {
        Self {
            asker: Asker::new(name),
            places: Arc::clone(places),
        }
    }

    /// Answers `key` with what `work` finds about the file at `path`, for the user with the id
    /// `user`.
    ///
    /// # Errors
    /// Those of `work`; the file system does not answer. Within an attempt, that the answer is not
    /// there yet.
    pub(crate) fn answer(
        &self,
        key: &str,
        (path, user): (&Path, u32),
        work: impl FnOnce() -> Answer + Send + 'static,
    ) -> Answer {
        let (places, asked) = (Arc::clone(&self.places), path.to_owned());
        let start = move |reply: Reply| {
            let place = places.of(&asked);
            let pool = places.threads(&place);
            let refused = |cause| TableError::NoFileSystem { place, cause };
            pool.ask_for(Some(user), FILE_SYSTEM_TIMEOUT, reply, refused, work);
        };
        let (places, asked) = (Arc::clone(&self.places), path.to_owned());
        let late = move || TableError::NoFileSystem {
            place: places.of(&asked),
            cause: format!("no answer within {} s", FILE_SYSTEM_TIMEOUT.as_secs()),
        };
        let asking = Asking {
            start,
            timeout: FILE_SYSTEM_TIMEOUT,
            late,
        };
        self.asker.answer(key, asking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::attempt::test_reply;
    use std::sync::mpsc;

    #[test]
    fn places_that_hang_leave_the_threads_of_others_alone() {
        let places = Places::default();
        let mut gates = Vec::new();
        let mut told = Vec::new();
        let hang = |pool: &Pool| {
            let (go, gate) = mpsc::channel::<()>();
            let (reply, answer) = test_reply();
            let refused = |cause| TableError::NoFileSystem {
                place: "there".to_owned(),
                cause,
            };
            pool.ask(FILE_SYSTEM_TIMEOUT, reply, refused, move || {
                // Ends when the test does.
                let _ = gate.recv();
                Ok(None)
            });
            (go, answer)
        };
        for number in 0..FILE_SYSTEMS_ASKED_MAX {
            let pool = places.threads(&format!("/hung{number}"));
            let (go, answer) = hang(&pool);
            gates.push(go);
            told.push(answer);
        }
        let others = places.threads("/one/more");
        assert!(Arc::ptr_eq(&others, &places.others));
        let known = places.threads("/hung7");
        assert!(!Arc::ptr_eq(&others, &known));
        let (_, answer) = hang(&others);
        assert_eq!(answer.recv().unwrap(), Ok(None));
        // A place whose work is done makes room.
        gates.pop();
        assert_eq!(told.pop().unwrap().recv().unwrap(), Ok(None));
        let last = format!("/hung{}", FILE_SYSTEMS_ASKED_MAX - 1);
        while places.threads(&last).is_at_work() {
            std::thread::yield_now();
        }
        assert!(!Arc::ptr_eq(&places.threads("/one/more"), &places.others));
    }

    #[test]
    fn a_table_of_mounts_that_was_read_late_does_not_replace_a_newer_one() {
        let mounted = Mounted::new();
        mounted.replace(2, Mounts::default());
        let newest = Arc::clone(&mounted.mounts.lock().1);
        mounted.replace(1, Mounts::default());
        assert!(Arc::ptr_eq(&newest, &mounted.mounts.lock().1));
        mounted.replace(3, Mounts::default());
        assert!(!Arc::ptr_eq(&newest, &mounted.mounts.lock().1));
    }

    #[test]
    fn a_file_is_looked_at_on_the_threads_of_its_place() {
        let places = Arc::new(Places::default());
        let asker = FileAsker::new("files", &places);
        let answer = asker.answer("k", (Path::new("/proc/self"), 1), || {
            Ok(Some("v".to_owned()))
        });
        assert_eq!(answer, Ok(Some("v".to_owned())));
        assert_eq!(places.of(Path::new("/proc/self")), "/proc");
        let pools = places.pools.lock();
        assert_eq!(pools.keys().collect::<Vec<_>>(), ["/proc"]);
    }
}

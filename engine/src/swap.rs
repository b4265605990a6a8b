//! A value that is replaced while others read it.
//!
//! Invariants: reading takes no lock and never waits: a reader that meets a writer looks at the
//! other slot, where the current value stands; two reads of one thread never go back in time.
//! Checked with loom. The crate arc-swap uses the atomics of the standard library, so loom cannot
//! check it.
//!
//! Two slots, one of them current. A writer fills the other one and then makes it current, so a
//! reader fails to enter a slot only if a newer value was published meanwhile.

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, RwLock, spin_loop};

/// The current `T`.
#[derive(Debug)]
pub(crate) struct Swap<T> {
    slots: [RwLock<Arc<T>>; 2],
    current: AtomicUsize,
    writer: Mutex<()>,
}

impl<T> Swap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self {
            slots: [RwLock::new(Arc::clone(&value)), RwLock::new(value)],
            current: AtomicUsize::new(0),
            writer: Mutex::new(()),
        }
    }

    fn slot(&self, at: usize) -> &RwLock<Arc<T>> {
        let [first, second] = &self.slots;
        if at == 0 { first } else { second }
    }

    /// The current value.
    pub(crate) fn load(&self) -> Arc<T> {
        loop {
            // Acquire, with the Release in `store`: who sees the number sees the slot filled.
            let at = self.current.load(Ordering::Acquire);
            if let Some(value) = self.slot(at).try_read() {
                // The slot may have been filled again and not be current yet. While we are in it no
                // thread fills it, so if it is current now, what it holds is the current value.
                if self.current.load(Ordering::Acquire) == at {
                    return Arc::clone(&value);
                }
            }
            spin_loop();
        }
    }

    /// Makes `value` the current one and returns the one before the last, whose memory the caller
    /// gives back. Waits for other writers, and for readers that are just copying a pointer.
    pub(crate) fn store(&self, value: Arc<T>) -> Arc<T> {
        let _writer = self.writer.lock();
        // Relaxed: only writers store, and they exclude each other.
        let other = 1 - self.current.load(Ordering::Relaxed);
        let old = std::mem::replace(&mut *self.slot(other).write(), value);
        self.current.store(other, Ordering::Release);
        old
    }

    /// As [`Swap::store`], and lets go of the old value: it lives as long as readers have it.
    pub(crate) fn replace(&self, value: Arc<T>) {
        drop(self.store(Arc::clone(&value)));
        drop(self.store(value));
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn readers_under_load_always_find_a_value_and_never_an_older_one() {
        let swap = Arc::new(Swap::new(Arc::new(0u64)));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let swap = Arc::clone(&swap);
                std::thread::spawn(move || {
                    let mut last = 0;
                    while last < 2000 {
                        let now = *swap.load();
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                    }
                })
            })
            .collect();
        for value in 1..=2000 {
            swap.store(Arc::new(value));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn loom_reads_never_block_and_never_go_back() {
        loom::model(|| {
            let swap = Arc::new(Swap::new(Arc::new(0u64)));
            let reader = {
                let swap = Arc::clone(&swap);
                thread::spawn(move || {
                    let first = *swap.load();
                    let second = *swap.load();
                    assert!(second >= first, "{second} after {first}");
                })
            };
            swap.store(Arc::new(1));
            swap.store(Arc::new(2));
            assert_eq!(*swap.load(), 2);
            reader.join().unwrap();
        });
    }

    #[test]
    fn loom_two_writers_leave_one_of_their_values() {
        loom::model(|| {
            let swap = Arc::new(Swap::new(Arc::new(0u64)));
            let writer = {
                let swap = Arc::clone(&swap);
                thread::spawn(move || {
                    swap.store(Arc::new(1));
                })
            };
            swap.store(Arc::new(2));
            writer.join().unwrap();
            assert_ne!(*swap.load(), 0);
        });
    }

    #[test]
    fn loom_what_was_stored_before_a_signal_is_seen_after_it() {
        use crate::sync::atomic::AtomicBool;
        loom::model(|| {
            let swap = Arc::new(Swap::new(Arc::new(0u64)));
            let told = Arc::new(AtomicBool::new(false));
            let writer = {
                let (swap, told) = (Arc::clone(&swap), Arc::clone(&told));
                thread::spawn(move || {
                    swap.store(Arc::new(1));
                    told.store(true, Ordering::Release);
                })
            };
            if told.load(Ordering::Acquire) {
                assert_eq!(*swap.load(), 1);
            }
            writer.join().unwrap();
        });
    }
}

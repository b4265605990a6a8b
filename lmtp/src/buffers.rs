//! Buffers that wait for the next session that has something to do.
//!
//! A session that waits for its client's next message holds no
//! buffers, so that thousands of idle ones cost no memory. Most wait for a moment only: to make
//! and clear new buffers for each message took a tenth of the session's time. Invariant: no more
//! than [`WAITING_MAX`] times two buffers of at most [`BYTES_MAX`] bytes wait here.

use parking_lot::Mutex;
use std::sync::Arc;

/// Sessions whose buffers may wait: as many as are at work at one moment, and more.
const WAITING_MAX: usize = 64;

/// Larger buffers are given back to the system.
pub(crate) const BYTES_MAX: usize = 16 * 1024;

/// The buffers of one session.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What [`Input`](crate::input::Input) fills; its content means nothing.
    pub(crate) input: Vec<u8>,
    /// For replies; empty.
    pub(crate) out: Vec<u8>,
}

/// Buffers that are not in use; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Buffers>>>);

impl Pool {
    /// Buffers that waited, or new ones without memory.
    pub(crate) fn take(&self) -> Buffers {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Lets them wait for the next session.
    pub(crate) fn put(&self, buffers: Buffers) {
        if buffers.input.capacity() > BYTES_MAX || buffers.out.capacity() > BYTES_MAX {
            return;
        }
        let mut waiting = self.0.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_unless_they_are_large_or_many() {
        let pool = Pool::default();
        let buffers = |bytes| Buffers {
            input: vec![0; bytes],
            out: Vec::new(),
        };
        pool.put(buffers(BYTES_MAX + 1));
        assert_eq!(pool.take().input.len(), 0);
        for _ in 0..=WAITING_MAX {
            pool.put(buffers(4096));
        }
        for _ in 0..WAITING_MAX {
            assert_eq!(pool.take().input.len(), 4096);
        }
        assert_eq!(pool.take().input.len(), 0);
    }
}

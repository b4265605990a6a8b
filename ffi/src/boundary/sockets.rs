//! Sockets that a child of fork(2) does not keep. With a copy in the child, the peer would not
//! notice that the parent has closed the socket, or died.
//!
//! The child closes its copies before fork(2) returns there, without a lock, because a thread of
//! the parent may hold it. Invariant: each descriptor noted here is open and belongs to a
//! [`PrivateSocket`], which removes it before closing it. Source: pthread_atfork(3).

use rustix::net::{Shutdown, shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// A socket that a child of fork(2) does not keep, unless the fork bypasses the C library.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    socket: OwnedFd,
    place: &'static AtomicI32,
}

impl PrivateSocket {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let place = FIRST.take(socket.as_raw_fd());
        Self { socket, place }
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // Before the number can be another descriptor's.
        self.place.store(NONE, Ordering::Release);
        // Also ends the connection if a child still has a copy.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// A free place.
const NONE: i32 = -1;

/// Places for the numbers of descriptors. Blocks are never freed.
struct Block {
    places: [AtomicI32; 64],
    next: OnceLock<Box<Block>>,
}

static FIRST: Block = Block::new();

impl Block {
    const fn new() -> Self {
        Self {
            places: [const { AtomicI32::new(NONE) }; 64],
            next: OnceLock::new(),
        }
    }

    /// Notes a descriptor in a free place.
    fn take(&'static self, number: i32) -> &'static AtomicI32 {
        static WATCHED: OnceLock<()> = OnceLock::new();
        WATCHED.get_or_init(watch_forks);
        let mut block = self;
        loop {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let is_taken = |place: &&AtomicI32| {
                let taken = place.compare_exchange(NONE, number, order.0, order.1);
                taken.is_ok()
            };
            if let Some(place) = block.places.iter().find(is_taken) {
                return place;
            }
            block = block.next.get_or_init(|| Box::new(Self::new()));
        }
    }
}

/// Registers the function that closes the copies in every child. Without memory for that, children
/// keep them.
fn watch_forks() {
    // SAFETY: the function does only what is allowed in the child of a process with threads.
    unsafe { libc::pthread_atfork(None, None, Some(close_copies)) };
}

/// Runs in the child, before fork(2) returns there.
extern "C" fn close_copies() {
    let mut block = Some(&FIRST);
    while let Some(Block { places, next }) = block {
        for place in places {
            let number = place.swap(NONE, Ordering::Relaxed);
            if number != NONE {
                // SAFETY: the child's copy of a socket of its parent. The child never uses the
                // objects that own it.
                unsafe { libc::close(number) };
            }
        }
        block = next.get().map(|next| &**next);
    }
}

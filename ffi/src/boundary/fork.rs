//! Knows a process from its parent: a page of memory that the kernel empties when it forks.
//!
//! Costs one load where getpid(2) would be a system call, and cannot be fooled by a fork that
//! bypasses the C library. Source: madvise(2) `MADV_WIPEONFORK`.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the page.
const PAGE_BYTES: usize = 4096;

/// The number that the running process has in the page; 0 in a child that has not looked yet.
static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();

/// The last number given to a process; unlike the page it is inherited.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// Returns a number that is the same for the whole life of this process, and another one in each
/// process forked from it.
pub(crate) fn generation() -> u64 {
    match PAGE.get_or_init(page) {
        // Relaxed: the number says nothing of other memory.
        Some(word) => match word.load(Ordering::Relaxed) {
            0 => begin(word),
            generation => generation,
        },
        // A kernel without it.
        None => u64::from(std::process::id()),
    }
}

/// The first look of a process.
#[cold]
fn begin(word: &AtomicU64) -> u64 {
    let next = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        // Another thread of this process looked first.
        Err(generation) => generation,
    }
}

fn page() -> Option<&'static AtomicU64> {
    // An interpreter has no kernel, and forks no process.
    if cfg!(miri) {
        return None;
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new private mapping, at an address that the kernel chooses.
    let page =
        unsafe { mmap_anonymous(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::PRIVATE) };
    let page = page.ok()?;
    // SAFETY: the whole of the mapping made just now, of which there is no reference yet.
    unsafe { madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: the mapping is aligned, zeroed, large enough and never unmapped.
    Some(unsafe { AtomicU64::from_ptr(page.cast()) })
}

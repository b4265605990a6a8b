//! Distinguishes a process from its parent by a page of memory that the kernel clears at fork.
//!
//! Costs one load, where getpid(2) would be a system call, and also works for a fork that bypasses
//! the C library. Source: madvise(2) `MADV_WIPEONFORK`.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the page.
const PAGE_BYTES: usize = 4096;

/// The number of the running process in the page; 0 in a child before its first call.
static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();

/// The last number given to a process; unlike the page it is inherited.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// Returns a number that is constant during the life of this process, and different in each process
/// forked from it.
pub(crate) fn generation() -> u64 {
    match PAGE.get_or_init(page) {
        // Relaxed: no other memory depends on the number.
        Some(word) => match word.load(Ordering::Relaxed) {
            0 => begin(word),
            generation => generation,
        },
        // A kernel that does not support it.
        None => u64::from(std::process::id()),
    }
}

/// The first call in a process.
#[cold]
fn begin(word: &AtomicU64) -> u64 {
    let next = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        // Another thread of this process was faster.
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

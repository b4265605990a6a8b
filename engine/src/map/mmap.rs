//! Mapping a map file into memory and fetching from it ahead of time: the unsafe lines of the
//! recipient map.
//!
//! Imports `error`. Invariant: mailstow never writes to or truncates a published map; it is only
//! ever replaced by rename(2).
#![allow(
    unsafe_code,
    reason = "mmap(2) cannot promise that nobody changes the file; prefetching takes a pointer"
)]

use std::fs::File;
use std::path::Path;

use memmap2::{Advice, Mmap};

use super::error::MapError;

/// Has the processor fetch the cache line with byte `at` of `bytes`, without waiting for it.
#[inline]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer comes from a reference; and a prefetch never faults, wherever it
        // points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}

/// Maps `file` read-only. The mapping keeps the file alive after it was replaced.
pub(super) fn map(file: &File, path: &Path) -> Result<Mmap, MapError> {
    // SAFETY: bytes under the mapping must not change while they are borrowed. A published map is
    // written by nobody: every mailstow process that changes it writes a new file and renames it
    // over the old name. An operator who overwrites the file in place breaks this, as he would
    // for LMDB or cdb; the manual says so.
    let map = unsafe { Mmap::map(file) }
        .map_err(|source| MapError::io(path, "map into memory", source))?;
    // Lookups go everywhere: with huge pages the processor finds its way in fewer steps. A kernel
    // or file system that cannot do it says so, and nothing is lost.
    let _ = map.advise(Advice::HugePage);
    Ok(map)
}

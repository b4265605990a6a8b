//! Mapping a map file into memory, fetching from it ahead of time and comparing many bytes at once:
//! the unsafe lines of the recipient map.
//!
//! Imports `error`. Invariant: mailstow never writes to or truncates a published map; it is only
//! ever replaced by rename(2).
#![allow(
    unsafe_code,
    reason = "mmap(2) cannot promise that nobody changes the file; prefetching takes a pointer; \
              vector instructions are not every processor's"
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

/// One bit for each of 32 places whose byte of `bytes` and half byte of `halves`, low half first,
/// are those of `wanted`; the first 16 places, then the others.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn equal_pairs(bytes: [u64; 4], halves: [u64; 2], wanted: (u8, u8)) -> [u32; 2] {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { equal_pairs_sse2(bytes, halves, wanted) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn equal_pairs_sse2(bytes: [u64; 4], halves: [u64; 2], wanted: (u8, u8)) -> [u32; 2] {
    use std::arch::x86_64::{
        _mm_and_si128, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8,
        _mm_srli_epi16, _mm_unpackhi_epi8, _mm_unpacklo_epi8,
    };
    let [a, b, c, d] = bytes.map(u64::cast_signed);
    let [e, f] = halves.map(u64::cast_signed);
    let byte = _mm_set1_epi8(wanted.0.cast_signed());
    let half = _mm_set1_epi8(wanted.1.cast_signed());
    let mask = _mm_set1_epi8(0x0f);
    let both = _mm_set_epi64x(f, e);
    let even = _mm_and_si128(both, mask);
    let odd = _mm_and_si128(_mm_srli_epi16::<4>(both), mask);
    let bits = |bytes, halves| {
        let equal = _mm_and_si128(_mm_cmpeq_epi8(bytes, byte), _mm_cmpeq_epi8(halves, half));
        _mm_movemask_epi8(equal).cast_unsigned()
    };
    [
        bits(_mm_set_epi64x(b, a), _mm_unpacklo_epi8(even, odd)),
        bits(_mm_set_epi64x(d, c), _mm_unpackhi_epi8(even, odd)),
    ]
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

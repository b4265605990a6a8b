//! Hints and vector instructions of the processor: fetching memory ahead of time, and comparing
//! many bytes at once.
//!
//! Invariant: an answer never depends on a hint.
#![allow(
    unsafe_code,
    reason = "prefetching takes a pointer; not every processor has vector instructions"
)]

/// Has the processor fetch the cache line with byte `at` of `bytes`, without waiting for it.
#[inline]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    if let Some(byte) = bytes.get(at) {
        prefetch_pointer(byte);
    }
}

/// Has the processor fetch the cache line at `pointer`, which may point anywhere.
#[inline]
pub(super) fn prefetch_pointer(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
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

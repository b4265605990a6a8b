//! Address space for a map's bytes: memory is used only where it is written.
//!
//! Invariants: every byte is zero until it is written; the memory stays in its place for as long as
//! its [`Reserved`] lives. An interpreter that checks memory accesses knows none of the system
//! calls, so there the memory is of the heap.
#![allow(unsafe_code, reason = "the kernel maps and unmaps memory by address")]

use std::io;
use std::ptr::NonNull;

/// The size of a huge page.
pub(super) const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Address space without memory, which the kernel gives where it is written.
#[derive(Debug)]
pub(super) struct Reserved {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    /// The first multiple of a chunk in it.
    base: NonNull<u8>,
}

// SAFETY: it is memory that belongs to this value alone, wherever the value goes.
unsafe impl Send for Reserved {}
// SAFETY: shared references give out the address only; each use of it says which thread reads or
// writes.
unsafe impl Sync for Reserved {}

impl Reserved {
    /// Reserves `bytes` from [`Reserved::base`] on.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let mapped_bytes = bytes.checked_add(CHUNK_BYTES).ok_or_else(too_large)?;
        let mapped = system::map(mapped_bytes)?;
        let skipped = mapped.as_ptr().align_offset(CHUNK_BYTES);
        // It lies in the chunk that was mapped in addition.
        let base = NonNull::new(mapped.as_ptr().wrapping_add(skipped)).unwrap_or(mapped);
        Ok(Self {
            mapped,
            mapped_bytes,
            base,
        })
    }

    /// Where the memory begins, at a multiple of a chunk.
    #[inline]
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Gives the memory back; every byte is zero then.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // SAFETY: the range is mapped, and as it is borrowed for writing, no thread reads it.
        unsafe { system::empty(self.mapped, self.mapped_bytes) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: what was mapped here, and no reference to it is left.
        unsafe { system::unmap(self.mapped, self.mapped_bytes) };
    }
}

#[cfg(not(miri))]
mod system {
    use std::io;
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
        // Nothing is promised: only the blocks that are asked for need memory.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so that no other memory is there.
        let mapped = unsafe { mmap_anonymous(null_mut(), bytes, protection, flags) }?;
        // Lookups go everywhere: with huge pages the processor finds its way in fewer steps. And
        // a map is no help in a core file. A kernel that cannot follow an advice says so, and
        // nothing is lost.
        for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
            // SAFETY: the range was mapped just now, and the advice leaves its bytes as they are.
            let _ = unsafe { madvise(mapped, bytes, advice) };
        }
        NonNull::new(mapped.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// The range must be one that `map` gave, and no thread may use its bytes meanwhile.
    pub(super) unsafe fn empty(mapped: NonNull<u8>, bytes: usize) -> io::Result<()> {
        // SAFETY: the caller's word.
        unsafe { madvise(mapped.as_ptr().cast(), bytes, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// # Safety
    /// The range must be one that `map` gave, and no thread may use it from now on.
    pub(super) unsafe fn unmap(mapped: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's word.
        let _ = unsafe { munmap(mapped.as_ptr().cast(), bytes) };
    }
}

#[cfg(miri)]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    fn layout(bytes: usize) -> io::Result<Layout> {
        Layout::from_size_align(bytes, 4096).map_err(io::Error::other)
    }

    pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: a chunk is mapped in addition, so that the size is not 0.
        let mapped = unsafe { alloc_zeroed(layout(bytes)?) };
        NonNull::new(mapped).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// The range must be one that `map` gave, and no thread may use its bytes meanwhile.
    pub(super) unsafe fn empty(mapped: NonNull<u8>, bytes: usize) -> io::Result<()> {
        // SAFETY: the caller's word.
        unsafe { mapped.write_bytes(0, bytes) };
        Ok(())
    }

    /// # Safety
    /// The range must be one that `map` gave, and no thread may use it from now on.
    pub(super) unsafe fn unmap(mapped: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: the caller's word; the layout is that of `map`.
            unsafe { dealloc(mapped.as_ptr(), layout) };
        }
    }
}

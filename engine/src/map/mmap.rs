//! Mapping a map file into memory: the unsafe lines of the recipient map.
//!
//! Imports `error`. Invariant: mailstow never writes to or truncates a published map; it is only
//! ever replaced by rename(2).
#![allow(
    unsafe_code,
    reason = "mmap(2) cannot promise that nobody changes the file"
)]

use std::fs::File;
use std::path::Path;

use memmap2::{Advice, Mmap, MmapOptions};

use super::error::MapError;

/// How much of a new map is loaded at once, in bytes: a multiple of the size of a huge page.
const LOAD_BYTES: u64 = 64 * 1024 * 1024;

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

/// Brings a file that was just written and flushed back into the page cache in huge pages, where
/// the kernel can: pages that were cached while they were written stay small. Its failure costs
/// speed only.
pub(super) fn load(file: &File) {
    let Ok(bytes) = file.metadata().map(|metadata| metadata.len()) else {
        return;
    };
    if rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).is_err() {
        return;
    }
    let mut offset = 0;
    while offset < bytes {
        let len = usize::try_from((bytes - offset).min(LOAD_BYTES)).unwrap_or(0);
        // SAFETY: the bytes are not looked at through this mapping.
        let Ok(part) = (unsafe { MmapOptions::new().offset(offset).len(len).map(file) }) else {
            return;
        };
        let wanted = part.advise(Advice::HugePage);
        if wanted
            .and_then(|()| part.advise(Advice::PopulateRead))
            .is_err()
        {
            return;
        }
        offset += LOAD_BYTES;
    }
}

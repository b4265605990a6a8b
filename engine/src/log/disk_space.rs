//! The space of the file system that the log is on, which others use, too.
//!
//! Invariant: space is for mailboxes first: the log takes no spare segment that would leave them
//! too little, and gives back those it has.

/// Most bytes that the log leaves to others before it takes a spare.
const MARGIN_BYTES_MAX: u64 = 256 << 20;
/// The part of the file system that it leaves, when that is less.
const MARGIN_PART: u64 = 16;

/// A file system's size and what is free of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that a process without privileges may still use.
    pub free_bytes: u64,
}

impl DiskSpace {
    fn margin(self) -> u64 {
        (self.bytes / MARGIN_PART).min(MARGIN_BYTES_MAX)
    }

    /// Less is free than the log should leave to others.
    pub(super) fn is_low(self) -> bool {
        self.lacks_room_for(0)
    }

    /// So many bytes more for the log would leave too little to others.
    pub(super) fn lacks_room_for(self, bytes: u64) -> bool {
        self.free_bytes < bytes.saturating_add(self.margin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_small_volume_and_a_bound_of_a_large_one_are_left_to_others() {
        let volume = |bytes, free_bytes| DiskSpace { bytes, free_bytes };
        let small = 704 << 20;
        assert!(volume(small, (44 << 20) - 1).is_low());
        assert!(!volume(small, 44 << 20).is_low());
        assert!(volume(small, 75 << 20).lacks_room_for(32 << 20));
        assert!(!volume(small, 76 << 20).lacks_room_for(32 << 20));
        assert!(!volume(1 << 44, 256 << 20).is_low());
        assert!(volume(1 << 44, 1 << 40).lacks_room_for(u64::MAX));
    }
}

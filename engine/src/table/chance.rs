//! Choices by chance.

use std::hash::{BuildHasher, RandomState};

/// A number below `bound` (0 when that is 0) by chance: the keys of std's hashers are random.
pub(super) fn below(bound: usize) -> usize {
    let random = RandomState::new().hash_one(bound);
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
    usize::try_from(random % bound).unwrap_or(0)
}

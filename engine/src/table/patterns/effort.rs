//! How hard a pattern is searched for.
//!
//! Most searches take microseconds and are done where they are asked for. The others are done
//! elsewhere, see `rules`.

/// How much a search may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum Effort {
    /// A few milliseconds at most.
    Brief,
    /// What a search may take that holds up no other.
    Full,
}

/// Why a search has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::table) enum Unsearched {
    /// It takes more than the effort.
    Slow,
    /// It failed.
    Failed(String),
}

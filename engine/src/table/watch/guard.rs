//! Whether a changed file counts: what was read whole, and what is still being written.
//!
//! Pure: decides from observations and their times. Invariants: a file that has all the entries of
//! its old contents counts as soon as it is not being written; the more it lacks, the longer it
//! must have been left alone; no state of a file is held back for longer than the hold time after
//! the last change. While a file is held back, its old contents answer, and what they do not have
//! is not unknown but deferred.

use std::fmt;
use std::time::Duration;

/// How long a file that lacks entries of its old contents must have been left alone: a change must
/// be in force within two seconds.
const SETTLE: Duration = Duration::from_millis(1200);
/// A file whose writer pauses must have been left alone for this many of its longest pause.
const PAUSES: u32 = 3;
/// But no longer than this: who pauses for longer has changed it twice.
const PAUSES_MAX: Duration = Duration::from_secs(10);
/// Entries that a table may lose at once without being suspected, whatever its size.
const LOST_FEW: usize = 2;
/// And one in so many.
const LOST_PART: usize = 4;

/// Whether a table that loses `lost` of `had` entries has shrunk suddenly.
pub(in crate::table) fn is_sudden(lost: usize, had: usize) -> bool {
    lost > LOST_FEW && lost.saturating_mul(LOST_PART) > had
}

/// What a changed file holds, beside its old contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::table) struct Facts {
    /// Entries of the old contents.
    pub(in crate::table) had: usize,
    /// Those of them that the file lacks.
    pub(in crate::table) lost: usize,
    /// Entries of the file.
    pub(in crate::table) has: usize,
    /// Its last line has no end.
    pub(in crate::table) is_cut: bool,
    /// It says of itself that it is whole.
    pub(in crate::table) is_published: bool,
}

/// When a file was changed, as far as was seen.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Times {
    /// Time since the last change was seen.
    pub(in crate::table) seen: Duration,
    /// Time since the last change by the file's own time stamp.
    pub(in crate::table) quiet: Duration,
    /// The longest time between two changes, when more than one was seen.
    pub(in crate::table) pause: Option<Duration>,
    /// The file was changed shortly before it was first read.
    pub(in crate::table) is_young: bool,
    /// It was being written when it was first read: the old contents are a part of something.
    pub(in crate::table) is_partial: bool,
}

/// Why a file does not count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum Reason {
    /// Another program has it open for writing, or has a writer's lock.
    Open,
    /// It changes again and again.
    Changing,
    /// It has nothing in it.
    Empty,
    /// Its last line has no end.
    Cut,
    /// It lacks entries.
    Shrunk { lost: usize, had: usize },
    /// It is gone, or cannot be read.
    Missing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("the file is open for writing or locked by a writer"),
            Self::Changing => f.write_str("the file is being written"),
            Self::Empty => f.write_str("the file is empty"),
            Self::Cut => f.write_str("the file ends in the middle of a line"),
            Self::Shrunk { lost, had } => {
                write!(f, "the file lacks {lost} of the {had} entries in use")
            }
            Self::Missing => f.write_str("the file is missing or cannot be read"),
        }
    }
}

/// What to do with a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum Decision {
    /// It counts.
    Take,
    /// Look again soon.
    Wait,
    /// As `Wait`, and what the old contents do not have is deferred.
    Hold(Reason),
}

/// Decides about a file with these `facts`. `is_open`: another program is about to write it.
/// `at_once`: an operator asked for it, who has made a change that is small.
pub(in crate::table) fn decide(
    facts: &Facts,
    times: &Times,
    is_open: bool,
    at_once: bool,
    hold: Duration,
) -> Decision {
    if times.seen >= hold {
        return Decision::Take;
    }
    // What has all entries cannot be worse than the old contents, once its writer rests.
    let is_richer = facts.lost == 0 && facts.has > 0 && !facts.is_cut && !times.is_partial;
    if is_open && !(is_richer && times.quiet >= SETTLE) {
        return Decision::Hold(Reason::Open);
    }
    if facts.is_published {
        return Decision::Take;
    }
    let Facts { had, lost, .. } = *facts;
    if facts.has == 0 && had > 0 {
        return Decision::Hold(Reason::Empty);
    }
    if facts.is_cut {
        return Decision::Hold(Reason::Cut);
    }
    if is_sudden(lost, had) {
        return Decision::Hold(Reason::Shrunk { lost, had });
    }
    let is_new = times.is_young || times.is_partial;
    if lost == 0 && !is_new {
        return Decision::Take;
    }
    let young = is_new.then_some(Duration::ZERO);
    if let Some(pause) = times.pause.or(young)
        && times.quiet < (pause * PAUSES).clamp(SETTLE, PAUSES_MAX)
    {
        return Decision::Hold(Reason::Changing);
    }
    match times.quiet < SETTLE && !at_once {
        true => Decision::Wait,
        false => Decision::Take,
    }
}

/// Whether a file that was changed so long ago may still be being written by who pauses between
/// lines.
pub(in crate::table) fn is_young(quiet: Duration) -> bool {
    quiet < SETTLE
}

/// How long until it is not any more.
pub(in crate::table) fn settled_in(quiet: Duration) -> Duration {
    SETTLE.saturating_sub(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(60);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn times(quiet: u64, pause: Option<u64>) -> Times {
        Times {
            seen: ms(quiet),
            quiet: ms(quiet),
            pause: pause.map(ms),
            is_young: false,
            is_partial: false,
        }
    }

    fn facts(had: usize, lost: usize) -> Facts {
        Facts {
            had,
            lost,
            has: had - lost,
            ..Facts::default()
        }
    }

    fn decided(facts: &Facts, times: &Times) -> Decision {
        decide(facts, times, false, false, HOLD)
    }

    #[test]
    fn a_file_with_all_old_entries_counts_at_once_however_often_it_grows() {
        assert_eq!(decided(&facts(5, 0), &times(0, None)), Decision::Take);
        assert_eq!(decided(&facts(5, 0), &times(0, Some(400))), Decision::Take);
    }

    #[test]
    fn a_file_that_lacks_a_few_entries_counts_when_it_was_left_alone() {
        for (had, lost) in [(1, 0), (2, 1), (3, 2), (400, 100)] {
            let facts = Facts {
                has: 400,
                ..facts(had, lost)
            };
            let expected = if lost > 0 {
                Decision::Wait
            } else {
                Decision::Take
            };
            assert_eq!(decided(&facts, &times(1000, None)), expected);
            assert_eq!(decided(&facts, &times(1200, None)), Decision::Take);
            assert_eq!(
                decide(&facts, &times(0, None), false, true, HOLD),
                Decision::Take
            );
        }
    }

    #[test]
    fn a_file_that_is_written_with_pauses_must_be_left_alone_for_longer_than_them() {
        let facts = facts(100, 1);
        let held = Decision::Hold(Reason::Changing);
        assert_eq!(decided(&facts, &times(5900, Some(2000))), held);
        assert_eq!(decided(&facts, &times(6000, Some(2000))), Decision::Take);
        assert_eq!(decided(&facts, &times(9999, Some(20_000))), held);
        assert_eq!(
            decided(&facts, &times(10_000, Some(20_000))),
            Decision::Take
        );
        assert_eq!(
            decide(&facts, &times(100, Some(300)), false, true, HOLD),
            held
        );
    }

    #[test]
    fn a_file_that_was_being_written_at_the_start_is_held_back_even_if_it_only_grows() {
        for pause in [None, Some(500)] {
            let young = |quiet| Times {
                is_young: true,
                ..times(quiet, pause)
            };
            let held = Decision::Hold(Reason::Changing);
            assert_eq!(decided(&facts(5, 0), &young(1000)), held);
            assert_eq!(decided(&facts(5, 0), &young(1500)), Decision::Take);
        }
    }

    #[test]
    fn what_looks_like_a_part_of_a_file_is_held_back_until_the_hold_time_is_over() {
        let cut = Facts {
            is_cut: true,
            ..facts(5, 0)
        };
        for (facts, reason) in [
            (facts(1, 1), Reason::Empty),
            (facts(400, 400), Reason::Empty),
            (cut, Reason::Cut),
            (facts(4, 3), Reason::Shrunk { lost: 3, had: 4 }),
            (
                facts(400, 101),
                Reason::Shrunk {
                    lost: 101,
                    had: 400,
                },
            ),
        ] {
            for at_once in [false, true] {
                let held = decide(&facts, &times(59_999, None), false, at_once, HOLD);
                assert_eq!(held, Decision::Hold(reason));
                let later = decide(&facts, &times(60_000, None), false, at_once, HOLD);
                assert_eq!(later, Decision::Take);
            }
            let published = Facts {
                is_published: true,
                ..facts
            };
            assert_eq!(decided(&published, &times(0, None)), Decision::Take);
        }
    }

    #[test]
    fn a_file_that_somebody_writes_is_held_back_until_he_rests_or_as_long_as_it_lacks_entries() {
        let held = Decision::Hold(Reason::Open);
        let open = |lost, quiet| decide(&facts(5, lost), &times(quiet, None), true, true, HOLD);
        assert_eq!(open(0, 1199), held);
        assert_eq!(open(0, 1200), Decision::Take);
        assert_eq!(open(1, 59_999), held);
        assert_eq!(open(1, 60_000), Decision::Take);
        let partial = Times {
            is_partial: true,
            ..times(10_000, None)
        };
        assert_eq!(decide(&facts(5, 0), &partial, true, true, HOLD), held);
    }

    #[test]
    fn without_a_hold_time_everything_counts_at_once() {
        let empty = decide(
            &facts(5, 5),
            &times(0, Some(100)),
            true,
            false,
            Duration::ZERO,
        );
        assert_eq!(empty, Decision::Take);
    }

    #[test]
    fn an_empty_table_that_was_empty_is_no_suspect() {
        assert_eq!(decided(&facts(0, 0), &times(0, None)), Decision::Take);
    }
}

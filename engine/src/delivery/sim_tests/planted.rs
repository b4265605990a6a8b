//! Goal: the oracle of the crash tests detects mistakes. Method: each mistake is put between the
//! store, its log and their disks, all of which are the shipped ones, and runs that pass without it
//! must fail with it.

use super::mistaken::Mistake;
use super::world::Bug;
use super::{Where, plan, run, tell};
use crate::io::sim::SimRandom;

/// Runs tried for each mistake.
const RUNS: u64 = 300;

/// Returns the first of these runs that fails, and its failure.
fn found(bug: Option<Bug>, runs: u64, errno: Option<i32>) -> Option<String> {
    (0..runs).find_map(|seed| {
        let mut random = SimRandom::new(seed);
        let at = 20 + random.below(120);
        let mut plan = plan(seed, Where::Disk, at);
        plan.errno = errno;
        // A checkpoint shortly before, so that deliveries are in progress when it is made.
        plan.meanwhile = (random.below(2) == 0).then(|| at - 1 - random.below(12));
        plan.bug = bug;
        let failure = run(plan).err()?;
        Some(format!("{plan}: {failure}"))
    })
}

fn must_be_found(bug: Bug, errno: Option<i32>) {
    let Some(failure) = found(Some(bug), RUNS, errno) else {
        panic!("{bug:?} was not found in {RUNS} runs");
    };
    tell(format_args!("planted {bug:?}: found by {failure}"));
}

#[test]
fn without_a_mistake_the_same_runs_are_clean() {
    for errno in [None, Some(libc::EDQUOT)] {
        assert_eq!(found(None, 100, errno), None);
    }
}

#[test]
fn a_flush_of_the_log_left_out_is_found() {
    must_be_found(Bug::LogWithoutFlush, None);
}

#[test]
fn an_answer_before_the_flush_of_the_log_is_found() {
    must_be_found(Bug::Store(Mistake::AnswerEarly), None);
}

#[test]
fn a_checkpoint_that_flushes_no_mailbox_is_found() {
    must_be_found(Bug::CheckpointWithoutFlush, None);
}

#[test]
fn a_checkpoint_that_covers_deliveries_in_flight_is_found() {
    must_be_found(Bug::Store(Mistake::CheckpointTooFar), None);
}

#[test]
fn a_refusal_that_the_log_is_not_told_of_is_found() {
    must_be_found(Bug::Store(Mistake::RefusalForgotten), Some(libc::EDQUOT));
}

#[test]
fn a_message_appended_before_the_log_knows_its_place_is_found() {
    must_be_found(Bug::Store(Mistake::PlaceForgotten), None);
}

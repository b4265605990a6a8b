//! Goal: a crash at any operation, of appending, rotating, recycling and of opening itself, loses
//! nothing that was reported durable and invents nothing. Method: a repeatable run on the
//! simulated disk is crashed at operation 0, 1, 2 ... until it ends without reaching the crash;
//! then random runs from seeds. A failure prints seed and operation; `run` replays them.

use super::super::medium::LogMedium as _;
use super::super::medium::Pacing;
use super::super::segments::Prepared;
use super::super::sim::{SimFault, SimMedium};
use super::support::{Bench, Oracle, small, some_records};
use crate::io::sim::SimRandom;
use std::io;

/// Mistakes to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    NoFlush,
    ReportedEarly,
}

/// Batches with truncations in between; ends early when the disk does.
fn workload(bench: &mut Bench, oracle: &mut Oracle, random: &mut SimRandom, bug: Bug, rounds: u64) {
    let mut ids = u128::from(random.draw()) << 32;
    for _ in 0..rounds {
        let records = some_records(random, &mut ids);
        if random.below(3) == 0 && bench.preallocate().is_err() {
            return;
        }
        let appended = bench.watched_batch(&records, &mut |sequence, record| {
            oracle.handed_over(sequence, record);
            if bug == Bug::ReportedEarly {
                oracle.reported_durable(sequence, record);
            }
        });
        let Ok((sequences, is_full)) = appended else {
            return;
        };
        for (sequence, record) in sequences.iter().zip(&records) {
            oracle.reported_durable(*sequence, record);
        }
        if is_full {
            let below = bench.next();
            if bench.checkpoint(below, oracle).is_err() {
                return;
            }
        }
        if random.below(5) == 0 {
            let below = bench.next().saturating_sub(random.below(6));
            if bench.checkpoint(below, oracle).is_err() {
                return;
            }
        }
    }
}

/// One life of a disk: opened, worked, crashed at `at`, opened again and again.
/// Answers whether the crash was reached.
fn run(seed: u64, at: u64, again_at: Option<u64>, bug: Bug) -> Result<bool, String> {
    let settings = small();
    let mut random = SimRandom::new(seed);
    let mut oracle = Oracle::default();
    let mut medium = SimMedium::new(seed);
    if bug == Bug::NoFlush {
        medium.forget_frames();
    }
    medium.set_fault(SimFault::Crash { at });
    if let Ok((mut bench, _)) = Bench::open(&medium, &settings) {
        workload(&mut bench, &mut oracle, &mut random, bug, 24);
    }
    let reached = medium.is_crashed();
    medium = medium.after_crash(random.draw());
    if let Some(again_at) = again_at {
        // The power goes while the log is opened, too, and a little later.
        medium.set_fault(SimFault::Crash { at: again_at });
        if let Ok((mut bench, found)) = Bench::open(&medium, &settings) {
            if let Err(failure) = oracle.check(&found)
                && !medium.is_crashed()
            {
                return Err(failure);
            }
            workload(&mut bench, &mut oracle, &mut random, bug, 3);
        }
        medium = medium.after_crash(random.draw());
    }
    for _ in 0..2 {
        medium.set_fault(SimFault::None);
        let (mut bench, found) = Bench::open(&medium, &settings)
            .map_err(|error| format!("the log does not open: {error}"))?;
        oracle.check(&found)?;
        workload(&mut bench, &mut oracle, &mut random, bug, 3);
        medium = medium.after_crash(random.draw());
    }
    Ok(reached)
}

fn must(seed: u64, at: u64, again_at: Option<u64>) -> bool {
    run(seed, at, again_at, Bug::None)
        .unwrap_or_else(|failure| panic!("seed {seed} at {at} again {again_at:?}: {failure}"))
}

#[test]
fn a_crash_at_every_operation_loses_nothing_reported_durable() {
    let mut points = 0;
    for seed in 0..6 {
        let mut at = 0;
        while must(seed, at, None) {
            at += 1;
        }
        points += at;
    }
    println!("{points} crash points");
    assert!(
        points > 600,
        "the run has become short: {points} crash points"
    );
}

#[test]
fn a_crash_at_every_operation_of_opening_again_loses_nothing() {
    let mut points = 0;
    for seed in 100..104 {
        for again_at in 0..60 {
            must(seed, 40 + seed % 60, Some(again_at));
            points += 1;
        }
    }
    assert_eq!(points, 240);
}

#[test]
fn random_crashes_from_seeds_lose_nothing_reported_durable() {
    let seeds: u64 = std::env::var("SIM_SEEDS").map_or(600, |text| text.parse().unwrap());
    for seed in 1000..1000 + seeds {
        let mut random = SimRandom::new(seed);
        must(seed, random.below(200), Some(random.below(80)));
    }
}

#[test]
fn a_failed_operation_stops_the_log_and_loses_nothing() {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
    for (seed, at) in (0..4).flat_map(|seed| (0..160).map(move |at| (seed, at))) {
        let kind = kinds[(at % 2) as usize];
        let settings = small();
        let mut random = SimRandom::new(seed);
        let mut oracle = Oracle::default();
        let medium = SimMedium::new(seed);
        medium.set_fault(SimFault::Error { at, kind });
        if let Ok((mut bench, _)) = Bench::open(&medium, &settings) {
            workload(&mut bench, &mut oracle, &mut random, Bug::None, 24);
        }
        medium.set_fault(SimFault::None);
        for step in ["reopened", "after a crash"] {
            let medium = if step == "reopened" {
                medium.clone()
            } else {
                medium.after_crash(at)
            };
            let (_, found) = Bench::open(&medium, &settings)
                .unwrap_or_else(|error| panic!("seed {seed} at {at} {step}: {error}"));
            oracle
                .check(&found)
                .unwrap_or_else(|failure| panic!("seed {seed} at {at} {step}: {failure}"));
        }
    }
}

#[test]
fn going_on_to_a_reserved_segment_changes_no_names() {
    let medium = SimMedium::new(1);
    let (bench, _) = Bench::open(&medium, &small()).unwrap();
    bench.segments().reserve().unwrap();
    let (names, before) = (medium.list().unwrap(), medium.operations());
    bench.segments().begin(1, 0).unwrap();
    assert_eq!(medium.list().unwrap(), names);
    assert!(medium.operations() - before <= 3, "header written, flushed");
}

fn prepare(bench: &Bench) -> Prepared {
    let prepared = bench
        .segments()
        .prepare(usize::MAX, false, &|| Pacing::Hurry);
    prepared.unwrap()
}

#[test]
fn a_new_spare_and_the_name_of_the_next_segment_are_made_durable_by_one_sync() {
    let medium = SimMedium::new(1);
    let (bench, _) = Bench::open(&medium, &small()).unwrap();
    let (names, before) = (medium.list().unwrap(), medium.operations());
    assert_eq!(prepare(&bench), Prepared::Made);
    // Create; open, write and flush the header; rename; sync the names, flush the zeros.
    assert_eq!(medium.operations() - before, 7);
    let now = medium.list().unwrap();
    let segments = |names: &[String]| names.iter().filter(|n| n.starts_with("segment-")).count();
    assert_eq!(segments(&now), segments(&names) + 1);
    assert_eq!(now.len(), names.len() + 1);
    for seed in 0..20 {
        assert_eq!(medium.after_crash(seed).list().unwrap(), now);
    }
}

#[test]
fn a_spare_that_cannot_be_flushed_for_want_of_space_goes_and_the_log_stays_as_large_as_it_is() {
    let medium = SimMedium::new(1);
    let (bench, _) = Bench::open(&medium, &small()).unwrap();
    let names = medium.list().unwrap();
    medium.set_fault(SimFault::Error {
        at: medium.operations() + 6,
        kind: io::ErrorKind::StorageFull,
    });
    assert_eq!(prepare(&bench), Prepared::DiskFull);
    medium.set_fault(SimFault::None);
    assert_eq!(medium.list().unwrap().len(), names.len());
    assert_eq!(prepare(&bench), Prepared::Made);
    assert_eq!(medium.list().unwrap().len(), names.len() + 1);
}

/// The oracle must find a planted mistake within these seeds.
fn is_found(bug: Bug) -> bool {
    (0..200).any(|seed| run(seed, 30 + seed % 90, None, bug).is_err())
}

#[test]
fn a_flush_left_out_is_found_by_the_oracle() {
    assert!(is_found(Bug::NoFlush));
}

#[test]
fn a_record_reported_durable_too_early_is_found_by_the_oracle() {
    assert!(is_found(Bug::ReportedEarly));
    assert!(
        !is_found(Bug::None),
        "the same runs without the mistake are clean"
    );
}

//! Power loss on real file systems under load loses nothing that was acknowledged.
//!
//! The short form of `tests/power-loss`: a few points for each file system. Where the machine has
//! no FUSE or no loop devices the tests say on standard error that they were skipped.

use std::time::Duration;

use mailstow_tests::power::Plan;
use mailstow_tests::power::rig::{FileSystem, skipped, unavailable};
use mailstow_tests::power::trial::{Outcome, Setup, run};
use mailstow_tests::scratch::machine_alone;

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("replay with SEED={seed}");
    seed
}

fn lose_power(file_system: FileSystem, setup: Setup, points: usize, lies: bool) -> Outcome {
    let mut plan = Plan::new(file_system, setup, points, seed());
    plan.load.time = Duration::from_millis(1000);
    plan.lies = lies;
    let outcome = run(&plan);
    println!("{}", outcome.notes.join("\n"));
    println!("{file_system} {setup:?}: {}", outcome.account);
    outcome
}

fn nothing_is_lost_on(file_system: FileSystem) {
    if let Some(why) = unavailable() {
        skipped("power loss", &why);
        return;
    }
    let _machine = machine_alone();
    for (setup, points) in [
        (Setup::SmallLog, 4),
        (Setup::Default, 2),
        (Setup::Direct, 2),
    ] {
        let outcome = lose_power(file_system, setup, points, false);
        assert!(outcome.is_clean(), "{setup:?}: {:#?}", outcome.notes);
        assert!(outcome.account.acknowledged > 0, "{setup:?}");
    }
}

#[test]
fn power_loss_on_ext4_loses_doubles_and_halves_nothing() {
    nothing_is_lost_on(FileSystem::Ext4);
}

#[test]
fn power_loss_on_xfs_loses_doubles_and_halves_nothing() {
    nothing_is_lost_on(FileSystem::Xfs);
}

#[test]
fn power_loss_on_btrfs_loses_doubles_and_halves_nothing() {
    nothing_is_lost_on(FileSystem::Btrfs);
}

#[test]
fn a_disk_that_lies_about_flushes_is_found_to_have_lost_mail() {
    if let Some(why) = unavailable() {
        skipped("power loss on a lying disk", &why);
        return;
    }
    let _machine = machine_alone();
    let outcome = lose_power(FileSystem::Ext4, Setup::Default, 4, true);
    assert!(outcome.account.lost > 0, "{:#?}", outcome.notes);
}

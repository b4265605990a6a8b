//! Goal: whatever the moment of a power loss or kill - in a delivery, a checkpoint, the recycling
//! of the log, or in recovery itself - every acknowledged message is in its mailbox, complete and
//! once, naming every recipient; no reader sees a partial message; every mbox parses; and a message
//! that its client must send again is there once in the end. Method: a repeatable run on the
//! simulated disk is crashed at operation 0, 1, 2 ... of disk and log until it ends without
//! reaching the crash; so is recovery; then random runs from seeds, some of them with a checkpoint
//! in the middle of a delivery. Each test prints how many points it tried. A failure prints the
//! command that replays it, for instance `SIM_SEED=7 SIM_OP=132 SIM_WHERE=disk cargo test -p
//! mailstow-engine sim_tests::replay`; `SIM_SEEDS` sets how many seeds are tried, `SIM_FROM` the
//! first of them.

mod content;
mod handed_over;
mod hung;
mod mistaken;
mod planted;
mod poisoned;
mod reader;
mod repeated;
mod running;
mod separate_file_systems;
mod source;
mod world;

use super::store::Store;
use crate::io::Credentials;
use crate::io::sim::{DiskFault, SimDisk, SimRandom};
use crate::log::sim::SimFault;
use crate::sync::OnceLock;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use world::{Bug, World};

/// Where the run is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Disk,
    Log,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    place: Where,
    /// The interruption of the work, by operation.
    at: u64,
    /// And of the recovery that follows.
    again: Option<(Where, u64)>,
    /// Not a crash, but an error of this code.
    errno: Option<i32>,
    /// A checkpoint is made before this operation of the disk.
    meanwhile: Option<u64>,
    bug: Option<Bug>,
}

impl fmt::Display for Plan {
    /// The variables that replay it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, .. } = self;
        write!(f, "SIM_SEED={seed} SIM_OP={at} SIM_WHERE={}", self.place)?;
        if let Some((place, at)) = self.again {
            write!(f, " SIM_AGAIN={place}:{at}")?;
        }
        if let Some(errno) = self.errno {
            write!(f, " SIM_ERRNO={errno}")?;
        }
        if let Some(at) = self.meanwhile {
            write!(f, " SIM_MEANWHILE={at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Log => "log",
        })
    }
}

/// The result of a run.
#[derive(Debug)]
struct Ran {
    reached: bool,
    reached_again: bool,
}

/// The store needs a directory for long messages; none of these is long.
fn state_directory() -> &'static PathBuf {
    static DIRECTORY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DIRECTORY.get_or_init(|| {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        // Runs take the identity of the mailboxes' owner.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = dir.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        (dir, path)
    });
    path
}

fn interrupt(world: &mut World, place: Where, at: u64, errno: Option<i32>) {
    if errno.is_some() && place == Where::Log {
        world.expect_trouble();
    }
    match (place, errno) {
        (Where::Disk, None) => world.disk.set_fault(DiskFault::Crash { at }),
        (Where::Disk, Some(errno)) => world.disk.set_fault(DiskFault::Error { at, errno }),
        (Where::Log, None) => world.medium.set_fault(SimFault::Crash { at }),
        (Where::Log, Some(errno)) => {
            let kind = io::Error::from_raw_os_error(errno).kind();
            world.medium.set_fault(SimFault::Error { at, kind });
        }
    }
}

/// Deliveries, checkpoints, disconnected and patient clients.
fn work(
    world: &mut World,
    store: &Store<SimDisk>,
    credentials: &RefCell<Credentials>,
    random: &mut SimRandom,
    rounds: u64,
) {
    for _ in 0..rounds {
        world.preallocate_perhaps();
        match random.below(8) {
            0 | 1 => store.maintain(),
            2 => world.send_again(store, credentials, random),
            _ => world.send_some(store, credentials, random),
        }
        world.settle_some(store, random);
        if world.is_crashed() {
            return;
        }
        if store.log_failure().is_some() && store.reopen().is_err() && world.is_crashed() {
            return;
        }
    }
}

fn run(plan: Plan) -> Result<Ran, String> {
    // A writing thread keeps the identity of a mailbox owner.
    std::thread::scope(|scope| {
        let life = scope.spawn(|| live(plan)).join();
        life.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn live(plan: Plan) -> Result<Ran, String> {
    let mut random = SimRandom::new(plan.seed);
    let mut world = World::new(plan.seed, plan.bug, state_directory());
    let credentials = RefCell::new(Credentials::of_this_thread());
    if plan.errno.is_none() {
        // Batches begin while earlier ones are not finished, except with a failing operation: a log
        // that is out of service may then refuse a recipient although it has the message, and
        // recover it, which these runs do not expect.
        world.settings.store.batch = 2;
    }
    interrupt(&mut world, plan.place, plan.at, plan.errno);
    match world.open() {
        Ok(Some(store)) => {
            if let Some(at) = plan.meanwhile {
                world.disk.meanwhile(at, store.checkpointer());
            }
            work(&mut world, &store, &credentials, &mut random, 12);
        }
        Ok(None) => {}
        // With a failing operation, the store may stay closed.
        Err(failure) if plan.errno.is_none() => return Err(failure),
        Err(_) => {}
    }
    let reached = match plan.place {
        Where::Disk => world.disk.operations() > plan.at,
        Where::Log => world.medium.operations() > plan.at,
    };
    if plan.errno.is_none() && !world.is_crashed() {
        world.check()?;
    }
    let mut reached_again = false;
    fail(&mut world, &mut random);
    if let Some((place, at)) = plan.again {
        let before = match place {
            Where::Disk => world.disk.operations(),
            Where::Log => world.medium.operations(),
        };
        interrupt(&mut world, place, before + at, None);
        if let Some(store) = world.open()? {
            world.check()?;
            work(&mut world, &store, &credentials, &mut random, 2);
        }
        reached_again = world.is_crashed();
        fail(&mut world, &mut random);
    }
    for _ in 0..2 {
        let Some(store) = world.open()? else {
            return Err("the power went without a reason".to_owned());
        };
        world.check()?;
        world.send_rest(&store, &credentials)?;
        world.check()?;
        work(&mut world, &store, &credentials, &mut random, 3);
        drop(store);
        fail(&mut world, &mut random);
    }
    Ok(Ran {
        reached,
        reached_again,
    })
}

/// Loses power, unless it is lost already; or kills the process.
fn fail(world: &mut World, random: &mut SimRandom) {
    if !world.is_crashed() && random.below(3) == 0 {
        world.kill();
    } else {
        world.power_failure(random);
    }
}

fn must(plan: Plan) -> Ran {
    run(plan).unwrap_or_else(|failure| panic!("{failure}\nreplay: {plan} ({plan:?})"))
}

fn plan(seed: u64, place: Where, at: u64) -> Plan {
    Plan {
        seed,
        place,
        at,
        again: None,
        errno: None,
        meanwhile: None,
        bug: None,
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name}={text}");
    value
}

impl std::str::FromStr for Where {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "disk" => Ok(Self::Disk),
            "log" => Ok(Self::Log),
            _ => Err(()),
        }
    }
}

/// Printed even when the test passes: a captured line would not be.
fn tell(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "simulated disk: {text}");
}

#[test]
fn replay_of_one_run_by_its_seed_and_operation() {
    let (Some(seed), Some(at)) = (variable("SIM_SEED"), variable("SIM_OP")) else {
        return;
    };
    let mut plan = plan(seed, variable("SIM_WHERE").unwrap_or(Where::Disk), at);
    plan.again = variable("SIM_AGAIN").map(|text: String| {
        let (place, at) = text.split_once(':').unwrap();
        (place.parse().unwrap(), at.parse().unwrap())
    });
    plan.errno = variable("SIM_ERRNO");
    plan.meanwhile = variable("SIM_MEANWHILE");
    must(plan);
}

#[test]
fn a_crash_at_every_operation_loses_doubles_and_tears_nothing() {
    let mut points = [0, 0];
    for (seed, place) in [
        (1, Where::Disk),
        (2, Where::Disk),
        (3, Where::Log),
        (4, Where::Log),
    ] {
        let count = match place {
            Where::Disk => &mut points[0],
            Where::Log => &mut points[1],
        };
        for at in 0.. {
            if !must(plan(seed, place, at)).reached {
                break;
            }
            *count += 1;
        }
    }
    let [disk, log] = points;
    tell(format_args!(
        "{disk} crash points in the mailboxes, {log} in the log with its recycling, in \
         deliveries and checkpoints"
    ));
    assert!(disk + log > 300, "the runs have become short: {points:?}");
}

#[test]
fn a_crash_right_after_a_checkpoint_in_the_middle_of_a_delivery_loses_nothing() {
    let mut points = 0;
    for seed in [21, 22, 23] {
        for at in 0.. {
            let mut plan = plan(seed, Where::Disk, at);
            // The operations of the checkpoint come in between.
            plan.meanwhile = Some(at.saturating_sub(2 + at % 5));
            if !must(plan).reached {
                break;
            }
            points += 1;
        }
    }
    tell(format_args!(
        "{points} crash points behind a checkpoint in the middle of a delivery"
    ));
    assert!(points > 150, "the runs have become short: {points} points");
}

#[test]
fn a_crash_at_every_operation_of_recovery_loses_doubles_and_tears_nothing() {
    let mut points = 0;
    for (seed, place) in [(11, Where::Disk), (12, Where::Log), (13, Where::Disk)] {
        for at in 0.. {
            let mut plan = plan(seed, Where::Disk, 60 + seed);
            plan.again = Some((place, at));
            if !must(plan).reached_again {
                break;
            }
            points += 1;
        }
    }
    tell(format_args!("{points} crash points in recovery"));
    assert!(points > 60, "recovery has become short: {points} points");
}

#[test]
fn random_crashes_from_seeds_lose_double_and_tear_nothing() {
    let count: u64 = variable("SIM_SEEDS").unwrap_or(2000);
    let from: u64 = variable("SIM_FROM").unwrap_or(10_000);
    for seed in from..from + count {
        let mut random = SimRandom::new(seed ^ 0x5eed);
        let mut place = || match random.below(2) {
            0 => Where::Disk,
            _ => Where::Log,
        };
        let (first, second) = (place(), place());
        let mut plan = plan(seed, first, random.below(160));
        plan.again = Some((second, random.below(60)));
        plan.meanwhile = (random.below(2) == 0).then(|| random.below(160));
        must(plan);
    }
    let last = from + count - 1;
    tell(format_args!(
        "{count} random runs, seeds {from} to {last}, each crashed in its work and in its recovery"
    ));
}

#[test]
fn a_failing_operation_followed_by_a_crash_loses_and_tears_nothing() {
    let codes = [libc::EIO, libc::ENOSPC, libc::EDQUOT];
    let mut points = 0;
    for seed in 500..506 {
        for at in 0..120 {
            for place in [Where::Disk, Where::Log] {
                let mut plan = plan(seed, place, at);
                plan.errno = Some(codes[(at % 3) as usize]);
                must(plan);
                points += 1;
            }
        }
    }
    tell(format_args!(
        "{points} failing operations, each followed by a crash"
    ));
}

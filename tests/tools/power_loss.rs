//! `tests/power-loss`: power loss on real file systems, under load, as often as wanted.
//!
//! Imports the support library only; it does the work, this asks for it and adds up.

use std::process::ExitCode;

use mailstow_tests::power::Plan;
use mailstow_tests::power::rig::{FileSystem, unavailable};
use mailstow_tests::power::trial::{Outcome, Setup, run};

const USAGE: &str = "\
usage: tests/power-loss [--fs ext4|xfs|btrfs|all] [--points N] [--seed N] [--lie] [--verbose]
  --fs NAME     file system to lose power on (all)
  --points N    points at which the power goes, for each file system (200)
  --seed N      repeat the choices of an earlier run
  --setup NAME  only small, default, bounded or direct; else they take turns
  --lie         the disk reports flushes it did not do; then messages must be lost
  --verbose     say what each load was
MAILSTOW=PATH names the binary to test; without it the one of this checkout is built.
Exit status: 0 when nothing is lost, doubled or partial (with --lie: when something is lost).";

/// Points taken from one load.
const POINTS_OF_A_LOAD: usize = 20;

struct Options {
    file_systems: Vec<FileSystem>,
    points: usize,
    seed: u64,
    lies: bool,
    verbose: bool,
    setups: Vec<Setup>,
}

/// A log on which most is asked of, then others in turns.
const SETUPS: [Setup; 5] = [
    Setup::SmallLog,
    Setup::Default,
    Setup::Bounded,
    Setup::SmallLog,
    Setup::Direct,
];

fn options() -> Result<Options, String> {
    let mut options = Options {
        file_systems: FileSystem::ALL.to_vec(),
        points: 200,
        seed: fastrand::u64(..),
        lies: false,
        verbose: false,
        setups: SETUPS.to_vec(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = || format!("{argument} wants a value");
            arguments.next().ok_or_else(missing)
        };
        let number = |text: String| {
            let wrong = |e| format!("{argument} {text}: {e}");
            text.parse::<u64>().map_err(wrong)
        };
        match argument.as_str() {
            "--fs" => {
                let name = value()?;
                let all = FileSystem::ALL.into_iter();
                let named: Vec<_> = all.filter(|f| name == "all" || name == f.name()).collect();
                if named.is_empty() {
                    return Err(format!("--fs {name}: use ext4, xfs, btrfs or all"));
                }
                options.file_systems = named;
            }
            "--points" => {
                let points = number(value()?)?;
                options.points = usize::try_from(points).map_err(|e| e.to_string())?;
            }
            "--seed" => options.seed = number(value()?)?,
            "--setup" => {
                options.setups = match value()?.as_str() {
                    "small" => vec![Setup::SmallLog],
                    "default" => vec![Setup::Default],
                    "bounded" => vec![Setup::Bounded],
                    "direct" => vec![Setup::Direct],
                    name => return Err(format!("--setup {name}: see --help")),
                };
            }
            "--lie" => options.lies = true,
            "--verbose" => options.verbose = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn on(file_system: FileSystem, options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut left = options.points;
    let mut setups = options.setups.iter().copied().cycle();
    let mut seed = options.seed;
    while left > 0 {
        let points = left.min(POINTS_OF_A_LOAD);
        left -= points;
        let setup = setups.next().unwrap_or(Setup::Default);
        let mut plan = Plan::new(file_system, setup, points, seed);
        plan.lies = options.lies;
        seed = seed.wrapping_add(1);
        let of_load = run(&plan);
        if options.verbose || !of_load.is_clean() {
            for note in &of_load.notes {
                println!("  {note}");
            }
            println!("  {points} points: {}", of_load.account);
        }
        outcome.add(of_load);
    }
    outcome
}

fn report(name: &str, points: usize, outcome: &Outcome) {
    println!("{name}: {points} points: {}", outcome.account);
    let Outcome {
        account,
        unmountable,
        unrecovered,
        twice,
        ..
    } = outcome;
    println!(
        "{name}: {} whole though not yet acknowledged; {} cut short at the end of an mbox, not \
         acknowledged (direct only); power gone again in recovery {twice} times; \
         {unmountable} file systems not mountable, {unrecovered} servers not started",
        account.unannounced, account.torn_tails
    );
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("power-loss: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(why) = unavailable() {
        eprintln!("power-loss: {why}");
        return ExitCode::from(2);
    }
    println!("seed {}", options.seed);
    let mut total = Outcome::default();
    for file_system in &options.file_systems {
        let outcome = on(*file_system, &options);
        report(file_system.name(), options.points, &outcome);
        total.add(outcome);
    }
    let points = options.points * options.file_systems.len();
    report("total", points, &total);
    let as_wanted = match options.lies {
        true => total.account.lost > 0,
        false => total.is_clean(),
    };
    match as_wanted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

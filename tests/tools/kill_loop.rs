//! `tests/kill-loop`: SIGKILL at random moments under load, as often as wanted.
//!
//! Imports the support library only; it does the work, this asks for it and adds up.

use std::process::ExitCode;

use mailstow_tests::power::account::Account;
use mailstow_tests::power::kill;
use mailstow_tests::power::trial::Setup;

const USAGE: &str = "usage: tests/kill-loop [--times N] [--seed N]
Kills a server under load N times (200), restarts it, and accounts for every message.
MAILSTOW=PATH names the binary to test; without it the one of this checkout is built.
Exit status: 0 when nothing is lost, doubled or partial.";

fn options() -> Option<(usize, u64)> {
    let (mut times, mut seed) = (200, fastrand::u64(..));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?;
        match argument.as_str() {
            "--times" => times = value.parse().ok()?,
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((times, seed))
}

fn main() -> ExitCode {
    let Some((times, seed)) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("seed {seed}");
    let setups = [Setup::Default, Setup::SmallLog, Setup::Bounded];
    let mut all = Account::default();
    for (number, setup) in setups.into_iter().enumerate() {
        let share = times / setups.len() + usize::from(number < times % setups.len());
        let (account, complaints) = kill::run(setup, share, seed.wrapping_add(number as u64));
        for complaint in complaints {
            println!("  {setup:?}: {complaint}");
        }
        println!("{setup:?}: {share} kills: {account}");
        all += account;
    }
    println!("total: {times} kills: {all}");
    match all.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

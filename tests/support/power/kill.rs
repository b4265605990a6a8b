//! SIGKILL at a random moment under load, again and again, every acknowledged message accounted
//! for after each restart.

use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;

use super::account::Account;
use super::load::{Acknowledged, Load, MAILBOXES};
use super::rig::Places;
use super::trial::Setup;
use crate::Scratch;

/// After so many kills the mailboxes begin anew, so that looking at them stays quick.
const KILLS_PER_SITE: usize = 10;

/// Kills `times` times; what came of it, and what went wrong in words. A kill may cut short a
/// message at the end of an mbox only in [`Setup::Direct`].
pub fn run(setup: Setup, times: usize, seed: u64) -> (Account, Vec<String>) {
    let mut all = Account::default();
    let mut complaints = Vec::new();
    let mut random = Rng::with_seed(seed);
    let mut left = times;
    while left > 0 {
        let here = left.min(KILLS_PER_SITE);
        left -= here;
        all += on_one_site(setup, here, &mut random, &mut complaints);
    }
    (all, complaints)
}

fn on_one_site(
    setup: Setup,
    times: usize,
    random: &mut Rng,
    complaints: &mut Vec<String>,
) -> Account {
    let scratch = Scratch::new("kill");
    let places = Places::new(&scratch);
    places.make_directories();
    places.configure(MAILBOXES, setup.settings());
    let mut told: Vec<Acknowledged> = Vec::new();
    let mut account = Account::default();
    for round in 0..times {
        let mut server = match places.serve() {
            Ok(server) => server,
            Err(error) => {
                complaints.push(format!("the server does not start: {error}"));
                account.lost += told.len();
                return account;
            }
        };
        let load = Load {
            time: Duration::from_secs(60),
            bytes_max: 64 << 20,
            may_break: true,
            round,
        };
        let life = Duration::from_millis(random.u64(20..900));
        let (seed, address) = (random.u64(..), places.address());
        let of_round = std::thread::scope(|scope| {
            let load = scope.spawn(|| load.send(&address, || round, seed));
            std::thread::sleep(life);
            server.signal(Signal::SIGKILL);
            load.join().expect("no client panicked")
        });
        server.kill();
        told.extend(of_round.acknowledged);
        let mut server = match places.serve() {
            Ok(server) => server,
            Err(error) => {
                complaints.push(format!("the server does not recover: {error}"));
                account.lost += told.len();
                return account;
            }
        };
        let may_tear = setup == Setup::Direct;
        let mut found = Account::of(&places.base(), told.iter(), may_tear, complaints);
        server.kill();
        // Of earlier rounds it was looked at before.
        found.acknowledged = told.iter().filter(|ack| ack.at == round).count();
        account += found;
    }
    account
}

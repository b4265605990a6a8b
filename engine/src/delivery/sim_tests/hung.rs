//! Goal: a file system of mailboxes that hangs, is dead, full or over quota affects only its own
//! mail. All other mail is accepted at once, every acknowledged message is in its mailbox once in
//! the end, and a message that a reader has removed or moved is not restored unless there was a
//! crash. Method: random runs from seeds on a simulated machine with a disk for each of three file
//! systems. An operation on one of them is delayed while the writer is given up, others deliver and
//! a checkpoint is made; then it succeeds, fails, or the power is lost. `SIM_SEEDS` sets how many
//! seeds are tried, `SIM_FROM` the first of them.

use super::content::content;
use super::world::{HandedOver, Known, MAILBOXES, To, USERS, World, hand_over};
use super::{fail, state_directory, tell, variable};
use crate::delivery::{LogState, Store};
use crate::io::Credentials;
use crate::io::sim::{DeviceFault, DiskFault, SimDisk, SimRandom};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// The file systems beside that of the base: each has one mailbox.
const MBOX: u64 = 2;
const MAILDIR: u64 = 3;
/// Mailboxes on the file system of the base.
const WELL: [usize; 3] = [0, 2, 4];
const ROUNDS: u64 = 16;
/// Half of the log: its thread makes a checkpoint then.
const HALF_FULL: u64 = 160 << 10;

/// What happened in one run.
#[derive(Debug, Default)]
struct Met {
    held: u64,
    given_up: u64,
    removed: u64,
}

/// A message to other file systems that is sent while an operation is delayed.
struct Others {
    index: usize,
    sent: Arc<Mutex<Option<HandedOver>>>,
}

impl World {
    fn mount_others(&mut self) {
        self.disk.mount_on("base/dir", MBOX);
        self.disk.make_directory_durably("base/bob");
        self.disk.mount_on("base/bob", MAILDIR);
        // A step that takes any time is given up at the next check.
        self.settings.store.mailbox_timeout = Duration::ZERO;
        self.hangs = true;
    }

    /// Makes a file system fail, or work again.
    fn trouble(&self, device: u64, random: &mut SimRandom) {
        let (fault, flush) = match random.below(6) {
            0 => (Some(DeviceFault::Dead), None),
            1 => (Some(DeviceFault::Full), None),
            2 => (None, Some(libc::EDQUOT)),
            _ => (None, None),
        };
        self.disk.fail_on(device, fault);
        self.disk.fail_flushes(device, flush);
    }

    fn heal(&self) {
        for device in [MBOX, MAILDIR] {
            self.disk.fail_on(device, None);
            self.disk.fail_flushes(device, None);
        }
    }

    /// Delays the next operation on a file system, while others continue.
    fn hold(
        &mut self,
        store: &Arc<Store<SimDisk>>,
        random: &mut SimRandom,
        given_up: &Arc<AtomicU64>,
    ) -> Others {
        let device = [MBOX, MAILDIR][usize::from(random.below(2) == 0)];
        let content = content(self.sent.len(), random);
        let known = |mailbox: usize| ((mailbox, usize::from(mailbox > 0)), Known::default());
        let to: BTreeMap<To, Known> = WELL.into_iter().map(known).collect();
        debug_assert!(to.keys().all(|(_, user)| (*user as u64) < USERS));
        let all: Vec<To> = to.keys().copied().collect();
        let index = self.write_down(content.clone(), to);
        let sent = Arc::new(Mutex::new(None));
        let (weak, disk, owner) = (Arc::downgrade(store), self.disk.clone(), self.owner);
        let (slot, given_up) = (Arc::clone(&sent), Arc::clone(given_up));
        let (maintains, end) = (random.below(2) == 0, random.below(6));
        self.disk.hold_on(device, move || {
            let Some(store) = weak.upgrade() else { return };
            store.watch();
            let hung = store.health().file_systems.len() as u64;
            given_up.fetch_add(u64::from(hung > 0), Ordering::Relaxed);
            // The thread has the identity of the mailboxes' owner by now.
            let credentials = RefCell::new(Credentials::of_this_thread());
            let handed_over = hand_over(&store, &disk, (&content, &all), owner);
            while handed_over.1.lock().len() < all.len() && !disk.is_crashed() {
                store.step(&credentials);
            }
            *slot.lock() = Some(handed_over);
            if maintains {
                store.maintain();
            }
            match end {
                0 => disk.fail_on(device, Some(DeviceFault::Dead)),
                1 => disk.set_fault(DiskFault::Crash {
                    at: disk.operations(),
                }),
                _ => {}
            }
        });
        Others { index, sent }
    }

    /// Reads the replies of others while the operation was delayed; or sends their message now, if
    /// no operation was delayed. Returns true if one was.
    fn learn_others(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        Others { index, sent }: Others,
    ) -> Result<bool, String> {
        let was_held = !self.disk.hold_nothing();
        let all: Vec<To> = self.sent[index].to.keys().copied().collect();
        let handed_over = sent.lock().take();
        let (tickets, outcomes) = match handed_over {
            Some(handed_over) => handed_over,
            None if self.is_crashed() => return Ok(was_held),
            None => {
                let message = (&self.sent[index].content[..], &all[..]);
                let handed_over = hand_over(store, &self.disk, message, self.owner);
                while handed_over.1.lock().len() < all.len() && !self.is_crashed() {
                    store.step(credentials);
                }
                handed_over
            }
        };
        let outcomes = outcomes.lock().clone();
        self.sent[index].tickets = tickets;
        self.sent[index].last = all;
        self.learn(index, &outcomes);
        match outcomes.iter().find(|(_, told)| !**told) {
            Some((to, _)) => Err(format!(
                "message {index} for {} is refused, whose file system is well",
                MAILBOXES[to.0]
            )),
            None => Ok(was_held),
        }
    }
}

/// With `is_mistaken` the store believes that a file system whose flush fails was mounted again,
/// and recovers it as after a crash.
fn live(seed: u64, is_mistaken: bool) -> Result<Met, String> {
    let mut random = SimRandom::new(seed);
    let mut world = World::new(seed, None, state_directory());
    world.mount_others();
    if random.below(2) == 0 {
        // Batches begin while earlier ones are not finished.
        world.settings.store.batch = 2;
    }
    let credentials = RefCell::new(Credentials::of_this_thread());
    let (mut met, given_up) = (Met::default(), Arc::new(AtomicU64::new(0)));
    let store = world.open()?.ok_or("the power went without a reason")?;
    let store = Arc::new(store);
    for _ in 0..ROUNDS {
        if random.below(3) == 0 {
            let device = [MBOX, MAILDIR][usize::from(random.below(2) == 0)];
            world.trouble(device, &mut random);
            if is_mistaken {
                world.disk.claim_remount(device);
            }
        }
        if matches!(store.health().log, LogState::InService { bytes_used, .. }
            if bytes_used > HALF_FULL)
        {
            store.maintain();
        }
        let others = (random.below(2) == 0).then(|| world.hold(&store, &mut random, &given_up));
        world.preallocate_perhaps();
        match random.below(6) {
            0 | 1 => store.maintain(),
            2 => world.send_again(&store, &credentials, &mut random),
            _ => world.send_some(&store, &credentials, &mut random),
        }
        if let Some(others) = others {
            met.held += u64::from(world.learn_others(&store, &credentials, others)?);
        }
        if world.is_crashed() {
            break;
        }
        if let Some(failure) = store.log_failure() {
            return Err(format!("the log is out of service: {failure}"));
        }
        world.check()?;
        world.read_some(&mut random)?;
        world.settle_some(&store, &mut random);
    }
    met.given_up = given_up.load(Ordering::Relaxed);
    let known = world.sent.iter().flat_map(|sent| sent.to.values());
    met.removed = known.map(|known| u64::from(known.removed)).sum();
    if !world.is_crashed() {
        world.heal();
        for _ in 0..4 {
            store.maintain();
        }
        let health = store.health();
        if health.waiting > 0 || !health.file_systems.is_empty() {
            return Err(format!("not all is well in the end: {health:?}"));
        }
        world.check()?;
        world.send_rest(&store, &credentials)?;
        world.check()?;
    }
    drop(store);
    fail(&mut world, &mut random);
    world.heal();
    let store = world.open()?.ok_or("the power went without a reason")?;
    world.check()?;
    world.send_rest(&store, &credentials)?;
    world.check()?;
    Ok(met)
}

fn run(seed: u64, is_mistaken: bool) -> Result<Met, String> {
    // A writing thread keeps the identity of a mailbox owner.
    std::thread::scope(|scope| {
        let life = scope.spawn(|| live(seed, is_mistaken)).join();
        life.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn file_systems_that_hang_or_fail_delay_no_others_and_bring_nothing_back() {
    let count: u64 = variable("SIM_SEEDS").unwrap_or(400);
    let from: u64 = variable("SIM_FROM").unwrap_or(50_000);
    let mut met = Met::default();
    for seed in from..from + count {
        let one = run(seed, false)
            .unwrap_or_else(|failure| panic!("{failure}\nreplay: SIM_FROM={seed} SIM_SEEDS=1"));
        met.held += one.held;
        met.given_up += one.given_up;
        met.removed += one.removed;
    }
    tell(format_args!(
        "{count} random runs with {} operations that were held, {} of them in writers that were \
         given up, and {} messages that readers removed",
        met.held, met.given_up, met.removed
    ));
    // A replay has one run.
    let is_replay = count < 100;
    assert!(
        is_replay || met.held > count && met.given_up > count / 4 && met.removed > count,
        "the runs have become dull: {met:?}"
    );
}

#[test]
fn mail_that_comes_back_without_a_crash_is_found() {
    let found = (0..300).find_map(|seed| Some((seed, run(seed, true).err()?)));
    let (seed, failure) = found.expect("the mistake is found");
    tell(format_args!(
        "planted a recovery without a crash: found by seed {seed}: {failure}"
    ));
}

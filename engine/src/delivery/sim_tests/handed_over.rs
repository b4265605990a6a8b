//! Goal: whatever the moment of a crash, a client that repeats a message until all destinations of
//! its recipient have it reaches each of them. No destination that reported success to the client
//! takes the message again, none is left out, and the mailbox has one copy. Without a crash, no
//! destination takes it twice. A destination that took it just before the crash may take it again:
//! that is the limit. Method: as in the other tests of this module, with transports outside of the
//! simulated machine that record what they take, at once, later or only when asked again.

use super::super::receipt::Receipt;
use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::mistaken::Mistake;
use super::world::{Bug, World, recipient, sender};
use super::{Where, interrupt, state_directory, tell};
use crate::clock;
use crate::config::Compress;
use crate::io::Credentials;
use crate::io::sim::{SimDisk, SimRandom};
use crate::status::Status;
use crate::sync::{Arc, Mutex};
use crate::target::{Format, MailboxTarget, Target};
use crate::transport::{Done, Transport, TransportRequest, Transports};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The destinations of each message: the first is a mailbox.
const DESTINATIONS: [&str; 3] = ["ann/", "command", "remote"];

/// A message and one of its destinations.
type Place = (usize, usize);

/// The state of a destination.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The client read that it took the message.
    told: bool,
    /// The run of the machine in which it last took the message.
    taken_in: Option<u32>,
}

/// State that survives a crash: transports, and the replies that clients read.
#[derive(Debug)]
struct Outside(Mutex<Notes>);

#[derive(Debug)]
struct Notes {
    disk: SimDisk,
    /// Counts the runs of the machine.
    life: u32,
    random: SimRandom,
    known: BTreeMap<Place, Known>,
    /// Took the message, and have not answered yet.
    waiting: Vec<(Done, usize)>,
    failures: Vec<String>,
}

fn number_of(content: &[u8]) -> usize {
    let text = std::str::from_utf8(content).unwrap();
    let (_, rest) = text.split_once('<').unwrap();
    rest.split_once('>').unwrap().0.parse().unwrap()
}

impl Notes {
    /// A destination takes a message.
    fn takes(&mut self, place: Place) {
        let life = self.life;
        let known = self.known.entry(place).or_default();
        if known.told || known.taken_in == Some(life) {
            let failure = format!("{place:?} takes its message again in run {life}: {known:?}");
            self.failures.push(failure);
        }
        known.taken_in = Some(life);
    }
}

impl Transport for Outside {
    fn deliver(&self, request: TransportRequest) {
        let message = number_of(request.mail.message.in_memory().unwrap());
        let name = request.target.transport.as_str();
        let to = DESTINATIONS.iter().position(|known| *known == name);
        let place = (message, to.unwrap());
        for one in &request.recipients {
            let mut notes = self.0.lock();
            if notes.disk.is_crashed() || !request.done.begin(one.index) {
                continue;
            }
            let status = match notes.random.below(4) {
                0 => Status::system("later"),
                1 => {
                    notes.takes(place);
                    notes.waiting.push((request.done.clone(), one.index));
                    continue;
                }
                _ => {
                    notes.takes(place);
                    Status::ok("taken")
                }
            };
            drop(notes);
            request.done.answer(one.index, status);
        }
    }
}

/// A machine, its transports, and the progress of each client.
struct Site {
    world: World,
    outside: Arc<Outside>,
    transports: Transports,
    /// For each message: its client has read that all destinations took it.
    is_done: Vec<bool>,
}

impl Site {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut world = World::new(seed, bug, state_directory());
        // Copies are distinguished by their text.
        world.settings.store.compress = Compress::None;
        let outside = Arc::new(Outside(Mutex::new(Notes {
            disk: world.disk.clone(),
            life: 0,
            random: SimRandom::new(seed ^ 0x0dd),
            known: BTreeMap::new(),
            waiting: Vec::new(),
            failures: Vec::new(),
        })));
        let transports = Transports::default();
        for name in DESTINATIONS.iter().skip(1) {
            let outside: Arc<dyn Transport> = outside.clone();
            transports.register((*name).to_owned(), outside);
        }
        Self {
            world,
            outside,
            transports,
            is_done: Vec::new(),
        }
    }

    /// Transports answer.
    fn answer(&self) {
        let waiting = std::mem::take(&mut self.outside.0.lock().waiting);
        for (done, index) in waiting {
            done.answer(index, Status::ok("taken, at last"));
        }
    }

    fn submit(
        &self,
        store: &Store<SimDisk>,
        number: usize,
    ) -> (Receipt, Arc<Mutex<BTreeMap<usize, bool>>>) {
        let mut message = store.new_message();
        let content = format!("Message-Id: <{number}>\n\ntext\n");
        message.write(content.as_bytes()).unwrap();
        let mail = Arc::new(Mail {
            reverse_path: sender(),
            queue_id: Some(format!("4F{number}")),
            client: Default::default(),
            dsn: Default::default(),
            message: message.finish().unwrap(),
        });
        let (uid, gid) = self.world.owner;
        let to = DESTINATIONS.iter().map(|name| {
            let target = match name.ends_with('/') {
                true => MailboxTarget::new(*name, Format::Maildir, uid, gid)
                    .unwrap()
                    .into(),
                false => Target::transport(*name, "x"),
            };
            (recipient((0, 1)), target)
        });
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let (report, outside) = (Arc::clone(&heard), Arc::clone(&self.outside));
        let on_outcome = move |at: usize, outcome: Outcome| {
            let mut notes = outside.0.lock();
            // Answers after a power loss reach no client.
            if !notes.disk.is_crashed() {
                let is_success = outcome.status.is_success();
                notes.known.entry((number, at)).or_default().told |= is_success;
                assert!(report.lock().insert(at, is_success).is_none());
            }
        };
        let deadline = clock::now() + std::time::Duration::from_secs(60);
        let with = (&self.transports, deadline);
        let receipt = store.dispatch(mail, to.collect(), with, Arc::new(on_outcome));
        (receipt, heard)
    }

    /// A client sends a message, and reads the replies or is lost.
    fn attempt(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        number: usize,
        random: &mut SimRandom,
    ) {
        let (mut receipt, heard) = self.submit(store, number);
        if random.below(3) == 0 {
            store.maintain();
        }
        let is_early = random.below(2) == 0;
        if is_early {
            self.answer();
        }
        while !heard.lock().contains_key(&0) && !self.world.is_crashed() {
            store.step(credentials);
        }
        if random.below(4) == 0 {
            // The connection is lost, and only then a transport answers.
            drop(receipt);
            return self.answer();
        }
        self.answer();
        let heard = heard.lock().clone();
        if self.world.is_crashed() || random.below(3) == 0 {
            return drop(receipt);
        }
        let took = |index: &usize| heard.get(index) == Some(&true);
        let taken = (0..DESTINATIONS.len()).filter(took);
        let taken: Vec<usize> = taken.collect();
        let is_done = taken.len() == DESTINATIONS.len();
        if !is_done {
            taken.into_iter().for_each(|index| receipt.doubt(index));
        }
        receipt.confirm();
        if let Some(done) = self.is_done.get_mut(number) {
            *done = is_done;
        }
    }

    /// The power fails, or the process is killed; then the machine starts again.
    fn restart(&mut self, random: &mut SimRandom) {
        match !self.world.is_crashed() && random.below(3) == 0 {
            true => self.world.kill(),
            false => self.world.power_failure(random),
        }
        let mut notes = self.outside.0.lock();
        notes.disk = self.world.disk.clone();
        notes.life += 1;
        let lost = std::mem::take(&mut notes.waiting);
        drop(notes);
        drop(lost);
    }

    fn copies(&self, number: usize) -> usize {
        let directory = "base/ann";
        let names = |sub: &str| self.world.disk.names(&format!("{directory}/{sub}"));
        let is_it = |name: &String| {
            let path = format!("{directory}/new/{name}");
            let content = self.world.disk.content(&path).unwrap();
            let text = String::from_utf8(content).unwrap();
            text.contains(&format!("Message-Id: <{number}>"))
        };
        names("new").iter().filter(|name| is_it(name)).count()
    }

    /// Checks the destinations of messages whose clients are done.
    fn check(&self) -> Result<(), String> {
        let notes = self.outside.0.lock();
        if let Some(failure) = notes.failures.first() {
            return Err(failure.clone());
        }
        for number in (0..self.is_done.len()).filter(|number| self.is_done[*number]) {
            for to in 1..DESTINATIONS.len() {
                let known = notes.known.get(&(number, to));
                if known.is_none_or(|known| known.taken_in.is_none()) {
                    return Err(format!("message {number} never came to {to}"));
                }
            }
            let copies = self.copies(number);
            if copies != 1 {
                return Err(format!("message {number} has {copies} copies"));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    place: Where,
    at: u64,
    errno: Option<i32>,
    bug: Option<Bug>,
}

/// Runs a plan; returns whether the interruption was reached.
fn live(plan: Plan) -> Result<bool, String> {
    let Plan {
        seed, place, at, ..
    } = plan;
    let mut random = SimRandom::new(seed);
    let mut site = Site::new(seed, plan.bug);
    let credentials = RefCell::new(Credentials::of_this_thread());
    interrupt(&mut site.world, place, at, plan.errno);
    // With a failing operation, the store may stay closed.
    let store = match site.world.open() {
        Ok(store) => store,
        Err(_) if plan.errno.is_some() => None,
        Err(failure) => return Err(failure),
    };
    if let Some(store) = store {
        for _ in 0..10 {
            let is_new = site.is_done.is_empty() || random.below(2) == 0;
            if is_new {
                site.is_done.push(false);
            }
            for number in 0..site.is_done.len() {
                if !site.is_done[number] && !site.world.is_crashed() {
                    site.attempt(&store, &credentials, number, &mut random);
                }
            }
            if random.below(3) == 0 && !site.world.is_crashed() {
                store.maintain();
            }
            if !site.world.is_crashed() && store.log_failure().is_some() {
                let _ = store.reopen();
            }
            if site.world.is_crashed() {
                break;
            }
            site.check()?;
        }
    }
    let reached = match place {
        Where::Disk => site.world.disk.operations() > at,
        Where::Log => site.world.medium.operations() > at,
    };
    for _ in 0..2 {
        site.restart(&mut random);
        let Some(store) = site.world.open()? else {
            return Err("the power went without a reason".to_owned());
        };
        for number in 0..site.is_done.len() {
            for _ in 0..200 {
                if site.is_done[number] {
                    break;
                }
                site.attempt(&store, &credentials, number, &mut random);
            }
            if !site.is_done[number] {
                return Err(format!("message {number} does not come to an end"));
            }
        }
        site.check()?;
    }
    Ok(reached)
}

fn run(plan: Plan) -> Result<bool, String> {
    // A writing thread keeps the identity of a mailbox owner.
    std::thread::scope(|scope| {
        let life = scope.spawn(|| live(plan)).join();
        life.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn must(plan: Plan) -> bool {
    run(plan).unwrap_or_else(|failure| panic!("{failure}\n{plan:?}"))
}

fn plan(seed: u64, place: Where, at: u64) -> Plan {
    Plan {
        seed,
        place,
        at,
        errno: None,
        bug: None,
    }
}

#[test]
fn a_crash_at_every_operation_has_no_destination_take_again_what_it_was_known_to_have() {
    let mut points = 0;
    for (seed, place) in [(1, Where::Log), (2, Where::Log), (3, Where::Disk)] {
        for at in 0.. {
            if !must(plan(seed, place, at)) {
                break;
            }
            points += 1;
        }
    }
    tell(format_args!("{points} crash points beside transports"));
    assert!(points > 150, "the runs have become short: {points} points");
}

#[test]
fn random_crashes_beside_transports_leave_none_out_and_repeat_none() {
    for seed in 10_000..10_200 {
        let mut random = SimRandom::new(seed ^ 0x5eed);
        let place = match random.below(2) {
            0 => Where::Disk,
            _ => Where::Log,
        };
        must(plan(seed, place, random.below(150)));
    }
}

#[test]
fn a_log_that_fails_has_no_transport_run_again_in_this_process() {
    for seed in 500..560 {
        let mut random = SimRandom::new(seed);
        let mut plan = plan(seed, Where::Log, random.below(100));
        plan.errno = Some([libc::EIO, libc::ENOSPC][(seed % 2) as usize]);
        must(plan);
    }
}

#[test]
fn a_success_reported_before_the_log_has_it_is_found() {
    let failure = (0..300).find_map(|seed| {
        let mut random = SimRandom::new(seed);
        let mut plan = plan(seed, Where::Log, 20 + random.below(60));
        plan.bug = Some(Bug::Store(Mistake::AnswerEarly));
        let failure = run(plan).err()?;
        failure
            .contains("takes its message again")
            .then_some(failure)
    });
    let failure = failure.expect("an answer before the flush was not noticed");
    tell(format_args!(
        "planted, beside transports: found by {failure}"
    ));
}

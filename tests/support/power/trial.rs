//! Loads, loses power at many points, recovers after each, and reckons.

use std::time::Duration;

use fastrand::Rng;

use super::account::Account;
use super::image::Image;
use super::load::{Acknowledged, Load, MAILBOXES};
use super::loss::{Fate, Playback};
use super::recorder::Record;
use super::rig::{FileSystem, Places, Rig};
use crate::Scratch;
use crate::daemon::Daemon;

/// How a server under load is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// A log as it is by default.
    Default,
    /// The same, but for a bound on messages that some exceed, and segments that are soon full, so
    /// that new ones are made and named all the time.
    Bounded,
    /// A log so small that it is full, cut back and begun again all the time.
    SmallLog,
    /// No log: every mailbox is flushed before the answer.
    Direct,
}

impl Setup {
    /// The lines of `mailstow.toml` that make it.
    pub fn settings(self) -> &'static str {
        match self {
            Self::Default => "[store]\ndurability = \"logged\"\n",
            Self::Bounded => {
                "[store]\ndurability = \"logged\"\n\
                 [delivery_log]\nmessage_bytes_max = 65536\nsegment_bytes = 1048576\n"
            }
            Self::SmallLog => {
                "[store]\ndurability = \"logged\"\n\
                 [delivery_log]\nmessage_bytes_max = 65536\nbytes_max = 2097152\n\
                 segment_bytes = 262144\ncheckpoint_interval = \"1s\"\n"
            }
            Self::Direct => "[store]\ndurability = \"direct\"\n",
        }
    }
}

/// One load and the points at which the power goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where.
    pub file_system: FileSystem,
    /// How.
    pub setup: Setup,
    /// How long.
    pub load: Load,
    /// How often the power goes, each time anew from the same load.
    pub points: usize,
    /// The disk lies about flushes.
    pub lies: bool,
    /// What is random follows from it, but for the order in which threads run.
    pub seed: u64,
}

impl Plan {
    /// A load of a few seconds.
    pub fn new(file_system: FileSystem, setup: Setup, points: usize, seed: u64) -> Self {
        Self {
            file_system,
            setup,
            load: Load {
                time: Duration::from_secs(3),
                bytes_max: 96 << 20,
                may_break: false,
                round: 0,
            },
            points,
            lies: false,
            seed,
        }
    }
}

/// What came of a plan.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// All points together.
    pub account: Account,
    /// Points after which the file system could not be mounted: no fault of ours, and no proof.
    pub unmountable: usize,
    /// Points after which the server did not start.
    pub unrecovered: usize,
    /// Points at which the power went once more while the server recovered.
    pub twice: usize,
    /// What to know about the load, and what went wrong, in words.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Every point was recovered and is clean.
    pub fn is_clean(&self) -> bool {
        self.account.is_clean() && self.unmountable + self.unrecovered == 0
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.account += other.account;
        self.unmountable += other.unmountable;
        self.unrecovered += other.unrecovered;
        self.twice += other.twice;
        self.notes.extend(other.notes);
    }
}

/// Does it.
pub fn run(plan: &Plan) -> Outcome {
    let scratch = Scratch::new("power");
    let places = Places::new(&scratch);
    places.configure(MAILBOXES, plan.setup.settings());
    let (record, told, note) = under_load(plan, &places);
    let mut outcome = Outcome {
        notes: vec![note],
        ..Outcome::default()
    };
    let mut random = Rng::with_seed(plan.seed);
    let mut playback = Playback::new(&record);
    for point in points(plan, &record, &told, &mut random) {
        let fate = match plan.lies {
            true => Fate::Lied,
            false => Fate::any(&mut random),
        };
        let (disk, unflushed) = playback.lose_power(point, fate, &mut random);
        let place = format!("event {point}, {unflushed} writes not flushed ({fate:?})");
        let told = told.iter().filter(|ack| ack.at <= point);
        recover(plan, disk, told, &places, &place, &mut random, &mut outcome);
    }
    outcome
}

fn under_load(plan: &Plan, places: &Places) -> (Record, Vec<Acknowledged>, String) {
    let rig = Rig::make(plan.file_system, places);
    let mut server = places.serve().expect("a new server starts");
    let recorder = rig.recorder();
    let position = || recorder.events();
    let told = plan.load.send(&places.address(), position, plan.seed);
    let record = recorder.record();
    server.kill();
    let note = format!(
        "{} {:?}: {} acknowledged, refused {:?}, {} writes and flushes",
        plan.file_system,
        plan.setup,
        told.acknowledged.len(),
        told.refused,
        record.events.len(),
    );
    let ours = |code: &String| code.starts_with('4');
    assert!(
        told.refused.keys().all(ours),
        "no fault of the mail: {note}"
    );
    let told = told.acknowledged;
    assert!(!told.is_empty(), "nothing was acknowledged: {note}");
    (record, told, note)
}

/// Half of them anywhere, half just after a client read a reply.
fn points(plan: &Plan, record: &Record, told: &[Acknowledged], random: &mut Rng) -> Vec<usize> {
    let mut points: Vec<_> = (0..plan.points)
        .map(|n| match n % 2 {
            0 => random.usize(..=record.events.len()),
            _ => told[random.usize(..told.len())].at,
        })
        .collect();
    points.sort_unstable();
    points
}

/// Why a machine does not come back.
enum Dead {
    FileSystem(String),
    Server(String),
}

fn start(plan: &Plan, disk: Image, places: &Places) -> Result<(Rig, Daemon), Dead> {
    let rig = Rig::again(plan.file_system, disk, places).map_err(Dead::FileSystem)?;
    rig.recorder().begin();
    let server = places.serve().map_err(Dead::Server)?;
    Ok((rig, server))
}

fn recover<'a>(
    plan: &Plan,
    disk: Image,
    told: impl Iterator<Item = &'a Acknowledged>,
    places: &Places,
    place: &str,
    random: &mut Rng,
    outcome: &mut Outcome,
) {
    let mut place = place.to_owned();
    let mut started = start(plan, disk, places);
    if random.u8(..4) == 0
        && !plan.lies
        && let Ok((rig, mut server)) = started
    {
        // While it recovered, or right after.
        let record = rig.recorder().record();
        server.kill();
        drop(rig);
        let point = random.usize(..=record.events.len());
        let fate = Fate::any(random);
        let (disk, unflushed) = Playback::new(&record).lose_power(point, fate, random);
        let all = record.events.len();
        place += &format!(", again at {point} of {all}, {unflushed} not flushed ({fate:?})");
        outcome.twice += 1;
        started = start(plan, disk, places);
    }
    let (_rig, mut server) = match started {
        Ok(started) => started,
        Err(Dead::FileSystem(error)) => {
            outcome.unmountable += 1;
            outcome.notes.push(format!("{place}: no mount: {error}"));
            return;
        }
        Err(Dead::Server(error)) => {
            outcome.unrecovered += 1;
            outcome.notes.push(format!("{place}: no start: {error}"));
            return;
        }
    };
    server.kill();
    let mut complaints = Vec::new();
    let may_tear = plan.setup == Setup::Direct;
    let account = Account::of(&places.base(), told, may_tear, &mut complaints);
    let complaints = complaints.into_iter().take(5);
    let notes = complaints.map(|complaint| format!("{place}: {complaint}"));
    outcome.notes.extend(notes);
    outcome.account += account;
}

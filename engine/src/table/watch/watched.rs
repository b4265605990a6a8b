//! A file that is read whole, watched, and read anew when a change of it counts.
//!
//! What the bytes mean is for the file's owner, see [`Reading`]; whether a change counts is for
//! [`guard`]. Invariant: old contents stay in use until others take their place.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::guard;
use super::guard::{Decision, Facts, Reason, Times};
use super::source;
use super::source::{Source, Stamp};
use super::writers::Writer;
use crate::clock;
use crate::sync::{Arc, Mutex};

/// Why the contents in use may lack what the file is about to have: none, mostly. Shared with
/// the snapshots that use the contents; other contents have another.
#[derive(Debug, Default)]
pub(crate) struct Hold(Mutex<Option<String>>);

impl Hold {
    /// The reason for which what is not found may be found soon.
    pub(crate) fn cause(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// The reasons of those of `holds` that have one.
    pub(crate) fn causes(holds: &[Arc<Self>]) -> Vec<String> {
        holds.iter().filter_map(|hold| hold.cause()).collect()
    }

    pub(in crate::table) fn set(&self, cause: Option<String>) {
        *self.0.lock() = cause;
    }
}

/// What the owner of a file makes of its bytes.
pub(in crate::table) trait Reading {
    /// Reads `source`, keeps what it reads for [`Looked::Take`], and compares it with the contents
    /// in use. The second part of the answer says why it cannot be used.
    fn read(&mut self, source: &Source) -> (Facts, Option<String>);
}

/// What a look at a file comes to.
#[derive(Debug)]
pub(in crate::table) enum Looked {
    /// There is nothing to do.
    Nothing,
    /// What the owner read last takes the place of the old contents. With a complaint, when the
    /// file was held back in vain.
    Take(Option<String>),
    /// The old contents stay in use; this is to be reported.
    Report(String),
    /// The old contents stay in use, for the file cannot be read; this is to be reported.
    Unreadable(io::Error),
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSnapshot {
    File(Stamp),
    Nothing(io::ErrorKind),
}

/// A change that does not count yet.
#[derive(Clone, Debug)]
struct Change {
    snapshot: FileSnapshot,
    /// When something new was seen last.
    at: Instant,
    /// The longest time between two such moments.
    pause: Option<Duration>,
    /// Two looks agree on it.
    is_agreed: bool,
    /// What the file holds, once it was read.
    facts: Option<Facts>,
    /// It was reported.
    is_reported: bool,
    /// There is nothing to wait for any more.
    is_given_up: bool,
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub(in crate::table) struct Watched {
    /// Of the contents in use; none when it says nothing.
    stamp: Option<Stamp>,
    digest: u64,
    look_again_at: Option<Duration>,
    change: Option<Change>,
    /// The contents in use may be a part of the file: another program seemed to write it at the
    /// start.
    is_partial: bool,
    /// The file was changed shortly before it was read for the first time, and may be changed
    /// again.
    is_young: bool,
    /// What could not be used, and was reported.
    refused: Option<FileSnapshot>,
    hold: Arc<Hold>,
}

/// How to look at a file.
#[derive(Clone, Copy)]
pub(in crate::table) struct Look<'a> {
    /// The file's name for reports.
    pub(in crate::table) name: &'a dyn fmt::Display,
    pub(in crate::table) path: &'a Path,
    /// It consists of lines.
    pub(in crate::table) is_text: bool,
    /// Takes what one look finds.
    pub(in crate::table) at_once: bool,
    /// How long a suspicious file is held back.
    pub(in crate::table) hold_time: Duration,
}

impl Watched {
    /// A file that was read for the first time. If it seems to be written, `source` loses a line
    /// that has no end.
    pub(in crate::table) fn new(
        name: &dyn fmt::Display,
        source: &mut Source,
        is_text: bool,
        hold_time: Duration,
    ) -> Self {
        let hold = Hold::default();
        let reason = source.suspicion(is_text, hold_time);
        if let Some(reason) = reason {
            hold.set(Some(cause(name, reason)));
            if is_text {
                source.drop_cut_line();
            }
        }
        let stamp = source.probe.stamp;
        Self {
            stamp: Some(stamp),
            digest: source.digest,
            look_again_at: source.look_again_at,
            change: None,
            is_partial: reason.is_some(),
            is_young: guard::is_young(stamp.quiet()),
            refused: None,
            hold: Arc::new(hold),
        }
    }

    /// The contents in use may be a part of the file, and nothing is known of what it was.
    pub(in crate::table) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// To be asked when something is not found in the contents in use.
    pub(in crate::table) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    /// The next look should come soon.
    pub(in crate::table) fn is_restless(&self) -> bool {
        let waits = self
            .change
            .as_ref()
            .is_some_and(|change| !change.is_given_up);
        waits || self.is_partial || self.is_young
    }

    /// How long until it is known whether the contents that were read first are the whole file.
    pub(in crate::table) fn settles_in(&self) -> Duration {
        let stamp = self.stamp.filter(|_| self.is_young);
        stamp.map_or(Duration::ZERO, |stamp| guard::settled_in(stamp.quiet()))
    }

    /// Looks at the file.
    pub(in crate::table) fn look(&mut self, look: Look<'_>, reading: &mut dyn Reading) -> Looked {
        let snapshot = match Stamp::of(look.path) {
            Ok(stamp) => FileSnapshot::File(stamp),
            Err(error) => FileSnapshot::Nothing(error.kind()),
        };
        if let Some(stamp) = self.stamp
            && snapshot == FileSnapshot::File(stamp)
        {
            self.look_at_known(stamp, look);
            if self.stamp.is_some() {
                return Looked::Nothing;
            }
        }
        if self.refused == Some(snapshot) && !look.at_once {
            return Looked::Nothing;
        }
        self.refused = None;
        let now = clock::now();
        let change = match &mut self.change {
            Some(change) => {
                change.see(snapshot, now);
                change
            }
            None => self.change.insert(Change::new(snapshot, now)),
        };
        if look.at_once {
            change.is_agreed = true;
            change.is_reported = false;
        }
        if !change.is_agreed {
            return Looked::Nothing;
        }
        match snapshot {
            FileSnapshot::File(_) => self.judge(look, reading),
            FileSnapshot::Nothing(kind) => {
                let error = source::probe(look.path).err();
                self.miss(look, error.unwrap_or(kind.into()))
            }
        }
    }

    /// The file is as it was when it was read, as far as its stamp tells.
    fn look_at_known(&mut self, stamp: Stamp, look: Look<'_>) {
        let was_refused = self.refused.take().is_some();
        if (self.change.take().is_some() || was_refused) && !self.is_partial {
            self.hold.set(None);
        }
        let quiet = stamp.quiet();
        self.is_young &= guard::is_young(quiet);
        if self.is_partial {
            // What cannot be read any more is seen as a change.
            let probe = source::probe(look.path).ok();
            match probe.and_then(|probe| probe.suspicion(look.is_text, look.hold_time)) {
                Some(reason) => self.hold.set(Some(cause(look.name, reason))),
                // What was left out at the start is read now.
                None => {
                    self.stamp = None;
                    let now = clock::now();
                    let at = now.checked_sub(quiet).unwrap_or(now);
                    self.change = Some(Change::new(FileSnapshot::File(stamp), at));
                }
            }
        }
        let due = |at: Duration| clock::since_epoch() >= at;
        if self.look_again_at.is_some_and(due) {
            self.stamp = None;
        }
    }

    /// Reads the changed file, and decides about it.
    fn judge(&mut self, look: Look<'_>, reading: &mut dyn Reading) -> Looked {
        let known = self.change.as_ref().and_then(|change| change.facts);
        if let Some(facts) = known {
            let probe = match source::probe(look.path) {
                Ok(probe) => probe,
                Err(error) => return self.miss(look, error),
            };
            match self.decide(&facts, probe.stamp, probe.writer == Writer::There, look) {
                Decision::Take => {}
                Decision::Wait => return Looked::Nothing,
                Decision::Hold(reason) => return self.hold_back(look, reason),
            }
        }
        let source = match source::read(look.path) {
            Ok(source) => source,
            Err(error) => return self.miss(look, error),
        };
        if source.digest == self.digest && !source.is_moving && !self.is_partial {
            self.adopt(&source);
            return Looked::Nothing;
        }
        let (facts, trouble) = reading.read(&source);
        if let Some(change) = &mut self.change {
            change.see(FileSnapshot::File(source.probe.stamp), clock::now());
            change.facts = Some(facts);
        }
        let is_open = source.probe.writer == Writer::There || source.is_moving;
        match self.decide(&facts, source.probe.stamp, is_open, look) {
            Decision::Wait => Looked::Nothing,
            Decision::Hold(reason) => self.hold_back(look, reason),
            Decision::Take => match trouble {
                None => {
                    let boldly = self.boldly(&facts, look);
                    // Snapshots that still use the old contents keep what held the file back.
                    self.hold = Arc::default();
                    self.adopt(&source);
                    Looked::Take(boldly)
                }
                Some(trouble) => {
                    self.change = None;
                    self.refused = Some(FileSnapshot::File(source.probe.stamp));
                    // Its other lines may name recipients that the old contents lack.
                    self.hold
                        .set(Some(format!("table {}: {REFUSED}", look.name)));
                    Looked::Report(trouble)
                }
            },
        }
    }

    /// What to say about a file that counts although it was held back to the end.
    fn boldly(&self, facts: &Facts, look: Look<'_>) -> Option<String> {
        let was_held = self
            .change
            .as_ref()
            .is_some_and(|change| change.is_reported);
        let Facts { lost, had, .. } = *facts;
        (was_held && guard::is_sudden(lost, had)).then(|| {
            format!(
                "table {}: the file was left alone and counts as it is, without {lost} of the \
                 {had} entries it had",
                look.name
            )
        })
    }

    fn decide(&self, facts: &Facts, stamp: Stamp, is_open: bool, look: Look<'_>) -> Decision {
        let seen = self.change.as_ref().map_or(Duration::ZERO, |change| {
            clock::now().saturating_duration_since(change.at)
        });
        let times = Times {
            seen,
            quiet: seen.max(stamp.quiet()),
            pause: self.change.as_ref().and_then(|change| change.pause),
            is_young: self.is_young,
            is_partial: self.is_partial,
        };
        guard::decide(facts, &times, is_open, look.at_once, look.hold_time)
    }

    /// The contents of `source` are in use.
    fn adopt(&mut self, source: &Source) {
        self.stamp = Some(source.probe.stamp);
        self.digest = source.digest;
        self.look_again_at = source.look_again_at;
        self.change = None;
        self.is_partial = false;
        self.is_young = false;
        self.hold.set(None);
    }

    /// Keeps the old contents in use; what they do not have is deferred.
    fn hold_back(&mut self, look: Look<'_>, reason: Reason) -> Looked {
        self.hold.set(Some(cause(look.name, reason)));
        // A single change soon after the start is mostly over when it is seen.
        let is_notable = |change: &Change| reason != Reason::Changing || change.pause.is_some();
        let change = self.change.as_mut().filter(|change| !change.is_reported);
        let Some(change) = change.filter(|change| is_notable(change)) else {
            return Looked::Nothing;
        };
        change.is_reported = true;
        Looked::Report(format!(
            "{}; its old contents stay in use, and recipients that they do not have are deferred, \
             until the file is whole or was left alone for {} s; put a new one in its place with \
             mv or \"mailstow table publish\"",
            cause(look.name, reason),
            look.hold_time.as_secs()
        ))
    }

    /// The file is gone or cannot be read.
    fn miss(&mut self, look: Look<'_>, error: io::Error) -> Looked {
        let Some(change) = &mut self.change else {
            return Looked::Nothing;
        };
        let seen = clock::now().saturating_duration_since(change.at);
        change.is_given_up = seen >= look.hold_time;
        let reason = cause(look.name, Reason::Missing);
        self.hold.set((!change.is_given_up).then_some(reason));
        if std::mem::replace(&mut change.is_reported, true) {
            return Looked::Nothing;
        }
        Looked::Unreadable(error)
    }
}

impl Change {
    fn new(snapshot: FileSnapshot, at: Instant) -> Self {
        Self {
            snapshot,
            at,
            pause: None,
            is_agreed: false,
            facts: None,
            is_reported: false,
            is_given_up: false,
        }
    }

    fn see(&mut self, snapshot: FileSnapshot, now: Instant) {
        if self.snapshot == snapshot {
            self.is_agreed = true;
            return;
        }
        // A file that comes and goes is not one that is written bit by bit.
        self.pause = match (self.snapshot, snapshot) {
            (FileSnapshot::File(_), FileSnapshot::File(_)) => {
                let pause = now.saturating_duration_since(self.at);
                Some(self.pause.unwrap_or_default().max(pause))
            }
            _ => None,
        };
        self.snapshot = snapshot;
        self.at = now;
        self.is_agreed = false;
        self.is_given_up = false;
        self.facts = None;
    }
}

/// Why what a file holds is not in use.
const REFUSED: &str = "the changed file has lines that are no entries";

fn cause(name: &dyn fmt::Display, reason: Reason) -> String {
    format!("table {name}: {reason}")
}

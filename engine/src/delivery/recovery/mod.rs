//! Recovery: does again what the delivery log promised and the mailboxes may have lost.
//!
//! Imports the rest of `delivery`, `mailbox`, `io`, `log`. Runs before anything else uses the
//! log, on a thread of its own, because it takes the identities of mailbox owners. Invariants: it
//! may be interrupted anywhere and begun again, because it changes nothing that the log does not
//! tell of, and the log keeps its records until a checkpoint; what is not ours is never changed;
//! a mailbox that cannot be mended holds up nobody: its deliveries stay in the log and are tried
//! again. The states it can find are listed in [`crate::manual::durability`].

mod extent;
mod maildir;
mod mbox;
mod part;
mod read;
mod recheck;
mod search;
mod survey;

use super::digest::{BaseDigest, digest_of};
use super::domains::Domains;
use super::file_systems::FileSystems;
use super::journal::{Found, Journal};
use super::stuck::{Held, Stuck, Waiting};
use crate::clock;
use crate::io::{Credentials, Disk};
use crate::log::{Accepted, AcceptedRecipient, DeliveryId, InDoubt, LogError, Plan, Sequence};
use crate::mailbox::{Known, MailboxError, MailboxName, MailboxSettings};
use crate::sync::Arc;
use crate::target::{Format, MailboxTarget, Owner};
pub(super) use part::Part;
pub(super) use recheck::Recheck;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};
use survey::Survey;

/// Bytes of mbox messages held in memory at once.
const MBOX_BYTES_MAX: u64 = 64 << 20;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What can be believed of what is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// A copy that reads whole is whole.
    WhatIsWhole,
    /// A flush failed: the machine may show what the disk does not have.
    Nothing,
}

/// What recovery did.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// let report = engine.recovered().ok_or("there is a delivery log")?;
/// assert_eq!((report.messages, report.waiting), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Messages the log held that the last checkpoint did not cover.
    pub messages: u64,
    /// Their deliveries that the client was not refused.
    pub deliveries: u64,
    /// Copies that were missing, short or wrong, and were written again.
    pub rewritten: u64,
    /// Copies that could not be written yet and are tried again.
    pub waiting: u64,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            messages,
            rewritten,
            waiting,
            ..
        } = self;
        write!(
            f,
            "recovered {messages} messages, rewrote {rewritten}, 0 lost"
        )?;
        if *waiting > 0 {
            write!(f, "; {waiting} copies wait for their mailboxes")?;
        }
        Ok(())
    }
}

/// A message of the log.
#[derive(Clone, Copy)]
struct Message<'m> {
    /// Its record.
    at: Sequence,
    envelope: &'m Accepted,
    content: &'m [u8],
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stands,
    Rewritten,
}

impl Recovered {
    /// Adds another part.
    pub(super) fn add(&mut self, part: Self) {
        let Self {
            report,
            stuck,
            in_doubt,
        } = part;
        self.report.messages += report.messages;
        self.report.deliveries += report.deliveries;
        self.report.rewritten += report.rewritten;
        self.report.waiting += report.waiting;
        for mail in stuck {
            let id = mail.envelope.id;
            match self.stuck.iter_mut().find(|kept| kept.envelope.id == id) {
                Some(kept) => {
                    kept.recipients.extend(mail.recipients);
                    kept.wants_room |= mail.wants_room;
                }
                None => self.stuck.push(mail),
            }
        }
        self.in_doubt.extend(in_doubt);
    }
}

/// Returns what is in doubt by the records of a log, but for the messages that recovery looks at.
///
/// # Errors
/// The log cannot be read.
pub(super) fn in_doubt(found: &dyn Found) -> Result<Vec<InDoubt>, LogError> {
    Ok(Survey::of(found)?.in_doubt())
}

/// Returns the mailboxes that recovery looks at, by their paths relative to the base.
///
/// # Errors
/// The log cannot be read.
pub(super) fn mailboxes(found: &dyn Found) -> Result<HashSet<String>, LogError> {
    let survey = Survey::of(found)?;
    let extents = survey.extents().iter().map(|extent| extent.mailbox.clone());
    let mut mailboxes: HashSet<String> = extents.collect();
    survey.for_each(found, &mut |_, envelope, _| {
        mailboxes.extend(envelope.recipients.into_iter().map(|to| to.mailbox));
    })?;
    Ok(mailboxes)
}

/// One recovery.
pub(super) struct Recovery<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) settings: &'a MailboxSettings,
    pub(super) known: &'a Known,
    pub(super) journal: &'a dyn Journal,
    pub(super) file_systems: &'a FileSystems<D::Handle>,
    pub(super) domains: &'a Domains,
    pub(super) trust: Trust,
}

/// What became of a part of a recovery.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) report: RecoveryReport,
    /// What could not be done.
    pub(super) stuck: Vec<Stuck>,
    pub(super) in_doubt: Vec<InDoubt>,
}

impl<D: Disk> Recovery<'_, D> {
    /// Works through everything the log holds for one part, on this thread, which takes the
    /// identities of mailbox owners.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn run(&self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        Run::new(self, self.settings.lock_patience).run(found, part)
    }

    /// Sets a part aside whose file system does not answer: what it has not done waits. Asks no
    /// file system.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn set_aside(&self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        Run::new(self, Duration::ZERO).set_aside(found, part)
    }

    /// Tries deliveries again that could not be done; those that still cannot. Waits for no
    /// lock: there is more to do, and another time.
    ///
    /// # Errors
    /// There is no thread for the work, or it panicked: all of it still waits.
    pub(super) fn retry(&self, waiting: &[Stuck]) -> Result<Vec<Stuck>, LogError> {
        on_own_thread(|| Run::new(self, Duration::ZERO).retry(waiting))
    }
}

/// The thread that takes the identities of mailbox owners; it ends with the work.
const THREAD: &str = "mailstow-recov";

fn on_own_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, LogError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.into());
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| LogError::Io {
                operation: "start",
                object:
                    "a thread for recovery (raise the limit on processes: TasksMax=, ulimit -u)"
                        .into(),
                source: Arc::new(error),
            })?;
        let panicked = |_| LogError::Panicked { thread: THREAD };
        thread.join().map_err(panicked)
    })
}

/// The work of one thread.
struct Run<'a, D: Disk> {
    with: &'a Recovery<'a, D>,
    credentials: Credentials,
    report: RecoveryReport,
    stuck: Vec<Stuck>,
    /// Where in `stuck` each message is.
    stuck_at: HashMap<DeliveryId, usize>,
    maildirs: maildir::Listings,
    told: Instant,
    /// Mboxes that others have locked are waited for until then, all together.
    patient_until: Instant,
}

impl<'a, D: Disk> Run<'a, D> {
    /// `patience`: how long it waits for locks.
    fn new(with: &'a Recovery<'a, D>, patience: Duration) -> Self {
        let now = clock::now();
        Self {
            with,
            credentials: Credentials::of_own_thread(),
            report: RecoveryReport::default(),
            stuck: Vec::new(),
            stuck_at: HashMap::new(),
            maildirs: maildir::Listings::default(),
            told: now,
            patient_until: now + patience,
        }
    }

    fn run(mut self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        let survey = Survey::of(found)?;
        self.with.file_systems.log_begins_at(survey.below());
        let mut in_doubt = Vec::new();
        self.maildir_pass(found, (&survey, part), &mut in_doubt)?;
        for mut group in survey.mbox_groups(MBOX_BYTES_MAX) {
            group.retain(|mailbox| part.has(mailbox));
            if !group.is_empty() {
                self.mbox_pass(found, (&survey, part), &group)?;
            }
        }
        self.report.waiting = self.stuck.iter().map(|s| s.recipients.len() as u64).sum();
        debug_assert!(
            self.report.rewritten + self.report.waiting <= self.report.deliveries,
            "a copy is rewritten or waits, once: {:?}",
            self.report
        );
        Ok(Recovered {
            report: self.report,
            stuck: self.stuck,
            in_doubt,
        })
    }

    fn set_aside(mut self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        let done = part.set_aside();
        let survey = Survey::of(found)?;
        let base = BaseDigest::of(&self.with.settings.base);
        let mut in_doubt = Vec::new();
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            self.count_message(
                part,
                &envelope,
                || survey.doubts_of(base, &envelope, || digest_of(content)),
                &mut in_doubt,
            );
            let mut waits = Vec::new();
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if recipient.plan == Plan::Shared || !is_due(&survey, part, &envelope, index) {
                    continue;
                }
                self.report.deliveries += 1;
                if !done.contains(&(envelope.id, index)) {
                    waits.push(Waiting {
                        recipient: index,
                        places: survey.places(envelope.id, index).to_vec(),
                        held: Held::Undelivered,
                    });
                }
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            self.keep_stuck(message, waits, false, || survey.refused_of(&envelope));
        })?;
        Ok(Recovered {
            report: self.report,
            stuck: self.stuck,
            in_doubt,
        })
    }

    /// Counts a message in the part that its first recipient is of.
    fn count_message(
        &mut self,
        part: &Part,
        envelope: &Accepted,
        doubts: impl FnOnce() -> Vec<InDoubt>,
        in_doubt: &mut Vec<InDoubt>,
    ) {
        let first = envelope.recipients.first();
        if first.is_none_or(|first| part.has(&first.mailbox)) {
            self.report.messages += 1;
            in_doubt.extend(doubts());
        }
    }

    /// Everything but mboxes, one message after the other.
    fn maildir_pass(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        in_doubt: &mut Vec<InDoubt>,
    ) -> Result<(), LogError> {
        let mut seen = HashSet::new();
        let base = BaseDigest::of(&self.with.settings.base);
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            self.count_message(
                part,
                &envelope,
                || survey.doubts_of(base, &envelope, || digest_of(content)),
                in_doubt,
            );
            let mut failed = Vec::new();
            let mut wants_room = false;
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if !is_due(survey, part, &envelope, index) {
                    continue;
                }
                self.report.deliveries += 1;
                if let Plan::Maildir { file_name } = &recipient.plan {
                    if !part.goes_on(None) {
                        return;
                    }
                    match self.maildir_with_room(&envelope, index, file_name, content) {
                        Ok(fate) => self.count(fate),
                        Err(error) => {
                            tell_stuck(&error);
                            wants_room |= error.is_no_space();
                            let places = Vec::new();
                            failed.push(Waiting {
                                recipient: index,
                                places,
                                held: Held::Undelivered,
                            });
                        }
                    }
                    part.goes_on(Some((envelope.id, index)));
                }
            }
            let refused = || survey.refused_of(&envelope);
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            self.keep_stuck(message, failed, wants_room, refused);
            self.tell(survey.messages());
            self.leave();
        })
    }

    fn count(&mut self, fate: Fate) {
        if fate == Fate::Rewritten {
            self.report.rewritten += 1;
        }
    }

    /// As [`Self::maildir`]; on a full disk the log gives space back first.
    fn maildir_with_room(
        &mut self,
        envelope: &Accepted,
        index: u32,
        file_name: &str,
        content: &[u8],
    ) -> Result<Fate, MailboxError> {
        match self.maildir(envelope, index, file_name, content) {
            Err(error) if error.is_no_space() && self.make_room() => {
                self.maildir(envelope, index, file_name, content)
            }
            done => done,
        }
    }

    fn mbox_with_room(
        &mut self,
        target: &LoggedMailbox,
        work: &mbox::Work,
    ) -> Result<u64, MailboxError> {
        match self.mbox(target, work) {
            Err(error) if error.is_no_space() && self.make_room() => self.mbox(target, work),
            done => done,
        }
    }

    /// True when the log gave something back.
    fn make_room(&self) -> bool {
        self.with.journal.give_back(true) > 0
    }

    fn keep_stuck(
        &mut self,
        message: Message<'_>,
        recipients: Vec<Waiting>,
        wants_room: bool,
        refused: impl FnOnce() -> Vec<u32>,
    ) {
        if recipients.is_empty() {
            return;
        }
        let Message {
            at: sequence,
            envelope,
            content,
        } = message;
        let at = *self.stuck_at.entry(envelope.id).or_insert(self.stuck.len());
        debug_assert!(at <= self.stuck.len(), "each message has its place");
        debug_assert!(
            self.stuck
                .get(at)
                .is_none_or(|stuck| stuck.envelope.id == envelope.id),
            "a message waits once, with all its recipients"
        );
        match self.stuck.get_mut(at) {
            Some(stuck) => {
                stuck.recipients.extend(recipients);
                stuck.wants_room |= wants_room;
            }
            None => self.stuck.push(Stuck {
                at: sequence,
                envelope: envelope.clone(),
                content: content.into(),
                recipients,
                refused: refused(),
                wants_room,
            }),
        }
    }

    /// The messages for these mboxes, gathered from the log, then one mbox after the other.
    fn mbox_pass(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        group: &HashSet<String>,
    ) -> Result<(), LogError> {
        let mut mboxes = mbox::Gathered::default();
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if group.contains(&recipient.mailbox) && matches!(recipient.plan, Plan::Mbox { .. })
                {
                    mboxes.add(survey, message, index);
                }
            }
        })?;
        for extent in survey.extents() {
            if group.contains(&extent.mailbox) {
                mboxes.add_extent(extent);
            }
        }
        for (target, work) in mboxes.take() {
            if !part.goes_on(None) {
                break;
            }
            match self.mbox_with_room(&target, &work) {
                Ok(rewritten) => self.report.rewritten += rewritten,
                Err(error) => {
                    tell_stuck(&error);
                    for entry in work.entries.iter().filter(|entry| entry.is_pending) {
                        let refused = || survey.refused_of(&entry.envelope);
                        let waiting = vec![entry.waiting()];
                        self.keep_stuck(entry.message(), waiting, error.is_no_space(), refused);
                    }
                }
            }
            for entry in &work.entries {
                part.goes_on(Some((entry.envelope.id, entry.recipient)));
            }
            self.tell(survey.messages());
        }
        self.leave();
        Ok(())
    }

    fn retry(mut self, waiting: &[Stuck]) -> Vec<Stuck> {
        let mut mboxes = mbox::Gathered::default();
        let by_id: HashMap<DeliveryId, &Stuck> =
            waiting.iter().map(|s| (s.envelope.id, s)).collect();
        let refused = |id| {
            let stuck = by_id.get(&id);
            stuck.map_or_else(Vec::new, |stuck| stuck.refused.clone())
        };
        // Of those that wait for space, one in each directory tells whether there is some.
        let mut full = HashSet::new();
        for stuck in waiting {
            let mut failed = Vec::new();
            let mut wants_room = false;
            let message = Message {
                at: stuck.at,
                envelope: &stuck.envelope,
                content: &stuck.content,
            };
            for delivery in &stuck.recipients {
                let at = usize::try_from(delivery.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = stuck.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.plan {
                    // Another pass sees to it.
                    _ if delivery.held != Held::Undelivered => failed.push(delivery.clone()),
                    Plan::Shared => {}
                    Plan::Mbox { .. } => {
                        mboxes.add_waiting(message, delivery);
                    }
                    Plan::Maildir { file_name } => {
                        let place = first_directory(&recipient.mailbox);
                        let again = match full.contains(place) {
                            true => Err(true),
                            false => self
                                .maildir_with_room(
                                    &stuck.envelope,
                                    delivery.recipient,
                                    file_name,
                                    &stuck.content,
                                )
                                .map_err(|error| error.is_no_space()),
                        };
                        if let Err(is_full) = again {
                            failed.push(delivery.clone());
                            wants_room |= is_full;
                            if is_full {
                                full.insert(place);
                            }
                        }
                    }
                }
            }
            let refused = || stuck.refused.clone();
            self.keep_stuck(message, failed, wants_room, refused);
        }
        for (target, work) in mboxes.take() {
            let place = first_directory(&target.path);
            let is_full = full.contains(place);
            let done = match is_full {
                true => Ok(0),
                false => self.mbox_with_room(&target, &work),
            };
            let error = done.err();
            if is_full || error.is_some() {
                let wants_room = is_full || error.is_some_and(|error| error.is_no_space());
                for entry in &work.entries {
                    let refused = || refused(entry.envelope.id);
                    let waiting = vec![entry.waiting()];
                    self.keep_stuck(entry.message(), waiting, wants_room, refused);
                }
            }
        }
        let done = waiting.len() - self.stuck.len().min(waiting.len());
        if done > 0 {
            tracing::info!(
                messages = done,
                "messages that waited for their mailboxes since recovery are delivered"
            );
        }
        self.stuck
    }

    fn tell(&mut self, of: u64) {
        if self.told.elapsed() > PROGRESS_EVERY {
            self.told = clock::now();
            tracing::info!(
                "recovering the delivery log: {} of {of} messages, {} copies rewritten",
                self.report.messages,
                self.report.rewritten
            );
        }
    }

    /// Gives the owner's identity back: the log's segments are opened as the server.
    fn leave(&mut self) {
        self.credentials.as_self(|| ());
    }

    /// Opens the base and takes the owner's identity.
    fn enter(&mut self, logged: &LoggedMailbox) -> Result<(D::Handle, MailboxName), MailboxError> {
        let base = &self.with.settings.base;
        let target = logged.target()?;
        let path = MailboxName::of(base, &target);
        let mailbox = || path.display().to_owned();
        // What was allowed when the mail was accepted may not be any more.
        let minimum = self.with.settings.minimum_uid;
        if target.uid < minimum {
            return Err(MailboxError::BelowMinimum {
                mailbox: mailbox(),
                uid: target.uid,
                minimum,
            });
        }
        let disk = self.with.disk;
        let opened = self.credentials.as_self(|| disk.open_root(base));
        let opened = opened.map_err(|source| MailboxError::Base {
            mailbox: mailbox(),
            base: base.display().to_string(),
            source,
        })?;
        self.credentials
            .become_user(target.uid, target.gid)
            .map_err(|source| MailboxError::Identity {
                mailbox: mailbox(),
                source,
            })?;
        Ok((opened, path))
    }
}

/// Returns true if recovery is to see that a copy stands in a mailbox of this part.
fn is_due(survey: &Survey, part: &Part, envelope: &Accepted, recipient: u32) -> bool {
    let copy = envelope.copy_of(recipient);
    let at = usize::try_from(recipient).unwrap_or(usize::MAX);
    let mailbox = envelope.recipients.get(at).map(|to| &to.mailbox);
    mailbox.is_some_and(|mailbox| part.has(mailbox))
        && !survey.is_refused(envelope.id, copy)
        && !survey.is_settled(envelope.id, copy)
}

/// The directory below the base that a mailbox is in, for a file system may be mounted there.
fn first_directory(mailbox: &str) -> &str {
    mailbox.split('/').next().unwrap_or_default()
}

fn tell_stuck(error: &MailboxError) {
    tracing::error!(
        "{error}; mail that was acknowledged for it stays in the delivery log and is tried again"
    );
}

/// A mailbox as a record names it, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LoggedMailbox {
    path: String,
    format: Format,
    owner: Owner,
}

impl LoggedMailbox {
    fn of(recipient: &AcceptedRecipient, format: Format) -> Self {
        Self {
            path: recipient.mailbox.clone(),
            format,
            owner: Owner {
                uid: recipient.uid,
                gid: recipient.gid,
            },
        }
    }

    /// Checks it as routing checks what tables say.
    fn target(&self) -> Result<MailboxTarget, MailboxError> {
        let Owner { uid, gid } = self.owner;
        let target = MailboxTarget::new(self.path.as_str(), self.format, uid, gid);
        target.map_err(|error| MailboxError::Path {
            mailbox: error.path,
            cause: error.cause,
        })
    }
}

//! Recovery: does again what the delivery log promised and the mailboxes may have lost.
//!
//! Imports the rest of `delivery`, `mailbox`, `io`, `log`. Runs before anything else uses the
//! log, on a thread of its own, because it takes the identities of mailbox owners. Invariants: it
//! may be interrupted anywhere and begun again, because it changes nothing that the log does not
//! tell of, and the log keeps its records until a checkpoint; what is not ours is never changed;
//! a mailbox that cannot be mended holds up nobody: its deliveries stay in the log and are tried
//! again. The states it can find are listed in [`crate::manual::durability`].

mod aside;
mod extent;
mod maildir;
mod mbox;
mod part;
mod read;
mod recheck;
mod report;
mod retry;
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
pub(super) use report::Recovered;
pub use report::RecoveryReport;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use survey::Survey;
pub(super) use survey::{in_doubt, mailboxes};

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
        // Whoever gets an identity to change gives up what else root may do.
        on_own_thread(|| Run::new(self, Duration::ZERO).set_aside(found, part))?
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
    /// A recovery that did not come back may have appended what the log knew no place of.
    searches_all: bool,
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
            searches_all: false,
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

    /// Shows every message once, and counts those whose first recipient is of the part.
    fn for_each_message(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        in_doubt: &mut Vec<InDoubt>,
        mut show: impl FnMut(&mut Self, Message<'_>),
    ) -> Result<(), LogError> {
        let mut seen = HashSet::new();
        let base = BaseDigest::of(&self.with.settings.base);
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            let first = envelope.recipients.first();
            if first.is_none_or(|first| part.has(&first.mailbox)) {
                self.report.messages += 1;
                in_doubt.extend(survey.doubts_of(base, &envelope, || digest_of(content)));
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            show(self, message);
        })
    }

    /// Everything but mboxes, one message after the other.
    fn maildir_pass(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        in_doubt: &mut Vec<InDoubt>,
    ) -> Result<(), LogError> {
        self.for_each_message(found, (survey, part), in_doubt, |run, message| {
            let (envelope, content) = (message.envelope, message.content);
            let mut failed = Vec::new();
            let mut wants_room = false;
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if !is_due(survey, part, envelope, index) {
                    continue;
                }
                run.report.deliveries += 1;
                if let Plan::Maildir { file_name } = &recipient.plan {
                    if !part.goes_on(None) {
                        return;
                    }
                    let done = run.maildir_with_room(envelope, index, file_name, content);
                    // What waits is known here only, until the part comes to its end.
                    let needs_no_more = done.is_ok().then_some((envelope.id, index));
                    match done {
                        Ok(fate) => run.count(fate),
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
                    part.goes_on(needs_no_more);
                }
            }
            let refused = || survey.refused_of(envelope);
            run.keep_stuck(message, failed, wants_room, refused);
            run.tell(survey.messages());
            run.leave();
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
            let done = self.mbox_with_room(&target, &work);
            let is_done = done.is_ok();
            match done {
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
            for entry in work.entries.iter().filter(|_| is_done) {
                part.goes_on(Some((entry.envelope.id, entry.recipient)));
            }
            self.tell(survey.messages());
        }
        self.leave();
        Ok(())
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

//! One round of a writer: a batch of deliveries through all phases.
//!
//! Imports the rest of `delivery`, `mailbox`, `io`, `route`. The order is what makes an answer
//! true: write Maildir files unseen, flush them, publish them and append to mboxes, flush again,
//! give locks back, answer. See [`crate::manual::durability`]. Deliveries are sorted by owner,
//! so that each phase changes identity as rarely as can be.

use super::extent::flush_cut;
use super::floors::Floor;
use super::flush::{Item, copy};
use super::identity;
use super::job::Job;
use super::keeper::{Keeper, Pass};
use super::store::Shared;
use crate::clock;
use crate::io::{Credentials, Disk};
use crate::mailbox::maildir::{Maildir, Unpublished, sweep};
use crate::mailbox::mbox::{Entry, Mbox, Opened, Siblings};
use crate::mailbox::{Flush, MailboxError, MailboxPath};
use crate::route::Format;
use std::collections::HashMap;
use std::io;

/// What `virtual(8)` says of a stored message.
pub(super) const TO_MAILDIR: &str = "delivered to maildir";
pub(super) const TO_MBOX: &str = "delivered to mailbox";

/// Which open Maildir: the same path for another owner is opened as that owner.
type MaildirKey = (String, u32, u32);

pub(super) struct Round<'a, D: Disk> {
    shared: &'a Shared<D>,
    credentials: &'a mut Credentials,
    /// What [`Credentials::begin`] returned.
    begun: u64,
    base: Option<D::Handle>,
    maildirs: Vec<Maildir<D::Handle>>,
    by_key: HashMap<MaildirKey, usize>,
    written: Vec<Written<D::Handle>>,
    mboxes: Vec<OpenMbox<'a, D::Handle>>,
    siblings: Siblings<D::Handle>,
}

/// A message in a Maildir.
struct Written<H> {
    job: Job,
    maildir: usize,
    unpublished: Unpublished<H>,
    /// In `new/`, once published.
    name: String,
}

/// A locked mbox and the deliveries appended to it.
pub(super) struct OpenMbox<'a, H> {
    pub(super) mbox: Mbox<H>,
    pub(super) jobs: Vec<Job>,
    /// What the log was told of the messages must stay there until they are flushed.
    pub(super) noted: Option<(Floor, Pass<'a, H>)>,
}

impl<'a, D: Disk> Round<'a, D> {
    pub(super) fn new(shared: &'a Shared<D>, credentials: &'a mut Credentials) -> Self {
        Self {
            shared,
            credentials,
            begun: 0,
            base: None,
            maildirs: Vec::new(),
            by_key: HashMap::new(),
            written: Vec::new(),
            mboxes: Vec::new(),
            siblings: Siblings::default(),
        }
    }

    /// Takes every delivery to its end, or back into the queue when its mailbox is locked.
    pub(super) fn run(mut self, mut jobs: Vec<Job>) {
        self.begun = self.credentials.begin();
        jobs.sort_by_key(|job| (job.target.uid, job.target.gid));
        let (to_maildir, to_mbox): (Vec<Job>, Vec<Job>) = jobs
            .into_iter()
            .partition(|job| job.target.format == Format::Maildir);
        for job in to_maildir {
            self.write(job);
        }
        self.flush_written();
        self.publish();
        self.append(to_mbox);
        self.flush_published();
        self.close_mboxes();
        for written in std::mem::take(&mut self.written) {
            written.job.succeed(TO_MAILDIR);
        }
        self.sweep();
    }

    fn enter(&mut self, job: &Job) -> Result<(), MailboxError> {
        identity::open_base(self.shared, self.credentials, &mut self.base, job)?;
        self.become_owner(job)
    }

    fn become_owner(&mut self, job: &Job) -> Result<(), MailboxError> {
        identity::become_owner(self.credentials, job)
    }

    fn write(&mut self, job: Job) {
        if job.is_abandoned() {
            return;
        }
        match self.with_room(|round| round.write_unseen(&job)) {
            Ok((maildir, unpublished)) => self.written.push(Written {
                job,
                maildir,
                unpublished,
                name: String::new(),
            }),
            Err(error) => job.fail(&error),
        }
    }

    /// Makes an attempt, and another one if the disk was full and the log gave space back.
    fn with_room<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<R, MailboxError>,
    ) -> Result<R, MailboxError> {
        match attempt(self) {
            Err(error) if error.is_no_space() && self.makes_room() => attempt(self),
            done => done,
        }
    }

    #[cold]
    fn makes_room(&self) -> bool {
        let keeper = self.shared.keeper.as_ref();
        keeper.is_some_and(Keeper::make_room_for_others)
    }

    fn write_unseen(&mut self, job: &Job) -> Result<(usize, Unpublished<D::Handle>), MailboxError> {
        let shared = self.shared;
        let path = MailboxPath::new(&shared.settings.base, &job.target)?;
        let message = &job.mail.message;
        let header = job.maildir_header();
        if shared
            .settings
            .is_over_limit(header.len() as u64 + message.size())
        {
            return Err(MailboxError::OverLimit {
                mailbox: job.mailbox().to_owned(),
                limit_bytes: shared.settings.limit_bytes,
            });
        }
        self.enter(job)?;
        let Some(base) = &self.base else {
            return Err(interrupted(job));
        };
        let (uid, gid) = (job.target.uid, job.target.gid);
        let key = (path.as_str().to_owned(), uid, gid);
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None => {
                let maildir = Maildir::open(
                    &shared.disk,
                    base,
                    &path,
                    shared.settings.owner(uid, gid),
                    (&shared.known, Flush::Now),
                )?;
                self.maildirs.push(maildir);
                self.by_key.insert(key, self.maildirs.len() - 1);
                self.maildirs.len() - 1
            }
        };
        let Some(maildir) = self.maildirs.get_mut(at) else {
            return Err(interrupted(job));
        };
        if let Some(arrived) = maildir.arrived(&shared.disk, (uid, gid), &header, message) {
            return Ok((at, arrived));
        }
        let how = (&shared.names, shared.settings.compress);
        let unpublished = maildir.write(&shared.disk, base, how, &header, message)?;
        Ok((at, unpublished))
    }

    /// Files, and the directories above Maildirs used for the first time.
    fn flush_written(&mut self) {
        if self.written.is_empty() {
            return;
        }
        let mut items = Vec::new();
        for maildir in &self.maildirs {
            items.extend(maildir.chain().iter().map(|above| Item {
                handle: &above.handle,
                device: above.device,
                whole: above.whole,
                alone: false,
            }));
        }
        for written in &self.written {
            items.push(Item {
                handle: written.unpublished.file(),
                device: self
                    .maildirs
                    .get(written.maildir)
                    .map_or(0, Maildir::device),
                whole: false,
                alone: written.unpublished.arrived_here(),
            });
        }
        let mut results = self.flush(&items).into_iter();
        let mut above = Vec::new();
        for maildir in &self.maildirs {
            let chain = results.by_ref().take(maildir.chain().len());
            let result: io::Result<()> = chain.collect();
            if result.is_ok() {
                maildir.chain_is_durable(&self.shared.known);
            }
            above.push(result);
        }
        let mut durable = Vec::with_capacity(self.written.len());
        for (written, result) in std::mem::take(&mut self.written).into_iter().zip(results) {
            let chain = above.get(written.maildir).map_or(Ok(()), copy);
            match result.and(chain) {
                Ok(()) => durable.push(written),
                Err(source) => self.discard(written, &|mailbox| flush_error(mailbox, &source)),
            }
        }
        self.written = durable;
    }

    fn flush(&self, items: &[Item<'_, D::Handle>]) -> Vec<io::Result<()>> {
        let shared = self.shared;
        // The first handle opened on each file system; nothing was written there before.
        let witness = |device| {
            let maildir = self.maildirs.iter().find(|m| m.device() == device);
            let mbox = || self.mboxes.iter().find(|m| m.mbox.device() == device);
            maildir
                .map(Maildir::new_directory)
                .or_else(|| mbox().map(|m| m.mbox.file()))
        };
        let results = shared.flusher.flush(&shared.disk, items, witness);
        if let Some(Err(error)) = results.iter().find(|result| result.is_err()) {
            tracing::error!(%error, "flushing mail to disk failed; these deliveries are refused");
            if let Some(keeper) = &shared.keeper {
                // One flush may cover the whole file system, and drop what is there of logged
                // messages: they are written again before anything is appended behind them.
                keeper.flush_failed(error);
            }
        }
        results
    }

    /// Gives up a message nobody has seen.
    fn discard(&mut self, written: Written<D::Handle>, error: &dyn Fn(&str) -> MailboxError) {
        if let Some(maildir) = self.maildirs.get(written.maildir) {
            maildir.discard(&self.shared.disk, &written.unpublished);
        }
        let error = error(written.job.mailbox());
        written.job.fail(&error);
    }

    fn publish(&mut self) {
        if !self.written.is_empty()
            && let Some(error) = identity::changed(self.credentials, self.begun)
        {
            for written in std::mem::take(&mut self.written) {
                self.discard(written, &error);
            }
        }
        for mut written in std::mem::take(&mut self.written) {
            if !written.job.claim() {
                if let Some(maildir) = self.maildirs.get(written.maildir) {
                    maildir.discard(&self.shared.disk, &written.unpublished);
                }
                continue;
            }
            match self.with_room(|round| round.publish_one(&written)) {
                Ok(name) => {
                    written.name = name;
                    self.written.push(written);
                }
                Err(error) => {
                    if let Some(maildir) = self.maildirs.get(written.maildir) {
                        maildir.discard(&self.shared.disk, &written.unpublished);
                    }
                    written.job.fail(&error);
                }
            }
        }
    }

    fn publish_one(&mut self, written: &Written<D::Handle>) -> Result<String, MailboxError> {
        self.become_owner(&written.job)?;
        let shared = self.shared;
        let Some(maildir) = self.maildirs.get_mut(written.maildir) else {
            return Err(interrupted(&written.job));
        };
        let published = maildir.publish(&shared.disk, &shared.names, &written.unpublished);
        let (Err(error), Some(base)) = (&published, &self.base) else {
            return published;
        };
        if !written.unpublished.arrived_here() {
            return published;
        }
        // It was opened by another way through the file system, perhaps.
        tracing::debug!(%error, "a message that arrived in its mailbox is copied");
        let job = &written.job;
        let header = job.maildir_header();
        let how = (&shared.names, shared.settings.compress);
        let copied = maildir.write(&shared.disk, base, how, &header, &job.mail.message)?;
        let flushed = shared.disk.sync(copied.file());
        let published = flushed
            .map_err(|source| flush_error(job.mailbox(), &source))
            .and_then(|()| maildir.publish(&shared.disk, &shared.names, &copied));
        if published.is_err() {
            maildir.discard(&shared.disk, &copied);
        }
        published
    }

    /// All deliveries for one mbox go out under one lock, in one append.
    fn append(&mut self, jobs: Vec<Job>) {
        let mut groups: Vec<Vec<Job>> = Vec::new();
        for job in jobs {
            let same = |group: &&mut Vec<Job>| {
                group
                    .first()
                    .is_some_and(|first| first.target == job.target)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(job),
                None => groups.push(vec![job]),
            }
        }
        for group in groups {
            let Some(first) = group.first() else { continue };
            match self.with_room(|round| round.open_mbox(first)) {
                Ok(Opened::Ready(mbox)) => self.append_group(*mbox, group),
                Ok(Opened::Busy(lock)) => self.wait_for_lock(group, lock),
                Err(error) => fail_all(group, error),
            }
        }
    }

    fn open_mbox(&mut self, job: &Job) -> Result<Opened<D::Handle>, MailboxError> {
        let shared = self.shared;
        let path = MailboxPath::new(&shared.settings.base, &job.target)?;
        self.enter(job)?;
        let Some(base) = &self.base else {
            return Err(interrupted(job));
        };
        let settings = &shared.settings;
        Mbox::open(
            &shared.disk,
            base,
            &path,
            (job.target.uid, job.target.gid),
            settings,
            (&shared.known, Flush::Now),
            &mut self.siblings,
        )
    }

    fn append_group(&mut self, mut mbox: Mbox<D::Handle>, group: Vec<Job>) {
        if let Some(error) = identity::changed(self.credentials, self.begun) {
            mbox.close(&self.shared.disk);
            return group.into_iter().for_each(|job| {
                let error = error(job.mailbox());
                job.fail(&error);
            });
        }
        let mut jobs = Vec::with_capacity(group.len());
        for mut job in group {
            if job.claim() {
                let header = job.mbox_header();
                jobs.push((job, header));
            }
        }
        if let Some(keeper) = &self.shared.keeper {
            return self.append_noted(keeper, mbox, jobs);
        }
        let entries: Vec<Entry<'_>> = jobs
            .iter()
            .map(|(job, header)| Entry {
                without_status: self.shared.without_status(&job.mail.message),
                header,
                message: &job.mail.message,
            })
            .collect();
        let results = mbox.append(&self.shared.disk, &self.shared.settings, &entries);
        let mut appended = Vec::with_capacity(jobs.len());
        for ((job, _), result) in jobs.into_iter().zip(results) {
            match result {
                Ok(()) => appended.push(job),
                Err(error) => job.fail(&error),
            }
        }
        if appended.is_empty() {
            mbox.close(&self.shared.disk);
        } else {
            self.keep_open(OpenMbox {
                mbox,
                jobs: appended,
                noted: None,
            });
        }
    }

    pub(super) fn shared(&self) -> &'a Shared<D> {
        self.shared
    }

    /// To be flushed with the others.
    pub(super) fn keep_open(&mut self, open: OpenMbox<'a, D::Handle>) {
        self.mboxes.push(open);
    }

    fn wait_for_lock(&self, group: Vec<Job>, lock: &'static str) {
        for mut job in group {
            match job.lock_pause(self.shared.settings.lock_patience) {
                Some(pause) => self.shared.queue.push_delayed(clock::now() + pause, job),
                None => {
                    let mailbox = job.mailbox().to_owned();
                    job.fail(&MailboxError::Busy { mailbox, lock });
                }
            }
        }
    }

    /// `new/` of every Maildir published in, and every mbox appended to.
    fn flush_published(&mut self) {
        let mut used: Vec<usize> = self.written.iter().map(|w| w.maildir).collect();
        used.sort_unstable();
        used.dedup();
        let mut items = Vec::new();
        for maildir in used.iter().filter_map(|at| self.maildirs.get(*at)) {
            items.push(Item {
                handle: maildir.new_directory(),
                device: maildir.device(),
                whole: false,
                alone: false,
            });
        }
        for OpenMbox { mbox, .. } in &self.mboxes {
            items.push(Item {
                handle: mbox.file(),
                device: mbox.device(),
                whole: false,
                alone: false,
            });
            items.extend(mbox.chain().iter().map(|above| Item {
                handle: &above.handle,
                device: above.device,
                whole: above.whole,
                alone: false,
            }));
        }
        let mut results = self.flush(&items).into_iter();
        let maildirs: HashMap<usize, io::Result<()>> = used.into_iter().zip(&mut results).collect();
        self.withdraw_unless(&maildirs);
        for open in std::mem::take(&mut self.mboxes) {
            let flushes = results.by_ref().take(1 + open.mbox.chain().len());
            let result: io::Result<()> = flushes.collect();
            match result {
                Ok(()) => {
                    open.mbox.chain_is_durable(&self.shared.known);
                    self.mboxes.push(open);
                }
                Err(source) => self.take_back(open, &source),
            }
        }
    }

    /// Removes what was published in a Maildir whose `new/` could not be flushed.
    fn withdraw_unless(&mut self, flushed: &HashMap<usize, io::Result<()>>) {
        for written in std::mem::take(&mut self.written) {
            let Some(Err(source)) = flushed.get(&written.maildir) else {
                self.written.push(written);
                continue;
            };
            if self.become_owner(&written.job).is_ok()
                && let Some(maildir) = self.maildirs.get(written.maildir)
            {
                maildir.withdraw(&self.shared.disk, &written.name);
            }
            let error = flush_error(written.job.mailbox(), source);
            written.job.fail(&error);
        }
    }

    pub(super) fn take_back(&mut self, mut open: OpenMbox<'a, D::Handle>, source: &io::Error) {
        let disk = &self.shared.disk;
        open.mbox.take_back(disk);
        if self.shared.keeper.is_some() {
            flush_cut(disk, &open.mbox);
        }
        if let Some(first) = open.jobs.first() {
            // Without it the lock file stays until it is stale.
            let _ = self.become_owner(first);
        }
        open.mbox.close(disk);
        for job in open.jobs {
            let error = flush_error(job.mailbox(), source);
            job.fail(&error);
        }
    }

    fn close_mboxes(&mut self) {
        for open in std::mem::take(&mut self.mboxes) {
            if let Some(first) = open.jobs.first() {
                let _ = self.become_owner(first);
            }
            open.mbox.close(&self.shared.disk);
            for job in open.jobs {
                job.succeed(TO_MBOX);
            }
        }
    }

    /// Looks for leftovers of crashed deliveries, after everybody was answered.
    fn sweep(&mut self) {
        let shared = self.shared;
        let Some(base) = &self.base else { return };
        for ((_, uid, gid), at) in &self.by_key {
            let Some(maildir) = self.maildirs.get(*at).filter(|m| m.is_sweep_due()) else {
                continue;
            };
            if self.credentials.become_user(*uid, *gid).is_err() {
                continue;
            }
            let path = maildir.path();
            match sweep(&shared.disk, base, path, shared.settings.tmp_age_max) {
                Ok(0) => {}
                Ok(removed) => {
                    let mailbox = path.display();
                    tracing::info!(mailbox, removed, "removed old files from tmp/");
                }
                Err(error) => {
                    let mailbox = path.display();
                    tracing::debug!(mailbox, %error, "cannot look for old files in tmp/");
                }
            }
        }
    }
}

pub(super) fn flush_error(mailbox: &str, source: &io::Error) -> MailboxError {
    let source = match source.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => source.kind().into(),
    };
    MailboxError::Flush {
        mailbox: mailbox.to_owned(),
        source,
    }
}

/// Cannot happen, but nobody shall be left without an answer if it does.
pub(super) fn interrupted(job: &Job) -> MailboxError {
    MailboxError::Interrupted {
        mailbox: job.mailbox().to_owned(),
    }
}

fn fail_all(group: Vec<Job>, error: MailboxError) {
    for job in group {
        job.fail(&error);
    }
}

//! One round of a writer through the delivery log: a batch of deliveries, one wait.
//!
//! Imports the rest of `delivery`, `mailbox`, `io`, `route`, `log`. The order is what makes an
//! answer true: lock mboxes, append records (the message, and for an mbox the place it goes to),
//! write Maildir files unseen while the log is flushed, wait for the flush, publish and append,
//! answer. See [`crate::manual::durability`]. No mailbox is flushed here, but for those on file
//! systems that a checkpoint cannot flush.

mod mboxes;

use super::floors::Floor;
use super::identity;
use super::job::Job;
use super::journal::{confirmed_records, done_records};
#[cfg(test)]
use super::keeper::Planted;
use super::keeper::{Keeper, Pass};
use super::promise::Kept;
use super::round::{TO_MAILDIR, TO_MBOX, interrupted};
use super::store::Shared;
use crate::io::{Credentials, Disk};
use crate::log::{Done, DoneOutcome, LogError, Record, Ticket};
use crate::mailbox::maildir::{Maildir, Unpublished, sweep};
use crate::mailbox::mbox::{Mbox, Siblings};
use crate::mailbox::{Flush, MailboxError, MailboxPath};
use crate::route::Format;
use crate::status::Status;
use crate::sync::Arc;
use std::cell::RefCell;
use std::collections::HashMap;

pub(super) struct LoggedRound<'a, D: Disk> {
    shared: &'a Shared<D>,
    keeper: &'a Keeper<D::Handle>,
    pass: Pass<'a, D::Handle>,
    floor: Arc<Floor>,
    credentials: &'a RefCell<Credentials>,
    /// What [`Credentials::begin`] returned.
    begun: u64,
    base: Option<D::Handle>,
    maildirs: Vec<OpenMaildir<D::Handle>>,
    by_key: HashMap<(String, u32, u32), usize>,
    written: Vec<Written<D::Handle>>,
    mboxes: Vec<OpenMbox<D::Handle>>,
    siblings: Siblings<D::Handle>,
    /// The newest record that must be durable before anything is published.
    newest: Option<Ticket>,
    refused: Vec<(Job, Status)>,
}

struct OpenMaildir<H> {
    maildir: Maildir<H>,
    /// The next checkpoint flushes it.
    later: bool,
}

struct Written<H> {
    job: Job,
    maildir: usize,
    unpublished: Unpublished<H>,
}

struct OpenMbox<H> {
    mbox: Mbox<H>,
    /// Whose it is: uid and gid.
    owner: (u32, u32),
    later: bool,
    jobs: Vec<(Job, usize)>,
    /// The messages, one behind the other; beside each job stands how long its own is.
    rendered: Vec<u8>,
}

impl<'a, D: Disk> LoggedRound<'a, D> {
    /// Does all that comes before the wait for the log; a delivery whose mailbox is locked goes
    /// back into the queue. `None` when the log is out of service, and everybody was told.
    pub(super) fn begin(
        shared: &'a Shared<D>,
        keeper: &'a Keeper<D::Handle>,
        credentials: &'a RefCell<Credentials>,
        mut jobs: Vec<Job>,
    ) -> Option<Self> {
        let pass = match keeper.enter() {
            Ok(pass) => pass,
            Err(error) => {
                for job in jobs {
                    job.refuse(error.status());
                }
                return None;
            }
        };
        let floor = keeper.floors.take(|| pass.journal.durable_up_to());
        let mut round = Self {
            shared,
            keeper,
            pass,
            floor: Arc::new(floor),
            begun: credentials.borrow_mut().begin(),
            credentials,
            base: None,
            maildirs: Vec::new(),
            by_key: HashMap::new(),
            written: Vec::new(),
            mboxes: Vec::new(),
            siblings: Siblings::default(),
            newest: None,
            refused: Vec::new(),
        };
        jobs.sort_by_key(|job| (job.target.uid, job.target.gid));
        let (to_maildir, to_mbox): (Vec<Job>, Vec<Job>) = jobs
            .into_iter()
            .partition(|job| job.target.format == Format::Maildir);
        round.open_mboxes(to_mbox);
        let to_maildir = round.promise(to_maildir);
        round.promise_mboxes();
        round.confirm();
        for job in to_maildir {
            round.write(job);
        }
        Some(round)
    }

    /// True while other deliveries may begin before this round is finished: it waits for the
    /// disk, and the log is not so full that they would wait for what this round holds in it.
    pub(super) fn may_overlap(&self) -> bool {
        let journal = &self.pass.journal;
        let Some(newest) = self.newest else {
            return false;
        };
        let usage = journal.usage();
        newest.sequence() > journal.durable_up_to() && usage.bytes_free > usage.log_bytes_max / 4
    }

    /// Waits for the log and takes every delivery to its end.
    pub(super) fn finish(mut self) {
        if self.wait() {
            self.publish();
            self.append();
        }
        self.refuse();
        self.sweep();
    }

    fn enter(&mut self, job: &Job) -> Result<(), MailboxError> {
        let credentials = &mut self.credentials.borrow_mut();
        identity::open_base(self.shared, credentials, &mut self.base, job)?;
        identity::become_owner(credentials, job)
    }

    fn become_owner(&self, job: &Job) -> Result<(), MailboxError> {
        identity::become_owner(&mut self.credentials.borrow_mut(), job)
    }

    /// For cleaning up: as somebody else a lock file stays until it is stale, and a file in `tmp/`
    /// until it is swept.
    fn become_owner_of(&self, (uid, gid): (u32, u32)) {
        if let Err(error) = self.credentials.borrow_mut().become_user(uid, gid) {
            tracing::debug!(%error, "cannot clean up in a mailbox");
        }
    }

    /// Appends the records of these deliveries; those whose record stands.
    fn promise(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let mut kept = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.promise_one(&job) {
                Ok(()) => kept.push(job),
                Err(error) => self.refuse_later(job, error.status()),
            }
        }
        kept
    }

    fn promise_one(&mut self, job: &Job) -> Result<(), LogError> {
        let Some(promise) = job.promise() else {
            return Err(LogError::Closed);
        };
        match promise.keep(&self.pass.journal, &self.floor, &job.mail)? {
            Kept::Stale => Err(LogError::Closed),
            Kept::With(ticket, is_new) => {
                if is_new {
                    self.keeper.doubts.open(promise);
                }
                self.must_wait_for(ticket);
                Ok(())
            }
        }
    }

    fn must_wait_for(&mut self, ticket: Ticket) {
        if self
            .newest
            .is_none_or(|newest| newest.sequence() < ticket.sequence())
        {
            self.newest = Some(ticket);
        }
    }

    /// The same for mboxes, with the places the messages go to.
    fn promise_mboxes(&mut self) {
        let mut places = Vec::new();
        for mut open in std::mem::take(&mut self.mboxes) {
            let before = open.jobs.len();
            let jobs = std::mem::take(&mut open.jobs);
            let mut from = 0;
            for (job, length) in jobs {
                match self.promise_one(&job) {
                    Ok(()) => {
                        from += length;
                        open.jobs.push((job, length));
                    }
                    Err(error) => {
                        open.rendered.drain(from..from + length);
                        self.refuse_later(job, error.status());
                    }
                }
            }
            debug_assert!(open.jobs.len() <= before, "deliveries only get fewer");
            let mut offset = open.mbox.next_offset();
            for (job, length) in &open.jobs {
                places.extend(job.done(place(offset, *length)));
                offset += *length as u64;
            }
            self.mboxes.push(open);
        }
        #[cfg(test)]
        if self.keeper.is_planted(Planted::PlaceForgotten) {
            places.clear();
        }
        if let Err(error) = self.note(places) {
            for open in std::mem::take(&mut self.mboxes) {
                self.fail_mbox(open, &error);
            }
        }
    }

    /// Appends a done record that must be durable before the next step.
    fn note(&mut self, done: Vec<Done>) -> Result<(), LogError> {
        for record in done_records(&done) {
            let ticket = self.pass.journal.append(record)?;
            self.must_wait_for(ticket);
        }
        Ok(())
    }

    fn fail_mbox(&mut self, open: OpenMbox<D::Handle>, error: &LogError) {
        self.become_owner_of(open.owner);
        open.mbox.close(&self.shared.disk);
        for (job, _) in open.jobs {
            self.refuse_later(job, error.status());
        }
    }

    /// Tells the log which replies were read; nobody waits for that.
    fn confirm(&self) {
        for record in confirmed_records(&self.keeper.doubts.take_confirmed()) {
            // Lost with a failing log, they are in doubt for a while.
            drop(self.pass.journal.append(record));
        }
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
            }),
            Err(error) => self.refuse_later(job, error.status()),
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
        self.keeper.make_room(self.pass.journal.as_ref())
    }

    fn write_unseen(&mut self, job: &Job) -> Result<(usize, Unpublished<D::Handle>), MailboxError> {
        let shared = self.shared;
        let message = &job.mail.message;
        let header = job.maildir_header();
        let size = header.len() as u64 + message.size();
        if shared.settings.is_over_limit(size) {
            return Err(self.over_limit(job));
        }
        let at = self.maildir(job)?;
        let (Some(base), Some(open)) = (&self.base, self.maildirs.get_mut(at)) else {
            return Err(interrupted(job));
        };
        let how = (&shared.names, shared.settings.compress);
        let unpublished = open
            .maildir
            .write(&shared.disk, base, how, &header, message)?;
        if !open.later {
            flush_now(&shared.disk, job, unpublished.file())?;
        }
        Ok((at, unpublished))
    }

    fn maildir(&mut self, job: &Job) -> Result<usize, MailboxError> {
        let shared = self.shared;
        let path = MailboxPath::new(&shared.settings.base, &job.target)?;
        self.enter(job)?;
        let (uid, gid) = (job.target.uid, job.target.gid);
        let key = (path.as_str().to_owned(), uid, gid);
        if let Some(at) = self.by_key.get(&key) {
            return Ok(*at);
        }
        let Some(base) = &self.base else {
            return Err(interrupted(job));
        };
        let known = (&shared.known, Flush::Later);
        let maildir = Maildir::open(
            &shared.disk,
            base,
            &path,
            shared.settings.owner(uid, gid),
            known,
        )?;
        let dirty = &self.keeper.dirty;
        let later = dirty
            .enter(&shared.disk, maildir.device(), maildir.new_directory())
            .and_then(|later| {
                dirty.enter_all(&shared.disk, maildir.chain())?;
                Ok(later)
            })
            .map_err(|error| MailboxError::from_io(path.display(), "opening it", error))?;
        maildir.is_seen(&shared.known);
        self.maildirs.push(OpenMaildir { maildir, later });
        let at = self.maildirs.len() - 1;
        self.by_key.insert(key, at);
        Ok(at)
    }

    /// Waits until all records are durable; false when they never will be, and everything was
    /// given up.
    fn wait(&mut self) -> bool {
        let Some(newest) = self.newest.take() else {
            return true;
        };
        #[cfg(test)]
        if self.keeper.is_planted(Planted::AnswerEarly) {
            return true;
        }
        let Err(error) = self.pass.journal.wait(newest) else {
            return true;
        };
        for written in std::mem::take(&mut self.written) {
            self.discard(&written);
            self.refuse_later(written.job, error.status());
        }
        for open in std::mem::take(&mut self.mboxes) {
            self.fail_mbox(open, &error);
        }
        false
    }

    fn discard(&self, written: &Written<D::Handle>) {
        let target = &written.job.target;
        self.become_owner_of((target.uid, target.gid));
        if let Some(open) = self.maildirs.get(written.maildir) {
            open.maildir
                .discard(&self.shared.disk, &written.unpublished);
        }
    }

    fn publish(&mut self) {
        if !self.written.is_empty()
            && let Some(error) = identity::changed(&mut self.credentials.borrow_mut(), self.begun)
        {
            for written in std::mem::take(&mut self.written) {
                self.discard(&written);
                let status = error(written.job.mailbox()).status();
                self.refuse_later(written.job, status);
            }
        }
        for mut written in std::mem::take(&mut self.written) {
            if !written.job.claim() {
                self.discard(&written);
                continue;
            }
            match self.with_room(|round| round.publish_one(&written)) {
                Ok(()) => written.job.succeed(TO_MAILDIR),
                Err(error) => {
                    self.discard(&written);
                    self.refuse_later(written.job, error.status());
                }
            }
        }
    }

    fn publish_one(&mut self, written: &Written<D::Handle>) -> Result<(), MailboxError> {
        let job = &written.job;
        self.become_owner(job)?;
        let (Some(open), Some(name)) = (self.maildirs.get(written.maildir), job.planned_name())
        else {
            return Err(interrupted(job));
        };
        let disk = &self.shared.disk;
        open.maildir.publish_as(disk, &written.unpublished, name)?;
        if !open.later
            && let Err(error) = flush_now(disk, job, open.maildir.new_directory())
        {
            open.maildir.withdraw(disk, name);
            return Err(error);
        }
        Ok(())
    }

    fn append(&mut self) {
        for open in std::mem::take(&mut self.mboxes) {
            self.append_to(open);
        }
    }

    fn append_to(&mut self, open: OpenMbox<D::Handle>) {
        let OpenMbox {
            mut mbox,
            owner,
            later,
            mut jobs,
            rendered,
        } = open;
        let disk = &self.shared.disk;
        self.become_owner_of(owner);
        let changed = identity::changed(&mut self.credentials.borrow_mut(), self.begun);
        if let Some(error) = changed {
            mbox.close(disk);
            for (job, _) in jobs {
                let status = error(job.mailbox()).status();
                self.refuse_later(job, status);
            }
            return;
        }
        let all_claimed = jobs.iter_mut().all(|(job, _)| job.claim());
        let appended = all_claimed.then(|| mbox.append_rendered(disk, &rendered));
        if !matches!(appended, Some(Ok(()))) {
            if let Some(Err(error)) = appended
                && error.is_no_space()
            {
                self.makes_room();
            }
            // One by one, so that each fails only for its own sake; and each at its own place.
            let mut from = 0;
            for (job, length) in std::mem::take(&mut jobs) {
                let own = rendered.get(from..from + length).unwrap_or_default();
                from += length;
                if let Some(job) = self.append_alone(&mut mbox, job, own) {
                    jobs.push((job, length));
                }
            }
        }
        if !later
            && !jobs.is_empty()
            && let Err(source) = disk.sync(mbox.file())
        {
            mbox.take_back(disk);
            let mailbox = mbox.path().display().to_owned();
            let status = MailboxError::Flush { mailbox, source }.status();
            for (job, _) in std::mem::take(&mut jobs) {
                self.refuse_later(job, status.clone());
            }
        }
        mbox.close(disk);
        for (job, _) in jobs {
            job.succeed(TO_MBOX);
        }
    }

    /// `None`: it failed or was abandoned.
    fn append_alone(
        &mut self,
        mbox: &mut Mbox<D::Handle>,
        mut job: Job,
        rendered: &[u8],
    ) -> Option<Job> {
        if !job.claim() {
            return None;
        }
        if let Err(error) = mbox.check_untorn() {
            self.refuse_later(job, error.status());
            return None;
        }
        let place = place(mbox.next_offset(), rendered.len());
        let noted = Record::Done(job.done(place).into_iter().collect()).encode();
        let journal = &self.pass.journal;
        if let Err(error) = journal.append(noted).and_then(|t| journal.wait(t)) {
            self.refuse_later(job, error.status());
            return None;
        }
        if let Err(error) = mbox.append_rendered(&self.shared.disk, rendered) {
            self.refuse_later(job, error.status());
            return None;
        }
        Some(job)
    }

    fn refuse_later(&mut self, job: Job, status: Status) {
        self.refused.push((job, status));
    }

    /// Answers deliveries that failed, once the log says that recovery must not do them.
    fn refuse(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        let all = refused.iter();
        let (promised, done): (Vec<bool>, Vec<Option<Done>>) = all
            .map(|(job, _)| {
                let done = job.done(DoneOutcome::Refused);
                (done.is_some(), done)
            })
            .unzip();
        let done: Vec<Done> = done.into_iter().flatten().collect();
        #[cfg(test)]
        let done = match self.keeper.is_planted(Planted::RefusalForgotten) {
            true => Vec::new(),
            false => done,
        };
        let mut is_logged = false;
        if !done.is_empty() {
            let journal = &self.pass.journal;
            let noted = done_records(&done).map(|record| journal.append(record));
            let last = noted.collect::<Result<Vec<Ticket>, LogError>>();
            // A log that failed cannot keep recovery from doing them; then the in-doubt memory
            // answers for the repetition.
            is_logged = last.is_ok_and(|tickets| {
                let newest = tickets.last();
                newest.is_none_or(|newest| journal.wait(*newest).is_ok())
            });
        }
        for ((mut job, status), promised) in refused.into_iter().zip(promised) {
            job.is_refused_in_log = is_logged && promised;
            job.refuse(status);
        }
    }

    /// Looks for leftovers of crashed deliveries, after everybody was answered.
    fn sweep(&mut self) {
        let shared = self.shared;
        let Some(base) = &self.base else { return };
        for ((_, uid, gid), at) in &self.by_key {
            let Some(open) = self.maildirs.get(*at).filter(|m| m.maildir.is_sweep_due()) else {
                continue;
            };
            if self
                .credentials
                .borrow_mut()
                .become_user(*uid, *gid)
                .is_ok()
            {
                let path = open.maildir.path();
                let swept = sweep(&shared.disk, base, path, shared.settings.tmp_age_max);
                tracing::debug!(
                    mailbox = path.display(),
                    ?swept,
                    "looked for old files in tmp/"
                );
            }
        }
    }
}

fn place(offset: u64, length: usize) -> DoneOutcome {
    DoneOutcome::Mbox {
        offset,
        length: length as u64,
    }
}

/// For file systems that no checkpoint can flush.
fn flush_now<D: Disk>(disk: &D, job: &Job, handle: &D::Handle) -> Result<(), MailboxError> {
    disk.sync(handle).map_err(|source| MailboxError::Flush {
        mailbox: job.mailbox().to_owned(),
        source,
    })
}

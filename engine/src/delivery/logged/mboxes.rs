//! The mboxes of a round through the delivery log: locked, measured, their messages rendered.
//!
//! Imports what its parent imports. Invariant: a lock is held from before the place of a message
//! is promised in the log until the message stands there.

use super::super::job::Job;
use super::super::round::interrupted;
use super::{LoggedRound, OpenMbox};
use crate::clock;
use crate::io::Disk;
use crate::mailbox::mbox::{Mbox, Opened, render};
use crate::mailbox::{Flush, MailboxError, MailboxPath};

impl<D: Disk> LoggedRound<'_, D> {
    /// Locks the mboxes, so that it is known where in them the messages will stand.
    pub(super) fn open_mboxes(&mut self, jobs: Vec<Job>) {
        let mut groups: Vec<Vec<Job>> = Vec::new();
        for job in jobs {
            let same = |group: &&mut Vec<Job>| {
                let first = group.first();
                first.is_some_and(|first| first.target == job.target)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(job),
                None => groups.push(vec![job]),
            }
        }
        for group in groups {
            let Some(first) = group.first() else { continue };
            match self.with_room(|round| round.open_mbox(first)) {
                Ok((Opened::Ready(mbox), later)) => {
                    let mbox = *mbox;
                    let open = self.render(mbox, later, group);
                    self.mboxes.push(open);
                }
                Ok((Opened::Busy(lock), _)) => self.wait_for_lock(group, lock),
                Err(error) => {
                    for job in group {
                        self.refuse_later(job, error.status());
                    }
                }
            }
        }
    }

    fn open_mbox(&mut self, job: &Job) -> Result<(Opened<D::Handle>, bool), MailboxError> {
        let shared = self.shared;
        let path = MailboxPath::new(&shared.settings.base, &job.target)?;
        self.enter(job)?;
        let Some(base) = &self.base else {
            return Err(interrupted(job));
        };
        let known = (&shared.known, Flush::Later);
        let owner = (job.target.uid, job.target.gid);
        let opened = Mbox::open(
            &shared.disk,
            base,
            &path,
            owner,
            &shared.settings,
            known,
            &mut self.siblings,
        )?;
        let mut later = true;
        if let Opened::Ready(mbox) = &opened {
            let dirty = &self.keeper.dirty;
            let entered = dirty
                .enter(&shared.disk, mbox.device(), mbox.parent())
                .and_then(|is_later| {
                    later = is_later;
                    dirty.enter_all(&shared.disk, mbox.chain())
                });
            if let Err(error) = entered {
                let failed = MailboxError::from_io(path.display(), "opening it", error);
                if let Opened::Ready(mbox) = opened {
                    mbox.close(&shared.disk);
                }
                return Err(failed);
            }
            mbox.is_seen(&shared.known);
        }
        Ok((opened, later))
    }

    fn render(
        &mut self,
        mbox: Mbox<D::Handle>,
        later: bool,
        group: Vec<Job>,
    ) -> OpenMbox<D::Handle> {
        let owner = group.first().map(|job| (job.target.uid, job.target.gid));
        let mut open = OpenMbox {
            mbox,
            owner: owner.unwrap_or_default(),
            later,
            jobs: Vec::with_capacity(group.len()),
            rendered: Vec::new(),
        };
        for job in group {
            let mark = open.rendered.len();
            let header = job.mbox_header();
            let message = &job.mail.message;
            let without_status = self.shared.without_status(message);
            let form = (&header[..], without_status);
            let rendered = render(form, &mut open.rendered, |take| {
                message.for_each_chunk(|chunk| {
                    take(chunk);
                    std::io::Result::Ok(())
                })
            });
            let end = open.mbox.next_offset() + open.rendered.len() as u64;
            let result = match rendered {
                Err(error) => Err(MailboxError::from_io(
                    job.mailbox(),
                    "reading the message",
                    error,
                )),
                Ok(()) if self.shared.settings.is_over_limit(end) => {
                    open.rendered.truncate(mark);
                    Err(self.over_limit(&job))
                }
                Ok(()) => Ok(()),
            };
            match result {
                Ok(()) => open.jobs.push((job, open.rendered.len() - mark)),
                Err(error) => self.refuse_later(job, error.status()),
            }
        }
        open
    }

    pub(super) fn over_limit(&self, job: &Job) -> MailboxError {
        MailboxError::OverLimit {
            mailbox: job.mailbox().to_owned(),
            limit_bytes: self.shared.settings.limit_bytes,
        }
    }

    fn wait_for_lock(&mut self, group: Vec<Job>, lock: &'static str) {
        for mut job in group {
            match job.lock_pause(self.shared.settings.lock_patience) {
                Some(pause) => self.shared.queue.push_delayed(clock::now() + pause, job),
                None => {
                    let mailbox = job.mailbox().to_owned();
                    let error = MailboxError::Busy { mailbox, lock };
                    self.refuse_later(job, error.status());
                }
            }
        }
    }
}

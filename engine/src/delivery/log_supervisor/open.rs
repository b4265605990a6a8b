//! Opens the delivery log: recovers its content when the store opens, and takes it into service
//! again after it failed.

use super::super::context::Context;
use super::super::ledger::journal::{Found, Journal};
use super::super::recovery::{PageCache, Part, Recovered, RecoveryReport, in_doubt, mailboxes};
use super::LogSupervisor;
use crate::io::Disk;
use crate::log::{LogError, Sequence};
use crate::sync::{Arc, Mutex};
use std::fmt;
use std::io;

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    /// Opens the log, which only threads that do not come back may still hold. Returns `None` if it
    /// was recovered before, and is in service again.
    pub(in crate::delivery) fn open<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) -> Result<Option<RecoveryReport>, LogError> {
        self.ledger.log.let_go_of_failed();
        match self.ledger.log.is_recovered() {
            true => self.reopen(context).map(|()| None),
            false => self.recover(context).map(Some),
        }
    }

    /// Opens the log and recovers its content.
    fn recover<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) -> Result<RecoveryReport, LogError> {
        context.durable_dirs.clear();
        self.ledger.unconfirmed.clear();
        self.ledger.deferred.clear();
        let (journal, found) = self.source.open()?;
        // The kernel may still return data that it dropped in an earlier process.
        let has_suspects = self.source.has_suspects();
        *self.noted_suspects.lock() = has_suspects;
        let page_cache = match has_suspects {
            true => PageCache::Suspect,
            false => PageCache::Trusted,
        };
        let recovered = self.recover_found(context, (&journal, page_cache), found);
        // Work that does not come back may still hold it.
        recovered.inspect_err(|_| journal.let_go())
    }

    fn recover_found<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        (journal, page_cache): (&Arc<dyn Journal>, PageCache),
        found: Arc<dyn Found>,
    ) -> Result<RecoveryReport, LogError> {
        let Recovered {
            mut report,
            unfinished,
            in_doubt,
        } = self.recover_each(context, (journal, page_cache), &found)?;
        drop(found);
        self.ledger.unconfirmed.add_recovered(in_doubt);
        self.ledger.deferred.add(unfinished);
        let checkpoint = || {
            // The records that recovery wrote are not needed after it either.
            let next = Sequence(journal.durable_up_to().0 + 1);
            self.checkpoint_on(context, journal.as_ref(), next)
        };
        let mut checkpoint_at = checkpoint()?;
        // The freed segments may have kept mailboxes from being written.
        while self.ledger.deferred.wants_room() && self.retry_on(context, journal) {
            checkpoint_at = checkpoint()?;
        }
        report.waiting = self.ledger.deferred.deliveries();
        let journal = Arc::clone(journal);
        self.ledger.log.is_in_service(journal, checkpoint_at);
        Ok(report)
    }

    /// Recovers the mailboxes of each file system separately, all at once. Sets a file system aside
    /// that makes no progress within the time limit of a step.
    fn recover_each<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        (journal, page_cache): (&Arc<dyn Journal>, PageCache),
        found: &Arc<dyn Found>,
    ) -> Result<Recovered, LogError> {
        let mut all = Recovered {
            in_doubt: in_doubt(found.as_ref())?,
            ..Recovered::default()
        };
        let mut begun = Vec::new();
        // Every mailbox must have a part, whatever is mounted meanwhile.
        let mounted = Arc::new(self.pools.mount_points());
        for mount_point in mounted.of_all(|| mailboxes(found.as_ref()))? {
            let (mounted, is_it) = (Arc::clone(&mounted), mount_point.clone());
            let is_there = move |mailbox: &str| mounted.of(mailbox) == is_it;
            let part = Arc::new(Part::new(Box::new(is_there)));
            let done = Arc::new(Mutex::new(None));
            let job = {
                let (supervisor, context) = (Arc::clone(self), Arc::clone(context));
                let (journal, found) = (Arc::clone(journal), Arc::clone(found));
                let (part, done) = (Arc::clone(&part), Arc::clone(&done));
                self.work_on(mount_point.clone(), move || {
                    let recovery = supervisor.recovery(&context, journal.as_ref(), page_cache);
                    let recovered = recovery.run(found.as_ref(), &part);
                    *done.lock() = Some(recovered);
                })
            };
            let job = job.map_err(no_thread)?;
            begun.push((mount_point, part, done, job));
        }
        let recovery = self.recovery(context, journal.as_ref(), page_cache);
        for (mount_point, part, done, job) in begun {
            let is_over = job.is_some_and(|job| job.wait_while(|| part.progress()));
            let recovered = match done.lock().take() {
                Some(recovered) => recovered?,
                None if is_over => {
                    return Err(LogError::Panicked {
                        thread: "mailstow-job",
                    });
                }
                None => {
                    tracing::error!(
                        mount_point = %mount_point.display(),
                        "a file system does not answer; its mail stays in the delivery log and is \
                         tried again"
                    );
                    recovery.set_aside(found.as_ref(), &part)?
                }
            };
            all.add(recovered);
        }
        Ok(all)
    }

    /// Takes the log into service again after it failed. The mailboxes need no recovery: the kernel
    /// has all data that was written to them, and the process knows the outcome of each delivery.
    /// Messages that a reader removed since are not restored.
    ///
    /// Appends the refusals that the failed log did not take, before the clients can repeat these
    /// deliveries.
    fn reopen<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) -> Result<(), LogError> {
        let (journal, found) = self.source.open()?;
        drop(found);
        self.ledger.refusals.append_again(journal.as_ref())?;
        self.ledger.unconfirmed.write_again();
        let below = self
            .ledger
            .retention
            .low_water_mark(|| journal.durable_up_to());
        let checkpoint_at = self.checkpoint_on(context, journal.as_ref(), below)?;
        self.ledger.log.is_in_service(journal, checkpoint_at);
        Ok(())
    }
}

fn no_thread(error: io::Error) -> LogError {
    LogError::Io {
        operation: "start",
        object: "a thread for recovery (raise the limit on processes: TasksMax=, ulimit -u)".into(),
        source: Arc::new(error),
    }
}

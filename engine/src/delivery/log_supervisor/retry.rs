//! Tries mail again that could not be written to its mailboxes, each file system separately.

use super::super::context::Context;
use super::super::ledger::deferred_mail::{DeferredMail, Held, Unfinished};
use super::super::ledger::journal::Journal;
use super::super::recovery::PageCache;
use super::{LogSupervisor, Work};
use crate::clock;
use crate::io::Disk;
use crate::sync::Arc;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    /// Tries failed deliveries again.
    pub(in crate::delivery) fn retry_deferred<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) {
        let now = clock::now();
        if self
            .ledger
            .deferred
            .next_attempt(now)
            .is_none_or(|due| due > now)
        {
            return;
        }
        let before = self.ledger.deferred.deliveries();
        let begun = self
            .unfinished()
            .into_iter()
            .map(|(mount_point, unfinished)| {
                let (supervisor, context) = (Arc::clone(self), Arc::clone(context));
                self.work_with_log(mount_point, move |term| {
                    if let Ok(lease) = supervisor.ledger.log.lease_for(term) {
                        supervisor.retry(&context, lease.journal.as_ref(), &unfinished);
                    }
                })
            });
        let begun = begun.filter_map(|job| {
            job.unwrap_or_else(|error| {
                tracing::error!(%error, "deferred mail was not tried again: no thread can be \
                    started");
                None
            })
        });
        let begun: Vec<Work> = begun.collect();
        self.wait_for(begun);
        self.ledger
            .deferred
            .is_attempted(self.ledger.deferred.deliveries() == before);
    }

    /// As [`Self::retry_deferred`], on a log that is not in service yet. Returns true when some
    /// deliveries were made.
    pub(super) fn retry_on<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        journal: &Arc<dyn Journal>,
    ) -> bool {
        let before = self.ledger.deferred.deliveries();
        for (mount_point, unfinished) in self.unfinished() {
            let (supervisor, context) = (Arc::clone(self), Arc::clone(context));
            let journal = Arc::clone(journal);
            let job = self.work_on(mount_point, move || {
                supervisor.retry(&context, journal.as_ref(), &unfinished);
            });
            if let Ok(Some(job)) = job {
                job.wait();
            }
        }
        self.ledger.deferred.deliveries() < before
    }

    fn retry<D: Disk<Handle = H>>(
        &self,
        context: &Context<D>,
        journal: &dyn Journal,
        unfinished: &Unfinished,
    ) {
        // Mail that recovery deferred while it did not trust the page cache is not trusted now
        // either.
        let page_cache = match *self.noted_suspects.lock() {
            true => PageCache::Suspect,
            false => PageCache::Trusted,
        };
        match self
            .recovery(context, journal, page_cache)
            .retry(unfinished)
        {
            Ok(left) => {
                let deferred = &self.ledger.deferred;
                deferred.settle_extents(&unfinished.extents, &left.extents);
                deferred.settle(&unfinished.mails, left.mails);
            }
            Err(error) => tracing::error!(%error, "mail that waits was not tried again"),
        }
    }

    /// Returns the remaining deliveries by the mount points of their file systems. Leaves out file
    /// systems that do not answer.
    fn unfinished(&self) -> BTreeMap<PathBuf, Unfinished> {
        let mut by_mount_point: BTreeMap<PathBuf, Unfinished> = BTreeMap::new();
        for waiting in self.ledger.deferred.extents() {
            let mount_point = self.pools.mount_point_of(&waiting.extent.mailbox);
            let unfinished = by_mount_point.entry(mount_point).or_default();
            unfinished.extents.push(waiting);
        }
        for mail in self
            .ledger
            .deferred
            .snapshot(|held| held == Held::Undelivered)
        {
            for waiting in &mail.recipients {
                let at = usize::try_from(waiting.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = mail.envelope.recipients.get(at) else {
                    continue;
                };
                let mount_point = self.pools.mount_point_of(&recipient.mailbox);
                let mails = &mut by_mount_point.entry(mount_point).or_default().mails;
                match mails.last_mut() {
                    Some(last) if last.envelope.id == mail.envelope.id => {
                        last.recipients.push(waiting.clone());
                    }
                    _ => mails.push(DeferredMail {
                        recipients: vec![waiting.clone()],
                        ..mail.clone()
                    }),
                }
            }
        }
        let hung = self.pools.hung();
        by_mount_point
            .retain(|mount_point, _| !hung.iter().any(|hung| hung.mount_point == *mount_point));
        by_mount_point
    }
}

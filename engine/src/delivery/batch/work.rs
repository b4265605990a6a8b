//! What all phases of a batch share, and how a delivery of it ends.

use super::super::active_batch::ActiveBatch;
use super::super::context::{Context, Workspace};
use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::flush::{FlushResult, Item};
use super::super::reply::Ending;
use super::super::writer_pool::WriterPool;
use super::commit::Commit;
use crate::io::{Credentials, Disk};
use crate::mailbox::MailboxError;
use crate::sync::Arc;
use std::cell::RefCell;
use std::path::Path;

/// The work on one batch.
pub(super) struct Work<'a, D: Disk> {
    pub(super) context: &'a Context<D>,
    pool: &'a WriterPool,
    pub(super) commit: Commit<'a, D::Handle>,
    /// Records every step that may never end.
    pub(super) active: Arc<ActiveBatch>,
    pub(super) workspace: Workspace<'a, D>,
    /// Failed deliveries that are answered once the log has their refusals.
    refused: Vec<(Delivery, DeliveryError)>,
}

impl<'a, D: Disk> Work<'a, D> {
    pub(super) fn new(
        (context, pool, credentials): (&'a Context<D>, &'a WriterPool, &'a RefCell<Credentials>),
        commit: Commit<'a, D::Handle>,
        active: Arc<ActiveBatch>,
    ) -> Self {
        Self {
            context,
            pool,
            commit,
            active,
            workspace: Workspace::new(context, credentials),
            refused: Vec::new(),
        }
    }

    /// Returns the mount point of the file system that the paths of the mailboxes lead to.
    pub(super) fn mount_point(&self) -> &'a Path {
        self.pool.mount_point()
    }

    /// Ends a delivery: at once, except for a failure that must be in the log first.
    pub(super) fn end(&mut self, delivery: Delivery, ending: Ending) {
        match ending {
            Err(error) if self.commit.records_refusals() => self.refused.push((delivery, error)),
            ending => delivery.finish(ending),
        }
    }

    /// Ends deliveries that failed, each with its own error.
    pub(super) fn fail_all(
        &mut self,
        deliveries: impl IntoIterator<Item = Delivery>,
        error: impl Fn(&Delivery) -> DeliveryError,
    ) {
        for delivery in deliveries {
            let error = error(&delivery);
            self.end(delivery, Err(error));
        }
    }

    /// Answers the deliveries that failed, once their refusals are in the log.
    pub(super) fn answer_refused(&mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        self.commit.record_refusals(&mut refused);
        for (delivery, error) in refused {
            delivery.finish(Err(error));
        }
    }

    /// Parks deliveries until the lock of their mbox is free. Those that have waited too long, and
    /// those that exceed the capacity, fail.
    pub(super) fn postpone(&mut self, deliveries: Vec<Delivery>, lock: &'static str) {
        let (queue, lock_wait) = (&self.pool.queue, self.context.settings.lock_timeout);
        let over = queue.lock_is_held(deliveries, lock, lock_wait);
        self.fail_all(over, |delivery| delivery.busy(lock).into());
    }

    /// Makes an attempt, and a second one if the disk was full and the log gave space back.
    pub(super) fn with_room<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<R, MailboxError>,
    ) -> Result<R, MailboxError> {
        match attempt(self) {
            Err(error) if error.is_no_space() && self.commit.make_room() => attempt(self),
            done => done,
        }
    }

    /// Flushes what the batch wrote; returns one result for each item. `sync_handle` returns the
    /// first handle that the batch opened on a file system before it wrote there.
    pub(super) fn flush<'i>(
        &self,
        items: &[Item<'i, D::Handle>],
        sync_handle: impl Fn(u64) -> Option<&'i D::Handle>,
    ) -> Vec<FlushResult> {
        self.active.step(None);
        let context = self.context;
        let results = context.flusher.flush(&context.disk, items, sync_handle);
        let mut noted = Vec::new();
        for (item, result) in items.iter().zip(&results) {
            if let Err(error) = result
                && !noted.contains(&item.device)
            {
                noted.push(item.device);
                tracing::error!(%error, "flushing mail to disk failed; these deliveries are refused");
                self.commit.flush_failed(item.device, error);
            }
        }
        results
    }
}

/// Flushes something on a file system that no checkpoint can flush.
pub(super) fn flush_now<D: Disk>(
    disk: &D,
    delivery: &Delivery,
    handle: &D::Handle,
) -> Result<(), MailboxError> {
    disk.sync(handle)
        .map_err(|source| MailboxError::from_flush(delivery.mailbox(), &Arc::new(source)))
}

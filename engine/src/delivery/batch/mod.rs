//! A batch of deliveries on its way through all phases.
//!
//! The order of the phases makes an answer true; see [`crate::manual::durability`]. The differences
//! between batches are in [`Commit`]. Deliveries are sorted by owner, so that each phase changes
//! its identity rarely.

mod appended;
mod commit;
mod extents;
mod maildirs;
mod mboxes;
mod work;

use super::active_batch::ActiveBatch;
use super::context::Context;
use super::delivery::Delivery;
use super::writer_pool::WriterPool;
use crate::io::{Credentials, Disk};
use crate::log::LogError;
use crate::sync::Arc;
use crate::target::Format;
pub(super) use commit::Commit;
use maildirs::Maildirs;
use mboxes::Mboxes;
use std::cell::RefCell;
use work::Work;

/// Deliveries that become durable together.
pub(super) struct Batch<'a, D: Disk> {
    work: Work<'a, D>,
    maildirs: Maildirs<D::Handle>,
    mboxes: Mboxes<'a, D::Handle>,
}

impl<'a, D: Disk> Batch<'a, D> {
    /// Begins a batch: runs all phases that precede the wait. Deliveries to locked mboxes return to
    /// the queue.
    pub(super) fn begin(
        with: (&'a Context<D>, &'a WriterPool, &'a RefCell<Credentials>),
        (commit, active): (Commit<'a, D::Handle>, Arc<ActiveBatch>),
        mut deliveries: Vec<Delivery>,
    ) -> Self {
        let mut batch = Self {
            work: Work::new(with, commit, active),
            maildirs: Maildirs::default(),
            mboxes: Mboxes::default(),
        };
        deliveries.sort_by_key(Delivery::owner);
        let (to_maildir, to_mbox): (Vec<Delivery>, Vec<Delivery>) = deliveries
            .into_iter()
            .partition(|delivery| delivery.target.format == Format::Maildir);
        let work = &mut batch.work;
        batch.mboxes.lock(work, to_mbox);
        work.active.waits_for_log();
        let to_maildir = record(work, to_maildir);
        batch.mboxes.record(work);
        work.commit.record_confirmations();
        work.active.step(None);
        batch.maildirs.write(work, to_maildir);
        batch
    }

    /// Returns true while another batch may begin before this one is finished.
    pub(super) fn may_overlap(&self) -> bool {
        self.work.commit.may_overlap()
    }

    /// Ends every delivery.
    pub(super) fn finish(mut self) {
        let work = &mut self.work;
        work.active.waits_for_log();
        let is_durable = work.commit.wait();
        work.active.step(None);
        match is_durable {
            Ok(()) => {
                self.maildirs.flush_written(work);
                self.maildirs.publish(work);
                self.mboxes.append(work);
                self.flush_visible();
            }
            Err(error) => self.give_up(&error),
        }
        self.mboxes.answer(&mut self.work);
        self.maildirs.answer(&mut self.work);
        self.work.active.waits_for_log();
        self.work.answer_refused();
        self.work.active.step(None);
        self.maildirs.sweep(&self.work);
    }

    /// Flushes messages that are visible and not durable yet, and removes those that cannot be
    /// flushed.
    fn flush_visible(&mut self) {
        let (work, maildirs, mboxes) = (&mut self.work, &mut self.maildirs, &mut self.mboxes);
        let (used, mut items) = maildirs.visible();
        items.extend(mboxes.visible());
        if items.is_empty() {
            return;
        }
        let sync_handle = |device| {
            maildirs
                .sync_handle(device)
                .or_else(|| mboxes.sync_handle(device))
        };
        let mut results = work.flush(&items, sync_handle).into_iter();
        let flushed = used.into_iter().zip(&mut results).collect();
        maildirs.withdraw_unless(work, &flushed);
        mboxes.take_back_unless(work, results);
    }

    /// Ends every delivery after the log failed.
    fn give_up(&mut self, error: &LogError) {
        self.maildirs
            .give_up(&mut self.work, |_| error.clone().into());
        self.mboxes.give_up(&mut self.work, error);
    }
}

/// Records deliveries, and returns those that may go on.
fn record<D: Disk>(work: &mut Work<'_, D>, deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let record = |delivery| match work.commit.record(&delivery) {
        Ok(()) => Some(delivery),
        Err(error) => {
            work.end(delivery, Err(error.into()));
            None
        }
    };
    deliveries.into_iter().filter_map(record).collect()
}

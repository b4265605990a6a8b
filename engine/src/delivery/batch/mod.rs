//! A batch of deliveries on its way through all phases.
//!
//! The order of the phases is what makes an answer true; see [`crate::manual::durability`]. What
//! differs between batches is in [`Commit`]. Deliveries are sorted by owner, so that each phase
//! changes its identity rarely.

mod commit;
mod extents;
mod maildirs;
mod mboxes;

use super::context::{Context, Workspace};
use super::delivery::{Delivery, Stored};
use super::error::DeliveryError;
use super::queue::Queue;
use crate::io::{Credentials, Disk};
use crate::log::LogError;
use crate::mailbox::mbox::Siblings;
use crate::mailbox::{MailboxError, Unflushed};
use crate::route::Format;
pub(super) use commit::Commit;
use maildirs::{OpenMaildirs, Published, Written};
use mboxes::{AppendedMbox, RenderedMbox};
use std::cell::RefCell;

/// Deliveries that become durable together.
pub(super) struct Batch<'a, D: Disk> {
    context: &'a Context<D>,
    /// Takes back deliveries to locked mboxes.
    queue: &'a Queue<Delivery>,
    commit: Commit<'a, D::Handle>,
    workspace: Workspace<'a, D>,
    maildirs: OpenMaildirs<D::Handle>,
    /// Not visible yet.
    written: Vec<Written<D::Handle>>,
    /// Visible, and not flushed yet.
    published: Vec<Published>,
    siblings: Siblings<D::Handle>,
    /// Deliveries to mboxes that are locked when they are appended to.
    unlocked: Vec<Delivery>,
    /// Locked, with messages that the log has and the mbox has not.
    rendered: Vec<RenderedMbox<D::Handle>>,
    /// Locked, with messages that are not flushed yet.
    appended: Vec<AppendedMbox<'a, D::Handle>>,
    /// Failed, and not answered before the log has that.
    refused: Vec<(Delivery, DeliveryError)>,
}

impl<'a, D: Disk> Batch<'a, D> {
    /// Begins a batch: does all that comes before the wait. Deliveries to locked mboxes go back
    /// into the queue.
    pub(super) fn begin(
        context: &'a Context<D>,
        queue: &'a Queue<Delivery>,
        credentials: &'a RefCell<Credentials>,
        commit: Commit<'a, D::Handle>,
        mut deliveries: Vec<Delivery>,
    ) -> Self {
        let mut batch = Self {
            context,
            queue,
            commit,
            workspace: Workspace::new(context, credentials),
            maildirs: OpenMaildirs::default(),
            written: Vec::new(),
            published: Vec::new(),
            siblings: Siblings::default(),
            unlocked: Vec::new(),
            rendered: Vec::new(),
            appended: Vec::new(),
            refused: Vec::new(),
        };
        deliveries.sort_by_key(Delivery::owner);
        let (to_maildir, to_mbox): (Vec<Delivery>, Vec<Delivery>) = deliveries
            .into_iter()
            .partition(|delivery| delivery.target.format == Format::Maildir);
        batch.lock(to_mbox);
        let to_maildir = batch.record(to_maildir);
        batch.write(to_maildir);
        batch
    }

    /// Returns true while another batch may begin before this one is finished.
    pub(super) fn may_overlap(&self) -> bool {
        self.commit.may_overlap()
    }

    /// Takes every delivery to its end.
    pub(super) fn finish(mut self) {
        match self.commit.wait() {
            Ok(()) => {
                self.flush_written();
                self.publish();
                self.append();
                self.flush_visible();
            }
            Err(error) => self.give_up(&error),
        }
        self.answer();
        self.sweep();
    }

    /// Records the deliveries to Maildirs and to the mboxes that are locked, and returns those to
    /// Maildirs that may go on.
    fn record(&mut self, to_maildir: Vec<Delivery>) -> Vec<Delivery> {
        let mut record = |delivery| match self.commit.record(&delivery) {
            Ok(()) => Some(delivery),
            Err(error) => {
                self.end(delivery, Err(error.into()));
                None
            }
        };
        let recorded = to_maildir.into_iter().filter_map(&mut record).collect();
        self.record_mboxes();
        self.commit.record_confirmations();
        recorded
    }

    /// Ends everything after the wait failed.
    fn give_up(&mut self, error: &LogError) {
        self.give_up_written(|_| error.clone().into());
        for mbox in std::mem::take(&mut self.rendered) {
            self.give_up_mbox(mbox, error);
        }
    }

    /// Flushes what became visible, and takes back what cannot be flushed.
    fn flush_visible(&mut self) {
        if self.published.is_empty() && self.appended.is_empty() {
            return;
        }
        let (maildirs, mut items) = self.visible_maildirs();
        items.extend(self.visible_mboxes());
        let mut results = self.flush(&items).into_iter();
        let flushed = maildirs.into_iter().zip(&mut results).collect();
        self.withdraw_unless(&flushed);
        self.take_back_unless(results);
    }

    /// Answers the deliveries that are durable now, gives locks back, and answers those that
    /// failed.
    fn answer(&mut self) {
        self.close_mboxes();
        for published in std::mem::take(&mut self.published) {
            published.delivery.finish(Ok(Stored::Maildir));
        }
        let mut refused = std::mem::take(&mut self.refused);
        self.commit.record_refusals(&mut refused);
        for (delivery, error) in refused {
            delivery.finish(Err(error));
        }
    }

    /// Ends a delivery: at once, but for a failure that the log must have before.
    fn end(&mut self, delivery: Delivery, result: Result<Stored, DeliveryError>) {
        match result {
            Err(error) if self.commit.records_refusals() => self.refused.push((delivery, error)),
            result => delivery.finish(result),
        }
    }

    /// Makes an attempt, and another one if the disk was full and the log gave space back.
    fn with_room<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<R, MailboxError>,
    ) -> Result<R, MailboxError> {
        match attempt(self) {
            Err(error) if error.is_no_space() && self.commit.make_room() => attempt(self),
            done => done,
        }
    }
}

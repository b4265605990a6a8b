//! A locked mbox with messages that are not flushed yet.

use super::super::delivery::Delivery;
use super::super::ledger::handle::LogLease;
use super::super::ledger::retention::RetentionMark;
use super::super::reply::Stored;
use super::work::Work;
use crate::io::Disk;
use crate::mailbox::MailboxError;
use crate::mailbox::mbox::Mbox;
use crate::sync::Arc;
use crate::target::Owner;
use std::fmt;
use std::io;

/// A locked mbox and the deliveries that were appended to it.
pub(super) struct AppendedMbox<'a, H> {
    pub(super) mbox: Mbox<H>,
    pub(super) owner: Owner,
    pub(super) deliveries: Vec<Delivery>,
    /// Keeps the extent records of the messages in the log until they are flushed.
    pub(super) extents: Option<(Arc<RetentionMark>, LogLease<'a>)>,
}

impl<H: fmt::Debug + Send + Sync + 'static> AppendedMbox<'_, H> {
    /// Unlocks the mbox and answers its deliveries, which are durable.
    pub(super) fn answer<D: Disk<Handle = H>>(self, work: &mut Work<'_, D>) {
        work.workspace.become_owner_to_clean_up(self.owner);
        self.mbox.close(&work.context.disk);
        for delivery in self.deliveries {
            work.end(delivery, Ok(Stored::Mbox));
        }
    }

    /// Truncates what was appended, if it can, and answers with the failed flush.
    pub(super) fn take_back<D: Disk<Handle = H>>(
        mut self,
        work: &mut Work<'_, D>,
        source: &Arc<io::Error>,
    ) {
        let disk = &work.context.disk;
        self.mbox.take_back(disk);
        if work.commit.extents().is_some() {
            flush_cut(disk, &self.mbox);
        }
        // With another identity, the lock file stays until it is stale.
        work.workspace.become_owner_to_clean_up(self.owner);
        self.mbox.close(disk);
        work.fail_all(self.deliveries, |delivery| {
            MailboxError::from_flush(delivery.mailbox(), source).into()
        });
    }
}

/// Flushes a file after a message was cut off, so that no crash restores the message. The log
/// forgets the message; where it shares a sector with the next one, recovery could not distinguish
/// the two.
pub(super) fn flush_cut<D: Disk>(disk: &D, mbox: &Mbox<D::Handle>) {
    if let Err(error) = disk.sync(mbox.file()) {
        let mailbox = mbox.path().display();
        tracing::error!(mailbox, %error, "flushing the end of a mailbox that was cut failed");
    }
}

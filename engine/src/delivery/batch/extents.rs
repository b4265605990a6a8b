//! Appends messages to mboxes that are flushed with the batch, in a store with a delivery log. An
//! extent record holds the place of a message and the sums of its bytes, so that recovery can
//! distinguish a torn message from what other programs wrote.
//!
//! Invariants: the record is durable before the first byte of the message is written, and
//! everything before the message is durable by then, so that only the last message in the file can
//! be torn.

use super::super::active_batch::ActiveBatch;
use super::super::context::Context;
use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::ledger::Ledger;
use super::super::ledger::handle::LogLease;
use super::super::ledger::sector_sums::SectorSums;
use super::appended::{AppendedMbox, flush_cut};
use super::commit::lease;
use super::work::Work;
use crate::io::Disk;
use crate::log::{Extent, LogError, Record, Sequence};
use crate::mailbox::MailboxError;
use crate::mailbox::mbox::{Mbox, MboxEntry};
use crate::sync::Arc;
use crate::target::Owner;
use std::io;

/// Appends the messages one after the other, each flushed before the next is recorded. The last one
/// is to be flushed with the batch; `None` when nothing was appended.
pub(super) fn append_with_extents<'a, D: Disk>(
    work: &mut Work<'a, D>,
    ledger: &'a Ledger<D::Handle>,
    (mbox, owner): (Mbox<D::Handle>, Owner),
    deliveries: Vec<(Delivery, Vec<u8>)>,
) -> Option<AppendedMbox<'a, D::Handle>> {
    let disk = &work.context.disk;
    let lease = match lease(ledger, &work.active) {
        Ok(lease) => lease,
        Err(error) => {
            mbox.close(disk);
            let deliveries = deliveries.into_iter().map(|(delivery, _)| delivery);
            work.fail_all(deliveries, |_| error.clone().into());
            return None;
        }
    };
    let mark = Arc::new(ledger.retention.take(|| lease.journal.durable_up_to()));
    work.active.has_extents_kept_by(&mark);
    let mut open = AppendedMbox {
        mbox,
        owner,
        deliveries: Vec::new(),
        extents: None,
    };
    let mut deliveries = deliveries.into_iter();
    while let Some((delivery, header)) = deliveries.next() {
        if let Err(source) = disk.sync(open.mbox.file()).map_err(Arc::new) {
            // Also covers the earlier messages, which the log has.
            work.commit.flush_failed(open.mbox.device(), &source);
            let rest = deliveries.map(|(delivery, _)| delivery);
            let rest = std::iter::once(delivery).chain(rest);
            work.fail_all(rest, |delivery| flush_error(delivery, &source));
            open.take_back(work, &source);
            return None;
        }
        let with = (&lease, work.active.as_ref());
        let mut appended = append_one(work.context, with, &mut open.mbox, &delivery, &header);
        if let Err(error) = &appended {
            flush_cut(disk, &open.mbox);
            if error.is_no_space() && ledger.make_room(lease.journal.as_ref()) {
                appended = append_one(work.context, with, &mut open.mbox, &delivery, &header);
                if appended.is_err() {
                    flush_cut(disk, &open.mbox);
                }
            }
        }
        match appended {
            Ok(()) => open.deliveries.push(delivery),
            Err(error) => work.end(delivery, Err(error)),
        }
    }
    if open.deliveries.is_empty() {
        open.mbox.close(disk);
        return None;
    }
    open.extents = Some((mark, lease));
    Some(open)
}

/// Records the extent of one message and appends the message.
fn append_one<D: Disk>(
    context: &Context<D>,
    (lease, active): (&LogLease<'_>, &ActiveBatch),
    mbox: &mut Mbox<D::Handle>,
    delivery: &Delivery,
    header: &[u8],
) -> Result<(), DeliveryError> {
    let message = &delivery.mail.message;
    let entry = MboxEntry {
        without_status: context.without_status(message),
        header,
        message,
    };
    let extent = extent_of(delivery, mbox.next_offset(), &entry);
    let extent = extent
        .map_err(|error| MailboxError::from_io(delivery.mailbox(), "reading the message", error))?;
    let at = record(lease, extent.clone())?;
    if !active.has_extent(at, extent) {
        return Err(delivery.interrupted().into());
    }
    let results = mbox.append(&context.disk, &context.settings, &[entry]);
    let appended = results
        .into_iter()
        .collect::<Result<(), Arc<MailboxError>>>();
    Ok(appended?)
}

fn flush_error(delivery: &Delivery, source: &Arc<io::Error>) -> DeliveryError {
    MailboxError::from_flush(delivery.mailbox(), source).into()
}

fn extent_of(delivery: &Delivery, offset: u64, entry: &MboxEntry<'_>) -> io::Result<Extent> {
    let mut sums = SectorSums::from(offset);
    entry.show(|bytes| sums.feed(bytes))?;
    let (end, sums) = sums.finish();
    let Owner { uid, gid } = delivery.owner();
    Ok(Extent {
        mailbox: delivery.target.path.as_str().to_owned(),
        uid,
        gid,
        offset,
        length: end - offset,
        sums,
    })
}

fn record(lease: &LogLease<'_>, extent: Extent) -> Result<Sequence, LogError> {
    let ticket = lease.journal.append(Record::Extent(extent).encode())?;
    lease.journal.wait(ticket)?;
    Ok(ticket.sequence())
}

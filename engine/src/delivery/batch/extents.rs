//! Appends messages to mboxes that are flushed with the batch, in a store with a delivery log: an
//! extent record says which bytes a message will have where, so that recovery can tell a torn
//! message from what other programs wrote.
//!
//! Invariants: the record is durable before the first byte of the message is written, and
//! everything before the message is durable by then, so that only the last message in the file can
//! be torn.

use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::keeper::{Keeper, Pass};
use super::super::sums::Sums;
use super::Batch;
use super::mboxes::AppendedMbox;
use crate::io::Disk;
use crate::log::{Extent, LogError, Record};
use crate::mailbox::MailboxError;
use crate::mailbox::mbox::{Entry, Mbox};
use std::io;

impl<'a, D: Disk> Batch<'a, D> {
    /// Appends the messages one after the other, each flushed before the next is recorded. The
    /// last one is flushed with the batch.
    pub(super) fn append_with_extents(
        &mut self,
        keeper: &'a Keeper<D::Handle>,
        mbox: Mbox<D::Handle>,
        deliveries: Vec<(Delivery, Vec<u8>)>,
    ) {
        let disk = &self.context.disk;
        let owner = deliveries.first().map(|(first, _)| first.owner());
        let pass = match keeper.enter() {
            Ok(pass) => pass,
            Err(error) => {
                mbox.close(disk);
                let deliveries = deliveries.into_iter().map(|(delivery, _)| delivery);
                return self.fail_all(deliveries, |_| error.clone().into());
            }
        };
        let floor = keeper.floors.take(|| pass.journal.durable_up_to());
        let mut open = AppendedMbox {
            mbox,
            owner: owner.unwrap_or_default(),
            deliveries: Vec::new(),
            extents: None,
        };
        let mut deliveries = deliveries.into_iter();
        while let Some((delivery, header)) = deliveries.next() {
            if let Err(source) = disk.sync(open.mbox.file()) {
                // With the messages before it, which the log has.
                self.commit.flush_failed(&source);
                let rest = deliveries.map(|(delivery, _)| delivery);
                let rest = std::iter::once(delivery).chain(rest);
                self.fail_all(rest, |delivery| flush_error(delivery, &source));
                return self.take_back(open, &source);
            }
            let mut appended = self.append_one(&pass, &mut open.mbox, &delivery, &header);
            if let Err(error) = &appended {
                flush_cut(disk, &open.mbox);
                if error.is_no_space() && keeper.make_room(pass.journal.as_ref()) {
                    appended = self.append_one(&pass, &mut open.mbox, &delivery, &header);
                    if appended.is_err() {
                        flush_cut(disk, &open.mbox);
                    }
                }
            }
            match appended {
                Ok(()) => open.deliveries.push(delivery),
                Err(error) => self.end(delivery, Err(error)),
            }
        }
        open.extents = Some((floor, pass));
        self.keep_open(open);
    }

    /// Records the extent of one message and appends the message.
    fn append_one(
        &self,
        pass: &Pass<'_, D::Handle>,
        mbox: &mut Mbox<D::Handle>,
        delivery: &Delivery,
        header: &[u8],
    ) -> Result<(), DeliveryError> {
        let context = self.context;
        let message = &delivery.mail.message;
        let entry = Entry {
            without_status: context.without_status(message),
            header,
            message,
        };
        let extent = extent_of(delivery, mbox.next_offset(), &entry);
        let extent = extent.map_err(|error| {
            MailboxError::from_io(delivery.mailbox(), "reading the message", error)
        })?;
        record(pass, extent)?;
        let results = mbox.append(&context.disk, &context.settings, &[entry]);
        let appended = results.into_iter().collect::<Result<(), MailboxError>>();
        Ok(appended?)
    }
}

fn flush_error(delivery: &Delivery, source: &io::Error) -> DeliveryError {
    MailboxError::from_flush(delivery.mailbox(), source).into()
}

fn extent_of(delivery: &Delivery, offset: u64, entry: &Entry<'_>) -> io::Result<Extent> {
    let mut sums = Sums::from(offset);
    entry.show(|bytes| sums.feed(bytes))?;
    let (end, sums) = sums.finish();
    let (uid, gid) = delivery.owner();
    Ok(Extent {
        mailbox: delivery.target.path.clone(),
        uid,
        gid,
        offset,
        length: end - offset,
        sums,
    })
}

fn record<H>(pass: &Pass<'_, H>, extent: Extent) -> Result<(), LogError> {
    let ticket = pass.journal.append(Record::Extent(extent).encode())?;
    pass.journal.wait(ticket).map(|_| ())
}

/// Flushes a file from which a message was cut off, so that no crash brings the message back: the
/// log forgets it, and in a sector that it shares with what is appended next, recovery could not
/// tell the two apart.
pub(super) fn flush_cut<D: Disk>(disk: &D, mbox: &Mbox<D::Handle>) {
    if let Err(error) = disk.sync(mbox.file()) {
        let mailbox = mbox.path().display();
        tracing::error!(mailbox, %error, "flushing the end of a mailbox that was cut failed");
    }
}

//! The mboxes of a batch: locked, appended to, flushed if the batch does that, unlocked.
//!
//! Invariant: through the log, a lock is held from before the log is told the place of a message
//! until the message is there.

use super::super::context::IdentityChanged;
use super::super::delivery::{Delivery, Stored};
use super::super::error::DeliveryError;
use super::super::floors::Floor;
use super::super::flush::Item;
use super::super::keeper::Pass;
use super::Batch;
use super::commit::FlushTime;
use super::maildirs::{flush_now, item_of};
use crate::clock;
use crate::io::Disk;
use crate::log::{DoneOutcome, LogError};
use crate::mailbox::mbox::{Entry, Mbox, Opened, render};
use crate::mailbox::{MailboxError, MailboxPath};
use std::io;

/// A locked mbox and the messages to be appended to it in one write.
pub(super) struct RenderedMbox<H> {
    mbox: Mbox<H>,
    /// User and group.
    owner: (u32, u32),
    flush_time: FlushTime,
    /// Each with the length of its message.
    deliveries: Vec<(Delivery, usize)>,
    /// The messages, one behind the other.
    messages: Vec<u8>,
}

/// A locked mbox and the deliveries that were appended to it.
pub(super) struct AppendedMbox<'a, H> {
    pub(super) mbox: Mbox<H>,
    pub(super) owner: (u32, u32),
    pub(super) deliveries: Vec<Delivery>,
    /// Keeps extent records of the messages in the log until they are flushed.
    pub(super) extents: Option<(Floor, Pass<'a, H>)>,
}

/// A locked mbox, when it is flushed, and the deliveries to it.
type Locked<H> = (Mbox<H>, FlushTime, Vec<Delivery>);

impl<'a, D: Disk> Batch<'a, D> {
    /// Locks the mboxes and renders the messages for them, if the batch records their places;
    /// otherwise each is locked when its messages are appended.
    pub(super) fn lock(&mut self, deliveries: Vec<Delivery>) {
        if !self.commit.locks_first() {
            self.unlocked = deliveries;
            return;
        }
        for group in by_mailbox(deliveries) {
            if let Some(locked) = self.lock_mbox(group) {
                let rendered = self.render(locked);
                self.rendered.push(rendered);
            }
        }
    }

    /// Locks the mbox of these deliveries; `None` when they went back into the queue because
    /// another program holds the lock, or failed.
    fn lock_mbox(&mut self, group: Vec<Delivery>) -> Option<Locked<D::Handle>> {
        let first = group.first()?;
        match self.with_room(|batch| batch.open_mbox(first)) {
            Ok((Opened::Ready(mbox), flush_time)) => Some((*mbox, flush_time, group)),
            Ok((Opened::Busy(lock), _)) => {
                self.postpone(group, lock);
                None
            }
            Err(error) => {
                let error = DeliveryError::from(error);
                self.fail_all(group, |_| error.clone());
                None
            }
        }
    }

    fn open_mbox(
        &mut self,
        delivery: &Delivery,
    ) -> Result<(Opened<D::Handle>, FlushTime), MailboxError> {
        let context = self.context;
        let disk = &context.disk;
        let path = MailboxPath::new(&context.settings.base, &delivery.target)?;
        let base = self.workspace.enter(delivery.mailbox(), delivery.owner())?;
        let known = (&context.known, self.commit.of_directories());
        let opened = Mbox::open(
            disk,
            base,
            &path,
            delivery.owner(),
            &context.settings,
            known,
            &mut self.siblings,
        )?;
        let Opened::Ready(mbox) = opened else {
            return Ok((opened, FlushTime::WithBatch));
        };
        let near = (mbox.device(), mbox.parent());
        match self.commit.flush_time(disk, near, mbox.chain()) {
            Ok(flush_time) => {
                if flush_time != FlushTime::WithBatch {
                    mbox.is_seen(&context.known);
                }
                Ok((Opened::Ready(mbox), flush_time))
            }
            Err(error) => {
                mbox.close(disk);
                Err(MailboxError::from_io(path.display(), "opening it", error))
            }
        }
    }

    /// Puts deliveries to a locked mbox back into the queue, until their patience is used up.
    fn postpone(&mut self, group: Vec<Delivery>, lock: &'static str) {
        for mut delivery in group {
            match delivery.lock_pause(self.context.settings.lock_patience) {
                Some(pause) => self.queue.push_delayed(clock::now() + pause, delivery),
                None => {
                    let mailbox = delivery.mailbox().to_owned();
                    let error = MailboxError::Busy { mailbox, lock };
                    self.end(delivery, Err(error.into()));
                }
            }
        }
    }

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

    /// Renders the messages of a locked mbox; those that do not fit into it fail.
    fn render(&mut self, (mbox, flush_time, group): Locked<D::Handle>) -> RenderedMbox<D::Handle> {
        let mut rendered = RenderedMbox {
            owner: group.first().map(Delivery::owner).unwrap_or_default(),
            mbox,
            flush_time,
            deliveries: Vec::with_capacity(group.len()),
            messages: Vec::new(),
        };
        for delivery in group {
            match self.render_one(&mut rendered, &delivery) {
                Ok(length) => rendered.deliveries.push((delivery, length)),
                Err(error) => self.end(delivery, Err(error.into())),
            }
        }
        rendered
    }

    /// Renders one message and returns its length; nothing of it is there when that fails.
    fn render_one(
        &self,
        rendered: &mut RenderedMbox<D::Handle>,
        delivery: &Delivery,
    ) -> Result<usize, MailboxError> {
        let messages = &mut rendered.messages;
        let mark = messages.len();
        let header = delivery.mbox_header();
        let message = &delivery.mail.message;
        let form = (&header[..], self.context.without_status(message));
        render(form, messages, |take| {
            message.for_each_chunk(|chunk| {
                take(chunk);
                io::Result::Ok(())
            })
        })
        .map_err(|error| MailboxError::from_io(delivery.mailbox(), "reading the message", error))?;
        let end = rendered.mbox.next_offset() + messages.len() as u64;
        let fits = self.context.check_limit(delivery.mailbox(), end);
        if fits.is_err() {
            messages.truncate(mark);
        }
        fits.map(|()| messages.len() - mark)
    }

    /// Records the messages for the locked mboxes, with the places they go to.
    pub(super) fn record_mboxes(&mut self) {
        let mut places = Vec::new();
        for mut open in std::mem::take(&mut self.rendered) {
            let mut from = 0;
            for (delivery, length) in std::mem::take(&mut open.deliveries) {
                match self.commit.record(&delivery) {
                    Ok(()) => {
                        from += length;
                        open.deliveries.push((delivery, length));
                    }
                    Err(error) => {
                        open.messages.drain(from..from + length);
                        self.end(delivery, Err(error.into()));
                    }
                }
            }
            let mut offset = open.mbox.next_offset();
            for (delivery, length) in &open.deliveries {
                places.extend(delivery.done(place(offset, *length)));
                offset += *length as u64;
            }
            self.rendered.push(open);
        }
        if let Err(error) = self.commit.record_places(&places) {
            for open in std::mem::take(&mut self.rendered) {
                self.give_up_mbox(open, &error);
            }
        }
    }

    /// Gives the messages for a locked mbox up.
    pub(super) fn give_up_mbox(&mut self, open: RenderedMbox<D::Handle>, error: &LogError) {
        self.workspace.become_owner_to_clean_up(open.owner);
        open.mbox.close(&self.context.disk);
        for (delivery, _) in open.deliveries {
            self.end(delivery, Err(error.clone().into()));
        }
    }

    /// Appends the messages to their mboxes.
    pub(super) fn append(&mut self) {
        for rendered in std::mem::take(&mut self.rendered) {
            self.append_rendered(rendered);
        }
        for group in by_mailbox(std::mem::take(&mut self.unlocked)) {
            if let Some((mbox, _, group)) = self.lock_mbox(group) {
                self.append_group(mbox, group);
            }
        }
    }

    /// Appends rendered messages to their mbox, unlocks it, and answers them.
    fn append_rendered(&mut self, open: RenderedMbox<D::Handle>) {
        let RenderedMbox {
            mut mbox,
            owner,
            flush_time,
            mut deliveries,
            messages,
        } = open;
        let disk = &self.context.disk;
        self.workspace.become_owner_to_clean_up(owner);
        if let Err(IdentityChanged) = self.workspace.check_identity() {
            mbox.close(disk);
            for (delivery, _) in deliveries {
                let error = IdentityChanged.error(delivery.mailbox());
                self.end(delivery, Err(error.into()));
            }
            return;
        }
        let all_claimed = deliveries.iter_mut().all(|(delivery, _)| delivery.claim());
        let appended = all_claimed.then(|| mbox.append_rendered(disk, &messages));
        if !matches!(appended, Some(Ok(()))) {
            if let Some(Err(error)) = appended
                && error.is_no_space()
            {
                self.commit.make_room();
            }
            // One by one, so that each fails only for its own sake; and each at its own place.
            let mut from = 0;
            for (delivery, length) in std::mem::take(&mut deliveries) {
                let own = messages.get(from..from + length).unwrap_or_default();
                from += length;
                if let Some(delivery) = self.append_alone(&mut mbox, delivery, own) {
                    deliveries.push((delivery, length));
                }
            }
        }
        if flush_time == FlushTime::AtOnce
            && let Some((first, _)) = deliveries.first()
            && let Err(error) = flush_now(disk, first, mbox.file())
        {
            mbox.take_back(disk);
            let error = DeliveryError::from(error);
            for (delivery, _) in std::mem::take(&mut deliveries) {
                self.end(delivery, Err(error.clone()));
            }
        }
        mbox.close(disk);
        for (delivery, _) in deliveries {
            self.end(delivery, Ok(Stored::Mbox));
        }
    }

    /// Appends one message after its place was recorded; `None` when it failed or was abandoned.
    fn append_alone(
        &mut self,
        mbox: &mut Mbox<D::Handle>,
        mut delivery: Delivery,
        rendered: &[u8],
    ) -> Option<Delivery> {
        if !delivery.claim() {
            return None;
        }
        let place = delivery.done(place(mbox.next_offset(), rendered.len()));
        let appended = mbox
            .check_untorn()
            .map_err(DeliveryError::from)
            .and_then(|()| Ok(self.commit.record_place_now(place)?))
            .and_then(|()| Ok(mbox.append_rendered(&self.context.disk, rendered)?));
        match appended {
            Ok(()) => Some(delivery),
            Err(error) => {
                self.end(delivery, Err(error));
                None
            }
        }
    }

    /// Appends all messages for one mbox under its locks; it is flushed with the others.
    fn append_group(&mut self, mut mbox: Mbox<D::Handle>, group: Vec<Delivery>) {
        let context = self.context;
        if let Err(IdentityChanged) = self.workspace.check_identity() {
            mbox.close(&context.disk);
            return self.fail_all(group, |delivery| {
                IdentityChanged.error(delivery.mailbox()).into()
            });
        }
        let mut deliveries = Vec::with_capacity(group.len());
        for mut delivery in group {
            if delivery.claim() {
                let header = delivery.mbox_header();
                deliveries.push((delivery, header));
            }
        }
        if let Some(keeper) = self.commit.extents() {
            return self.append_with_extents(keeper, mbox, deliveries);
        }
        let entries: Vec<Entry<'_>> = deliveries
            .iter()
            .map(|(delivery, header)| Entry {
                without_status: context.without_status(&delivery.mail.message),
                header,
                message: &delivery.mail.message,
            })
            .collect();
        let results = mbox.append(&context.disk, &context.settings, &entries);
        let mut appended = Vec::with_capacity(deliveries.len());
        for ((delivery, _), result) in deliveries.into_iter().zip(results) {
            match result {
                Ok(()) => appended.push(delivery),
                Err(error) => self.end(delivery, Err(error.into())),
            }
        }
        self.keep_open(AppendedMbox {
            owner: appended.first().map(Delivery::owner).unwrap_or_default(),
            mbox,
            deliveries: appended,
            extents: None,
        });
    }

    /// Keeps an mbox open that is flushed with the batch, or closes it when nothing was appended.
    pub(super) fn keep_open(&mut self, open: AppendedMbox<'a, D::Handle>) {
        match open.deliveries.is_empty() {
            true => open.mbox.close(&self.context.disk),
            false => self.appended.push(open),
        }
    }

    /// Returns what to flush of the mboxes that were appended to.
    pub(super) fn visible_mboxes(&self) -> impl Iterator<Item = Item<'_, D::Handle>> {
        self.appended.iter().flat_map(|AppendedMbox { mbox, .. }| {
            let file = Item {
                handle: mbox.file(),
                device: mbox.device(),
                whole: false,
                alone: false,
            };
            std::iter::once(file).chain(mbox.chain().iter().map(item_of))
        })
    }

    /// Takes back what was appended to mboxes that could not be flushed. `results` are those of
    /// [`Batch::visible_mboxes`].
    pub(super) fn take_back_unless(&mut self, mut results: impl Iterator<Item = io::Result<()>>) {
        for open in std::mem::take(&mut self.appended) {
            let flushes = results.by_ref().take(1 + open.mbox.chain().len());
            match flushes.collect::<io::Result<()>>() {
                Ok(()) => {
                    open.mbox.chain_is_durable(&self.context.known);
                    self.appended.push(open);
                }
                Err(source) => self.take_back(open, &source),
            }
        }
    }

    /// Takes back what was appended to an mbox, as well as can be, and answers with the failed
    /// flush.
    pub(super) fn take_back(&mut self, open: AppendedMbox<'a, D::Handle>, source: &io::Error) {
        let AppendedMbox {
            mut mbox,
            owner,
            deliveries,
            extents: _extents,
        } = open;
        let disk = &self.context.disk;
        mbox.take_back(disk);
        if self.commit.extents().is_some() {
            super::extents::flush_cut(disk, &mbox);
        }
        self.workspace.become_owner_to_clean_up(owner);
        mbox.close(disk);
        self.fail_all(deliveries, |delivery| {
            MailboxError::from_flush(delivery.mailbox(), source).into()
        });
    }

    /// Unlocks the mboxes that are durable and answers their deliveries.
    pub(super) fn close_mboxes(&mut self) {
        for open in std::mem::take(&mut self.appended) {
            self.workspace.become_owner_to_clean_up(open.owner);
            open.mbox.close(&self.context.disk);
            for delivery in open.deliveries {
                self.end(delivery, Ok(Stored::Mbox));
            }
        }
    }
}

/// Groups deliveries to the same mailbox.
fn by_mailbox(deliveries: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut groups: Vec<Vec<Delivery>> = Vec::new();
    for delivery in deliveries {
        let is_same = |group: &&mut Vec<Delivery>| {
            let first = group.first();
            first.is_some_and(|first| first.target == delivery.target)
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(delivery),
            None => groups.push(vec![delivery]),
        }
    }
    groups
}

fn place(offset: u64, length: usize) -> DoneOutcome {
    DoneOutcome::Mbox {
        offset,
        length: length as u64,
    }
}

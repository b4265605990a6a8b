//! The mboxes of a batch: locked, appended to, flushed if the batch does that, unlocked.
//!
//! Invariant: through the log, a lock is held from before the place of a message is appended to the
//! log until the message is there.

use super::super::context::{Context, IdentityChanged};
use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::flush::{FlushResult, Item, take_results};
use super::super::reply::Stored;
use super::appended::AppendedMbox;
use super::commit::FlushTime;
use super::extents::append_with_extents;
use super::work::{Work, flush_now};
use crate::io::Disk;
use crate::log::{DoneOutcome, LogError};
use crate::mailbox::MailboxError;
use crate::mailbox::mbox::{Mbox, MboxCache, MboxEntry, Opened, render};
use crate::target::Owner;
use std::fmt;
use std::io;

/// A locked mbox and the messages to be appended to it in one write.
struct RenderedMbox<H> {
    mbox: Mbox<H>,
    owner: Owner,
    flush_time: FlushTime,
    /// The deliveries, each with the length of its message.
    deliveries: Vec<(Delivery, usize)>,
    /// The messages, concatenated.
    messages: Vec<u8>,
}

/// The mboxes of a batch and the messages for them.
pub(super) struct Mboxes<'a, H> {
    cache: MboxCache<H>,
    /// Deliveries to mboxes that are locked when they are appended to.
    unlocked: Vec<Delivery>,
    /// Locked, with messages that are in the log and not yet in the mbox.
    rendered: Vec<RenderedMbox<H>>,
    /// Locked, with messages that are not flushed yet.
    appended: Vec<AppendedMbox<'a, H>>,
}

impl<H> Default for Mboxes<'_, H> {
    fn default() -> Self {
        Self {
            cache: MboxCache::default(),
            unlocked: Vec::new(),
            rendered: Vec::new(),
            appended: Vec::new(),
        }
    }
}

/// A locked mbox and the deliveries to it.
struct LockedMbox<H> {
    mbox: Mbox<H>,
    owner: Owner,
    flush_time: FlushTime,
    deliveries: Vec<Delivery>,
}

impl<'a, H: fmt::Debug + Send + Sync + 'static> Mboxes<'a, H> {
    /// Locks the mboxes and renders the messages for them, if the batch records their places;
    /// otherwise each mbox is locked when its messages are appended.
    pub(super) fn lock<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'a, D>,
        deliveries: Vec<Delivery>,
    ) {
        if !work.commit.locks_first() {
            self.unlocked = deliveries;
            return;
        }
        for group in by_mailbox(deliveries) {
            if let Some(locked) = self.lock_mbox(work, group) {
                let rendered = render_all(work, locked);
                self.rendered.push(rendered);
            }
        }
    }

    /// Locks the mbox of these deliveries; `None` when they failed, or returned to the queue
    /// because another program holds the lock.
    fn lock_mbox<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'a, D>,
        group: Vec<Delivery>,
    ) -> Option<LockedMbox<H>> {
        let first = group.first()?;
        work.active.step(Some(first));
        match work.with_room(|work| self.open_mbox(work, first)) {
            Ok((Opened::Ready(mbox), flush_time)) => Some(LockedMbox {
                mbox: *mbox,
                owner: first.owner(),
                flush_time,
                deliveries: group,
            }),
            Ok((Opened::Busy(lock), _)) => {
                work.postpone(group, lock);
                None
            }
            Err(error) => {
                let error = DeliveryError::from(error);
                work.fail_all(group, |_| error.clone());
                None
            }
        }
    }

    fn open_mbox<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'a, D>,
        delivery: &Delivery,
    ) -> Result<(Opened<H>, FlushTime), MailboxError> {
        let context = work.context;
        let disk = &context.disk;
        let mailbox = delivery.mailbox_name();
        let base = work.workspace.enter(delivery.mailbox(), delivery.owner())?;
        let known = (&context.durable_dirs, work.commit.of_directories());
        let opened = Mbox::open(
            disk,
            base,
            mailbox,
            delivery.owner(),
            &context.settings,
            known,
            &mut self.cache,
        )?;
        let Opened::Ready(mbox) = opened else {
            return Ok((opened, FlushTime::WithBatch));
        };
        let near = (mbox.device(), mbox.parent());
        match work
            .commit
            .flush_time(disk, near, mbox.chain(), work.mount_point())
        {
            Ok(flush_time) => {
                if flush_time != FlushTime::WithBatch {
                    mbox.is_seen(&context.durable_dirs);
                }
                Ok((Opened::Ready(mbox), flush_time))
            }
            Err(error) => {
                mbox.close(disk);
                Err(MailboxError::from_io(
                    mailbox.display(),
                    "opening it",
                    error,
                ))
            }
        }
    }

    /// Records the messages for the locked mboxes, with the places they go to.
    pub(super) fn record<D: Disk<Handle = H>>(&mut self, work: &mut Work<'a, D>) {
        let mut places = Vec::new();
        for mut open in std::mem::take(&mut self.rendered) {
            let mut from = 0;
            for (delivery, length) in std::mem::take(&mut open.deliveries) {
                match work.commit.record(&delivery) {
                    Ok(()) => {
                        from += length;
                        open.deliveries.push((delivery, length));
                    }
                    Err(error) => {
                        open.messages.drain(from..from + length);
                        work.end(delivery, Err(error.into()));
                    }
                }
            }
            let mut offset = open.mbox.next_offset();
            for (delivery, length) in &open.deliveries {
                delivery.reply().is_on(open.mbox.device());
                delivery.reply().goes_to((offset, *length as u64));
                places.extend(delivery.done(place(offset, *length)));
                offset += *length as u64;
            }
            self.rendered.push(open);
        }
        if let Err(error) = work.commit.record_places(&places) {
            self.give_up(work, &error);
        }
    }

    /// Discards the messages for the locked mboxes.
    pub(super) fn give_up<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'a, D>,
        error: &LogError,
    ) {
        for open in std::mem::take(&mut self.rendered) {
            work.workspace.become_owner_to_clean_up(open.owner);
            open.mbox.close(&work.context.disk);
            let deliveries = open.deliveries.into_iter().map(|(delivery, _)| delivery);
            work.fail_all(deliveries, |_| error.clone().into());
        }
    }

    /// Appends the messages to their mboxes.
    pub(super) fn append<D: Disk<Handle = H>>(&mut self, work: &mut Work<'a, D>) {
        for rendered in std::mem::take(&mut self.rendered) {
            append_rendered(work, rendered);
        }
        for group in by_mailbox(std::mem::take(&mut self.unlocked)) {
            if let Some(locked) = self.lock_mbox(work, group) {
                self.appended.extend(append_all(work, locked));
            }
        }
    }

    /// Returns what to flush of the mboxes that were appended to.
    pub(super) fn visible(&self) -> impl Iterator<Item = Item<'_, H>> {
        self.appended.iter().flat_map(|AppendedMbox { mbox, .. }| {
            let file = Item::of(mbox.file(), mbox.device());
            std::iter::once(file).chain(mbox.chain().iter().map(Item::of_directory))
        })
    }

    /// Truncates mboxes that could not be flushed to their previous length. `results` are those of
    /// [`Mboxes::visible`].
    pub(super) fn take_back_unless<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'a, D>,
        mut results: impl Iterator<Item = FlushResult>,
    ) {
        for open in std::mem::take(&mut self.appended) {
            match take_results(&mut results, 1 + open.mbox.chain().len()) {
                Ok(()) => {
                    open.mbox.chain_is_durable(&work.context.durable_dirs);
                    self.appended.push(open);
                }
                Err(source) => open.take_back(work, &source),
            }
        }
    }

    /// Returns the first handle that was opened on a file system.
    pub(super) fn sync_handle(&self, device: u64) -> Option<&H> {
        let mut mboxes = self.appended.iter().map(|open| &open.mbox);
        mboxes.find(|mbox| mbox.device() == device).map(Mbox::file)
    }

    /// Unlocks the mboxes that are durable and answers their deliveries.
    pub(super) fn answer<D: Disk<Handle = H>>(&mut self, work: &mut Work<'a, D>) {
        for open in std::mem::take(&mut self.appended) {
            open.answer(work);
        }
    }
}

/// Renders the messages of a locked mbox; messages that do not fit into it fail.
fn render_all<D: Disk>(
    work: &mut Work<'_, D>,
    locked: LockedMbox<D::Handle>,
) -> RenderedMbox<D::Handle> {
    let mut rendered = RenderedMbox {
        mbox: locked.mbox,
        owner: locked.owner,
        flush_time: locked.flush_time,
        deliveries: Vec::with_capacity(locked.deliveries.len()),
        messages: Vec::new(),
    };
    for delivery in locked.deliveries {
        match render_one(work.context, &mut rendered, &delivery) {
            Ok(length) => rendered.deliveries.push((delivery, length)),
            Err(error) => work.end(delivery, Err(error.into())),
        }
    }
    rendered
}

/// Renders one message and returns its length; leaves nothing of it when that fails.
fn render_one<D: Disk>(
    context: &Context<D>,
    rendered: &mut RenderedMbox<D::Handle>,
    delivery: &Delivery,
) -> Result<usize, MailboxError> {
    let messages = &mut rendered.messages;
    let mark = messages.len();
    let header = delivery.mbox_header();
    let message = &delivery.mail.message;
    let form = (&header[..], context.without_status(message));
    render(form, messages, |take| {
        message.for_each_chunk(|chunk| {
            take(chunk);
            io::Result::Ok(())
        })
    })
    .map_err(|error| MailboxError::from_io(delivery.mailbox(), "reading the message", error))?;
    let end = rendered.mbox.next_offset() + messages.len() as u64;
    let fits = context.check_limit(delivery.mailbox(), end);
    if fits.is_err() {
        messages.truncate(mark);
    }
    fits.map(|()| messages.len() - mark)
}

/// Appends rendered messages to their mbox, unlocks it, and answers them.
fn append_rendered<D: Disk>(work: &mut Work<'_, D>, open: RenderedMbox<D::Handle>) {
    let RenderedMbox {
        mut mbox,
        owner,
        flush_time,
        mut deliveries,
        messages,
    } = open;
    let disk = &work.context.disk;
    work.active
        .step(deliveries.first().map(|(delivery, _)| delivery));
    work.workspace.become_owner_to_clean_up(owner);
    if let Err(IdentityChanged) = work.workspace.check_identity() {
        mbox.close(disk);
        for (delivery, _) in deliveries {
            let error = IdentityChanged.error(delivery.mailbox());
            work.end(delivery, Err(error.into()));
        }
        return;
    }
    let all_claimed = deliveries.iter_mut().all(|(delivery, _)| delivery.claim());
    let appended = all_claimed.then(|| mbox.append_rendered(disk, &messages));
    if !matches!(appended, Some(Ok(()))) {
        if let Some(Err(error)) = appended
            && error.is_no_space()
        {
            work.commit.make_room();
        }
        // Appended separately, so that each fails only by its own error; and each at its recorded
        // place.
        let mut from = 0;
        for (delivery, length) in std::mem::take(&mut deliveries) {
            let own = messages.get(from..from + length).unwrap_or_default();
            from += length;
            if let Some(delivery) = append_alone(work, &mut mbox, delivery, own) {
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
            work.end(delivery, Err(error.clone()));
        }
    }
    mbox.close(disk);
    for (delivery, _) in deliveries {
        work.end(delivery, Ok(Stored::Mbox));
    }
}

/// Appends one message after its place was recorded; `None` when it failed or was abandoned.
fn append_alone<D: Disk>(
    work: &mut Work<'_, D>,
    mbox: &mut Mbox<D::Handle>,
    mut delivery: Delivery,
    rendered: &[u8],
) -> Option<Delivery> {
    if !delivery.claim() {
        return None;
    }
    let next = mbox.next_offset();
    delivery.reply().is_on(mbox.device());
    delivery.reply().goes_to((next, rendered.len() as u64));
    let place = delivery.done(place(next, rendered.len()));
    let appended = mbox
        .check_untorn()
        .map_err(DeliveryError::from)
        .and_then(|()| Ok(work.commit.record_place_now(place)?))
        .and_then(|()| Ok(mbox.append_rendered(&work.context.disk, rendered)?));
    match appended {
        Ok(()) => Some(delivery),
        Err(error) => {
            work.end(delivery, Err(error));
            None
        }
    }
}

/// Appends all messages for one mbox while it is locked; it is to be flushed with the batch. `None`
/// when nothing was appended.
fn append_all<'a, D: Disk>(
    work: &mut Work<'a, D>,
    locked: LockedMbox<D::Handle>,
) -> Option<AppendedMbox<'a, D::Handle>> {
    let context = work.context;
    let LockedMbox {
        mut mbox, owner, ..
    } = locked;
    if let Err(IdentityChanged) = work.workspace.check_identity() {
        mbox.close(&context.disk);
        work.fail_all(locked.deliveries, |delivery| {
            IdentityChanged.error(delivery.mailbox()).into()
        });
        return None;
    }
    let mut deliveries = Vec::with_capacity(locked.deliveries.len());
    for mut delivery in locked.deliveries {
        if delivery.claim() {
            let header = delivery.mbox_header();
            deliveries.push((delivery, header));
        }
    }
    if let Some(ledger) = work.commit.extents() {
        return append_with_extents(work, ledger, (mbox, owner), deliveries);
    }
    let entries: Vec<MboxEntry<'_>> = deliveries
        .iter()
        .map(|(delivery, header)| MboxEntry {
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
            Err(error) => work.end(delivery, Err(error.into())),
        }
    }
    if appended.is_empty() {
        mbox.close(&context.disk);
        return None;
    }
    Some(AppendedMbox {
        mbox,
        owner,
        deliveries: appended,
        extents: None,
    })
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

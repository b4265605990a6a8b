//! The Maildirs of a batch: messages are written to invisible files, flushed if the batch does
//! that, and published.

use super::super::context::{Context, IdentityChanged};
use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::flush::{FlushResult, Item, take_results};
use super::super::in_place;
use super::super::reply::Stored;
use super::commit::FlushTime;
use super::work::{Work, flush_now};
use crate::io::Disk;
use crate::mailbox::MailboxError;
use crate::mailbox::maildir::{Maildir, Unpublished, sweep};
use crate::target::Owner;
use std::collections::HashMap;
use std::fmt;

/// The Maildirs of a batch and the messages for them.
pub(super) struct Maildirs<H> {
    open: Vec<OpenMaildir<H>>,
    /// By path and owner, because a path is opened once for each owner.
    by_key: HashMap<(String, Owner), usize>,
    /// Not visible yet.
    written: Vec<Written<H>>,
    /// Visible, and not flushed yet.
    published: Vec<Published>,
}

struct OpenMaildir<H> {
    maildir: Maildir<H>,
    flush_time: FlushTime,
}

impl<H> Default for Maildirs<H> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            by_key: HashMap::new(),
            written: Vec::new(),
            published: Vec::new(),
        }
    }
}

/// A message in a Maildir that no reader sees.
struct Written<H> {
    delivery: Delivery,
    maildir: usize,
    unpublished: Unpublished<H>,
}

/// A message in `new/` that is not flushed yet.
struct Published {
    delivery: Delivery,
    maildir: usize,
    /// The name of its file.
    name: String,
}

impl<H: fmt::Debug + Send + Sync + 'static> Maildirs<H> {
    fn get(&self, at: usize) -> Option<&Maildir<H>> {
        self.open.get(at).map(|open| &open.maildir)
    }

    /// Returns the first handle that was opened on a file system.
    pub(super) fn sync_handle(&self, device: u64) -> Option<&H> {
        let mut maildirs = self.open.iter().map(|open| &open.maildir);
        let first = maildirs.find(|maildir| maildir.device() == device);
        first.map(Maildir::new_directory)
    }

    /// Writes messages to files that no reader sees.
    pub(super) fn write<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'_, D>,
        deliveries: Vec<Delivery>,
    ) {
        for delivery in deliveries {
            if delivery.is_abandoned() {
                continue;
            }
            work.active.step(Some(&delivery));
            match work.with_room(|work| self.write_unseen(work, &delivery)) {
                Ok((maildir, unpublished)) => self.written.push(Written {
                    delivery,
                    maildir,
                    unpublished,
                }),
                Err(error) => work.end(delivery, Err(error.into())),
            }
        }
    }

    fn write_unseen<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'_, D>,
        delivery: &Delivery,
    ) -> Result<(usize, Unpublished<H>), MailboxError> {
        let context = work.context;
        let message = &delivery.mail.message;
        let header = delivery.maildir_header();
        context.check_limit(delivery.mailbox(), header.len() as u64 + message.size())?;
        let at = self.open_maildir(work, delivery)?;
        let (Some(base), Some(open)) = (work.workspace.base(), self.open.get_mut(at)) else {
            return Err(delivery.interrupted());
        };
        let (disk, maildir) = (&context.disk, &mut open.maildir);
        delivery.reply().is_on(maildir.device());
        if let Some(received) = in_place::take(maildir, delivery.owner(), &header, message) {
            return Ok((at, received));
        }
        let how = (&context.names, context.settings.compress);
        let unpublished = maildir.write(disk, base, how, &header, message)?;
        if open.flush_time == FlushTime::AtOnce
            && let Err(error) = flush_now(disk, delivery, unpublished.file())
        {
            maildir.discard(disk, &unpublished);
            return Err(error);
        }
        Ok((at, unpublished))
    }

    /// Opens the Maildir of a delivery as its owner, unless it is open, and returns its index.
    fn open_maildir<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'_, D>,
        delivery: &Delivery,
    ) -> Result<usize, MailboxError> {
        let context = work.context;
        let disk = &context.disk;
        let (mailbox, owner) = (delivery.mailbox_name(), delivery.owner());
        let base = work.workspace.enter(mailbox.display(), owner)?;
        let key = (mailbox.as_str().to_owned(), owner);
        if let Some(at) = self.by_key.get(&key) {
            return Ok(*at);
        }
        let known = (&context.durable_dirs, work.commit.of_directories());
        let maildir = Maildir::open(
            disk,
            base,
            mailbox,
            context.settings.owner_check(owner),
            known,
        )?;
        let near = (maildir.device(), maildir.new_directory());
        let flush_time = work
            .commit
            .flush_time(disk, near, maildir.chain(), work.mount_point());
        let flush_time = flush_time
            .map_err(|error| MailboxError::from_io(mailbox.display(), "opening it", error))?;
        if flush_time != FlushTime::WithBatch {
            maildir.is_seen(&context.durable_dirs);
        }
        let at = self.open.len();
        self.open.push(OpenMaildir {
            maildir,
            flush_time,
        });
        self.by_key.insert(key, at);
        Ok(at)
    }

    /// Flushes the files, and the directories above Maildirs that are used for the first time, if
    /// the batch flushes.
    pub(super) fn flush_written<D: Disk<Handle = H>>(&mut self, work: &mut Work<'_, D>) {
        if self.written.is_empty() || !work.commit.flushes_batch() {
            return;
        }
        let mut items = Vec::new();
        for OpenMaildir { maildir, .. } in &self.open {
            items.extend(maildir.chain().iter().map(Item::of_directory));
        }
        for written in &self.written {
            let maildir = self.get(written.maildir);
            let device = maildir.map_or(0, Maildir::device);
            items.push(Item {
                alone: written.unpublished.is_adopted(),
                ..Item::of(written.unpublished.file(), device)
            });
        }
        let sync_handle = |device| self.sync_handle(device);
        let mut results = work.flush(&items, sync_handle).into_iter();
        let mut above = Vec::new();
        for OpenMaildir { maildir, .. } in &self.open {
            let result = take_results(&mut results, maildir.chain().len());
            if result.is_ok() {
                maildir.chain_is_durable(&work.context.durable_dirs);
            }
            above.push(result);
        }
        let mut durable = Vec::with_capacity(self.written.len());
        for (written, result) in std::mem::take(&mut self.written).into_iter().zip(results) {
            let above = above.get(written.maildir).map_or(&Ok(()), |above| above);
            match (&result, above) {
                (Ok(()), Ok(())) => durable.push(written),
                (Err(source), _) | (Ok(()), Err(source)) => {
                    let error = MailboxError::from_flush(written.delivery.mailbox(), source);
                    self.discard(work, written, error);
                }
            }
        }
        self.written = durable;
    }

    /// Discards every written message.
    pub(super) fn give_up<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'_, D>,
        error: impl Fn(&Delivery) -> DeliveryError,
    ) {
        for written in std::mem::take(&mut self.written) {
            let error = error(&written.delivery);
            self.discard(work, written, error);
        }
    }

    /// Discards a message that no reader has seen.
    fn discard<D: Disk<Handle = H>>(
        &self,
        work: &mut Work<'_, D>,
        written: Written<H>,
        error: impl Into<DeliveryError>,
    ) {
        self.remove_unseen(work, &written);
        work.end(written.delivery, Err(error.into()));
    }

    fn remove_unseen<D: Disk<Handle = H>>(&self, work: &Work<'_, D>, written: &Written<H>) {
        work.workspace
            .become_owner_to_clean_up(written.delivery.owner());
        if let Some(maildir) = self.get(written.maildir) {
            maildir.discard(&work.context.disk, &written.unpublished);
        }
    }

    /// Publishes the written messages in `new/`. Answers them if they are durable; otherwise they
    /// are flushed next.
    pub(super) fn publish<D: Disk<Handle = H>>(&mut self, work: &mut Work<'_, D>) {
        if self.written.is_empty() {
            return;
        }
        if let Err(IdentityChanged) = work.workspace.check_identity() {
            return self.give_up(work, |delivery| {
                let error = IdentityChanged.error(delivery.mailbox());
                error.into()
            });
        }
        for mut written in std::mem::take(&mut self.written) {
            work.active.step(Some(&written.delivery));
            if !written.delivery.claim() {
                self.remove_unseen(work, &written);
                continue;
            }
            match work.with_room(|work| self.publish_one(work, &written)) {
                Ok(None) => work.end(written.delivery, Ok(Stored::Maildir)),
                Ok(Some(name)) => self.published.push(Published {
                    delivery: written.delivery,
                    maildir: written.maildir,
                    name,
                }),
                Err(error) => self.discard(work, written, error),
            }
        }
    }

    /// Publishes one message; returns the name of its file if that must still be flushed.
    fn publish_one<D: Disk<Handle = H>>(
        &mut self,
        work: &Work<'_, D>,
        written: &Written<H>,
    ) -> Result<Option<String>, MailboxError> {
        let Written {
            delivery,
            maildir,
            unpublished,
        } = written;
        let context = work.context;
        let disk = &context.disk;
        work.workspace
            .become_owner(delivery.mailbox(), delivery.owner())?;
        let (Some(base), Some(open)) = (work.workspace.base(), self.open.get_mut(*maildir)) else {
            return Err(delivery.interrupted());
        };
        let maildir = &mut open.maildir;
        if open.flush_time == FlushTime::WithBatch {
            return match maildir.publish(disk, &context.names, unpublished) {
                Err(error) if unpublished.is_adopted() => {
                    // It may have been opened through another path of the file system.
                    tracing::debug!(%error, "a message that arrived in its mailbox is copied");
                    publish_copy(context, base, maildir, delivery).map(Some)
                }
                published => published.map(Some),
            };
        }
        let Some(name) = delivery.planned_name() else {
            return Err(delivery.interrupted());
        };
        maildir.publish_as(disk, unpublished, name)?;
        if open.flush_time == FlushTime::AtOnce
            && let Err(error) = flush_now(disk, delivery, maildir.new_directory())
        {
            maildir.withdraw(disk, name);
            return Err(error);
        }
        Ok(None)
    }

    /// Returns the Maildirs in which messages were published, and what to flush of them.
    pub(super) fn visible(&self) -> (Vec<usize>, Vec<Item<'_, H>>) {
        let mut used: Vec<usize> = self.published.iter().map(|p| p.maildir).collect();
        used.sort_unstable();
        used.dedup();
        let maildirs = used.iter().filter_map(|at| self.get(*at));
        let items = maildirs.map(|maildir| Item::of(maildir.new_directory(), maildir.device()));
        let items = items.collect();
        (used, items)
    }

    /// Removes the messages that were published in a Maildir whose `new/` could not be flushed.
    pub(super) fn withdraw_unless<D: Disk<Handle = H>>(
        &mut self,
        work: &mut Work<'_, D>,
        flushed: &HashMap<usize, FlushResult>,
    ) {
        for published in std::mem::take(&mut self.published) {
            let Some(Err(source)) = flushed.get(&published.maildir) else {
                self.published.push(published);
                continue;
            };
            let Published { delivery, name, .. } = published;
            if work.workspace.become_owner_to_clean_up(delivery.owner())
                && let Some(maildir) = self.get(published.maildir)
            {
                maildir.withdraw(&work.context.disk, &name);
            }
            let error = MailboxError::from_flush(delivery.mailbox(), source);
            work.end(delivery, Err(error.into()));
        }
    }

    /// Answers the deliveries that are durable.
    pub(super) fn answer<D: Disk<Handle = H>>(&mut self, work: &mut Work<'_, D>) {
        for Published { delivery, .. } in std::mem::take(&mut self.published) {
            work.end(delivery, Ok(Stored::Maildir));
        }
    }

    /// Removes files of crashed deliveries, after every delivery of the batch was answered.
    pub(super) fn sweep<D: Disk<Handle = H>>(&self, work: &Work<'_, D>) {
        let context = work.context;
        let Some(base) = work.workspace.base() else {
            return;
        };
        for ((_, owner), at) in &self.by_key {
            let Some(maildir) = self.get(*at).filter(|m| m.is_sweep_due()) else {
                continue;
            };
            if !work.workspace.become_owner_to_clean_up(*owner) {
                continue;
            }
            let path = maildir.path();
            let mailbox = path.display();
            match sweep(&context.disk, base, path, context.settings.tmp_age_max) {
                Ok(0) => {}
                Ok(removed) => tracing::info!(mailbox, removed, "removed old files from tmp/"),
                Err(error) => {
                    tracing::debug!(mailbox, %error, "cannot look for old files in tmp/");
                }
            }
        }
    }
}

/// Publishes a copy of a message; its `new/` must still be flushed.
fn publish_copy<D: Disk>(
    context: &Context<D>,
    base: &D::Handle,
    maildir: &mut Maildir<D::Handle>,
    delivery: &Delivery,
) -> Result<String, MailboxError> {
    let disk = &context.disk;
    let header = delivery.maildir_header();
    let how = (&context.names, context.settings.compress);
    let copied = maildir.write(disk, base, how, &header, &delivery.mail.message)?;
    let published = flush_now(disk, delivery, copied.file())
        .and_then(|()| maildir.publish(disk, &context.names, &copied));
    if published.is_err() {
        maildir.discard(disk, &copied);
    }
    published
}

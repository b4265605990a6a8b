//! The Maildirs of a batch: messages written unseen, flushed if the batch does that, published.

use super::super::context::{Context, IdentityChanged};
use super::super::delivery::{Delivery, Stored};
use super::super::error::DeliveryError;
use super::super::flush::Item;
use super::commit::FlushTime;
use super::{Batch, Unflushed};
use crate::io::Disk;
use crate::mailbox::maildir::{Maildir, Unpublished, sweep};
use crate::mailbox::{MailboxError, MailboxPath};
use std::collections::HashMap;
use std::io;

/// The Maildirs that a batch has open.
#[derive(Debug)]
pub(super) struct OpenMaildirs<H> {
    open: Vec<OpenMaildir<H>>,
    /// By path and owner, because the same path is opened again as another owner.
    by_key: HashMap<(String, u32, u32), usize>,
}

#[derive(Debug)]
struct OpenMaildir<H> {
    maildir: Maildir<H>,
    flush_time: FlushTime,
}

impl<H> Default for OpenMaildirs<H> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            by_key: HashMap::new(),
        }
    }
}

impl<H> OpenMaildirs<H> {
    fn get(&self, at: usize) -> Option<&Maildir<H>> {
        self.open.get(at).map(|open| &open.maildir)
    }

    fn iter(&self) -> impl Iterator<Item = &Maildir<H>> {
        self.open.iter().map(|open| &open.maildir)
    }
}

/// A message in a Maildir that no reader sees.
pub(super) struct Written<H> {
    delivery: Delivery,
    maildir: usize,
    unpublished: Unpublished<H>,
}

/// A message in `new/` that is not flushed yet.
pub(super) struct Published {
    pub(super) delivery: Delivery,
    maildir: usize,
    /// Of its file.
    name: String,
}

/// Returns what to flush of a directory that leads to a mailbox.
pub(super) fn item_of<H>(above: &Unflushed<H>) -> Item<'_, H> {
    Item {
        handle: &above.handle,
        device: above.device,
        whole: above.whole,
        alone: false,
    }
}

impl<D: Disk> Batch<'_, D> {
    /// Writes messages to files that no reader sees.
    pub(super) fn write(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if delivery.is_abandoned() {
                continue;
            }
            match self.with_room(|batch| batch.write_unseen(&delivery)) {
                Ok((maildir, unpublished)) => self.written.push(Written {
                    delivery,
                    maildir,
                    unpublished,
                }),
                Err(error) => self.end(delivery, Err(error.into())),
            }
        }
    }

    fn write_unseen(
        &mut self,
        delivery: &Delivery,
    ) -> Result<(usize, Unpublished<D::Handle>), MailboxError> {
        let context = self.context;
        let message = &delivery.mail.message;
        let header = delivery.maildir_header();
        context.check_limit(delivery.mailbox(), header.len() as u64 + message.size())?;
        let at = self.open_maildir(delivery)?;
        let (Some(base), Some(open)) = (self.workspace.base(), self.maildirs.open.get_mut(at))
        else {
            return Err(delivery.interrupted());
        };
        let (disk, maildir) = (&context.disk, &mut open.maildir);
        if let Some(arrived) = maildir.arrived(disk, delivery.owner(), &header, message) {
            return Ok((at, arrived));
        }
        let how = (&context.names, context.settings.compress);
        let unpublished = maildir.write(disk, base, how, &header, message)?;
        if open.flush_time == FlushTime::AtOnce {
            flush_now(disk, delivery, unpublished.file())?;
        }
        Ok((at, unpublished))
    }

    /// Opens the Maildir of a delivery as its owner, unless it is open, and returns its place.
    fn open_maildir(&mut self, delivery: &Delivery) -> Result<usize, MailboxError> {
        let context = self.context;
        let disk = &context.disk;
        let path = MailboxPath::new(&context.settings.base, &delivery.target)?;
        let (uid, gid) = delivery.owner();
        let base = self.workspace.enter(delivery.mailbox(), (uid, gid))?;
        let key = (path.as_str().to_owned(), uid, gid);
        if let Some(at) = self.maildirs.by_key.get(&key) {
            return Ok(*at);
        }
        let known = (&context.known, self.commit.of_directories());
        let maildir = Maildir::open(disk, base, &path, context.settings.owner(uid, gid), known)?;
        let near = (maildir.device(), maildir.new_directory());
        let flush_time = self.commit.flush_time(disk, near, maildir.chain());
        let flush_time = flush_time
            .map_err(|error| MailboxError::from_io(path.display(), "opening it", error))?;
        if flush_time != FlushTime::WithBatch {
            maildir.is_seen(&context.known);
        }
        let at = self.maildirs.open.len();
        self.maildirs.open.push(OpenMaildir {
            maildir,
            flush_time,
        });
        self.maildirs.by_key.insert(key, at);
        Ok(at)
    }

    /// Flushes the files, and the directories above Maildirs that are used for the first time, if
    /// the batch does that.
    pub(super) fn flush_written(&mut self) {
        if self.written.is_empty() || !self.commit.flushes_batch() {
            return;
        }
        let mut items = Vec::new();
        for maildir in self.maildirs.iter() {
            items.extend(maildir.chain().iter().map(item_of));
        }
        for written in &self.written {
            let maildir = self.maildirs.get(written.maildir);
            items.push(Item {
                handle: written.unpublished.file(),
                device: maildir.map_or(0, Maildir::device),
                whole: false,
                alone: written.unpublished.arrived_here(),
            });
        }
        let mut results = self.flush(&items).into_iter();
        let mut above = Vec::new();
        for maildir in self.maildirs.iter() {
            let chain = results.by_ref().take(maildir.chain().len());
            let result: io::Result<()> = chain.collect();
            if result.is_ok() {
                maildir.chain_is_durable(&self.context.known);
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
                    self.discard(written, error);
                }
            }
        }
        self.written = durable;
    }

    /// Flushes what the batch wrote; one result for each item.
    pub(super) fn flush(&self, items: &[Item<'_, D::Handle>]) -> Vec<io::Result<()>> {
        let context = self.context;
        // The first handle opened on each file system; nothing was written there before.
        let witness = |device| {
            let maildir = self.maildirs.iter().find(|m| m.device() == device);
            let mbox = || self.appended.iter().find(|m| m.mbox.device() == device);
            maildir
                .map(Maildir::new_directory)
                .or_else(|| mbox().map(|m| m.mbox.file()))
        };
        let results = context.flusher.flush(&context.disk, items, witness);
        if let Some(Err(error)) = results.iter().find(|result| result.is_err()) {
            tracing::error!(%error, "flushing mail to disk failed; these deliveries are refused");
            self.commit.flush_failed(error);
        }
        results
    }

    /// Gives every written message up.
    pub(super) fn give_up_written(&mut self, error: impl Fn(&Delivery) -> DeliveryError) {
        for written in std::mem::take(&mut self.written) {
            let error = error(&written.delivery);
            self.discard(written, error);
        }
    }

    /// Gives a message up that no reader has seen.
    fn discard(&mut self, written: Written<D::Handle>, error: impl Into<DeliveryError>) {
        self.remove_unseen(&written);
        self.end(written.delivery, Err(error.into()));
    }

    fn remove_unseen(&self, written: &Written<D::Handle>) {
        self.workspace
            .become_owner_to_clean_up(written.delivery.owner());
        if let Some(maildir) = self.maildirs.get(written.maildir) {
            maildir.discard(&self.context.disk, &written.unpublished);
        }
    }

    /// Makes the written messages visible in `new/`. Answers them if that is durable; otherwise
    /// they are flushed next.
    pub(super) fn publish(&mut self) {
        if self.written.is_empty() {
            return;
        }
        if let Err(IdentityChanged) = self.workspace.check_identity() {
            return self.give_up_written(|delivery| {
                let error = IdentityChanged.error(delivery.mailbox());
                error.into()
            });
        }
        for mut written in std::mem::take(&mut self.written) {
            if !written.delivery.claim() {
                self.remove_unseen(&written);
                continue;
            }
            match self.with_room(|batch| batch.publish_one(&written)) {
                Ok(None) => self.end(written.delivery, Ok(Stored::Maildir)),
                Ok(Some(name)) => self.published.push(Published {
                    delivery: written.delivery,
                    maildir: written.maildir,
                    name,
                }),
                Err(error) => self.discard(written, error),
            }
        }
    }

    /// Publishes one message; returns the name of its file if that must still be flushed.
    fn publish_one(
        &mut self,
        written: &Written<D::Handle>,
    ) -> Result<Option<String>, MailboxError> {
        let Written {
            delivery,
            maildir,
            unpublished,
        } = written;
        let context = self.context;
        let disk = &context.disk;
        self.workspace
            .become_owner(delivery.mailbox(), delivery.owner())?;
        let (Some(base), Some(open)) =
            (self.workspace.base(), self.maildirs.open.get_mut(*maildir))
        else {
            return Err(delivery.interrupted());
        };
        let maildir = &mut open.maildir;
        if open.flush_time == FlushTime::WithBatch {
            return match maildir.publish(disk, &context.names, unpublished) {
                Err(error) if unpublished.arrived_here() => {
                    // It was perhaps opened by another way through the file system.
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

    /// Returns the Maildirs that were published in, and what to flush of them.
    pub(super) fn visible_maildirs(&self) -> (Vec<usize>, Vec<Item<'_, D::Handle>>) {
        let mut used: Vec<usize> = self.published.iter().map(|p| p.maildir).collect();
        used.sort_unstable();
        used.dedup();
        let maildirs = used.iter().filter_map(|at| self.maildirs.get(*at));
        let items = maildirs.map(|maildir| Item {
            handle: maildir.new_directory(),
            device: maildir.device(),
            whole: false,
            alone: false,
        });
        let items = items.collect();
        (used, items)
    }

    /// Removes what was published in a Maildir whose `new/` could not be flushed.
    pub(super) fn withdraw_unless(&mut self, flushed: &HashMap<usize, io::Result<()>>) {
        for published in std::mem::take(&mut self.published) {
            let Some(Err(source)) = flushed.get(&published.maildir) else {
                self.published.push(published);
                continue;
            };
            let Published { delivery, name, .. } = published;
            if self.workspace.become_owner_to_clean_up(delivery.owner())
                && let Some(maildir) = self.maildirs.get(published.maildir)
            {
                maildir.withdraw(&self.context.disk, &name);
            }
            let error = MailboxError::from_flush(delivery.mailbox(), source);
            self.end(delivery, Err(error.into()));
        }
    }

    /// Looks for files that crashed deliveries left behind, after everything was answered.
    pub(super) fn sweep(&self) {
        let context = self.context;
        let Some(base) = self.workspace.base() else {
            return;
        };
        for ((_, uid, gid), at) in &self.maildirs.by_key {
            let Some(maildir) = self.maildirs.get(*at).filter(|m| m.is_sweep_due()) else {
                continue;
            };
            if !self.workspace.become_owner_to_clean_up((*uid, *gid)) {
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

/// Flushes something on a file system that no checkpoint can flush.
pub(super) fn flush_now<D: Disk>(
    disk: &D,
    delivery: &Delivery,
    handle: &D::Handle,
) -> Result<(), MailboxError> {
    disk.sync(handle).map_err(|source| MailboxError::Flush {
        mailbox: delivery.mailbox().to_owned(),
        source,
    })
}

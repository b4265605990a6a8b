//! Receives a long message in place: in its mailbox, while it arrives.
//!
//! Storing the message then needs no copy. The store begins an [`InPlaceFile`] in the mailbox; the
//! builder of the message fills it as a [`MessageSink`]; the batch takes the file from the finished
//! message and publishes it. Where that fails, the delivery copies the message and reports the
//! error of the mailbox. Invariant: a separate thread opens the mailbox as its owner, because the
//! caller's thread must not change its identity.

use super::context::{Context, Workspace};
use super::in_place_file::{InPlaceFile, Purpose};
use crate::config::Compress;
use crate::io::{Credentials, Disk};
use crate::mailbox::maildir::{Maildir, Unpublished, create_unseen};
use crate::mailbox::{MailboxError, MailboxName};
use crate::message::{Message, MessageSink};
use crate::sync::Arc;
use crate::target::{Format, MailboxTarget, Owner};
use crate::thread;
use std::any::Any;
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

/// The time limit for opening a mailbox.
const WAIT: Duration = Duration::from_secs(2);

/// Begins a message behind `header` in an unnamed file in that mailbox. Waits only briefly for the
/// mailbox, because its file system may never answer.
pub(super) fn begin<D: Disk>(
    context: &Arc<Context<D>>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Option<Box<dyn MessageSink>> {
    if target.format != Format::Maildir || context.settings.compress != Compress::None {
        return None;
    }
    let (sender, opened) = mpsc::sync_channel(1);
    let (context, target) = (Arc::clone(context), target.clone());
    let open = move || {
        // If the caller has stopped waiting, this fails and the unnamed file is removed.
        let _ = sender.send(open_as_owner(&context, header, &target));
    };
    thread::spawn("mailstow-place", open).ok()?;
    let opened = opened.recv_timeout(WAIT).ok()?;
    let file = opened.unwrap_or_else(|error| {
        tracing::debug!(%error, "a long message cannot go into its mailbox as it arrives");
        None
    })?;
    Some(Box::new(file))
}

fn open_as_owner<D: Disk>(
    context: &Context<D>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Result<Option<InPlaceFile>, MailboxError> {
    let (disk, settings) = (&context.disk, &context.settings);
    let mailbox = MailboxName::of(&settings.base, target);
    let owner = target.owner();
    let credentials = RefCell::new(Credentials::of_own_thread());
    let mut workspace = Workspace::new(context, &credentials);
    let base = workspace.enter(mailbox.display(), owner)?;
    let (file, directory) = create_unseen(disk, base, &mailbox, settings.owner_check(owner))?;
    let Some(file) = file_of(file) else {
        return Ok(None);
    };
    let purpose = Purpose {
        header,
        directory: (directory.device, directory.inode),
        owner,
    };
    InPlaceFile::begin(file, purpose)
        .map(Some)
        .map_err(|error| MailboxError::from_io(mailbox.display(), "opening it", error))
}

/// Returns the file in this Maildir that took the message as it arrived, if its content equals what
/// [`Maildir::write`] would write now.
pub(super) fn take<H: 'static>(
    maildir: &Maildir<H>,
    owner: Owner,
    header: &[u8],
    message: &Message,
) -> Option<Unpublished<H>> {
    let directory = maildir.new_stat();
    let file = message.sink::<InPlaceFile>()?.take(&Purpose {
        header: header.to_owned(),
        directory: (directory.device, directory.inode),
        owner,
    })?;
    Some(Unpublished::adopted(handle_of(file)?, header, message))
}

/// Returns the file behind a handle; `None` on a simulated disk.
fn file_of<H: 'static>(handle: H) -> Option<File> {
    let handle: Box<dyn Any> = Box::new(handle);
    let descriptor = handle.downcast::<OwnedFd>().ok()?;
    Some(File::from(*descriptor))
}

/// Returns the handle of a file; `None` on a simulated disk.
fn handle_of<H: 'static>(file: File) -> Option<H> {
    let descriptor: Box<dyn Any> = Box::new(OwnedFd::from(file));
    descriptor.downcast::<H>().ok().map(|handle| *handle)
}

//! A long message goes into its mailbox while it arrives.
//!
//! What cannot be done here is not done: the delivery then copies the message, and answers for what
//! is wrong with the mailbox. Invariant: the mailbox is opened as its owner, by a thread that ends
//! with that, because the caller's thread must not change its identity.

use super::context::{Context, Workspace};
use crate::config::Compress;
use crate::io::{Credentials, Disk, Placed, Purpose};
use crate::mailbox::maildir::open_ahead;
use crate::mailbox::{MailboxError, MailboxName};
use crate::sync::Arc;
use crate::target::{Format, MailboxTarget};
use crate::thread;
use std::cell::RefCell;
use std::sync::mpsc;
use std::time::Duration;

/// How long a mailbox is waited for.
const WAIT: Duration = Duration::from_secs(2);

/// Begins a message behind `header` in a file without a name in that mailbox. Waits for that only
/// for a moment: the mailbox may never answer.
pub(super) fn begin<D: Disk>(
    context: &Arc<Context<D>>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Option<Placed> {
    if target.format != Format::Maildir || context.settings.compress != Compress::None {
        return None;
    }
    let (sender, opened) = mpsc::sync_channel(1);
    let (context, target) = (Arc::clone(context), target.clone());
    let open = move || {
        // If the caller has stopped waiting, this fails and the unnamed file is removed.
        let _ = sender.send(open_as_owner(&context, header, &target));
    };
    thread::spawn("mailstow-ahead", open).ok()?;
    opened.recv_timeout(WAIT).ok()?.unwrap_or_else(|error| {
        tracing::debug!(%error, "a long message cannot go into its mailbox as it arrives");
        None
    })
}

fn open_as_owner<D: Disk>(
    context: &Context<D>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Result<Option<Placed>, MailboxError> {
    let (disk, settings) = (&context.disk, &context.settings);
    let mailbox = MailboxName::of(&settings.base, target);
    let owner = target.owner();
    let credentials = RefCell::new(Credentials::of_own_thread());
    let mut workspace = Workspace::new(context, &credentials);
    let base = workspace.enter(mailbox.display(), owner)?;
    let (file, directory) = open_ahead(disk, base, &mailbox, settings.owner_check(owner))?;
    let Some(file) = disk.file_of(file) else {
        return Ok(None);
    };
    let purpose = Purpose {
        header,
        directory: (directory.device, directory.inode),
        owner: (owner.uid, owner.gid),
    };
    let begun = Placed::begin(file, purpose);
    begun
        .map(Some)
        .map_err(|error| MailboxError::from_io(mailbox.display(), "opening it", error))
}

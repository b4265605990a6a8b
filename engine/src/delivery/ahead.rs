//! A long message goes into its mailbox while it arrives.
//!
//! Imports `mailbox`, `message`, `io`, `route` (targets). What cannot be done here is not done:
//! the delivery then copies the message, and answers for what is wrong with the mailbox.
//! Invariant: the mailbox is opened as its owner, by a thread of its own, because the caller's
//! must not change who it is.

use super::store::Shared;
use crate::config::Compress;
use crate::io::{Credentials, Disk, Placed, Purpose};
use crate::mailbox::maildir::open_ahead;
use crate::mailbox::{MailboxError, MailboxPath};
use crate::route::{Format, MailboxTarget};
use crate::thread;

/// Begins a message behind `header` in a file without a name in that mailbox.
pub(super) fn begin<D: Disk>(
    shared: &Shared<D>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Option<Placed> {
    if target.format != Format::Maildir || shared.settings.compress != Compress::None {
        return None;
    }
    let opened = std::thread::scope(|scope| {
        let open = || open_as_owner(shared, header, target);
        let thread = thread::spawn_scoped(scope, "mailstow-ahead", open);
        thread.ok()?.join().ok()
    });
    opened?.unwrap_or_else(|error| {
        tracing::debug!(%error, "a long message cannot go into its mailbox as it arrives");
        None
    })
}

fn open_as_owner<D: Disk>(
    shared: &Shared<D>,
    header: Vec<u8>,
    target: &MailboxTarget,
) -> Result<Option<Placed>, MailboxError> {
    let settings = &shared.settings;
    let path = MailboxPath::new(&settings.base, target)?;
    let failed = |error| MailboxError::from_io(path.display(), "opening it", error);
    let base = shared.disk.open_root(&settings.base).map_err(failed)?;
    let owner = (target.uid, target.gid);
    let mut credentials = Credentials::of_own_thread();
    let switched = credentials.become_user(owner.0, owner.1);
    switched.map_err(|source| MailboxError::Identity {
        mailbox: path.display().to_owned(),
        source,
    })?;
    let (file, directory) =
        open_ahead(&shared.disk, &base, &path, settings.owner(owner.0, owner.1))?;
    let Some(file) = shared.disk.file_of(file) else {
        return Ok(None);
    };
    let purpose = Purpose {
        header,
        directory: (directory.device, directory.inode),
        owner,
    };
    Placed::begin(file, purpose).map(Some).map_err(failed)
}

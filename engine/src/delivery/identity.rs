//! As whom a round does what: the base is opened by the server, mailboxes by their owners.
//!
//! Imports the rest of `delivery`, `mailbox` (errors), `io`. The directories above the base may be
//! closed to owners, and what is below it must not be opened with more rights than theirs.

use super::job::Job;
use super::store::Shared;
use crate::io::{CredentialError, Credentials, Disk};
use crate::mailbox::MailboxError;

/// Opens the base as the server, if that is still to be done.
pub(super) fn open_base<D: Disk>(
    shared: &Shared<D>,
    credentials: &mut Credentials,
    base: &mut Option<D::Handle>,
    job: &Job,
) -> Result<(), MailboxError> {
    if base.is_none() {
        let path = &shared.settings.base;
        let opened = credentials.as_self(|| shared.disk.open_root(path));
        *base = Some(opened.map_err(|source| MailboxError::Base {
            mailbox: job.mailbox().to_owned(),
            base: path.display().to_string(),
            source,
        })?);
    }
    Ok(())
}

/// Returns why files made since `begun` may have a wrong owner; `None` when they have not.
pub(super) fn changed(
    credentials: &mut Credentials,
    begun: u64,
) -> Option<impl Fn(&str) -> MailboxError + use<>> {
    let error = credentials.verify(begun).err()?;
    tracing::error!("{error}; nothing written meanwhile is delivered");
    Some(|mailbox: &str| MailboxError::Identity {
        mailbox: mailbox.to_owned(),
        source: CredentialError::Changed,
    })
}

/// Takes the identity of the mailbox's owner.
pub(super) fn become_owner(credentials: &mut Credentials, job: &Job) -> Result<(), MailboxError> {
    let switched = credentials.become_user(job.target.uid, job.target.gid);
    switched.map_err(|source| MailboxError::Identity {
        mailbox: job.mailbox().to_owned(),
        source,
    })
}

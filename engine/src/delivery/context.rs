//! What all writers of a store share, and the place where one thread works on mailboxes.
//!
//! Invariant: the server opens the base, because owners of mailboxes may not be able to search the
//! directories above it. The owner of each mailbox opens everything below the base, so that a
//! delivery has only the owner's rights.

use super::flush::Flusher;
use super::ledger::fingerprint::BaseDigest;
use crate::config::{Settings, StatusFields};
use crate::io::{CredentialError, Credentials, Disk};
use crate::mailbox::maildir::NameMaker;
use crate::mailbox::{DurableDirs, MailboxError, MailboxSettings};
use crate::message::Message;
use crate::target::Owner;
use std::cell::RefCell;

/// The mailboxes of a store and how mail is written to them.
#[derive(Debug)]
pub(super) struct Context<D: Disk> {
    pub(super) disk: D,
    pub(super) settings: MailboxSettings,
    /// The digest of `virtual_mailbox_base`.
    pub(super) base_digest: BaseDigest,
    /// Directories that were used before.
    pub(super) durable_dirs: DurableDirs,
    pub(super) names: NameMaker,
    pub(super) flusher: Flusher,
}

impl<D: Disk> Context<D> {
    pub(super) fn new(disk: D, settings: &Settings) -> Self {
        Self {
            disk,
            settings: MailboxSettings::from(settings),
            base_digest: BaseDigest::of(&settings.routing.virtual_mailbox_base),
            durable_dirs: DurableDirs::default(),
            names: NameMaker::new(&settings.store.host),
            flusher: Flusher::new(settings.store.flush),
        }
    }

    /// Returns true when copies of this message in mboxes lack the header fields in which readers
    /// of mboxes keep their state.
    pub(super) fn without_status(&self, message: &Message) -> bool {
        message.has_status_fields() && self.settings.mbox_status_fields == StatusFields::Remove
    }

    /// Refuses a mailbox file that is longer than `virtual_mailbox_limit` with `bytes`.
    pub(super) fn check_limit(&self, mailbox: &str, bytes: u64) -> Result<(), MailboxError> {
        match self.settings.is_over_limit(bytes) {
            false => Ok(()),
            true => Err(MailboxError::OverLimit {
                mailbox: mailbox.to_owned(),
                limit_bytes: self.settings.limit_bytes,
            }),
        }
    }
}

/// One piece of work on mailboxes: the opened base, and the identity of the working thread.
///
/// A thread may have several pieces of work at once; they share its identity.
pub(super) struct Workspace<'a, D: Disk> {
    context: &'a Context<D>,
    credentials: &'a RefCell<Credentials>,
    /// What [`Credentials::begin`] returned.
    begun: u64,
    base: Option<D::Handle>,
}

impl<'a, D: Disk> Workspace<'a, D> {
    /// Begins a piece of work on the thread that owns the credentials.
    pub(super) fn new(context: &'a Context<D>, credentials: &'a RefCell<Credentials>) -> Self {
        Self {
            context,
            begun: credentials.borrow_mut().begin(),
            credentials,
            base: None,
        }
    }

    /// Takes the identity of the mailbox's owner and returns the base. Opens the base first if it
    /// is not open yet.
    pub(super) fn enter(
        &mut self,
        mailbox: &str,
        owner: Owner,
    ) -> Result<&D::Handle, MailboxError> {
        let mut credentials = self.credentials.borrow_mut();
        let base = match self.base.take() {
            Some(base) => base,
            None => {
                let path = &self.context.settings.base;
                let opened = credentials.as_self(|| self.context.disk.open_root(path));
                opened.map_err(|source| MailboxError::Base {
                    mailbox: mailbox.to_owned(),
                    base: path.display().to_string(),
                    source,
                })?
            }
        };
        let base = self.base.insert(base);
        become_owner(&mut credentials, mailbox, owner)?;
        Ok(base)
    }

    /// Returns the base, if a mailbox was entered.
    pub(super) fn base(&self) -> Option<&D::Handle> {
        self.base.as_ref()
    }

    /// Takes the identity of a mailbox's owner.
    pub(super) fn become_owner(&self, mailbox: &str, owner: Owner) -> Result<(), MailboxError> {
        become_owner(&mut self.credentials.borrow_mut(), mailbox, owner)
    }

    /// Takes the identity of a mailbox's owner to remove a file that is no longer needed; returns
    /// false when that fails. With another identity, a lock file stays until it is stale, and a
    /// file in `tmp/` until it is swept.
    pub(super) fn become_owner_to_clean_up(&self, Owner { uid, gid }: Owner) -> bool {
        let switched = self.credentials.borrow_mut().become_user(uid, gid);
        if let Err(error) = &switched {
            tracing::debug!(%error, "cannot clean up in a mailbox");
        }
        switched.is_ok()
    }

    /// Checks that the thread kept the identities it took since the work began. Otherwise files
    /// made meanwhile may have a wrong owner, and must not become visible.
    pub(super) fn check_identity(&self) -> Result<(), IdentityChanged> {
        let verified = self.credentials.borrow_mut().verify(self.begun);
        verified.map_err(|error| {
            tracing::error!("{error}; nothing written meanwhile is delivered");
            IdentityChanged
        })
    }
}

fn become_owner(
    credentials: &mut Credentials,
    mailbox: &str,
    Owner { uid, gid }: Owner,
) -> Result<(), MailboxError> {
    let switched = credentials.become_user(uid, gid);
    switched.map_err(|source| MailboxError::Identity {
        mailbox: mailbox.to_owned(),
        source,
    })
}

/// Another part of the program changed the identity of the thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdentityChanged;

impl IdentityChanged {
    /// Returns this error for a mailbox.
    pub(super) fn error(self, mailbox: &str) -> MailboxError {
        MailboxError::Identity {
            mailbox: mailbox.to_owned(),
            source: CredentialError::Changed,
        }
    }
}

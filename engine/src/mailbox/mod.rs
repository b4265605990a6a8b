//! Mailbox formats: Maildir and mbox.
//!
//! Each format is a folder: it opens a mailbox as the calling thread's identity, writes, and says
//! what must be flushed before and after the message becomes visible; when to flush is decided by
//! `delivery`. Sources: Postfix virtual(8), maildir(5), mbox(5).

mod directory;
mod durable_dirs;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
pub mod maildir;
pub mod mbox;
mod owner_check;
mod path;
mod place;
pub(crate) mod trace;

pub(crate) use directory::Unflushed;
pub(crate) use durable_dirs::{DurableDirs, Flush};
pub use error::MailboxError;
pub(crate) use error::Unfit;
pub(crate) use owner_check::OwnerCheck;
pub use owner_check::unsafe_mailbox;
pub(crate) use path::MailboxName;

use crate::config::{Compress, Copies, MboxLock, Settings, StatusFields};
use crate::target::Owner;
use std::path::PathBuf;
use std::time::Duration;

/// What the mailbox formats need to know.
#[derive(Clone, Debug)]
pub struct MailboxSettings {
    /// `virtual_mailbox_base`, absolute.
    pub base: PathBuf,
    /// `virtual_mailbox_limit`: bytes of one mailbox file; 0 means no limit.
    pub limit_bytes: u64,
    /// `virtual_mailbox_lock`
    pub locks: Vec<MboxLock>,
    /// `strict_mailbox_ownership`
    pub strict_ownership: bool,
    /// `deliver_lock_attempts` times `deliver_lock_delay`: how long a busy lock is waited for.
    pub lock_timeout: Duration,
    /// `stale_lock_time`
    pub stale_lock_age: Duration,
    /// `store.host`
    pub host: String,
    /// `store.tmp_age_max`
    pub tmp_age_max: Duration,
    /// `store.compress`
    pub compress: Compress,
    /// `store.copies`
    pub copies: Copies,
    /// `virtual_minimum_uid`
    pub minimum_uid: u32,
    /// `store.mbox_status_fields`
    pub mbox_status_fields: StatusFields,
}

impl From<&Settings> for MailboxSettings {
    fn from(settings: &Settings) -> Self {
        let routing = &settings.routing;
        Self {
            base: routing.virtual_mailbox_base.clone(),
            limit_bytes: routing.virtual_mailbox_limit,
            locks: routing.virtual_mailbox_lock.clone(),
            strict_ownership: routing.strict_mailbox_ownership,
            lock_timeout: routing
                .deliver_lock_delay
                .saturating_mul(routing.deliver_lock_attempts),
            stale_lock_age: routing.stale_lock_time,
            host: settings.store.host.clone(),
            tmp_age_max: settings.store.tmp_age_max,
            compress: settings.store.compress,
            copies: settings.store.copies,
            minimum_uid: routing.virtual_minimum_uid,
            mbox_status_fields: settings.store.mbox_status_fields,
        }
    }
}

impl MailboxSettings {
    /// Returns how a mailbox of this owner is checked.
    pub fn owner_check(&self, owner: Owner) -> OwnerCheck {
        OwnerCheck {
            owner,
            strict: self.strict_ownership,
        }
    }

    /// True when a file of `bytes` is more than a mailbox file may have.
    pub fn is_over_limit(&self, bytes: u64) -> bool {
        self.limit_bytes != 0 && bytes > self.limit_bytes
    }
}

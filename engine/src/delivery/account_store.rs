//! The store of mailboxes that belong to accounts of this machine, and of files in aliases.
//!
//! Their paths begin at `/`, and local(8) has separate limits and locks for them. So they have a
//! second store, with a second delivery log in `accounts` below the state directory. Neither store
//! waits for the log or the file systems of the other.

use super::bounds::log_directory;
use super::error::StoreError;
use super::recovery::RecoveryReport;
use super::store::Store;
use crate::config::{Durability, Settings};
use std::borrow::Cow;
use std::path::Path;

/// The name of its directory below the state directory.
const DIRECTORY: &str = "accounts";

/// Returns the settings of the store of accounts.
fn of_accounts(settings: &Settings) -> Settings {
    let mut own = settings.clone();
    own.state_directory = settings.state_directory.join(DIRECTORY);
    own.store.make_base = false;
    let routing = &mut own.routing;
    routing.virtual_mailbox_base = "/".into();
    routing.virtual_mailbox_limit = routing.mailbox_size_limit;
    routing.virtual_mailbox_lock = routing.mailbox_delivery_lock.clone();
    routing.virtual_minimum_uid = 1;
    own
}

/// Returns the settings of the store of virtual mailboxes. A site whose users all have accounts has
/// no directory for virtual mailboxes, and no table that names one.
pub(crate) fn of_mailboxes(settings: &Settings) -> Cow<'_, Settings> {
    let routing = &settings.routing;
    let has_base = !routing.virtual_mailbox_base.as_os_str().is_empty();
    if has_base || !routing.virtual_mailbox_maps.is_empty() || !settings.delivers_locally() {
        return Cow::Borrowed(settings);
    }
    let mut own = settings.clone();
    own.routing.virtual_mailbox_base = "/".into();
    Cow::Owned(own)
}

impl Store {
    /// Opens the store of accounts where local delivery is in use. Recovers a log that an earlier
    /// process left there.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(crate) fn open_accounts(settings: &Settings) -> Result<Option<Self>, StoreError> {
        let own = of_accounts(settings);
        let log = log_directory(&own);
        let is_logged = settings.store.durability == Durability::Logged;
        if !settings.delivers_locally() {
            if is_logged && log.is_dir() {
                Self::recover(&own, &log)?;
            }
            return Ok(None);
        }
        if is_logged || log.is_dir() {
            return Self::open(&own).map(Some);
        }
        // Without a log the two stores share the state directory.
        let state_directory = settings.state_directory.clone();
        let own = Settings {
            state_directory,
            ..own
        };
        Self::open_without_log(&own).map(Some)
    }

    /// As [`Store::recover`], with the settings of the store whose log is in `directory`.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub(crate) fn recover_any(
        settings: &Settings,
        directory: &Path,
        in_part: bool,
    ) -> Result<RecoveryReport, StoreError> {
        let own = of_accounts(settings);
        let above = directory.parent().and_then(Path::file_name);
        let settings = match above.is_some_and(|name| name == DIRECTORY) {
            true => &own,
            false => settings,
        };
        match in_part {
            true => Self::recover_in_part(settings, directory),
            false => Self::recover(settings, directory),
        }
    }
}

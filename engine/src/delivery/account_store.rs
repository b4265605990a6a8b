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
use crate::io::StateDirectory;
use crate::log::{DirectoryMedium, Record, Sequence, scan};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The name of its directory below the state directory.
const DIRECTORY: &str = "accounts";
/// An empty file in its delivery log, by which that is known wherever it is.
const MARK: &str = "of-accounts";

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

/// Returns the settings of the store of virtual mailboxes. A site whose mail all goes elsewhere has
/// no directory for virtual mailboxes, and no table that could name one.
pub(crate) fn of_mailboxes(settings: &Settings) -> Cow<'_, Settings> {
    let has_base = !settings.routing.virtual_mailbox_base.as_os_str().is_empty();
    // What was accepted when there was a directory must not go to another.
    if has_base || settings.needs_base() || has_mail(&log_directory(settings)) {
        return Cow::Borrowed(settings);
    }
    let mut own = settings.clone();
    own.routing.virtual_mailbox_base = "/".into();
    Cow::Owned(own)
}

/// Returns true if a delivery log has messages that may not be in their mailboxes.
fn has_mail(log: &Path) -> bool {
    let Ok(medium) = DirectoryMedium::open_read_only(log) else {
        return false;
    };
    let (mut accepted, mut below) = (None, Sequence(0));
    let scanned = scan(&medium, &mut |entry| match entry.record() {
        Ok(Record::Accepted { .. } | Record::Extent(_)) => accepted = Some(entry.sequence),
        Ok(Record::Checkpoint(checkpoint)) => below = checkpoint.below,
        _ => {}
    });
    // What is damaged is reported when the log is opened.
    scanned.is_ok() && accepted.is_some_and(|accepted| accepted >= below)
}

/// Makes the mark of a log that was opened.
fn mark(log: &Path) -> io::Result<()> {
    let path = log.join(MARK);
    if path.exists() {
        return Ok(());
    }
    File::create_new(path)?.sync_all()?;
    File::open(log)?.sync_all()
}

/// Returns true for the delivery log of accounts, also for a copy of it.
fn is_of_accounts(log: &Path, own: &Settings) -> bool {
    let identity = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let there = identity(log);
    log.join(MARK).exists() || (there.is_some() && there == identity(&log_directory(own)))
}

impl Store {
    /// Opens the store of accounts, where local delivery is in use. A log that was left when it was
    /// in use before, or when there was a log, is recovered.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(crate) fn open_accounts(settings: &Settings) -> Result<Option<Self>, StoreError> {
        let own = of_accounts(settings);
        let log = log_directory(&own);
        let is_logged = settings.store.durability == Durability::Logged;
        // In a directory that all users share, a log is not ours.
        let is_left = || log.is_dir() && StateDirectory::open(&own.state_directory).is_ok();
        if !settings.delivers_locally() {
            if is_left() {
                let report = Self::recover(&own, &log)?;
                tracing::info!("delivery log of accounts, which is in use no more: {report}");
            }
            return Ok(None);
        }
        if is_logged || is_left() {
            let store = Self::open(&own)?;
            if is_logged && let Err(error) = mark(&log) {
                // Where it is tells what it is, until it is copied.
                tracing::warn!("delivery log {}: {MARK}: {error}", log.display());
            }
            return Ok(Some(store));
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
        let settings = match is_of_accounts(directory, &own) {
            true => &own,
            false => settings,
        };
        match in_part {
            true => Self::recover_in_part(settings, directory),
            false => Self::recover(settings, directory),
        }
    }
}

//! Opens the directory that holds the mailboxes, and makes it if the settings ask for it.
//!
//! Sources: Postfix virtual(8), `virtual_mailbox_base`.

use super::error::StoreError;
use crate::config::Settings;
use crate::io::{Disk, SafeDirectory};
use rustix::fs::{self as sys, Mode, OFlags};
use std::io;
use std::path::Path;

/// Opens the base once; creates it if only the last directory of its path is missing. Owners of
/// mailboxes must be able to search it, and to make directories in it when all mailboxes have one
/// owner.
pub(super) fn open_base<D: Disk>(disk: &D, settings: &Settings) -> Result<(), StoreError> {
    let base = settings.routing.virtual_mailbox_base.clone();
    if base.as_os_str().is_empty() {
        return Err(StoreError::NoBase);
    }
    if !base.is_absolute() {
        return Err(StoreError::RelativeBase { base });
    }
    let missing = match disk.open_root(&base) {
        Ok(_) => return Ok(()),
        Err(source) => source,
    };
    let made = match missing.kind() {
        io::ErrorKind::NotFound if settings.store.make_base => make_base(&base, settings),
        _ => Err(missing),
    };
    made.map_err(|source| StoreError::Base { base, source })
}

/// Checks that the base can be used. Creates nothing.
pub(super) fn check_base<D: Disk>(disk: &D, settings: &Settings) -> Result<(), StoreError> {
    let mut settings = settings.clone();
    settings.store.make_base = false;
    open_base(disk, &settings)
}

fn make_base(base: &Path, settings: &Settings) -> io::Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    let mode = if is_root { 0o755 } else { 0o700 };
    // The owner of the parent directory must not be able to give another directory the new owner.
    let (above, name) = SafeDirectory::of(base).map_err(io::Error::other)?;
    sys::mkdirat(above.handle(), &name, Mode::from_raw_mode(mode))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = sys::openat(above.handle(), &name, flags, Mode::empty())?;
    let uid = static_id(&settings.routing.virtual_uid_maps);
    let gid = static_id(&settings.routing.virtual_gid_maps);
    if let (true, Some(uid), Some(gid)) = (is_root, uid, gid) {
        let is_ours = sys::fstat(&made)?.st_uid == 0;
        if !is_ours {
            return Err(io::Error::other("another directory was put in its place"));
        }
        std::os::unix::fs::fchown(&made, Some(uid), Some(gid))?;
    }
    tracing::info!(base = %base.display(), uid, gid, "created virtual_mailbox_base");
    Ok(())
}

/// Returns the one user of all mailboxes, if the tables name a single constant.
fn static_id(tables: &str) -> Option<u32> {
    let id = tables.trim().strip_prefix("static:")?.trim().parse().ok()?;
    (id != 0).then_some(id)
}

//! Directories of mailboxes: opening beneath the base, checking, creating.
//!
//! Everything happens as the mailbox owner.

use super::error::MailboxError;
use super::path::{MailboxName, prefixes};
use crate::io::{Disk, FileStat};
use std::io;

/// Permission bits of the directories we make.
const DIRECTORY_MODE: u32 = 0o700;

/// A file or directory that must be flushed.
#[derive(Debug)]
pub struct Unflushed<H> {
    /// The open file or directory.
    pub handle: H,
    /// The file system it is on.
    pub device: u64,
    /// Flushing it alone is not enough, because something above it could not be opened: its
    /// whole file system must be flushed.
    pub whole: bool,
}

/// The name of a directory below the base, for messages.
pub(super) fn display(mailbox: &MailboxName, directory: &str) -> String {
    let relative = mailbox.as_str();
    let base = mailbox
        .display()
        .trim_end_matches('/')
        .strip_suffix(relative)
        .unwrap_or(mailbox.display());
    format!("{base}{directory}")
}

/// Refuses a directory in which every user could replace the mailbox.
pub(super) fn check_closed(
    mailbox: &MailboxName,
    directory: &str,
    stat: &FileStat,
) -> Result<(), MailboxError> {
    if stat.is_open_to_everyone() {
        return Err(MailboxError::OpenToEveryone {
            mailbox: mailbox.display().to_owned(),
            directory: display(mailbox, directory),
        });
    }
    Ok(())
}

/// Opens every directory from the base down to `path`, checks it, and hands it over for
/// flushing. A directory its user may search but not read cannot be opened for that; the one
/// below it then represents the whole file system.
pub(super) fn open_chain<D: Disk>(
    disk: &D,
    base: &D::Handle,
    mailbox: &MailboxName,
    path: &str,
) -> Result<Vec<Unflushed<D::Handle>>, MailboxError> {
    let failed = |error| MailboxError::from_io(mailbox.display(), "opening its directory", error);
    let mut chain = Vec::new();
    let mut whole = false;
    for prefix in prefixes(path) {
        let handle = match disk.open_directory(base, prefix) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && prefix != path => {
                whole = true;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let stat = disk.stat(&handle).map_err(failed)?;
        check_closed(mailbox, prefix, &stat)?;
        chain.push(Unflushed {
            handle,
            device: stat.device,
            whole: std::mem::take(&mut whole),
        });
    }
    Ok(chain)
}

/// Makes the directory `path` and those above it, as far as they are missing, for `gid`. Others
/// may do the same at the same time.
pub(super) fn make_all<D: Disk>(
    disk: &D,
    base: &D::Handle,
    mailbox: &MailboxName,
    path: &str,
    gid: u32,
) -> Result<D::Handle, MailboxError> {
    let failed = |error| MailboxError::from_io(mailbox.display(), "creating it", error);
    match disk.open_directory(base, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {}
        answer => return answer.map_err(failed),
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = make_all(disk, base, mailbox, parent, gid)?;
    let is_new = make(disk, &parent, name).map_err(failed)?;
    let handle = disk.open_directory(base, path).map_err(failed)?;
    if is_new {
        // A set-group-id bit above, or BSD mount options, may have given it another group.
        let stat = disk.stat(&handle).map_err(failed)?;
        if stat.gid != gid {
            disk.change_group(&handle, gid).map_err(failed)?;
        }
    }
    Ok(handle)
}

/// Makes one directory; false if it is there already.
pub(super) fn make<D: Disk>(disk: &D, parent: &D::Handle, name: &str) -> io::Result<bool> {
    match disk.make_directory(parent, name, DIRECTORY_MODE) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

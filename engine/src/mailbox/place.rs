//! Refuses a mailbox that would damage another where it lies.
//!
//! What is beside it is looked at as the mailbox owner.

use super::error::MailboxError;
use super::path::MailboxName;
use crate::io::{Disk, FileKind};
use crate::target::Format;
use crate::target::place::{Standing, harm};

/// Refuses a mailbox that would do harm where it lies.
pub(super) fn check<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    format: Format,
) -> Result<(), MailboxError> {
    match harm(path.as_str(), format, &|at| standing(disk, base, at)) {
        None => Ok(()),
        Some(cause) => Err(MailboxError::Misplaced {
            mailbox: path.display().to_owned(),
            cause,
        }),
    }
}

fn standing<D: Disk>(disk: &D, base: &D::Handle, path: &str) -> Option<Standing> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = disk.open_directory(base, parent).ok()?;
    match disk.stat_at(&parent, name).ok()?.kind {
        FileKind::Directory => Some(Standing::Directory),
        FileKind::Regular => Some(Standing::File),
        FileKind::Symlink => {
            let directory = disk.open_directory(base, path);
            directory.ok().map(|_| Standing::Directory)
        }
        FileKind::Other => None,
    }
}

//! Removes files that crashed deliveries left in a Maildir's `tmp/`.
//!
//! Runs as the mailbox owner after deliveries were answered, so no delivery waits for it. Source:
//! maildir(5): files not changed for 36 hours may go.

use crate::clock;
use crate::io::{Disk, FileKind};
use crate::limits::SWEEP_FILES_MAX;
use crate::mailbox::MailboxName;
use std::io;
use std::time::Duration;

/// Removes the files in `tmp/` unchanged for longer than `age_max`, looking at a bounded number
/// of them. Returns how many went.
///
/// # Errors
/// `tmp/` cannot be read.
pub fn sweep<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    age_max: Duration,
) -> io::Result<usize> {
    let tmp = disk.open_directory(base, &path.below("tmp"))?;
    let now = clock::since_epoch();
    let mut removed = 0;
    for name in disk.list(&tmp, SWEEP_FILES_MAX)? {
        let Some(name) = name.to_str() else { continue };
        let Ok(stat) = disk.stat_at(&tmp, name) else {
            continue;
        };
        let age = now.saturating_sub(stat.modified);
        if stat.kind == FileKind::Regular && age > age_max && disk.remove(&tmp, name).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

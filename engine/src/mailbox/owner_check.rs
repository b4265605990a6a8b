//! Whether others than the recipient, root and those whom root let in can replace a mailbox.
//!
//! The way from the base to the mailbox is walked on open directories, one component at a time,
//! symbolic links included, as the kernel resolves them beneath the base. What is allowed is
//! written down in [`crate::manual::mailbox_owners`]. It is done when a mailbox is used for the
//! first time: a user who could put another one in its place later would have to be trusted now,
//! and another one has another inode, so that it is checked again.

use super::directory::display;
use super::error::{MailboxError, Unsafe};
use super::path::MailboxName;
use crate::config::RoutingSettings;
use crate::io::{Blocking, Disk, FileStat, Step};
use crate::target::{Format, MailboxTarget, Owner};
use std::io;

/// Symbolic links followed on one path, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Checks that a mailbox is safe to use for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerCheck {
    /// The recipient's user and group.
    pub owner: Owner,
    /// `strict_mailbox_ownership`
    pub strict: bool,
}

/// What a component of a path is to a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A directory on the way.
    Above,
    /// A Maildir, or one of its directories.
    Maildir,
}

impl OwnerCheck {
    /// Refuses a Maildir, or a directory of one, by its own attributes.
    pub(super) fn check_maildir(
        self,
        mailbox: &MailboxName,
        directory: &str,
        stat: &FileStat,
    ) -> Result<(), MailboxError> {
        let cause = self.writable(stat, Part::Maildir).or_else(|| {
            let is_foreign = self.strict && stat.uid != self.owner.uid && stat.uid != 0;
            is_foreign.then_some(Unsafe::Owner { owner: stat.uid })
        });
        self.refuse(mailbox, directory, cause)
    }

    /// Refuses a directory on the way to a mailbox by its own attributes.
    pub(super) fn check_above(
        self,
        mailbox: &MailboxName,
        directory: &str,
        stat: &FileStat,
    ) -> Result<(), MailboxError> {
        self.refuse(mailbox, directory, self.writable(stat, Part::Above))
    }

    /// Who may write there that must not.
    fn writable(self, stat: &FileStat, part: Part) -> Option<Unsafe> {
        let is_sticky = stat.mode & 0o1000 != 0;
        if stat.mode & 0o002 != 0 && (part == Part::Maildir || !is_sticky) {
            return Some(Unsafe::Everyone);
        }
        let is_foreign = stat.gid != self.owner.gid && stat.gid != 0;
        // In a sticky directory only the owners of names change them.
        let is_open = part == Part::Maildir || !is_sticky;
        (stat.mode & 0o020 != 0 && is_foreign && is_open)
            .then_some(Unsafe::Group { group: stat.gid })
    }

    /// Who put `stat` there and must not have: in a directory where others may make names, only
    /// those of the recipient, of root and of the directory's owner count.
    fn planted(self, above: &FileStat, stat: &FileStat) -> Option<Unsafe> {
        let is_open = above.mode & 0o022 != 0;
        let is_known = [self.owner.uid, 0, above.uid].contains(&stat.uid);
        (is_open && !is_known).then_some(Unsafe::Owner { owner: stat.uid })
    }

    fn refuse(
        self,
        mailbox: &MailboxName,
        directory: &str,
        cause: Option<Unsafe>,
    ) -> Result<(), MailboxError> {
        match cause {
            None => Ok(()),
            Some(cause) => Err(MailboxError::Unsafe {
                mailbox: mailbox.display().to_owned(),
                directory: display(mailbox, directory),
                uid: self.owner.uid,
                cause,
            }),
        }
    }
}

/// Walks from the base to the directory `path` and refuses what others can replace. `maildir` is
/// the part of `path` that is a Maildir, empty for an mbox. Returns the attributes of the directory
/// that the path ends at; none when it, or one above it, is missing.
///
/// # Errors
/// [`MailboxError::Unsafe`]; a directory cannot be searched, or the path leads out of the base.
pub(super) fn walk<D: Disk>(
    disk: &D,
    base: &D::Handle,
    (mailbox, path): (&MailboxName, &str),
    owner: OwnerCheck,
    maildir: Option<&str>,
) -> Result<Option<FileStat>, MailboxError> {
    let failed = |error| MailboxError::from_io(mailbox.display(), "opening its directory", error);
    let outside = |code| failed(io::Error::from_raw_os_error(code));
    let mut passed: Vec<(D::Handle, FileStat)> = Vec::new();
    let mut stat = disk.stat(base).map_err(failed)?;
    // Components to come, the next one last: the name, and how much of the path it ends.
    let mut pending: Vec<(String, usize)> = Vec::new();
    push(&mut pending, path, None);
    let mut links = 0;
    while let Some((name, end)) = pending.pop() {
        let shown = path.get(..end).unwrap_or(path);
        if name == ".." {
            if passed.pop().is_none() {
                return Err(outside(libc::EXDEV));
            }
            let above = passed.last().map_or(base, |(handle, _)| handle);
            stat = disk.stat(above).map_err(failed)?;
            continue;
        }
        let at = passed.last().map_or(base, |(handle, _)| handle);
        match disk.step(at, &name) {
            Ok(Step::Directory(handle)) => {
                let found = disk.stat(&handle).map_err(failed)?;
                let is_end = pending.last().is_none_or(|(_, next)| *next != end);
                let is_maildir = is_end && maildir.is_some_and(|maildir| end >= maildir.len());
                owner.refuse(mailbox, shown, owner.planted(&stat, &found))?;
                match is_maildir {
                    true => owner.check_maildir(mailbox, shown, &found)?,
                    false => owner.check_above(mailbox, shown, &found)?,
                }
                stat = found;
                passed.push((handle, found));
            }
            Ok(Step::Link(found, target)) => {
                owner.refuse(mailbox, shown, owner.planted(&stat, &found))?;
                links += 1;
                if links > LINKS_MAX {
                    return Err(outside(libc::ELOOP));
                }
                if target.starts_with('/') {
                    return Err(outside(libc::EXDEV));
                }
                push(&mut pending, &target, Some(end));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Some(stat))
}

/// Why others than the recipient could replace the mailbox of a target below the base of these
/// settings, or have made it, with the remedy; `None` also when that cannot be looked at.
pub fn unsafe_mailbox(routing: &RoutingSettings, target: &MailboxTarget) -> Option<String> {
    let disk = Blocking::new();
    let base = disk.open_root(&routing.virtual_mailbox_base).ok()?;
    let mailbox = MailboxName::of(&routing.virtual_mailbox_base, target);
    let owner = OwnerCheck {
        owner: target.owner(),
        strict: routing.strict_mailbox_ownership,
    };
    let walked = match target.format {
        Format::Mbox => walk(&disk, &base, (&mailbox, mailbox.parent()), owner, None),
        Format::Maildir => {
            let new = mailbox.below("new");
            walk(
                &disk,
                &base,
                (&mailbox, &new),
                owner,
                Some(mailbox.as_str()),
            )
        }
    };
    match walked {
        Err(error @ (MailboxError::Unsafe { .. } | MailboxError::OpenToEveryone { .. })) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// Puts the components of a path before those that are still to come; those of a link all end
/// what the link ends.
fn push(pending: &mut Vec<(String, usize)>, path: &str, link: Option<usize>) {
    let mut at = 0;
    let mut components = Vec::new();
    for name in path.split('/') {
        let end = at + name.len();
        if !name.is_empty() && name != "." {
            components.push((name.to_owned(), link.unwrap_or(end)));
        }
        at = end + 1;
    }
    pending.extend(components.into_iter().rev());
}

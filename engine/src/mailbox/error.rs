//! Why a mailbox does not take a message.
//!
//! Every text names the mailbox, the cause and the remedy. A failure of mailstow or its machine is
//! 4xx, an I/O error too; only a limit or quota of the mailbox is 5xx.

use crate::io::CredentialError;
use crate::status::Status;
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A mailbox that does not take a message, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// The table's value is no path we deliver to.
    #[error("mailbox {mailbox}: {cause}; correct its entry in virtual_mailbox_maps")]
    Path {
        /// The mailbox.
        mailbox: String,
        /// What is wrong with the path.
        cause: &'static str,
    },
    /// The path leads into another mailbox, or to a name that readers of one use.
    #[error("mailbox {mailbox}: {cause}; until then its mail is kept in the queue")]
    Misplaced {
        /// The mailbox.
        mailbox: String,
        /// What is wrong with the path, and the remedy.
        cause: String,
    },
    /// A symbolic link on the way leads out of the base.
    #[error(
        "mailbox {mailbox}: a symbolic link on its path leads out of virtual_mailbox_base or is \
         absolute ({source}); make it a relative link that stays below the base, or a directory"
    )]
    Escapes {
        /// The mailbox.
        mailbox: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The base itself cannot be opened.
    #[error(
        "mailbox {mailbox}: cannot open virtual_mailbox_base {base}: {source}; create it, mount \
         it, or allow the mailbox owner to search it"
    )]
    Base {
        /// The mailbox.
        mailbox: String,
        /// The base directory.
        base: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The owner's identity cannot be taken.
    #[error("mailbox {mailbox}: {source}")]
    Identity {
        /// The mailbox.
        mailbox: String,
        /// Why not.
        source: CredentialError,
    },
    /// Every user could replace the mailbox.
    #[error(
        "mailbox {mailbox}: directory {directory} is writable by everyone; run: chmod o-w {directory}"
    )]
    OpenToEveryone {
        /// The mailbox.
        mailbox: String,
        /// The directory.
        directory: String,
    },
    /// Another user could replace the mailbox, or has made it.
    #[error("mailbox {mailbox}: directory {directory} {}", unsafe_remedy(directory, *uid, cause))]
    Unsafe {
        /// The mailbox.
        mailbox: String,
        /// The directory.
        directory: String,
        /// The recipient's user.
        uid: u32,
        /// What is wrong with it.
        cause: Unsafe,
    },
    /// The recipient's user is one that no mail is written as.
    #[error(
        "mailbox {mailbox}: its mail was to be written as uid {uid}, below virtual_minimum_uid = \
         {minimum}; lower that, or map the recipient to another user"
    )]
    BelowMinimum {
        /// The mailbox.
        mailbox: String,
        /// The user.
        uid: u32,
        /// `virtual_minimum_uid`
        minimum: u32,
    },
    /// The directory of an mbox is missing; it is never made.
    #[error(
        "mailbox {mailbox}: directory {directory} does not exist; create it, owned by the \
         mailbox owner (directories of mbox files are never made)"
    )]
    NoParent {
        /// The mailbox.
        mailbox: String,
        /// The directory.
        directory: String,
    },
    /// The owner may not do this here.
    #[error(
        "mailbox {mailbox}: {doing}: {source}; create it in advance, or allow its owner to search \
         the directories on its path"
    )]
    Permission {
        /// The mailbox.
        mailbox: String,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What stands at the path is not a mailbox we append to.
    #[error("mailbox {mailbox}: {unfit}")]
    Unfit {
        /// The mailbox.
        mailbox: String,
        /// What it is instead.
        unfit: Unfit,
    },
    /// Another program kept the mailbox locked.
    #[error(
        "mailbox {mailbox}: its {lock} is held by another program; {}",
        busy_remedy(mailbox, lock)
    )]
    Busy {
        /// The mailbox.
        mailbox: String,
        /// Which lock.
        lock: &'static str,
    },
    /// The kernel asks to come again.
    #[error("mailbox {mailbox}: {doing}: {source}; the file server was busy, try again")]
    Again {
        /// The mailbox.
        mailbox: String,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The message does not fit.
    #[error(
        "mailbox {mailbox} is full: the file would exceed virtual_mailbox_limit \
         ({limit_bytes} bytes)"
    )]
    OverLimit {
        /// The mailbox.
        mailbox: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The owner's quota or a file size limit is used up.
    #[error("mailbox {mailbox} is full: {doing}: {source}")]
    Quota {
        /// The mailbox.
        mailbox: String,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file system is full.
    #[error("mailbox {mailbox}: {doing}: {source}; free space or inodes on its file system")]
    NoSpace {
        /// The mailbox.
        mailbox: String,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else the kernel answers.
    #[error("mailbox {mailbox}: {doing}: {source}; see the system's log")]
    Io {
        /// The mailbox.
        mailbox: String,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The message did not reach stable storage.
    #[error("mailbox {mailbox}: flushing to disk failed: {source}; check the disk")]
    Flush {
        /// The mailbox.
        mailbox: String,
        /// The kernel's answer, which may concern several mailboxes.
        source: Arc<io::Error>,
    },
    /// The file system does not answer.
    #[error(
        "mailbox {mailbox}: the file system on {} does not answer; see whether its server and its \
         disk are well, or unmount it",
        mount_point.display()
    )]
    Hung {
        /// The mailbox.
        mailbox: String,
        /// Where the file system is mounted.
        mount_point: PathBuf,
    },
    /// A writer stopped in the middle of its work by an error of the program.
    #[error("mailbox {mailbox}: the delivery was cut short by a bug in mailstow; see its log")]
    Interrupted {
        /// The mailbox.
        mailbox: String,
    },
}

/// Who can replace a mailbox and must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// The owner of a directory, or of a link, who is neither the recipient nor root.
    Owner {
        /// The owner.
        owner: u32,
    },
    /// A group that is not the recipient's may write there.
    Group {
        /// The group.
        group: u32,
    },
    /// Everyone may write there.
    Everyone,
}

fn unsafe_remedy(directory: &str, uid: u32, cause: &Unsafe) -> String {
    match cause {
        Unsafe::Owner { owner } => format!(
            "belongs to uid {owner}, neither to the recipient (uid {uid}) nor to root; see who \
             made it, then run: chown -h {uid} {directory}"
        ),
        Unsafe::Group { group } => format!(
            "may be written by group {group}, which is not the recipient's; run: chmod g-w \
             {directory}"
        ),
        Unsafe::Everyone => format!("is writable by everyone; run: chmod o-w {directory}"),
    }
}

/// What stands in place of an mbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A device, pipe or socket.
    NotRegular,
    /// A file that stands where a directory of the path should be.
    ParentIsFile,
    /// A file with other names, or whose name was just removed.
    HardLinks(u64),
    /// Another user's file.
    NotOwned {
        /// Who owns it.
        owner: u32,
        /// Who should.
        uid: u32,
    },
    /// Files that replace one another too quickly to be locked.
    Restless,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink => f.write_str("is a symbolic link; name the file itself instead"),
            Self::Directory => f.write_str(
                "is a directory; for a Maildir end the value in virtual_mailbox_maps with \"/\"",
            ),
            Self::NotRegular => f.write_str("is not a regular file; remove it"),
            Self::ParentIsFile => f.write_str(
                "a file is in the place of a directory of its path; move it away, or correct the \
                 entry in virtual_mailbox_maps",
            ),
            Self::HardLinks(links) => {
                write!(f, "file has {links} hard links; leave it only one name")
            }
            Self::NotOwned { owner, uid } => write!(
                f,
                "not owned by recipient: it belongs to uid {owner}; run chown {uid} on it, or \
                 set strict_mailbox_ownership = no"
            ),
            Self::Restless => f.write_str("another program keeps replacing the file"),
        }
    }
}

/// What an operator does about a lock that stays.
fn busy_remedy(mailbox: &str, lock: &str) -> String {
    match lock {
        LOCK_FILE => format!(
            "otherwise check {mailbox}.lock before you remove it: it may be a mailbox of that \
             name, whose address then needs another path"
        ),
        _ => "find that with fuser(1)".to_owned(),
    }
}

/// The name of the lock that is a file beside the mailbox.
pub(super) const LOCK_FILE: &str = "lock file";

impl MailboxError {
    /// Sorts an answer of the kernel; `doing` completes "mailbox M: ...".
    pub fn from_io(mailbox: &str, doing: &'static str, source: io::Error) -> Self {
        let mailbox = mailbox.to_owned();
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Self::Permission {
                mailbox,
                doing,
                source,
            },
            Some(libc::EXDEV | libc::ELOOP) => Self::Escapes { mailbox, source },
            Some(libc::ENOTDIR) => Self::Unfit {
                mailbox,
                unfit: Unfit::ParentIsFile,
            },
            Some(libc::ENAMETOOLONG) => Self::Path {
                mailbox,
                cause: "a component of the path is too long for the file system",
            },
            Some(libc::ENOSPC) => Self::NoSpace {
                mailbox,
                doing,
                source,
            },
            // A mailer limits the size of a mailbox by that of the files its commands may write.
            Some(libc::EDQUOT | libc::EFBIG) => Self::Quota {
                mailbox,
                doing,
                source,
            },
            Some(libc::EAGAIN | libc::ESTALE) => Self::Again {
                mailbox,
                doing,
                source,
            },
            _ => Self::Io {
                mailbox,
                doing,
                source,
            },
        }
    }

    /// Returns the error of a mailbox that a failed flush concerns, perhaps one of several.
    pub(crate) fn from_flush(mailbox: &str, source: &Arc<io::Error>) -> Self {
        Self::Flush {
            mailbox: mailbox.to_owned(),
            source: Arc::clone(source),
        }
    }

    /// The file system of the mailbox is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// The outcome this means for the recipient.
    pub fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Path { .. }
            | Self::Misplaced { .. }
            | Self::Escapes { .. }
            | Self::Base { .. }
            | Self::BelowMinimum { .. }
            | Self::Identity { .. } => Status::configuration(text),
            Self::OpenToEveryone { .. }
            | Self::Unsafe { .. }
            | Self::NoParent { .. }
            | Self::Permission { .. }
            | Self::Unfit { .. }
            | Self::Busy { .. }
            | Self::Again { .. } => Status::mailbox(text),
            Self::OverLimit { .. } | Self::Quota { .. } => Status::mailbox_full(text),
            Self::NoSpace { .. } => Status::storage_full(text),
            Self::Io { .. } | Self::Flush { .. } | Self::Hung { .. } | Self::Interrupted { .. } => {
                Status::system(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answers_become_the_status_an_operator_expects() {
        for (errno, status) in [
            (libc::EIO, "451 4.3.0"),
            (libc::EROFS, "451 4.3.0"),
            (libc::ENOSPC, "452 4.3.1"),
            (libc::EDQUOT, "552 5.2.2"),
            (libc::EFBIG, "552 5.2.2"),
            (libc::EACCES, "451 4.2.0"),
            (libc::ENOTDIR, "451 4.2.0"),
            (libc::ENAMETOOLONG, "451 4.3.5"),
            (libc::ESTALE, "451 4.2.0"),
            (libc::EXDEV, "451 4.3.5"),
            (libc::ELOOP, "451 4.3.5"),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let error = MailboxError::from_io("/v/a", "writing", source);
            let text = error.status().to_string();
            assert!(text.starts_with(status), "{errno}: {text}");
            assert!(text.contains("/v/a"), "{text}");
        }
    }
}

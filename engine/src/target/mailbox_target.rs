//! The mailbox of a recipient, with its checked path and its owner; a transport with its nexthop.

use super::format::Format;
use super::reserved;
use crate::limits::MAILBOX_PATH_BYTES_MAX;
use crate::octets;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The path of a mailbox below `virtual_mailbox_base`, checked.
///
/// It has no leading or trailing `/`, no empty component, no `.`, no `..` and no NUL, is no longer
/// than 2048 bytes, and has no name that readers of mail use for other files. It may hold any other
/// octets (see [`octets`](crate::octets)), and is empty for a Maildir that is the base itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxPath(String);

/// Why a path is not that of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{path}\": {cause}")]
pub struct MailboxPathError {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub cause: &'static str,
}

const NAMES_BASE: &str = "it names virtual_mailbox_base itself; name a mailbox below it";

impl MailboxPathError {
    /// Returns the error of a path that is the base, where that may be no mailbox.
    pub(crate) fn base(path: String) -> Self {
        let cause = NAMES_BASE;
        Self { path, cause }
    }
}

impl MailboxPath {
    /// Checks a path. Empty components and `.` are dropped, which changes no meaning; `..` is
    /// refused even where it would stay beneath the base, because with symbolic links the text does
    /// not tell where it leads.
    ///
    /// # Errors
    /// No mailbox of this format may have the path.
    pub fn new(path: impl Into<String>, format: Format) -> Result<Self, MailboxPathError> {
        let path = path.into();
        match check(&path, format) {
            Ok(None) => Ok(Self(path)),
            Ok(Some(cleaned)) => Ok(Self(cleaned)),
            Err(cause) => Err(MailboxPathError { path, cause }),
        }
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the directory that holds the mailbox; empty for the base.
    pub fn parent(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
    }

    /// Returns the last component.
    pub fn name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.0.as_str(), |(_, name)| name)
    }

    /// Returns the path of `name` below this one.
    pub fn below(&self, name: &str) -> String {
        if self.0.is_empty() {
            name.to_owned()
        } else {
            [&self.0, "/", name].concat()
        }
    }
}

impl Deref for MailboxPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MailboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<&str> for MailboxPath {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// Checks a path, and returns it in cleaned form if it is not.
fn check(path: &str, format: Format) -> Result<Option<String>, &'static str> {
    if path.len() > MAILBOX_PATH_BYTES_MAX {
        return Err("it is too long");
    }
    let cleaned = match is_tidy(path) {
        true => None,
        false => Some(cleaned(path)?),
    };
    let shown = cleaned.as_deref().unwrap_or(path);
    if shown.is_empty() && format == Format::Mbox {
        return Err(NAMES_BASE);
    }
    match reserved::reserved_name(shown, format) {
        None => Ok(cleaned),
        Some(cause) => Err(cause),
    }
}

fn cleaned(path: &str) -> Result<String, &'static str> {
    if path.contains('\0') {
        return Err("it has a NUL byte");
    }
    let mut cleaned = String::with_capacity(path.len());
    for component in path.split('/') {
        match component {
            "" | "." => continue,
            ".." => return Err("\"..\" would leave virtual_mailbox_base; write it without"),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push('/');
        }
        cleaned.push_str(component);
    }
    Ok(cleaned)
}

/// Returns true when nothing has to be taken off this path; false for some that are tidy, too.
fn is_tidy(path: &str) -> bool {
    let bytes = path.as_bytes();
    let begins = |part: &[u8]| !part.first().is_none_or(|byte| matches!(byte, b'/' | b'.'));
    begins(bytes)
        && memchr::memchr(0, bytes).is_none()
        && memchr::memchr_iter(b'/', bytes).all(|at| bytes.get(at + 1..).is_some_and(begins))
}

/// The user and the group that own a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Never 0.
    pub uid: u32,
    /// Never 0.
    pub gid: u32,
}

/// Where one recipient's mail is stored, and as whom.
///
/// ```
/// use mailstow_engine::{Format, MailboxTarget};
///
/// let target = MailboxTarget::new("example.com/info", Format::Maildir, 5000, 5000)?;
/// assert_eq!(target.format.to_string(), "maildir");
/// assert_eq!(target.path.name(), "info");
/// assert!(MailboxTarget::new("../info", Format::Mbox, 5000, 5000).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MailboxTarget {
    /// Below `virtual_mailbox_base`.
    pub path: MailboxPath,
    /// Maildir or mbox.
    pub format: Format,
    /// Owner; never 0.
    pub uid: u32,
    /// Group; never 0.
    pub gid: u32,
}

impl MailboxTarget {
    /// Makes a target.
    ///
    /// # Errors
    /// No mailbox may have the path.
    pub fn new(
        path: impl Into<String>,
        format: Format,
        uid: u32,
        gid: u32,
    ) -> Result<Self, MailboxPathError> {
        Ok(Self {
            path: MailboxPath::new(path, format)?,
            format,
            uid,
            gid,
        })
    }

    /// Returns the user and the group that own the mailbox.
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// Returns the path of the mailbox, for programs.
    pub fn below(&self, base: &Path) -> PathBuf {
        base.join(octets::path(&self.path))
    }
}

/// A transport and the nexthop it takes mail to, as `transport_maps` name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportTarget {
    /// The name of the transport: a service of Postfix's master.cf.
    pub transport: String,
    /// Its argument: a host, a socket, a text; empty for none.
    pub nexthop: String,
}

impl fmt::Display for TransportTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.nexthop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_those_that_lead_elsewhere_are_refused() {
        let path = MailboxPath::new("a//./b/", Format::Maildir).unwrap();
        assert_eq!(path, "a/b");
        assert_eq!((path.parent(), path.name()), ("a", "b"));
        assert_eq!(path.below("new"), "a/b/new");
        for tidy in ["a", "a/b", "a/b.c/d", "a/b/..c", ".a", "a/.b"] {
            assert_eq!(MailboxPath::new(tidy, Format::Mbox).unwrap(), tidy);
        }
        for bad in [
            "../x",
            "a/../b",
            "a/..",
            "a\0b",
            "",
            "./",
            "a.lock",
            "a/dovecot-uidlist",
            &"a/".repeat(MAILBOX_PATH_BYTES_MAX),
        ] {
            let error = MailboxPath::new(bad, Format::Mbox).unwrap_err();
            assert_eq!(error.path, bad);
        }
        let base = MailboxPath::new("", Format::Maildir).unwrap();
        assert_eq!(base.below("new"), "new");
    }
}

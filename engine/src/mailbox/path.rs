//! The path of a mailbox below the base.
//!
//! Imports `limits`, `route` (targets). Invariant: no component is empty, `.`, `..` or has a NUL,
//! and none has a name that no mailbox may have.

use super::error::MailboxError;
use crate::limits::MAILBOX_PATH_BYTES_MAX;
use crate::route::{Format, MailboxTarget, reserved_name};
use std::path::Path;

/// A checked path, and the name operators know the mailbox by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxPath {
    relative: String,
    display: String,
}

impl MailboxPath {
    /// The name of a target, for logs: the base joined with its path.
    pub fn display_of(base: &Path, target: &MailboxTarget) -> String {
        let slash = match target.format {
            Format::Maildir => "/",
            Format::Mbox => "",
        };
        let base = base.to_string_lossy();
        let base = base.trim_end_matches('/');
        [base, "/", target.path.trim_matches('/'), slash].concat()
    }

    /// Checks a target's path. Dropping empty and `.` components changes no meaning; `..` is
    /// refused even where it would stay beneath the base, because with symbolic links nobody can
    /// tell from the table where it leads.
    ///
    /// # Errors
    /// [`MailboxError::Path`]
    pub fn new(base: &Path, target: &MailboxTarget) -> Result<Self, MailboxError> {
        let display = Self::display_of(base, target);
        let wrong = |cause| {
            Err(MailboxError::Path {
                mailbox: display.clone(),
                cause,
            })
        };
        if target.path.len() > MAILBOX_PATH_BYTES_MAX {
            return wrong("the path is too long");
        }
        if target.path.contains('\0') {
            return wrong("the path contains a NUL byte");
        }
        let mut relative = String::with_capacity(target.path.len());
        for component in target.path.split('/') {
            match component {
                "" | "." => continue,
                ".." => return wrong("the path contains \"..\""),
                _ => {}
            }
            if !relative.is_empty() {
                relative.push('/');
            }
            relative.push_str(component);
        }
        if relative.is_empty() && target.format == Format::Mbox {
            return wrong("the path is empty");
        }
        if let Some(cause) = reserved_name(&relative, target.format) {
            return wrong(cause);
        }
        Ok(Self { relative, display })
    }

    /// Relative to the base; empty for the base itself.
    pub fn as_str(&self) -> &str {
        &self.relative
    }

    /// The name operators know the mailbox by.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// The directory that holds it, relative to the base.
    pub fn parent(&self) -> &str {
        self.relative.rsplit_once('/').map_or("", |(dir, _)| dir)
    }

    /// Its last component.
    pub fn name(&self) -> &str {
        self.relative
            .rsplit_once('/')
            .map_or(self.relative.as_str(), |(_, name)| name)
    }

    /// `name` below this path, relative to the base.
    pub fn below(&self, name: &str) -> String {
        if self.relative.is_empty() {
            name.to_owned()
        } else {
            [&self.relative, "/", name].concat()
        }
    }
}

/// Every directory from the base (empty) down to `path` itself.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.match_indices('/').map(|(at, _)| at);
    let ends = std::iter::once(0).chain(inner);
    let last = (!path.is_empty()).then_some(path.len());
    ends.chain(last).filter_map(|end| path.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str, format: Format) -> MailboxTarget {
        MailboxTarget {
            path: path.to_owned(),
            format,
            uid: 5000,
            gid: 5000,
        }
    }

    #[test]
    fn paths_are_normalised_and_dotdot_is_refused() {
        let base = Path::new("/var/mail/vhosts/");
        let path = MailboxPath::new(base, &target("a//./b", Format::Maildir)).unwrap();
        assert_eq!(path.as_str(), "a/b");
        assert_eq!(path.display(), "/var/mail/vhosts/a//./b/");
        assert_eq!((path.parent(), path.name()), ("a", "b"));
        assert_eq!(path.below("new"), "a/b/new");
        for bad in [
            "../x",
            "a/../b",
            "a/..",
            "a\0b",
            "",
            "a.lock",
            "a/dovecot-uidlist",
        ] {
            let error = MailboxPath::new(base, &target(bad, Format::Mbox)).unwrap_err();
            let status = error.status().to_string();
            assert!(status.starts_with("451 4.3.5"), "{bad:?}: {status}");
        }
        let root = MailboxPath::new(base, &target("", Format::Maildir)).unwrap();
        assert_eq!(root.below("new"), "new");
    }

    #[test]
    fn prefixes_go_from_the_base_to_the_path() {
        let all = |path| prefixes(path).collect::<Vec<_>>();
        assert_eq!(all("a/b/c"), ["", "a", "a/b", "a/b/c"]);
        assert_eq!(all("a"), ["", "a"]);
        assert_eq!(all(""), [""]);
    }
}

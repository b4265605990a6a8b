//! What a mailbox is called: its path below the base, and the name operators know it by.

use crate::target::{Format, MailboxPath, MailboxTarget};
use std::path::Path;

/// A mailbox below a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxName {
    path: MailboxPath,
    display: String,
}

impl MailboxName {
    /// Names the mailbox of a target below `base`.
    pub fn of(base: &Path, target: &MailboxTarget) -> Self {
        Self {
            path: target.path.clone(),
            display: Self::display_of(base, target),
        }
    }

    /// Returns the name of a target for operators: the base joined with its path.
    pub fn display_of(base: &Path, target: &MailboxTarget) -> String {
        let slash = match target.format {
            Format::Maildir => "/",
            Format::Mbox => "",
        };
        let base = base.to_string_lossy();
        let base = base.trim_end_matches('/');
        [base, "/", &target.path, slash].concat()
    }

    /// Returns the path relative to the base; empty for the base itself.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Returns the name operators know the mailbox by.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Returns the directory that holds it, relative to the base.
    pub fn parent(&self) -> &str {
        self.path.parent()
    }

    /// Returns its last component.
    pub fn name(&self) -> &str {
        self.path.name()
    }

    /// Returns `name` below its path, relative to the base.
    pub fn below(&self, name: &str) -> String {
        self.path.below(name)
    }
}

/// Returns every directory from the base (empty) down to `path` itself.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.match_indices('/').map(|(at, _)| at);
    let ends = std::iter::once(0).chain(inner);
    let last = (!path.is_empty()).then_some(path.len());
    ends.chain(last).filter_map(|end| path.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_know_a_mailbox_by_its_base_and_path() {
        let shown = |base: &str, path: &str, format| {
            let target = MailboxTarget::new(path, format, 5000, 5000).unwrap();
            MailboxName::of(Path::new(base), &target).display
        };
        let base = "/var/mail/vhosts/";
        assert_eq!(shown(base, "a/b", Format::Maildir), "/var/mail/vhosts/a/b/");
        assert_eq!(shown(base, "a/b", Format::Mbox), "/var/mail/vhosts/a/b");
    }

    #[test]
    fn prefixes_go_from_the_base_to_the_path() {
        let all = |path| prefixes(path).collect::<Vec<_>>();
        assert_eq!(all("a/b/c"), ["", "a", "a/b", "a/b/c"]);
        assert_eq!(all("a"), ["", "a"]);
        assert_eq!(all(""), [""]);
    }
}

//! Paths that lead into a part of another mailbox, or to a name that other programs use.
//!
//! Some names are no mailbox's wherever they are; others do harm only beside
//! certain files, which are looked for: `d/new/` is a mailbox like any other, unless `d` is a
//! Maildir. Sources: maildir(5), Maildir++, Postfix's dot_lockfile, the files of Dovecot,
//! Pigeonhole and Courier.

use super::MailboxTarget;
use super::format::Format;

/// What is at a path, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// The directories of a Maildir.
const PARTS: [&str; 3] = ["cur", "new", "tmp"];

/// Returns why `target` would damage another mailbox where it lies; `None` when it would not.
/// `look` returns what is at a path below the base, links followed, and `None` for nothing or what
/// cannot be seen.
pub fn misplaced(
    target: &MailboxTarget,
    look: impl Fn(&str) -> Option<Standing>,
) -> Option<String> {
    harm(&target.path, target.format, &look)
}

/// Returns why a mailbox with this path, which is in cleaned form, would damage another where it
/// lies.
pub(crate) fn harm(
    path: &str,
    format: Format,
    look: &dyn Fn(&str) -> Option<Standing>,
) -> Option<String> {
    let mut at = 0;
    for name in path.split('/') {
        let parent = path.get(..at).unwrap_or_default().trim_end_matches('/');
        at += name.len() + 1;
        let is_mbox = format == Format::Mbox && at > path.len();
        let shown = if parent.is_empty() { "." } else { parent };
        if PARTS.contains(&name) {
            if is_maildir(parent, look) {
                return Some(format!(
                    "\"{name}\" in its path is a part of the Maildir {shown}, where only messages \
                     belong; give the mailbox another directory"
                ));
            }
        } else if is_control_file(name) {
            if is_maildir(parent, look) {
                return Some(format!(
                    "readers of the Maildir {shown} keep a file of the name \"{name}\" in it; \
                     give the mailbox another name"
                ));
            }
        } else if let Some(stem) = name.strip_suffix(".lock").filter(|_| !is_mbox)
            && look(&below(parent, stem)) == Some(Standing::File)
        {
            return Some(format!(
                "\"{name}\" in its path is the lock file of the mbox {}, which could not be locked \
                 then; give the mailbox another name",
                below(parent, stem)
            ));
        }
    }
    None
}

/// What readers keep in a Maildir, and what is a mailbox like any other elsewhere.
fn is_control_file(name: &str) -> bool {
    let begins = |with: &str| name.starts_with(with);
    matches!(name, "subscriptions" | "maildirfilter" | "shared-maildirs")
        || begins("dovecot.")
        || begins("dovecot-")
        || begins("courierimap")
        || begins("courierpop3d")
}

/// True when `directory` has the three parts of a Maildir and none of them is a Maildir: then
/// they are mailboxes of users called `cur`, `new` and `tmp`.
fn is_maildir(directory: &str, look: &dyn Fn(&str) -> Option<Standing>) -> bool {
    let has_parts = |directory: &str| {
        PARTS
            .iter()
            .all(|part| look(&below(directory, part)) == Some(Standing::Directory))
    };
    has_parts(directory) && !PARTS.iter().any(|part| has_parts(&below(directory, part)))
}

fn below(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => [directory, "/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What `misplaced` says when these directories (ending in `/`) and files are there.
    fn said(there: &[&str], path: &str) -> Option<String> {
        let mut directories = BTreeSet::new();
        for path in there {
            let parts = path.match_indices('/').map(|(at, _)| &path[..at]);
            directories.extend(parts);
        }
        let look = |at: &str| match at {
            at if directories.contains(at) => Some(Standing::Directory),
            at if there.contains(&at) => Some(Standing::File),
            _ => None,
        };
        match MailboxTarget::new(path, Format::of(path), 5000, 5000) {
            Ok(target) => misplaced(&target, look),
            Err(error) => Some(error.cause.to_owned()),
        }
    }

    const MAILDIR: [&str; 4] = ["d/x/cur/", "d/x/new/", "d/x/tmp/", "d/mbox"];

    #[test]
    fn parts_of_a_maildir_and_names_its_readers_use_are_no_mailboxes() {
        for path in [
            "d/x/new/",
            "d/x/new",
            "d/x/cur/y/",
            "d/x/tmp/y",
            "d/x/cur/y/z/",
            "d/x/subscriptions",
            "d/x/dovecot.autoexpunge/",
            "d/x/dovecot-virtual",
            "d/x/courierimapuiddb",
            "d/x/dovecot-uidlist",
            "d/mbox.lock/",
            "d/mbox.lock/x/",
            "d/mbox.lock",
        ] {
            assert!(said(&MAILDIR, path).is_some(), "{path}");
        }
        let root = ["cur/", "new/", "tmp/"];
        let cause = said(&root, "new/").unwrap();
        assert!(cause.contains("the Maildir ."), "{cause}");
    }

    #[test]
    fn folders_and_people_with_such_names_are_mailboxes() {
        for path in [
            "d/x/",
            "d/x/.Sent/",
            "d/x/.new/",
            "d/x/.Sent.new/",
            "d/x/folder/",
            "d/x/mbox",
            "d/new/",
            "d/cur",
            "new/",
            "d/subscriptions/",
            "d/dovecot/",
            "d/john.lock/",
            "d/x.lock/",
        ] {
            assert_eq!(said(&MAILDIR, path), None, "{path}");
        }
    }

    #[test]
    fn users_called_as_the_parts_of_a_maildir_have_mailboxes_whichever_comes_first() {
        let mut there = Vec::new();
        for user in [
            ["d/new/tmp/", "d/new/cur/", "d/new/new/"],
            ["d/tmp/tmp/", "d/tmp/cur/", "d/tmp/new/"],
            ["d/cur/tmp/", "d/cur/cur/", "d/cur/new/"],
        ] {
            for part in user {
                there.push(part);
                for mailbox in ["d/new/", "d/cur/", "d/tmp/"] {
                    assert_eq!(said(&there, mailbox), None, "{there:?}");
                }
            }
        }
    }
}

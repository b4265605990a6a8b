//! Names that no mailbox may have, wherever it lies: readers of mail use them for other files.
//!
//! Sources: Maildir++, Postfix's dot_lockfile, the files of Dovecot and Pigeonhole.

use super::format::Format;

/// Files of Dovecot and of the Maildir++ quota. Each would be read, replaced or removed as what
/// its name says, the mail in it too. They are the beginnings of names.
const CONTROL_FILES: [&str; 11] = [
    ".dovecot.",
    "dovecot.index",
    "dovecot.list.index",
    "dovecot.mailbox.log",
    "dovecot.map.index",
    "dovecot-acl",
    "dovecot-keywords",
    "dovecot-uidlist",
    "dovecot-uidvalidity",
    "maildirfolder",
    "maildirsize",
];

/// Returns why no mailbox has this path, which is in cleaned form; `None` when one may.
pub(crate) fn reserved_name(path: &str, format: Format) -> Option<&'static str> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    if format == Format::Mbox {
        if name.ends_with(".lock") {
            return Some(
                "a name that ends in \".lock\" is that of a lock file; programs that read the \
                 corresponding mbox remove it when it is old; give the mbox another name",
            );
        }
        if name == ".subscriptions" {
            return Some("\".subscriptions\" is a file of Dovecot's; give the mbox another name");
        }
    }
    path.split('/').any(is_reserved).then_some(
        "it has the name of a file that Dovecot, or another reader, keeps in mail directories; \
         give it another name",
    )
}

fn is_reserved(name: &str) -> bool {
    // Nearly all names end here.
    name.starts_with(['d', 'm', '.']) && CONTROL_FILES.iter().any(|file| name.starts_with(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_locks_and_control_files_are_no_mailboxes() {
        for path in ["bob.lock", "d/bob.lock", "d/.lock", "d/.subscriptions"] {
            assert!(reserved_name(path, Format::Mbox).is_some(), "{path}");
            assert_eq!(reserved_name(path, Format::Maildir), None, "{path}");
        }
        for path in [
            "d/bob/dovecot-uidlist",
            "d/bob/dovecot.index.log",
            "dovecot.index.cache/x",
            "d/bob/.dovecot.sieve",
            "d/maildirsize",
        ] {
            for format in [Format::Mbox, Format::Maildir] {
                assert!(reserved_name(path, format).is_some(), "{path}");
            }
        }
    }

    #[test]
    fn names_that_people_have_are_mailboxes() {
        for path in [
            "d/new",
            "d/cur/tmp",
            "d/dovecot",
            "d/dovecot.admin",
            "d/dovecot-news",
            "d/subscriptions",
            "d/bob/.Sent",
            "d/bob.locke",
            "d/lock",
            "d/maildir",
            "d/bob.lock/x",
        ] {
            for format in [Format::Mbox, Format::Maildir] {
                assert_eq!(reserved_name(path, format), None, "{path}");
            }
        }
    }
}

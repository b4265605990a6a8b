//! What replaces `$1` in the result of a pattern table, which depends on the parameter that
//! names the table.
//!
//! A sender chooses the text that a pattern matches. Where the result names a file, an owner, a
//! command or a transport, Postfix opens the table without substitution, and so do we. Source:
//! transport(5), aliases(5), virtual(8), and what Postfix 3.7 logs for each parameter.

/// Parameters for which Postfix allows no substitution. Tables inside `unionmap:`, `pipemap:` and
/// `proxy:` are covered by the parameter that names these.
const REFUSED: [&str; 5] = [
    MAILBOXES,
    "virtual_uid_maps",
    "virtual_gid_maps",
    "alias_maps",
    "transport_maps",
];

/// The parameter whose results are mailbox paths.
const MAILBOXES: &str = "virtual_mailbox_maps";

/// What the results of `virtual_mailbox_maps` are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailboxValues {
    /// They are paths.
    #[default]
    Paths,
    /// They are paths, in which `$1` may be a safe component.
    PathsOfComponents,
    /// They only say that the recipient exists, as they do to Postfix's smtpd.
    Unused,
}

/// What becomes of a rule whose result has `$1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Substitution {
    /// The text of the group.
    #[default]
    Text,
    /// The text of the group made one safe path component.
    Component,
    /// The rule is skipped.
    Refused,
}

impl Substitution {
    /// What `parameter` allows.
    pub(super) fn of(parameter: Option<&str>, mailboxes: MailboxValues) -> Self {
        match parameter {
            Some(MAILBOXES) => match mailboxes {
                MailboxValues::Paths => Self::Refused,
                MailboxValues::PathsOfComponents => Self::Component,
                MailboxValues::Unused => Self::Text,
            },
            Some(parameter) if REFUSED.contains(&parameter) => Self::Refused,
            Some(_) | None => Self::Text,
        }
    }
}

/// Why a rule of a table in the value of `parameter` is skipped, and the remedy.
pub(super) fn refusal(parameter: &str) -> String {
    let remedy = match parameter {
        MAILBOXES => {
            "write the path without it, or set mailbox_path_substitution = \"component\" in \
             [store] of mailstow.toml"
        }
        _ => "write the result without it",
    };
    format!(
        "substitution ($1) is not allowed in {parameter}, where a sender would choose the \
         result; {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mailbox_maps_can_be_allowed_substitution() {
        use MailboxValues::{Paths, PathsOfComponents, Unused};
        for values in [Paths, PathsOfComponents, Unused] {
            for parameter in REFUSED.into_iter().filter(|name| *name != MAILBOXES) {
                let substitution = Substitution::of(Some(parameter), values);
                assert_eq!(substitution, Substitution::Refused, "{parameter}");
            }
            for parameter in [Some("virtual_alias_maps"), None] {
                assert_eq!(Substitution::of(parameter, values), Substitution::Text);
            }
        }
        let of = |values| Substitution::of(Some(MAILBOXES), values);
        assert_eq!(of(Paths), Substitution::Refused);
        assert_eq!(of(PathsOfComponents), Substitution::Component);
        assert_eq!(of(Unused), Substitution::Text);
    }
}

//! What an LDAP server sends as an entry, and which of its attributes count.
//!
//! Nothing here trusts the server's bytes to be well formed.

use ldap3::ResultEntry;

/// The attributes a table asks for (ldap_table(5), "result_attribute" and the others).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// When an entry has one of these, nothing else of it counts.
    pub(super) terminal: Vec<String>,
    /// These count in entries without a special one.
    pub(super) leaf: Vec<String>,
    /// These count.
    pub(super) ordinary: Vec<String>,
    /// Names of entries, or URLs of searches, to go on with.
    pub(super) special: Vec<String>,
}

/// What the values of one attribute of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Results.
    Values,
    /// Where to go on.
    References,
    /// Nothing.
    None,
}

/// An entry: attributes with their values, in the server's order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) Vec<(String, Vec<Vec<u8>>)>);

impl Entry {
    /// Reads the entry out of its message (RFC 4511 section 4.5.2); `None` when it is none.
    pub(super) fn read(entry: ResultEntry) -> Option<Self> {
        let mut parts = entry.0.match_id(4)?.expect_constructed()?.into_iter();
        parts.next()?;
        let mut attributes = Vec::new();
        for attribute in parts.next()?.expect_constructed()? {
            let mut parts = attribute.expect_constructed()?.into_iter();
            let name = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
            let values = parts.next()?.expect_constructed()?.into_iter();
            let values: Option<Vec<_>> = values.map(|value| value.expect_primitive()).collect();
            attributes.push((name, values?));
        }
        Some(Self(attributes))
    }

    fn has_any(&self, wanted: &[String]) -> bool {
        let has = |wanted: &String| {
            let mut attributes = self.0.iter();
            attributes.any(|(name, values)| is_subtype(wanted, name) && !values.is_empty())
        };
        wanted.iter().any(has)
    }
}

impl Attributes {
    /// All names, to be asked for.
    pub(super) fn all(&self) -> Vec<String> {
        let lists = [&self.terminal, &self.leaf, &self.ordinary, &self.special];
        lists.into_iter().flatten().cloned().collect()
    }

    /// What is to be done with the attributes of `entry`, in their order.
    pub(super) fn uses(&self, entry: &Entry) -> Vec<Use> {
        let is_terminal = entry.has_any(&self.terminal);
        let is_leaf = !entry.has_any(&self.special);
        let among = |list: &[String], name: &str| list.iter().any(|w| is_subtype(w, name));
        let use_of = |name: &str| {
            if among(&self.terminal, name) {
                Use::Values
            } else if is_terminal {
                Use::None
            } else if among(&self.leaf, name) {
                if is_leaf { Use::Values } else { Use::None }
            } else if among(&self.ordinary, name) {
                Use::Values
            } else if among(&self.special, name) {
                Use::References
            } else {
                Use::None
            }
        };
        entry.0.iter().map(|(name, _)| use_of(name)).collect()
    }
}

/// Whether the attribute `name` is `wanted`, perhaps with options (RFC 4512 section 2.5).
pub(super) fn is_subtype(wanted: &str, name: &str) -> bool {
    match name.split_at_checked(wanted.len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(wanted) && (rest.is_empty() || rest.starts_with(';'))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(names: &[&str]) -> Vec<Use> {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect();
        let attributes = Attributes {
            terminal: list("t"),
            leaf: list("l"),
            ordinary: list("o p"),
            special: list("s"),
        };
        let value = || vec![b"v".to_vec()];
        let entry = Entry(names.iter().map(|n| ((*n).to_owned(), value())).collect());
        attributes.uses(&entry)
    }

    #[test]
    fn which_attributes_count_depends_on_the_others() {
        use Use::{None, References, Values};
        assert_eq!(uses(&["o", "x", "P"]), [Values, None, Values]);
        assert_eq!(uses(&["s", "o", "l"]), [References, Values, None]);
        assert_eq!(uses(&["l", "o"]), [Values, Values]);
        assert_eq!(uses(&["o", "s", "l", "t"]), [None, None, None, Values]);
    }

    #[test]
    fn options_of_an_attribute_do_not_hide_it() {
        assert!(is_subtype("mail", "Mail;lang-en"));
        assert!(!is_subtype("mail", "mailbox"));
        assert!(!is_subtype("mailbox", "mail"));
    }
}

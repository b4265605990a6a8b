//! `template:%d/%u/`: mailbox paths made from the address alone, for use without any table.
//!
//! Postfix has no such table. Each `%` expansion is one safe path component (see `component`), so
//! that no sender chooses more than a name in a directory.

use std::borrow::Cow;

use crate::address::{fold_case, split_extension, unquote};
use crate::table::component::component;
use crate::table::{KeyInValues, LookupTable, Matching, OpenError, TableError};

/// A table that computes its answer from the key. The macros are those of ldap_table(5):
/// `%u` local part, `%d` domain, `%s` the whole key, `%%` a percent sign.
#[derive(Debug)]
pub(in crate::table) struct TemplateTable {
    name: String,
    pieces: Vec<Piece>,
    recipient_delimiter: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    LocalPart,
    Domain,
    Key,
}

impl TemplateTable {
    /// Opens the table called `name` with `template`; address extensions (see
    /// `recipient_delimiter`) are cut off before anything is made of the address.
    ///
    /// # Errors
    /// The template is empty, has a `%` with another letter, or a `..` that makes every path one
    /// to be refused.
    pub(in crate::table) fn open(
        name: &str,
        template: &str,
        recipient_delimiter: &str,
    ) -> Result<Self, OpenError> {
        let content = |cause: String| OpenError::Content {
            name: name.to_owned(),
            cause: format!("{cause}; known are %u (local part), %d (domain), %s (both), %%"),
        };
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let piece = match chars.next() {
                Some('%') => {
                    text.push('%');
                    continue;
                }
                Some('u') => Piece::LocalPart,
                Some('d') => Piece::Domain,
                Some('s') => Piece::Key,
                Some(other) => return Err(content(format!("\"%{other}\" in the template"))),
                None => return Err(content("the template ends in \"%\"".to_owned())),
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(piece);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if pieces.is_empty() {
            return Err(content("the template is empty".to_owned()));
        }
        if template.split('/').any(|component| component == "..") {
            return Err(content("\"..\" in the template".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            pieces,
            recipient_delimiter: recipient_delimiter.to_owned(),
        })
    }

    fn expand(&self, local_part: &str, domain: &str) -> String {
        let mut value = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::LocalPart => value.push_str(&component(local_part)),
                Piece::Domain => value.push_str(&component(domain)),
                Piece::Key => value.push_str(&component(&format!("{local_part}@{domain}"))),
            }
        }
        value
    }
}

impl LookupTable for TemplateTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let key = fold_case(key);
        let Some((local_part, domain)) = key.rsplit_once('@') else {
            return Ok(None);
        };
        let local_part = if local_part.starts_with('"') {
            unquote(local_part)
        } else {
            Cow::Borrowed(local_part)
        };
        let user = match split_extension(&local_part, &self.recipient_delimiter) {
            Some((user, _extension)) => user,
            None => &local_part,
        };
        if user.is_empty() || domain.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.expand(user, domain)))
    }

    /// Asked the full address only: it cuts the extension itself.
    fn matching(&self) -> Matching {
        Matching::Pattern
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(template: &str, delimiter: &str, key: &str) -> Option<String> {
        let table = TemplateTable::open("template:t", template, delimiter).unwrap();
        table.lookup(key).unwrap()
    }

    fn is(template: &str, key: &str, value: &str) {
        assert_eq!(ask(template, "+", key).as_deref(), Some(value), "{key}");
    }

    #[test]
    fn paths_are_made_of_the_folded_parts_of_the_address() {
        is("%d/%u/", "Info@Example.COM", "example.com/info/");
        is("%d/%u/", "info+ext@example.com", "example.com/info/");
        is("x%%y-%s", "a+b@c", "x%y-a@c");
        is("%u", "\"a b\"@c", "a b");
        is("%u", "\"a@b\"@c", "a@b");
        is("%u", "owner-x@c", "owner-x");
        assert_eq!(ask("%u", "", "a+b@c").as_deref(), Some("a+b"));
    }

    #[test]
    fn what_could_lead_out_of_the_directory_is_escaped() {
        is(
            "%d/%u/",
            "../../etc/passwd@d",
            "d/=2E.=2F..=2Fetc=2Fpasswd/",
        );
        is("%u", "..@d", "=2E.");
        is("%u", ".@d", "=2E");
        is("%u", ".hidden@d", "=2Ehidden");
        is("%u", "a\0b\u{85}=@d", "a=00b=C2=85=3D");
        is("%d/%u/", "u@..", "=2E./u/");
        is("%u", "\"/\"@d", "=2F");
        is("%u", "info.lock@d", "info=2Elock");
        is("%u", "a.lock.lock@d", "a.lock=2Elock");
        is("%u", ".lock@d", "=2Elock");
    }

    #[test]
    fn only_whole_addresses_match() {
        for key in ["", "info", "@example.com", "\"\"@example.com", "info@", "@"] {
            assert_eq!(ask("%d/%u/", "+", key), None, "{key}");
        }
    }

    #[test]
    fn bad_templates_do_not_open() {
        for template in ["", "%x", "a%", "../%u/", "%d/.."] {
            assert!(TemplateTable::open("template:t", template, "").is_err());
        }
    }
}

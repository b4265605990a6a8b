//! `template:%d/%u/`: mailbox paths made from the address alone, for use without any table.
//!
//! Imports `address`. A kind of our own. Each `%` expansion is one path component that nobody
//! can lead astray: never empty, `.`, `..` or hidden, without `/`, NUL and control characters,
//! never `*.lock`, at most [`COMPONENT_BYTES_MAX`] bytes; and two different local parts never
//! share one.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{LookupTable, Nature, OpenError, TableError};
use crate::address::{fold_case, split_extension, unquote};

/// Longest expansion in bytes; file systems take names of 255, suffixes need some.
const COMPONENT_BYTES_MAX: usize = 200;

/// A table that computes its answer from the key. The macros are those of ldap_table(5):
/// `%u` local part, `%d` domain, `%s` the whole key, `%%` a percent sign.
#[derive(Debug)]
pub(super) struct TemplateTable {
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
    pub(super) fn open(
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
    fn nature(&self) -> Nature {
        Nature::Pattern
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// `text` as one path component. What may not stand in one is written `=XX`, and so is `=`
/// itself, so that different texts stay different.
fn component(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let hides = c == '.' && at == 0;
        // The file that locks an mbox is called so: a stranger must not make it a mailbox.
        let locks = c == '.' && text.get(at..) == Some(".lock");
        let keep = !(c == '/' || c == '=' || c.is_control() || hides || locks);
        if keep {
            safe.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(safe, "={byte:02X}");
        }
    }
    if safe.len() <= COMPONENT_BYTES_MAX {
        return safe;
    }
    // "==" occurs in no escaped text, so no short name can look like a shortened one.
    let digest = format!("=={:032x}", fnv1a_128(text.as_bytes()));
    let mut end = COMPONENT_BYTES_MAX - digest.len();
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    safe.truncate(end);
    safe + &digest
}

/// FNV-1a with 128 bits: the same on every machine and in every version, which is all that is
/// asked of it; whoever finds two long local parts that collide could mail both anyway.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

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
    fn long_local_parts_stay_short_and_apart() {
        let mut seen = HashMap::new();
        for n in 0..500 {
            for c in ["x", "ü", "/"] {
                let key = format!("{}{n}@d", c.repeat(300));
                let value = ask("%u", "", &key).unwrap();
                assert!(value.len() <= COMPONENT_BYTES_MAX);
                assert_eq!(seen.insert(value, key), None);
            }
        }
        assert_eq!(
            component(&"a".repeat(201)),
            format!(
                "{}=={:032x}",
                "a".repeat(166),
                fnv1a_128("a".repeat(201).as_bytes())
            )
        );
        assert_eq!(fnv1a_128(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn bad_templates_do_not_open() {
        for template in ["", "%x", "a%", "../%u/", "%d/.."] {
            assert!(TemplateTable::open("template:t", template, "").is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn different_local_parts_never_share_a_component(a in "\\PC{1,12}", b in "[./=2EF0]{1,6}") {
            for text in [&a, &b] {
                let safe = component(text);
                proptest::prop_assert!(!safe.is_empty() && !safe.starts_with('.'));
                proptest::prop_assert!(!safe.contains(['/', '\0']));
            }
            proptest::prop_assert_eq!(a == b, component(&a) == component(&b));
        }
    }
}

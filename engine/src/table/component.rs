//! One safe path component out of any text.
//!
//! Invariants: the component is never `.`, `..` or hidden, has no `/`, NUL or control character,
//! never ends in `.lock`, has at most [`COMPONENT_BYTES_MAX`] bytes, and is empty only when the
//! text is; two different texts never share one.

use std::fmt::Write as _;

/// Longest component in bytes; file systems take names of 255, suffixes need some.
pub(super) const COMPONENT_BYTES_MAX: usize = 200;

/// Makes `text` one path component. What may not stand in one is written `=XX`, and so is `=`
/// itself, so that different texts stay different.
pub(super) fn component(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let hides = c == '.' && at == 0;
        // The file that locks an mbox has such a name: no sender may make it a mailbox.
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

/// True when `text`, put into a path as it is, may be more than one name, or one that is hidden.
pub(crate) fn steers(text: &str) -> bool {
    text.starts_with('.') || text.contains(|c: char| c == '/' || c.is_control())
}

/// FNV-1a with 128 bits: the same on every machine and in every version. No more is needed: who
/// finds two long texts that collide could send mail to both anyway.
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

    #[test]
    fn only_what_can_be_more_than_a_name_steers() {
        for text in ["a/b", "/", "..", ".Sent", "a\0", "a\n"] {
            assert!(steers(text), "{text:?}");
            assert!(!steers(&component(text)), "{text:?}");
        }
        for text in ["", "a.b", "a=b", "a.lock", "\u{65e5}", "a b", "\"..\""] {
            assert!(!steers(text), "{text:?}");
        }
    }

    #[test]
    fn long_texts_stay_short_and_apart() {
        let mut seen = HashMap::new();
        for n in 0..500 {
            for c in ["x", "ü", "/"] {
                let text = format!("{}{n}", c.repeat(300));
                let value = component(&text);
                assert!(value.len() <= COMPONENT_BYTES_MAX);
                assert_eq!(seen.insert(value, text), None);
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

    proptest::proptest! {
        #[test]
        fn different_texts_never_share_a_component(a in "\\PC{1,12}", b in "[./=2EF0]{1,6}") {
            for text in [&a, &b] {
                let safe = component(text);
                proptest::prop_assert!(!safe.is_empty() && !safe.starts_with('.'));
                proptest::prop_assert!(!safe.contains(['/', '\0']) && !safe.ends_with(".lock"));
            }
            proptest::prop_assert_eq!(a == b, component(&a) == component(&b));
        }
    }
}

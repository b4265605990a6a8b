//! The keys under which an address is searched, in order.
//!
//! Imports `address`, `table`. Order and key forms are those of virtual(5) and virtual(8)
//! (TABLE SEARCH ORDER): each key is asked of *all* tables before the next key is tried; keys
//! made from a part of the address are never offered to pattern tables.

use crate::address::{Address, split_extension};
use crate::table::{TableError, TableSet};

/// What a search found, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The table's value.
    pub(crate) value: String,
}

/// One key to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    text: String,
    partial: bool,
}

/// Searches `tables` for `address`: `user+extension@domain`, `user@domain`, then, when the
/// domain is one of this machine's own, `user+extension` and `user`, and last `@domain`.
///
/// # Errors
/// A table could not answer; no later key is tried, for it could give a wrong answer.
pub(crate) fn find_address(
    tables: &TableSet,
    address: &Address,
    delimiters: &str,
    is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
) -> Result<Option<Found>, TableError> {
    for key in keys(address, delimiters, is_own_domain)? {
        if let Some((value, _table)) = tables.lookup(&key.text, key.partial)? {
            return Ok(Some(Found { value }));
        }
    }
    Ok(None)
}

fn keys(
    address: &Address,
    delimiters: &str,
    is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
) -> Result<Vec<Key>, TableError> {
    let mut keys = Vec::with_capacity(4);
    let bare = split_extension(&address.local_part, delimiters)
        .map(|(user, _)| Address::new(user, address.domain.as_deref()));
    push_both_forms(&mut keys, address, false);
    if let Some(bare) = &bare {
        push_both_forms(&mut keys, bare, true);
    }
    if let Some(domain) = &address.domain {
        if is_own_domain(domain)? {
            push_both_forms(
                &mut keys,
                &Address::new(address.local_part.as_str(), None),
                true,
            );
            if let Some(bare) = &bare {
                push_both_forms(
                    &mut keys,
                    &Address::new(bare.local_part.as_str(), None),
                    true,
                );
            }
        }
        keys.push(Key {
            text: format!("@{domain}"),
            partial: true,
        });
    }
    Ok(keys)
}

/// The external form, then, where it differs, the internal form that older tables hold.
fn push_both_forms(keys: &mut Vec<Key>, address: &Address, partial: bool) {
    let external = address.external();
    let internal = address.internal();
    let differs = internal != external;
    keys.push(Key {
        text: external,
        partial,
    });
    if differs {
        keys.push(Key {
            text: internal,
            partial,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(local_part: &str, domain: &str, own: bool) -> Vec<(String, bool)> {
        keys(&Address::new(local_part, Some(domain)), "+", |_| Ok(own))
            .unwrap()
            .into_iter()
            .map(|k| (k.text, k.partial))
            .collect()
    }

    #[test]
    fn keys_go_from_the_whole_address_to_its_domain() {
        let key = |t: &str, p| (t.to_owned(), p);
        assert_eq!(
            texts("info+x", "a.example", false),
            [
                key("info+x@a.example", false),
                key("info@a.example", true),
                key("@a.example", true)
            ]
        );
    }

    #[test]
    fn bare_local_parts_are_tried_for_own_domains_only() {
        let key = |t: &str, p| (t.to_owned(), p);
        assert_eq!(
            texts("loc+e", "origin.example", true),
            [
                key("loc+e@origin.example", false),
                key("loc@origin.example", true),
                key("loc+e", true),
                key("loc", true),
                key("@origin.example", true)
            ]
        );
    }

    #[test]
    fn the_quoted_form_goes_before_the_raw_form() {
        let found: Vec<String> = texts("a b", "vm.example", false)
            .into_iter()
            .map(|(t, _)| t)
            .collect();
        assert_eq!(
            found,
            ["\"a b\"@vm.example", "a b@vm.example", "@vm.example"]
        );
    }
}

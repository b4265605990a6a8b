//! Answers for programs that ask by the name of a Postfix parameter: the socketmap server.
//!
//! Clients send whole addresses only (Postfix does not search a socketmap for parts of an address),
//! so the whole search order is followed here.

use super::error::RouteError;
use super::router::Router;
use super::trace::Trace;
use crate::address::{Address, fold_case, parse_mailbox};
use crate::table::TableError;

/// The maps and lists that can be asked for, by the names of their Postfix parameters.
const PUBLISHED: [&str; 10] = [
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "virtual_alias_maps",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
    "mydestination",
    "relay_recipient_maps",
    "local_recipient_maps",
];

impl Router {
    /// The names that [`Router::published`] knows.
    pub fn published_names() -> &'static [&'static str] {
        &PUBLISHED
    }

    /// What `parameter` (one of [`Router::published_names`]) has for `key`: an address, read as
    /// that of any recipient, or a domain for the lists of domains, whose answer is that domain.
    /// The outer `None` means there is no such parameter.
    ///
    /// For `virtual_alias_maps` the answer is all addresses that the address expands to,
    /// separated by commas, and none for an address that is no alias.
    ///
    /// # Errors
    /// The tables cannot say now, or an alias cannot be expanded.
    pub fn published(
        &self,
        parameter: &str,
        key: &str,
    ) -> Option<Result<Option<String>, RouteError>> {
        let unsettled = || self.unsettled(parameter, key).map(RouteError::from);
        Some(match self.published_settled(parameter, key)? {
            Ok(None) => unsettled().map_or(Ok(None), Err),
            found => found,
        })
    }

    /// Why `key` may be found in the tables of `parameter` soon. Who is a mailbox of ours is no
    /// alias until a table says so.
    fn unsettled(&self, parameter: &str, key: &str) -> Option<TableError> {
        let error = match parameter {
            "virtual_mailbox_maps" | "virtual_uid_maps" | "virtual_gid_maps" => {
                self.mailboxes.unsettled()
            }
            "virtual_alias_maps" => self.aliases.maps().tables().unsettled(),
            "relay_recipient_maps" | "local_recipient_maps" => {
                let mut maps = self.listed.maps().into_iter();
                let maps = maps.find(|maps| maps.parameter() == parameter)?;
                maps.tables().unsettled()
            }
            _ => {
                let mut lists = self.resolver.classes.lists().into_iter();
                let list = lists.find(|list| list.parameter() == parameter)?;
                list.unsettled()
            }
        }?;
        let is_known = parameter == "virtual_alias_maps" && self.mailbox(&self.asked(key)).is_ok();
        (!is_known).then_some(error)
    }

    fn published_settled(
        &self,
        parameter: &str,
        key: &str,
    ) -> Option<Result<Option<String>, RouteError>> {
        let address = self.asked(key);
        let classes = &self.resolver.classes;
        Some(match parameter {
            "virtual_mailbox_maps" | "virtual_uid_maps" | "virtual_gid_maps" => {
                self.published_mailbox(parameter, &address)
            }
            "relay_recipient_maps" | "local_recipient_maps" => self
                .listed
                .value(parameter, &address.internal(), &self.resolver)
                .map_err(RouteError::from),
            "virtual_alias_maps" => self.published_alias(&address),
            _ => {
                let mut lists = classes.lists().into_iter();
                let list = lists.find(|list| list.parameter() == parameter)?;
                let domain = fold_case(key);
                let listed = list.contains(&domain, &mut Trace::off());
                listed
                    .map(|listed| listed.then(|| domain.into_owned()))
                    .map_err(RouteError::from)
            }
        })
    }

    /// The address that is asked for, in canonical form. One without a domain stays without:
    /// so Postfix asks for users of its domains.
    fn asked(&self, key: &str) -> Address {
        match parse_mailbox(key) {
            Ok(address) if address.domain.is_some() => self.complete(address),
            Ok(address) => address,
            // In no table.
            Err(_) => Address::new("", None),
        }
    }

    fn published_mailbox(
        &self,
        parameter: &str,
        address: &Address,
    ) -> Result<Option<String>, RouteError> {
        let own = |domain: &str| self.resolver.is_own_domain(domain);
        let value = |address: &Address| self.mailboxes.value(parameter, address, own);
        if let Some(found) = value(address)? {
            return Ok(Some(found));
        }
        match self.other_spelling(address)? {
            Some(other) => Ok(value(&other)?),
            None => Ok(None),
        }
    }

    fn published_alias(&self, address: &Address) -> Result<Option<String>, RouteError> {
        let members = self.expand(address)?;
        let itself = self.complete(address.clone());
        if members == [itself] {
            return Ok(None);
        }
        let members: Vec<_> = members.iter().map(Address::external).collect();
        Ok(Some(members.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RoutingSettings;
    use crate::table::{TableCache, TableContext};

    fn router() -> Router {
        let settings = RoutingSettings {
            virtual_mailbox_maps: "inline:{{a@vm.example = vm/a/}, {@catch.example = catch/}}"
                .to_owned(),
            virtual_uid_maps: "static:5000".to_owned(),
            virtual_gid_maps: "fail:x".to_owned(),
            virtual_alias_maps: "inline:{{all@va.example = a@vm.example b@x.example}, \
                                 {a@vm.example = a@vm.example}}"
                .to_owned(),
            virtual_mailbox_domains: "vm.example, inline:{catch.example=x}".to_owned(),
            virtual_alias_domains: "va.example".to_owned(),
            recipient_delimiter: "+".to_owned(),
            ..RoutingSettings::default()
        };
        Router::open(&settings, &TableCache::new(TableContext::default())).unwrap()
    }

    fn ask(parameter: &str, key: &str) -> Option<String> {
        router().published(parameter, key).unwrap().unwrap()
    }

    #[test]
    fn maps_are_searched_as_postfix_searches_its_own() {
        for (key, value) in [
            ("a@vm.example", Some("vm/a/")),
            ("A+ext@VM.example", Some("vm/a/")),
            ("who@catch.example", Some("catch/")),
            ("b@vm.example", None),
            ("<a@vm.example.>", Some("vm/a/")),
            ("a%vm.example@localhost", Some("vm/a/")),
        ] {
            assert_eq!(ask("virtual_mailbox_maps", key).as_deref(), value, "{key}");
        }
        assert_eq!(ask("virtual_uid_maps", "x@y").as_deref(), Some("5000"));
        assert!(
            router()
                .published("virtual_gid_maps", "x@y")
                .unwrap()
                .is_err()
        );
        assert!(router().published("no_such_maps", "x@y").is_none());
    }

    #[test]
    fn aliases_are_expanded_and_lists_of_domains_answer() {
        let all = ask("virtual_alias_maps", "all@va.example").unwrap();
        assert_eq!(all, "a@vm.example, b@x.example");
        assert_eq!(ask("virtual_alias_maps", "a@vm.example"), None);
        assert_eq!(ask("virtual_alias_maps", "c@vm.example"), None);
        let domain = |key| ask("virtual_mailbox_domains", key);
        assert_eq!(domain("VM.example").as_deref(), Some("vm.example"));
        assert!(domain("catch.example").is_some());
        assert_eq!(domain("va.example"), None);
    }

    #[test]
    fn every_published_name_is_answered() {
        for name in Router::published_names() {
            assert!(
                router().published(name, "u@nowhere.example").is_some(),
                "{name}"
            );
        }
    }
}

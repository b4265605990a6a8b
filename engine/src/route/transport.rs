//! `transport_maps`: other transports and nexthops for some recipients and domains.
//!
//! Source: transport(5).

use super::class::parents_match;
use super::opener::Opener;
use super::search::{KeyForms, Maps, Search, Strategy};
use super::trace::Trace;
use crate::address::ExtensionRule;
use crate::config::RoutingSettings;
use crate::table::{Key, TableError};

/// The transport tables.
#[derive(Debug)]
pub(crate) struct TransportMaps {
    maps: Maps,
    strategy: Strategy,
}

impl TransportMaps {
    /// Opens the tables.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Self {
        let strategy = if parents_match(settings, "transport_maps") {
            Strategy::Parents
        } else {
            Strategy::DottedParents
        };
        let maps = Maps::open_or_fail("transport_maps", &settings.transport_maps, opener);
        Self { maps, strategy }
    }

    /// The tables, for reports.
    pub(crate) fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Changes `transport` and `nexthop` as the tables say for `recipient` (internal form, in
    /// `domain`). True when a table has something for it, `*` included.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn apply(
        &self,
        recipient: &str,
        domain: &str,
        rule: &ExtensionRule,
        transport: &mut String,
        nexthop: &mut String,
        trace: &mut Trace,
    ) -> Result<bool, TableError> {
        if self.maps.is_empty() {
            return Ok(false);
        }
        let search = Search {
            rule,
            forms: KeyForms::ExternalThenInternal,
            strategy: self.strategy,
            is_own_domain: |_: &str| Ok(false),
        };
        let value = match search.find(&self.maps, recipient, trace)? {
            Some(found) => Some(found.value),
            None => self.maps.lookup(&Key::new("*"), false, trace)?,
        };
        let Some(value) = value else { return Ok(false) };
        change(&value, domain, transport, nexthop);
        Ok(true)
    }
}

/// Applies `transport:nexthop`. `:` alone changes nothing; a transport without nexthop resets
/// the nexthop to the recipient's domain, for nexthops mean something else to every transport.
fn change(value: &str, domain: &str, transport: &mut String, nexthop: &mut String) {
    let (new_transport, new_nexthop) = value.split_once(':').unwrap_or((value, ""));
    if !new_transport.is_empty() {
        new_transport.clone_into(transport);
        let reset = if new_transport == "error" {
            "Address is undeliverable"
        } else {
            domain
        };
        reset.clone_into(nexthop);
    }
    if !new_nexthop.is_empty() {
        new_nexthop.clone_into(nexthop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{TableCache, TableContext};

    fn apply(table: &str, recipient: &str) -> (bool, String) {
        let settings = RoutingSettings {
            transport_maps: table.into(),
            ..Default::default()
        };
        let cache = &TableCache::new(TableContext::default());
        let opener = Opener {
            cache,
            default_database_type: "hash",
        };
        let maps = TransportMaps::open(&settings, &opener);
        let rule = ExtensionRule {
            delimiters: "+".into(),
            owner_request_special: true,
        };
        let (mut transport, mut nexthop) = ("virtual".to_owned(), "old".to_owned());
        let domain = recipient.rsplit_once('@').unwrap().1;
        let found = maps
            .apply(
                recipient,
                domain,
                &rule,
                &mut transport,
                &mut nexthop,
                &mut Trace::off(),
            )
            .unwrap();
        (found, format!("{transport}:{nexthop}"))
    }

    #[test]
    fn values_change_transport_nexthop_both_or_neither() {
        for (value, result) in [
            (":", "virtual:old"),
            ("lmtp:", "lmtp:d.example"),
            ("lmtp", "lmtp:d.example"),
            (":[gate]:25", "virtual:[gate]:25"),
            ("lmtp:unix:/run/x", "lmtp:unix:/run/x"),
            ("error:", "error:Address is undeliverable"),
            ("error:5.1.1 gone", "error:5.1.1 gone"),
        ] {
            let table = format!("inline:{{{{u@d.example = {value}}}}}");
            assert_eq!(
                apply(&table, "u@d.example"),
                (true, result.to_owned()),
                "{value}"
            );
        }
    }

    #[test]
    fn the_most_specific_key_decides_and_a_star_is_last() {
        let table = "inline:{u+x@a.b=one:, u@a.b=two:, a.b=three:, .b=four:, *=five:}";
        assert_eq!(apply(table, "u+x@a.b").1, "one:a.b");
        assert_eq!(apply(table, "u+y@a.b").1, "two:a.b");
        assert_eq!(apply(table, "v@a.b").1, "three:a.b");
        assert_eq!(apply(table, "v@c.b").1, "four:c.b");
        assert_eq!(apply(table, "v@b").1, "five:b");
        assert!(!apply("inline:{x=y:}", "v@b").0);
    }
}

//! What of the configured tables a recipient map can take over, and what stays beside it.
//!
//! Invariant: a configuration in which each parameter names the map and then what stayed answers
//! every recipient as before: tables are searched in order, so only those that come first can move.
//! Tables of `alias_maps` stay: local(8) runs their commands as the owner of the file they stand
//! in.

use super::class::parents_match;
use crate::address::fold_case;
use crate::config::RoutingSettings;
use crate::table::{TableName, text_path, words};
use std::path::PathBuf;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, and that of its table in the map.
    pub parameter: &'static str,
    /// What the table is compiled from, in search order.
    pub sources: Vec<Source>,
    /// Tables and patterns that stay in the configuration behind the map.
    pub rest: Vec<String>,
    /// The value is that of another parameter, as Postfix's default has it; the map's table of
    /// that one answers for both.
    pub shares: Option<&'static str>,
}

/// Where entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A text in the form of postmap(1).
    Text(PathBuf),
    /// A domain that stands in the configuration.
    Domain(String),
    /// A table that can list its entries.
    Table(TableName),
}

/// The parameters of `settings` that have a value, each with what can be compiled of it.
pub fn compilable(settings: &RoutingSettings) -> Vec<Part> {
    let s = settings;
    let maps = [
        ("virtual_mailbox_maps", &s.virtual_mailbox_maps),
        ("virtual_uid_maps", &s.virtual_uid_maps),
        ("virtual_gid_maps", &s.virtual_gid_maps),
        ("virtual_alias_maps", &s.virtual_alias_maps),
        ("transport_maps", &s.transport_maps),
        ("relocated_maps", &s.relocated_maps),
        ("relay_recipient_maps", &s.relay_recipient_maps),
    ];
    let lists = [
        (
            "virtual_mailbox_domains",
            &s.virtual_mailbox_domains,
            Some(0),
        ),
        ("virtual_alias_domains", &s.virtual_alias_domains, Some(3)),
        ("relay_domains", &s.relay_domains, None),
    ];
    let mut parts = Vec::new();
    for (parameter, list) in maps {
        parts.push(part(parameter, list, settings, |_| None));
    }
    for (parameter, list, default) in lists {
        let of = default.and_then(|at: usize| maps.get(at));
        if let Some((shared, _)) = of.filter(|(_, maps)| maps.trim() == list.trim()) {
            let mut part = part(parameter, list, settings, |_| None);
            // A map has no table of what it could not take over.
            part.shares = (!part.sources.is_empty()).then_some(*shared);
            part.sources.clear();
            parts.push(part);
            continue;
        }
        // As a table's key, `.example.com` matches subdomains only where parents match.
        let parents = parameter == "relay_domains" || parents_match(settings, parameter);
        let name = |word: &str| {
            let is_name = !word.contains([':', '/', '!', '{', '[']);
            let is_plain = is_name && (parents || !word.starts_with('.'));
            is_plain.then(|| Source::Domain(fold_case(word).into_owned()))
        };
        parts.push(part(parameter, list, settings, name));
    }
    parts.retain(|part| !part.sources.is_empty() || !part.rest.is_empty() || part.shares.is_some());
    parts
}

fn part(
    parameter: &'static str,
    list: &str,
    settings: &RoutingSettings,
    name: impl Fn(&str) -> Option<Source>,
) -> Part {
    let source = |word: &str| name(word).or_else(|| table(word, settings));
    let mut items = words(list).peekable();
    let mut sources = Vec::new();
    while let Some(source) = items.peek().and_then(|word| source(word)) {
        sources.push(source);
        items.next();
    }
    Part {
        parameter,
        sources,
        rest: items.map(str::to_owned).collect(),
        shares: None,
    }
}

/// The table that `word` names, if its entries can be listed.
fn table(word: &str, settings: &RoutingSettings) -> Option<Source> {
    if !word.contains([':', '/']) || word.starts_with(['!', '[']) {
        return None;
    }
    let name = TableName::parse(word, &settings.default_database_type).ok()?;
    match text_path(&name) {
        Some(path) => Some(Source::Text(path.to_owned())),
        None if name.is_listed() => Some(Source::Table(name)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(settings: &RoutingSettings, parameter: &str) -> Option<Part> {
        let mut parts = compilable(settings).into_iter();
        parts.find(|part| part.parameter == parameter)
    }

    #[test]
    fn tables_move_until_the_first_that_cannot() {
        let settings = RoutingSettings {
            virtual_mailbox_maps: "hash:/a, inline:{k=v} pcre:/b, hash:/c".into(),
            virtual_uid_maps: "static:5000".into(),
            ..RoutingSettings::default()
        };
        let part = compiled(&settings, "virtual_mailbox_maps").unwrap();
        assert_eq!(part.sources.len(), 2);
        assert_eq!(part.sources[0], Source::Text("/a".into()));
        assert_eq!(part.rest, ["pcre:/b", "hash:/c"]);
        let uids = compiled(&settings, "virtual_uid_maps").unwrap();
        assert_eq!((uids.sources.len(), uids.rest.len()), (0, 1));
        assert_eq!(compiled(&settings, "virtual_gid_maps"), None);
    }

    #[test]
    fn lists_of_domains_move_until_a_pattern_that_is_no_key() {
        let settings = RoutingSettings {
            virtual_mailbox_domains: "A.example hash:/d !b.example c.example".into(),
            virtual_alias_domains: ".dot.example".into(),
            virtual_alias_maps: "hash:/x".into(),
            ..RoutingSettings::default()
        };
        let part = compiled(&settings, "virtual_mailbox_domains").unwrap();
        let domain = Source::Domain("a.example".into());
        assert_eq!(part.sources, [domain, Source::Text("/d".into())]);
        assert_eq!(part.rest, ["!b.example", "c.example"]);
        let part = compiled(&settings, "virtual_alias_domains").unwrap();
        assert!(part.sources.is_empty());
    }

    #[test]
    fn a_list_that_postfix_takes_from_another_parameter_is_compiled_once() {
        let settings = RoutingSettings {
            virtual_alias_maps: "hash:/x".into(),
            virtual_alias_domains: "hash:/x".into(),
            ..RoutingSettings::default()
        };
        let part = compiled(&settings, "virtual_alias_domains").unwrap();
        assert_eq!(part.shares, Some("virtual_alias_maps"));
        assert!(part.sources.is_empty());
    }
}

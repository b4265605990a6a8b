//! What a recipient map promises: against a model, against damage, against a crash.

mod damage;
mod fixtures;
mod large;
mod model;
mod publish;
mod vanishing;

use std::path::Path;

use super::*;

/// A map at `path` from table, key, value.
fn build(path: &Path, entries: &[(&str, &str, &str)]) -> BuildReport {
    build_with(path, entries, BuildOptions::default()).unwrap()
}

fn build_with(
    path: &Path,
    entries: &[(&str, &str, &str)],
    options: BuildOptions,
) -> Result<BuildReport, MapError> {
    let options = BuildOptions {
        chosen: Some((42, [9; 16])),
        ..options
    };
    let mut builder = MapBuilder::new(path, options)?;
    for (table, key, value) in entries {
        let table = builder.table(table)?;
        builder.add(table, key, value)?;
    }
    builder.finish()
}

fn set(table: &str, key: &str, value: &str) -> Change {
    Change::Set {
        table: table.into(),
        key: key.into(),
        value: value.into(),
    }
}

fn unset(table: &str, key: &str) -> Change {
    Change::Unset {
        table: table.into(),
        key: key.into(),
    }
}

fn get(view: &MapView, table: &str, key: &str) -> Option<String> {
    view.get(table, key)
        .unwrap()
        .map(|value| value.into_owned())
}

/// Entries of every shape the format has: shared and single domains, numbers, templates, values
/// and keys too long for a bucket.
fn varied_entries() -> Vec<(&'static str, &'static str, &'static str)> {
    let long_value: &'static str = "someone@far.example, ".repeat(60).leak();
    let long_key: &'static str = format!("{}@example.com", "k".repeat(300)).leak();
    let mut entries = vec![
        ("virtual_mailbox_domains", "example.com", "anything"),
        ("virtual_mailbox_domains", "example.org", "anything"),
        ("virtual_alias_maps", "@example.org", "@example.com"),
        ("virtual_alias_maps", "all@example.com", long_value),
        ("virtual_alias_maps", long_key, "anna@example.com"),
        ("virtual_alias_maps", "postmaster", "anna@example.com, bert"),
        ("transport_maps", "*", "smtp:[mail.example.net]:25"),
        ("virtual_mailbox_maps", "\"a b\"@x@example.com", "x/y/"),
        (
            "virtual_mailbox_maps",
            "öl@straße.example",
            "straße.example/öl/",
        ),
        ("virtual_quota", "anna@example.com", "0123"),
    ];
    for name in ["anna", "bert", "cleo", "dora", "emil"] {
        for domain in ["example.com", "example.org"] {
            let key: &'static str = format!("{name}@{domain}").leak();
            let path: &'static str = format!("{domain}/{name}/").leak();
            entries.push(("virtual_mailbox_maps", key, path));
            entries.push(("virtual_uid_maps", key, "5000"));
            entries.push(("virtual_gid_maps", key, "5001"));
        }
    }
    entries
}

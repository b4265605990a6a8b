//! The configuration that files of a test's text make.

use super::load::{Configuration, Sources};

/// Writes the three files and loads them.
pub(super) fn load(main_cf: &str, master_cf: &str, toml: &str) -> Configuration {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("main.cf", main_cf),
        ("master.cf", master_cf),
        ("mailstow.toml", toml),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let sources = Sources {
        config: Some(directory.path().join("mailstow.toml")),
        postfix: Some(directory.path().to_owned()),
        ..Sources::default()
    };
    Configuration::load(&sources).unwrap()
}

//! What must hold for any bytes in a configuration file.

use super::postfix::{Assignment, parse_main_cf, parse_master_cf};
use super::{Origin, Settings, registry, toml_file, values};
use std::path::Path;

/// Reads `bytes` as `main.cf` and expands every value in it.
///
/// # Panics
/// A parameter that was read has no name or no line.
pub fn check_main_cf(bytes: &[u8]) {
    let parsed = parse_main_cf(Path::new("main.cf"), bytes);
    let mut values = values::Values::new();
    for Assignment { name, value, line } in &parsed.assignments {
        assert!(*line > 0 && !name.is_empty(), "{name:?} in line {line}");
        let written = values::Written {
            text: value.clone(),
            origin: Origin::Default,
            main_cf: true,
        };
        values.set("routing", name, written);
    }
    let _ = values.name_host("machine");
    let mut settings = Settings::default();
    for Assignment { name, value, .. } in &parsed.assignments {
        let expanded = values.expand(name, value).map(|found| found.value);
        if let (Ok(value), Some(parameter)) = (expanded, registry::find("routing", name)) {
            let _ = parameter.kind.apply(&value, false, &mut settings);
        }
    }
}

/// Reads `bytes` as `master.cf`.
///
/// # Panics
/// A service that was read has no name, no command or no line.
pub fn check_master_cf(bytes: &[u8]) {
    let parsed = parse_master_cf(Path::new("master.cf"), bytes);
    for service in &parsed.services {
        assert!(service.line > 0 && !service.name.is_empty() && !service.command.is_empty());
    }
}

/// Reads `bytes` as `mailstow.toml` and applies every value in it.
///
/// # Panics
/// A problem has no text.
pub fn check_mailstow_toml(bytes: &[u8]) {
    let file = toml_file::parse_toml(Path::new("mailstow.toml"), bytes);
    for problem in &file.problems {
        assert!(!problem.to_string().is_empty());
    }
    let mut settings = Settings::default();
    for given in &file.given {
        let _ = given
            .parameter
            .kind
            .apply(&given.text, false, &mut settings);
    }
}

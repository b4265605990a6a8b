//! Settings of the program around the engine, by their names.
//!
//! They win over everything in files.

use super::parameter::Parameter;
use super::problem::{Origin, Problem};
use super::registry::PARAMETERS;
use super::values::{Values, Written};
use crate::suggest::suggest;

/// Puts `settings`, names and values, over what the files say.
pub(super) fn apply(settings: &[(String, String)], values: &mut Values) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, text) in settings {
        let origin = Origin::Program(name.clone());
        let Some(parameter) = find(name) else {
            problems.push(Problem::at(&origin, unknown(name)));
            continue;
        };
        if parameter.section == "postfix" {
            let text = "the directory is a source of settings; name it among the sources";
            problems.push(Problem::at(&origin, text));
            continue;
        }
        if text.contains('\0') {
            problems.push(Problem::at(&origin, "the value holds a NUL; remove it"));
            continue;
        }
        let written = Written {
            text: text.clone(),
            origin,
            main_cf: false,
        };
        values.set(parameter.section, parameter.name, written);
    }
    problems
}

/// The parameter of that name: `section.name`, or the name alone of a routing parameter or of one
/// at the top of mailstow.toml.
fn find(name: &str) -> Option<&'static Parameter> {
    let (section, name) = match name.split_once('.') {
        Some((section, name)) => (Some(section), name),
        None => (None, name),
    };
    let is_meant = |p: &&Parameter| match section {
        Some(section) => p.section == section && p.name == name,
        None => matches!(p.section, "" | "routing") && p.name == name,
    };
    PARAMETERS.iter().find(is_meant)
}

fn unknown(name: &str) -> String {
    let full: Vec<String> = PARAMETERS.iter().map(full_name).collect();
    match suggest(name, full.iter().map(String::as_str), usize::MAX) {
        Some(known) => format!("there is no such setting; the nearest known one is {known}"),
        None => "there is no such setting".to_owned(),
    }
}

fn full_name(parameter: &Parameter) -> String {
    match parameter.section {
        "" | "routing" => parameter.name.to_owned(),
        section => format!("{section}.{}", parameter.name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Configuration, Sources};
    use std::path::Path;

    fn set(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_the_program_sets_wins_over_files_and_later_settings_over_earlier_ones() {
        let directory = tempfile::tempdir().unwrap();
        let main_cf = "virtual_mailbox_domains = a.example\nvirtual_mailbox_base = /b\n";
        std::fs::write(directory.path().join("main.cf"), main_cf).unwrap();
        let sources = Sources {
            postfix: Some(directory.path().to_owned()),
            settings: vec![
                set("virtual_mailbox_domains", "b.example"),
                set("store.writers", "2"),
                set("store.writers", "3"),
                set("state_directory", "/s"),
                set("routing.message_size_limit", "1000"),
            ],
            ..Sources::default()
        };
        let configuration = Configuration::load(&sources).unwrap();
        let settings = &configuration.settings;
        assert_eq!(settings.routing.virtual_mailbox_domains, "b.example");
        assert_eq!(settings.routing.virtual_mailbox_base, Path::new("/b"));
        assert_eq!(settings.store.writers, 3);
        assert_eq!(settings.state_directory, Path::new("/s"));
        assert_eq!(settings.routing.message_size_limit, 1000);
        let entry = configuration.entry("store", "writers").unwrap();
        assert_eq!(entry.origin.to_string(), "setting store.writers");
    }

    #[test]
    fn a_setting_that_is_wrong_is_named_with_the_nearest_known_one() {
        let sources = Sources {
            settings: vec![
                set("store.writer", "2"),
                set("virtual_mailbox_limit", "much"),
                set("postfix.config_directory", "/etc/postfix"),
            ],
            ..Sources::default()
        };
        let errors = Configuration::load(&sources).unwrap_err().to_string();
        for expected in [
            "setting store.writer: there is no such setting; the nearest known one is \
             store.writers",
            "setting virtual_mailbox_limit: virtual_mailbox_limit = much: ",
            "setting postfix.config_directory: the directory is a source",
        ] {
            assert!(errors.contains(expected), "{errors}");
        }
    }
}

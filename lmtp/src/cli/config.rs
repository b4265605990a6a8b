//! `mailstow config`: the effective settings with their origin, or all defaults with their
//! meaning.
//!
//! What is printed reads like `mailstow.toml` and, origins being comments, can be used as one.

use super::common::{ServeArgs, complain, configuration_failed};
use clap::Args;
use mailstow_engine::config::{Configuration, ConfiguredValue, Fallback, PARAMETERS, Parameter};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Print every parameter with its default, unit and meaning instead.
    #[arg(long)]
    defaults: bool,
    /// Print one JSON object per parameter.
    #[arg(long)]
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Effective<'a> {
    section: &'a str,
    name: &'a str,
    value: &'a str,
    origin: String,
}

/// A line of `--defaults --json`. `default` is null where it is found when mailstow starts.
#[derive(Serialize)]
struct Default<'a> {
    section: &'a str,
    name: &'a str,
    default: Option<&'a str>,
    computed: Option<&'a str>,
    unit: String,
    meaning: &'a str,
}

/// Runs the subcommand.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let printed = if args.defaults {
        print_defaults(&mut io::stdout().lock(), args.json)
    } else {
        let configuration = match Configuration::load(&args.serve.sources()) {
            Ok(configuration) => configuration,
            Err(error) => return configuration_failed(&error),
        };
        for warning in &configuration.warnings {
            complain(format_args!("warning: {warning}"));
        }
        print_effective(&mut io::stdout().lock(), &configuration.entries, args.json)
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!(
                "mailstow: cannot write to standard output: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn print_effective(
    out: &mut impl Write,
    entries: &[ConfiguredValue],
    json: bool,
) -> io::Result<()> {
    let mut section = "";
    for entry in entries {
        if json {
            let line = Effective {
                section: entry.section,
                name: entry.name,
                value: &entry.value,
                origin: entry.origin.to_string(),
            };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            continue;
        }
        print_section(out, &mut section, entry.section)?;
        writeln!(out, "{} = {}  # {}", entry.name, entry.toml, entry.origin)?;
    }
    out.flush()
}

fn print_defaults(out: &mut impl Write, json: bool) -> io::Result<()> {
    let mut section = "";
    for parameter in PARAMETERS.iter() {
        let Parameter {
            section: of,
            name,
            fallback,
            meaning,
            ..
        } = parameter;
        let (default, computed) = match fallback {
            Fallback::Text(text) => (Some(*text), None),
            Fallback::Computed(how) => (None, Some(*how)),
        };
        if json {
            let unit = parameter.unit();
            let line = Default {
                section: of,
                name,
                default,
                computed,
                unit,
                meaning,
            };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            continue;
        }
        print_section(out, &mut section, of)?;
        writeln!(out, "# {meaning}. ({})", parameter.unit())?;
        match default {
            Some(_) => writeln!(out, "{name} = {}", parameter.default_toml())?,
            None => writeln!(out, "# {name}: {}", computed.unwrap_or_default())?,
        }
    }
    out.flush()
}

fn print_section<'a>(
    out: &mut impl Write,
    current: &mut &'a str,
    section: &'a str,
) -> io::Result<()> {
    if *current != section {
        *current = section;
        writeln!(out, "\n[{section}]")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::config::Sources;

    fn sources(toml: &str, directory: &tempfile::TempDir) -> Sources {
        let path = directory.path().join("mailstow.toml");
        std::fs::write(&path, toml).unwrap();
        Sources {
            config: Some(path),
            postfix: None,
            ..Sources::default()
        }
    }

    fn text(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_printed_can_be_used_as_mailstow_toml() {
        let directory = tempfile::tempdir().unwrap();
        let toml = "[lmtp]\nlisten = \"inet:[::1]:24\"\nsocket_mode = 0o600\n[routing]\n\
                    virtual_mailbox_domains = [\"a.example\"]\nmyhostname = \"x.a.example\"\n\
                    recipient_delimiter = \"$$+\"\n";
        let first = Configuration::load(&sources(toml, &directory)).unwrap();
        let printed = text(|out| print_effective(out, &first.entries, false));
        assert!(printed.contains("[routing]\nvirtual_mailbox_domains = \"a.example\"  # "));
        let second = Configuration::load(&sources(&printed, &directory)).unwrap();
        assert_eq!(first.settings, second.settings);
    }

    #[test]
    fn the_defaults_can_be_used_as_mailstow_toml_too() {
        let directory = tempfile::tempdir().unwrap();
        let printed = text(|out| print_defaults(out, false));
        let defaults = Configuration::load(&sources(&printed, &directory)).unwrap();
        let nothing = Configuration::load(&sources("", &directory)).unwrap();
        assert_eq!(defaults.settings, nothing.settings);
        for parameter in PARAMETERS.iter() {
            assert!(printed.contains(parameter.meaning), "{}", parameter.name);
        }
    }

    #[test]
    fn json_has_one_object_per_parameter() {
        let directory = tempfile::tempdir().unwrap();
        let configuration = Configuration::load(&sources("", &directory)).unwrap();
        for printed in [
            text(|out| print_effective(out, &configuration.entries, true)),
            text(|out| print_defaults(out, true)),
        ] {
            assert_eq!(printed.lines().count(), PARAMETERS.len());
            for line in printed.lines() {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(object["name"].is_string() && object["section"].is_string());
            }
        }
    }
}

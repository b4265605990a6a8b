//! Loading: defaults, `main.cf`, `mailstow.toml` and flags become one [`Configuration`].
//!
//! Every value keeps where it came from. All mistakes of all sources are reported together; what is
//! loaded in part is only ever looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::expand::references;
use super::flags::{Flags, absolute};
use super::handover::{review_handover, review_line_length};
use super::known::NOT_ACTED_ON;
use super::listen::ListenAddress;
use super::parameter::{Fallback, Parameter};
use super::postfix::{Assignment, Service, parse_main_cf, parse_master_cf};
use super::problem::{ConfigError, Origin, Problem};
use super::program;
use super::read::read_file;
use super::registry::{PARAMETERS, find};
use super::remarks::{comment_inside, shown};
use super::services::review_services;
use super::settings::{OtherParameters, Settings};
use super::socket_access;
use super::time_limits::{review_reply_time, review_time_limits};
use super::toml_file::{Given, parse_toml};
use super::transports;
use super::validate::{undeliverable, validate};
use super::values::{Values, Written};
use crate::suggest::suggest;

/// What to read.
///
/// ```
/// use mailstow_engine::Sources;
///
/// let sources = Sources {
///     postfix: Some("/etc/postfix".into()),
///     settings: vec![("store.writers".into(), "8".into())],
///     ..Sources::default()
/// };
/// # drop(sources);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// `--config`: a `mailstow.toml`.
    pub config: Option<PathBuf>,
    /// `--postfix`: the directory of a `main.cf`; wins over `[postfix] config_directory`.
    pub postfix: Option<PathBuf>,
    /// Everything else of the command line.
    pub flags: Flags,
    /// Names and values that the program around the engine sets itself, which win over files:
    /// `section.name` as in mailstow.toml, or a routing parameter's name alone. Later ones win.
    pub settings: Vec<(String, String)>,
    /// A program around the engine named the sources, and no command line: errors in them are
    /// reported without flags.
    pub by_program: bool,
}

/// The effective value of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredValue {
    /// Table of `mailstow.toml`; empty for the top level.
    pub section: &'static str,
    /// Its name in [`PARAMETERS`].
    pub name: &'static str,
    /// The value, `$name` expanded.
    pub value: String,
    /// The value as `mailstow.toml` would say it.
    pub toml: String,
    /// Where it was set.
    pub origin: Origin,
}

/// A configuration that was read and found valid. Immutable; may be shared between threads.
///
/// ```
/// use mailstow_engine::{Configuration, Sources};
///
/// let sources = Sources {
///     // Or `postfix: Some("/etc/postfix".into())` to read main.cf.
///     settings: vec![("virtual_mailbox_domains".into(), "example.com".into())],
///     ..Sources::default()
/// };
/// let configuration = Configuration::load(&sources)?;
/// assert_eq!(configuration.settings.routing.virtual_mailbox_domains, "example.com");
/// # Ok::<(), mailstow_engine::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The typed settings.
    pub settings: Settings,
    /// Every parameter with its origin, in the order of [`PARAMETERS`].
    pub entries: Vec<ConfiguredValue>,
    /// What an operator should know, one line each.
    pub warnings: Vec<String>,
    /// Why Postfix may not find the server; of no meaning where others opened its sockets.
    pub handover: Option<String>,
    /// What would be better otherwise in Postfix's files, one line each; no fault of ours.
    pub advice: Vec<String>,
    /// The user of Postfix's daemons, `mail_owner`.
    pub mail_owner: String,
    /// The files that were read; a reload reads them again.
    pub files: Vec<PathBuf>,
    /// Names that `main.cf` sets for other programs.
    pub other_parameters: Vec<String>,
    /// What keeps mail from being delivered.
    undeliverable: Vec<Problem>,
    by_program: bool,
}

impl Configuration {
    /// Reads the sources, merges and validates them.
    ///
    /// With no source at all `/etc/mailstow/mailstow.toml` is read. The configuration is good
    /// enough to look recipients up; what delivers loads with
    /// [`Configuration::load_to_deliver`].
    ///
    /// # Errors
    /// Everything that is wrong with the files and flags, at once.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        load_in(sources, &Environment::of_this_process())
    }

    /// As [`Configuration::load`], for what delivers: that needs `virtual_mailbox_base`, too.
    ///
    /// # Errors
    /// As there, and when no directory is named for the mailboxes.
    pub fn load_to_deliver(sources: &Sources) -> Result<Self, ConfigError> {
        load_to_deliver_in(sources, &Environment::of_this_process())
    }

    /// As [`Configuration::load_to_deliver`], but goes on past mistakes, for a look at everything
    /// else that is wrong: a setting with a mistake in it keeps its default. Nothing should be
    /// delivered by a configuration that comes with problems.
    ///
    /// # Errors
    /// Nothing is configured at all.
    pub fn inspect(sources: &Sources) -> Result<(Self, Vec<Problem>), ConfigError> {
        let (configuration, mut problems) = gather(sources, &Environment::of_this_process())?;
        problems.extend(configuration.undeliverable.clone());
        Ok((configuration, problems))
    }

    /// The value of a parameter and its origin.
    pub fn entry(&self, section: &str, name: &str) -> Option<&ConfiguredValue> {
        self.entries
            .iter()
            .find(|entry| entry.section == section && entry.name == name)
    }

    /// Where to listen, for a server that was not handed its sockets.
    ///
    /// # Errors
    /// No address was configured and there is no default for an unprivileged user.
    pub fn listen(&self) -> Result<&[ListenAddress], ConfigError> {
        match self.settings.lmtp.listen.as_slice() {
            [] => Err(ConfigError::one(Problem::anywhere(
                "there is nowhere to listen; add --listen ADDRESS or set listen in [lmtp]",
            ))),
            addresses => Ok(addresses),
        }
    }

    /// Returns the state directory.
    ///
    /// # Errors
    /// None was configured and there is no home directory to default to.
    pub fn state_directory(&self) -> Result<&Path, ConfigError> {
        let directory = self.settings.state_directory.as_path();
        if directory.as_os_str().is_empty() {
            return Err(ConfigError::one(Problem::anywhere(match self.by_program {
                true => "neither XDG_STATE_HOME nor HOME is set; set state_directory",
                false => "neither XDG_STATE_HOME nor HOME is set; add --state-directory DIR",
            })));
        }
        Ok(directory)
    }
}

/// What was gathered so far.
struct Loader<'a> {
    environment: &'a Environment,
    by_program: bool,
    values: Values,
    main_cf: Vec<Assignment>,
    services: Vec<Service>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    files: Vec<PathBuf>,
}

pub(super) fn load_in(
    sources: &Sources,
    environment: &Environment,
) -> Result<Configuration, ConfigError> {
    match gather(sources, environment)? {
        (configuration, problems) if problems.is_empty() => Ok(configuration),
        (_, problems) => Err(ConfigError { problems }),
    }
}

pub(super) fn load_to_deliver_in(
    sources: &Sources,
    environment: &Environment,
) -> Result<Configuration, ConfigError> {
    let (configuration, mut problems) = gather(sources, environment)?;
    problems.extend(configuration.undeliverable.clone());
    match problems.is_empty() {
        true => Ok(configuration),
        false => Err(ConfigError { problems }),
    }
}

/// What could be read, and everything that is wrong with it.
fn gather(
    sources: &Sources,
    environment: &Environment,
) -> Result<(Configuration, Vec<Problem>), ConfigError> {
    let mut loader = Loader {
        environment,
        by_program: sources.by_program,
        values: Values::new(),
        main_cf: Vec::new(),
        services: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        files: Vec::new(),
    };
    let given = loader.toml(sources)?;
    let directory = loader.postfix_directory(sources, &given);
    if let Some((directory, origin)) = &directory {
        loader.postfix(directory, origin);
    }
    for Given {
        parameter,
        text,
        origin,
    } in given
    {
        let written = Written {
            text,
            origin,
            main_cf: false,
        };
        loader
            .values
            .set(parameter.section, parameter.name, written);
    }
    if let Some((directory, origin)) = directory {
        loader.name_directory(&directory, origin);
    }
    let problems = program::apply(&sources.settings, &mut loader.values);
    loader.problems.extend(problems);
    let main_cf = loader.values.is_set("routing", "config_directory");
    let problems = sources
        .flags
        .apply(&mut loader.values, environment, main_cf);
    loader.problems.extend(problems);
    loader.defaults(main_cf);
    Ok(loader.finish())
}

impl Loader<'_> {
    /// Reads `mailstow.toml`: the one named, else the default one when no source is named.
    fn toml(&mut self, sources: &Sources) -> Result<Vec<Given>, ConfigError> {
        let nothing_else = sources.postfix.is_none()
            && sources.flags.domains.is_empty()
            && sources.settings.is_empty();
        let path = match &sources.config {
            Some(path) => path,
            None if nothing_else => &self.environment.default_config,
            None => return Ok(Vec::new()),
        };
        match read_file(path) {
            Ok(Some(content)) => {
                let parsed = parse_toml(path, &content);
                self.problems.extend(parsed.problems);
                self.files.push(path.clone());
                Ok(parsed.given)
            }
            Ok(None) if sources.config.is_none() => {
                let give = match sources.by_program {
                    true => "name a mailstow.toml, Postfix's configuration directory, or settings",
                    false => "give --domain DOMAIN --base DIR, or --postfix DIR, or --config FILE",
                };
                let text = format!(
                    "nothing is configured: {give}, or create {}",
                    path.display()
                );
                Err(ConfigError::one(Problem::anywhere(text)))
            }
            Ok(None) => {
                let remedy = match sources.by_program {
                    true => "name another one, or create it",
                    false => "--config names one",
                };
                let text = format!("there is no file {}; {remedy}", path.display());
                self.problems.push(Problem::anywhere(text));
                Ok(Vec::new())
            }
            Err(problem) => {
                self.problems.push(problem);
                Ok(Vec::new())
            }
        }
    }

    /// Postfix's directory, when one is named.
    fn postfix_directory(
        &mut self,
        sources: &Sources,
        given: &[Given],
    ) -> Option<(PathBuf, Origin)> {
        if let Some(directory) = &sources.postfix {
            let origin = match sources.by_program {
                true => Origin::Program("postfix.config_directory".to_owned()),
                false => Origin::Flag("--postfix".to_owned()),
            };
            return Some((directory.clone(), origin));
        }
        let given = given
            .iter()
            .rev()
            .find(|given| given.parameter.section == "postfix")?;
        match self.values.expand("config_directory", &given.text) {
            Ok(expansion) if Path::new(&expansion.value).is_absolute() => {
                return Some((PathBuf::from(expansion.value), given.origin.clone()));
            }
            // A relative path is reported with all other values.
            Ok(_) => {}
            Err(error) => self
                .problems
                .push(Problem::at(&given.origin, error.to_string())),
        }
        None
    }

    /// Reads `main.cf` and, if there is one, `master.cf`.
    fn postfix(&mut self, directory: &Path, origin: &Origin) {
        let path = directory.join("main.cf");
        match read_file(&path) {
            Ok(Some(content)) => {
                let parsed = parse_main_cf(&path, &content);
                self.problems.extend(parsed.problems);
                self.warnings.extend(parsed.warnings);
                for Assignment { name, value, line } in &parsed.assignments {
                    let written = Written {
                        text: value.clone(),
                        origin: Origin::file(&path, *line),
                        main_cf: true,
                    };
                    self.values.set("routing", name, written);
                }
                self.main_cf = parsed.assignments;
                self.files.push(path);
            }
            Ok(None) => self.problems.push(Problem::at(
                origin,
                format!(
                    "there is no file {}; name Postfix's configuration directory",
                    path.display()
                ),
            )),
            Err(problem) => self.problems.push(problem),
        }
        let path = directory.join("master.cf");
        match read_file(&path) {
            Ok(Some(content)) => {
                let parsed = parse_master_cf(&path, &content);
                self.warnings.extend(parsed.warnings);
                self.services = parsed.services;
                self.files.push(path);
            }
            Ok(None) => {}
            Err(problem) => self.warnings.push(problem.text),
        }
    }

    /// `$config_directory` is the directory that was read, whatever `main.cf` says.
    fn name_directory(&mut self, directory: &Path, origin: Origin) {
        match absolute(directory) {
            Ok(text) => {
                self.values
                    .set_literal("postfix", "config_directory", &text, origin.clone());
                self.values
                    .set_literal("routing", "config_directory", &text, origin);
            }
            Err(cause) => self.problems.push(Problem::at(&origin, cause)),
        }
    }

    /// Defaults that depend on the machine, the user and on what was read.
    fn defaults(&mut self, main_cf: bool) {
        let values = &mut self.values;
        if !main_cf {
            // Without a main.cf there is no old installation to be compatible with.
            values.set_literal("routing", "compatibility_level", "3.6", Origin::Default);
        }
        // A circle shows up again when the host name is read like every other parameter.
        let _ = values.name_host(&self.environment.hostname);
        if !values.is_set("lmtp", "listen") && self.environment.is_root() {
            values.set_literal("lmtp", "listen", "unix:/run/mailstow/lmtp", Origin::Default);
        }
        socket_access::set_defaults(values, self.environment, main_cf);
        if !values.is_set("", "state_directory")
            && let Some(directory) = self.environment.state_directory()
        {
            let text = directory.to_string_lossy();
            values.set_literal("", "state_directory", &text, Origin::Default);
        }
    }

    fn finish(mut self) -> (Configuration, Vec<Problem>) {
        let mut settings = Settings::default();
        let mut entries = Vec::new();
        for parameter in PARAMETERS.iter() {
            entries.extend(self.apply(parameter, &mut settings));
        }
        let base = self.values.get("routing", "virtual_mailbox_base");
        settings.store.make_base =
            base.is_some_and(|written| matches!(written.origin, Origin::Flag(_)));
        // A default that cannot be read refers to a setting that is reported itself.
        if self
            .problems
            .iter()
            .any(|problem| problem.origin != Some(Origin::Default))
        {
            self.problems
                .retain(|problem| problem.origin != Some(Origin::Default));
        }
        if self.problems.is_empty() {
            let (problems, warnings) = validate(&settings, &self.values);
            self.problems.extend(problems);
            self.warnings.extend(warnings);
        }
        settings.routing.other_parameters = self.other_parameters();
        let other_parameters = self.review_main_cf();
        let mut handover = None;
        let mut advice = Vec::new();
        if let Some(path) = self.files.iter().find(|path| path.ends_with("master.cf")) {
            self.warnings.extend(review_services(path, &self.services));
            handover = review_handover(path, &self.services, &self.values, &settings);
            advice.extend(review_line_length(&self.services, &self.values, &settings));
        }
        let enabled = settings.transport.enabled;
        let (transport, warnings) = transports::settings(enabled, &self.services, &self.values);
        self.warnings.extend(warnings);
        settings.transport = transport;
        settings.routing.local.is_other_program = !settings.has_local_service();
        let undeliverable = undeliverable(&settings, &self.values);
        advice.extend(review_time_limits(&settings));
        if self.files.iter().any(|path| path.ends_with("main.cf")) {
            let warning = review_reply_time(&settings, &self.services, &self.values);
            self.warnings.extend(warning);
        }
        let configuration = Configuration {
            mail_owner: settings.transport.mail_owner.clone(),
            settings,
            entries,
            warnings: self.warnings,
            handover,
            advice,
            files: self.files,
            other_parameters,
            undeliverable,
            by_program: self.by_program,
        };
        (configuration, self.problems)
    }

    /// Expands one parameter and reads it into its field.
    fn apply(
        &mut self,
        parameter: &'static Parameter,
        settings: &mut Settings,
    ) -> Option<ConfiguredValue> {
        let name = parameter.name;
        let written = self.values.get(parameter.section, name);
        let origin = written.map_or(Origin::Default, |written| written.origin.clone());
        let suffixes = !written.is_some_and(|written| written.main_cf);
        let expansion = match self.values.effective(parameter) {
            Ok(expansion) => expansion,
            Err(error) => {
                // A default that cannot be expanded refers to something reported already.
                if origin != Origin::Default || self.problems.is_empty() {
                    self.problems
                        .push(Problem::at(&origin, format!("{name}: {error}")));
                }
                return None;
            }
        };
        if origin != Origin::Default {
            self.warnings
                .extend(expansion.undefined.iter().map(|undefined| {
                    format!(
                        "{origin}: {name} refers to ${undefined}, which is set nowhere and expands \
                     to nothing; set it or correct the name"
                    )
                }));
        }
        let value = expansion.value;
        // A computed default that could not be computed leaves its field empty.
        let known = self.values.is_set(parameter.section, name)
            || matches!(parameter.fallback, Fallback::Text(_));
        if known && let Err(cause) = parameter.kind.apply(&value, suffixes, settings) {
            let text = format!("{name} = {}: {cause}", shown(&value));
            self.problems.push(Problem::at(&origin, text));
            return None;
        }
        Some(ConfiguredValue {
            section: parameter.section,
            name,
            toml: parameter.kind.effective_toml(&value),
            value,
            origin,
        })
    }

    /// What `main.cf` sets beside Postfix's parameters. Leaves out values that cannot be expanded.
    fn other_parameters(&self) -> OtherParameters {
        let path = self.files.iter().find(|path| path.ends_with("main.cf"));
        let is_other = |assignment: &&Assignment| {
            let name = assignment.name.as_str();
            find("routing", name).is_none() && !self.values.is_postfix_parameter(name)
        };
        let value = |assignment: &Assignment| {
            let Assignment { name, value, line } = assignment;
            let expansion = self.values.expand(name, value).ok()?;
            Some((name.clone(), expansion.value, *line))
        };
        let others = self.main_cf.iter().filter(is_other);
        let values: Vec<_> = others.filter_map(value).collect();
        let path = path.filter(|_| !values.is_empty());
        OtherParameters {
            path: path.cloned().unwrap_or_default(),
            values,
        }
    }

    /// Reports what `main.cf` asks for and mailstow does not do; returns the names that are
    /// other programs' business.
    fn review_main_cf(&mut self) -> Vec<String> {
        let mut referenced: BTreeSet<&str> = BTreeSet::new();
        for assignment in &self.main_cf {
            referenced.extend(references(&assignment.value));
        }
        for service in &self.services {
            let overrides = service.overrides.iter().map(|(_, value)| value.as_str());
            let arguments = service.arguments.iter().map(String::as_str);
            referenced.extend(overrides.chain(arguments).flat_map(references));
        }
        let mut others = Vec::new();
        for Assignment { name, value, .. } in &self.main_cf {
            let origin = self.values.origin("routing", name);
            if find("routing", name).is_some() {
                self.warnings.extend(comment_inside(name, value, &origin));
                continue;
            }
            let effect = NOT_ACTED_ON.iter().find(|(known, _)| known == name);
            let known =
                self.values.is_postfix_parameter(name) || referenced.contains(name.as_str());
            let candidates = PARAMETERS
                .iter()
                .filter(|p| p.section == "routing")
                .map(|p| p.name);
            let candidates = candidates.chain(NOT_ACTED_ON.iter().map(|(name, _)| *name));
            if let Some((_, effect)) = effect {
                if !value.is_empty() && !self.values.is_postfix_default(name, value) {
                    self.warnings.push(format!("{name} ({origin}): {effect}"));
                }
            } else if let (false, Some(meant)) = (known, suggest(name, candidates, 2)) {
                self.warnings.push(format!(
                    "{name} ({origin}): Postfix has no such parameter; did you mean {meant}?"
                ));
            } else {
                others.push(name.clone());
            }
        }
        others
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

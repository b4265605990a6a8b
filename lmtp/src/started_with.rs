//! The command line that a server was started with: told with its health, so that `check` can look
//! at the configuration as that server does.
//!
//! Paths are absolute, because others read them elsewhere.

use mailstow_engine::config::{Configuration, Sources};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a server was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartedWith {
    /// The mailstow.toml that it read.
    pub config: Option<PathBuf>,
    /// Postfix's directory, from `--postfix` or that file.
    pub postfix: Option<PathBuf>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--domain`
    pub domains: Vec<String>,
    /// `--base`
    pub base: Option<PathBuf>,
    /// `--state-directory`
    pub state_directory: Option<PathBuf>,
}

impl StartedWith {
    /// The sources of a server with this configuration.
    pub fn of(sources: &Sources, configuration: &Configuration) -> Self {
        let settings = &configuration.settings;
        let flags = &sources.flags;
        let absolute = |path: &Path| std::path::absolute(path).ok();
        let read = |name: &str| {
            let file = |path: &&PathBuf| path.file_name().is_some_and(|file| file == name);
            configuration.files.iter().find(file)
        };
        let toml = sources.config.as_ref().or_else(|| read("mailstow.toml"));
        let listen = settings.lmtp.listen.iter().map(ToString::to_string);
        Self {
            config: toml.and_then(|path| absolute(path)),
            postfix: read("main.cf").and_then(|path| absolute(path.parent()?)),
            listen: listen.filter(|_| !flags.listen.is_empty()).collect(),
            domains: flags.domains.clone(),
            base: flags.base.as_deref().and_then(absolute),
            state_directory: flags.state_directory.as_deref().and_then(absolute),
        }
    }

    /// Whether `other` is the same site: reads the same files of Postfix, or the same
    /// mailstow.toml, or has the same base.
    pub fn is_same_site(&self, other: &Self) -> bool {
        let same = |one: &Option<PathBuf>, two: &Option<PathBuf>| {
            let (one, two) = (one.as_ref()?, two.as_ref()?);
            let real =
                |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            Some(real(one) == real(two))
        };
        same(&self.postfix, &other.postfix)
            .or_else(|| same(&self.config, &other.config))
            .or_else(|| same(&self.base, &other.base))
            .unwrap_or(false)
    }

    /// Completes a command line by what the server was started with, but for its listeners if the
    /// configuration `has_listen`; returns what was added, as it would be written.
    pub fn complete(&self, sources: &mut Sources, has_listen: bool) -> Vec<String> {
        let mut added = Vec::new();
        let mut path = |flag: &str, ours: &mut Option<PathBuf>, theirs: &Option<PathBuf>| {
            if let (None, Some(theirs)) = (&ours, theirs) {
                added.push(format!("{flag} {}", theirs.display()));
                *ours = Some(theirs.clone());
            }
        };
        path("--config", &mut sources.config, &self.config);
        path("--postfix", &mut sources.postfix, &self.postfix);
        let flags = &mut sources.flags;
        path("--base", &mut flags.base, &self.base);
        path(
            "--state-directory",
            &mut flags.state_directory,
            &self.state_directory,
        );
        let mut all = |flag: &str, ours: &mut Vec<String>, theirs: &[String]| {
            if ours.is_empty() {
                added.extend(theirs.iter().map(|value| format!("{flag} {value}")));
                ours.extend_from_slice(theirs);
            }
        };
        if !has_listen {
            all("--listen", &mut flags.listen, &self.listen);
        }
        all("--domain", &mut flags.domains, &self.domains);
        added
    }
}

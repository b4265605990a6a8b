//! Where a setting comes from, and what can be wrong with the configuration.
//!
//! A [`ConfigError`] carries every problem that was found, so that an operator corrects them all at
//! once.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where the effective value of a parameter was set.
///
/// ```
/// use mailstow_engine::Origin;
///
/// let origin = Origin::File { path: "/etc/postfix/main.cf".into(), line: 12 };
/// assert_eq!(origin.to_string(), "/etc/postfix/main.cf:12");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// In a file, at a line counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line of the parameter's name.
        line: usize,
    },
    /// On the command line; the text names the flag, with a reason where one is needed.
    Flag(String),
    /// By the program around the engine ([`Sources::settings`](super::Sources)), under this name.
    Program(String),
}

impl Origin {
    pub(super) fn file(path: &Path, line: usize) -> Self {
        Self::File {
            path: path.to_owned(),
            line,
        }
    }
}

impl fmt::Display for Origin {
    /// `default`, `/etc/postfix/main.cf:12`, `flag --base`, `setting store.writers`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Program(name) => write!(f, "setting {name}"),
        }
    }
}

/// One mistake in the configuration: where it is, what it is, how to fix it.
///
/// ```
/// use mailstow_engine::{Origin, Problem};
///
/// fn place(problem: &Problem) -> Option<(String, usize)> {
///     match problem.origin.as_ref()? {
///         Origin::File { path, line } => Some((path.display().to_string(), *line)),
///         _ => None,
///     }
/// }
/// # let _: fn(&Problem) -> Option<(String, usize)> = place;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the mistake stands; `None` when something is missing everywhere.
    pub origin: Option<Origin>,
    /// What is wrong and the remedy.
    pub text: String,
}

impl Problem {
    pub(super) fn at(origin: &Origin, text: impl Into<String>) -> Self {
        Self {
            origin: Some(origin.clone()),
            text: text.into(),
        }
    }

    pub(super) fn anywhere(text: impl Into<String>) -> Self {
        Self {
            origin: None,
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The configuration cannot be used. Displayed as one line per problem.
///
/// ```
/// use mailstow_engine::{Configuration, Sources};
///
/// let sources = Sources {
///     settings: vec![("store.writer".into(), "8".into())],
///     ..Sources::default()
/// };
/// let error = Configuration::load(&sources).expect_err("no such setting");
/// assert_eq!(error.problems.len(), 1);
/// assert!(error.to_string().contains("the nearest known one is store.writers"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that is wrong, never empty; in the order files were read.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn one(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_reads_as_operators_write_places() {
        let main_cf = Path::new("/etc/postfix/main.cf");
        assert_eq!(
            Origin::file(main_cf, 12).to_string(),
            "/etc/postfix/main.cf:12"
        );
        assert_eq!(Origin::Flag("--base".into()).to_string(), "flag --base");
        assert_eq!(Origin::Program("base".into()).to_string(), "setting base");
        assert_eq!(Origin::Default.to_string(), "default");
    }
}

//! One parameter: section, name, default, kind, meaning; and what the tables of parameters are
//! written with.

use super::kind::Kind;

/// The default of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This text, `$name` not yet expanded.
    Text(&'static str),
    /// Found when the configuration is loaded; the text says how.
    Computed(&'static str),
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Table of `mailstow.toml`; empty for the top level.
    pub section: &'static str,
    /// Its name; in section `routing` that of postconf(5).
    pub name: &'static str,
    /// Its value when it is set nowhere.
    pub fallback: Fallback,
    /// What its value may be, and the field it sets.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub meaning: &'static str,
}

impl Parameter {
    /// The unit or form of its value, for people.
    pub fn unit(&self) -> String {
        self.kind.unit()
    }

    /// Marks its default as a description of how the value is computed when the configuration is
    /// loaded.
    pub(super) const fn computed(mut self) -> Self {
        if let Fallback::Text(text) = self.fallback {
            self.fallback = Fallback::Computed(text);
        }
        self
    }

    /// The default as `mailstow.toml` would say it, `$name` not expanded; empty when computed.
    pub fn default_toml(&self) -> String {
        match self.fallback {
            Fallback::Text(text) => self.kind.toml(text),
            Fallback::Computed(_) => String::new(),
        }
    }
}

pub(super) const fn parameter(
    section: &'static str,
    name: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Parameter {
    Parameter {
        section,
        name,
        fallback: Fallback::Text(default),
        kind,
        meaning,
    }
}

pub(super) const fn routing(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Parameter {
    parameter("routing", name, default, kind, meaning)
}

pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

pub(super) fn to_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Sizes are signed 64-bit numbers to the file system.
pub(super) const SIZE_MAX: u64 = i64::MAX.unsigned_abs();

/// A century in seconds: far enough, and safe to add to any time.
pub(super) const TIME_MAX: u64 = 3_155_760_000;

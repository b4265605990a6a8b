//! The sources of settings that a host adds: main.cf, mailstow.toml, names and values.
//!
//! Files are read when a handle is opened, not before.

use crate::boundary::{Kind, Pool, mailstow_config};
use crate::failure::Failure;
use crate::mode::Mode;
use crate::result::{MAILSTOW_INVALID, MAILSTOW_NOT_FOUND};
use mailstow_engine::{Configuration, Durability, Settings, Sources, octets};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Sources of settings.
#[derive(Debug)]
pub(crate) struct Config {
    sources: Sources,
}

impl Default for Config {
    fn default() -> Self {
        let sources = no_sources();
        Self { sources }
    }
}

/// Creates an empty list of sources; errors are worded for a program.
fn no_sources() -> Sources {
    Sources {
        by_program: true,
        ..Sources::default()
    }
}

impl Kind for Config {
    type Handle = mailstow_config;
    const NUMBER: u64 = 1;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Config> = Pool::new();
        &POOL
    }
}

impl Config {
    /// Reads main.cf in this directory.
    pub(crate) fn postfix(&mut self, directory: &[u8]) {
        self.sources.postfix = Some(path(directory));
    }

    /// Reads this mailstow.toml.
    pub(crate) fn file(&mut self, file: &[u8]) {
        self.sources.config = Some(path(file));
    }

    /// Sets one setting, which overrides the files.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failure> {
        let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) else {
            let text = "a setting is not UTF-8; write its name and value in UTF-8";
            return Err(Failure::new(MAILSTOW_INVALID, text));
        };
        if name == "postfix.config_directory" {
            self.postfix(value.as_bytes());
            return Ok(());
        }
        let setting = (name.to_owned(), value.to_owned());
        // A mistake is reported now, when the host knows its origin.
        let alone = Sources {
            settings: vec![setting.clone()],
            ..no_sources()
        };
        if let Err(mut error) = Configuration::load(&alone) {
            // Problems of other settings are reported when a handle is opened.
            let own = mailstow_engine::Origin::Program(name.to_owned());
            error.problems.retain(|p| p.origin.as_ref() == Some(&own));
            if !error.problems.is_empty() {
                return Err(error.into());
            }
        }
        self.sources.settings.push(setting);
        Ok(())
    }

    /// Returns the configuration for a handle of this mode.
    pub(crate) fn load(&self, mode: Mode) -> Result<Configuration, Failure> {
        let mut configuration = match mode {
            Mode::Logged | Mode::Direct => Configuration::load_to_deliver(&self.sources)?,
            Mode::Client => Configuration::load(&self.sources)?,
        };
        let settings = &mut configuration.settings;
        match mode {
            Mode::Logged => {
                settings.store.durability = Durability::Logged;
                configuration.state_directory()?;
            }
            Mode::Direct => {
                settings.store.durability = Durability::Direct;
                // Many processes do so beside a server that uses the configured directory.
                settings.state_directory = scratch_directory();
            }
            Mode::Client => settings.state_directory = scratch_directory(),
        }
        Ok(configuration)
    }

    /// Returns the effective value of a setting.
    pub(crate) fn get(&self, name: &[u8]) -> Result<String, Failure> {
        let configuration = Configuration::load(&self.sources)?;
        let name = octets::text(name);
        let (section, name) = name.split_once('.').unwrap_or(("routing", &name));
        let found = configuration.entry(section, name);
        match found.or_else(|| configuration.entry("", name)) {
            Some(entry) => Ok(entry.value.clone()),
            None => Err(MAILSTOW_NOT_FOUND.into()),
        }
    }
}

/// The directory for the unnamed files of messages that do not fit into memory.
fn scratch_directory() -> PathBuf {
    let places = [std::env::temp_dir(), PathBuf::from("/tmp")];
    let found = places.into_iter().find(|directory| directory.is_dir());
    found.unwrap_or_else(|| PathBuf::from("/"))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The settings that a handle needs after it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) message_bytes_max: u64,
    pub(crate) mailbox_bytes_max: u64,
    pub(crate) base: PathBuf,
    pub(crate) expand_aliases: bool,
    pub(crate) deadline: std::time::Duration,
    pub(crate) recipients_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) envelope_bytes_max: usize,
}

impl From<&Settings> for Bounds {
    fn from(settings: &Settings) -> Self {
        Self {
            message_bytes_max: settings.routing.message_size_limit,
            mailbox_bytes_max: settings.routing.virtual_mailbox_limit,
            base: settings.routing.virtual_mailbox_base.clone(),
            expand_aliases: settings.lmtp.expand_aliases,
            deadline: settings.lmtp.delivery_deadline,
            recipients_max: settings.limits.recipients,
            in_flight_max: settings.limits.queued_deliveries,
            envelope_bytes_max: settings.limits.envelope_bytes,
        }
    }
}

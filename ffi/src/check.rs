//! Checks a configuration without opening a handle.
//!
//! Finds problems for which opening a handle would fail, and problems that would keep every
//! recipient from getting mail; creates, locks and writes nothing.

use crate::client::Client;
use crate::config::Config;
use crate::failure::Failure;
use crate::mode::Mode;
use crate::result::MAILSTOW_CONFIG;
use mailstow_engine::route::{Owners, Router, table_context};
use mailstow_engine::table::TableCache;
use mailstow_engine::{Engine, EngineError, Settings};

/// Checks the configuration for a handle of this mode.
///
/// # Errors
/// All problems, with the result that opening the handle would have.
pub(crate) fn check(config: &Config, mode: Mode) -> Result<(), Failure> {
    let configuration = config.load(mode)?;
    let settings = &configuration.settings;
    let mut found = Vec::new();
    match mode {
        Mode::Client => {
            found.extend(Client::socket(settings).err());
            let looking_up = Client::looking_up(settings);
            found.extend(looking_up.and_then(|settings| tables(&settings).err()));
        }
        Mode::Logged | Mode::Direct => {
            found.extend(tables(settings).err());
            found.extend(Engine::check_base(settings).map_err(Failure::from).err());
            let user = rustix::process::geteuid().as_raw();
            let (_, owners) = Owners::of(&settings.routing, user);
            let owners = owners.iter();
            found.extend(owners.map(|problem| Failure::new(MAILSTOW_CONFIG, &problem.text)));
        }
    }
    let all = found.into_iter().reduce(|mut all, next| {
        all.problems.extend(next.problems);
        all
    });
    match all {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Opens the tables briefly.
fn tables(settings: &Settings) -> Result<(), Failure> {
    let cache = TableCache::new(table_context(&settings.routing));
    let opened = Router::open(&settings.routing, &cache).map_err(EngineError::Table);
    opened.map(drop).map_err(Failure::from)
}

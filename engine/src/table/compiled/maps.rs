//! The recipient maps behind `mailstow:` tables: each opened once, all its tables taken from the
//! same moment.
//!
//! Invariants: a map that cannot be opened never takes the place of one that answers, and meanwhile
//! what that one does not have is deferred; one that was written into while in use answers no
//! lookup any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::map_table::MapState;
use crate::map::{MapError, MapHandle, MapView};
use crate::sync::Arc;
use crate::table::watch::watched::Hold;
use crate::table::{OpenError, TableName};

/// All maps that are open, by their paths.
#[derive(Clone, Debug, Default)]
pub(in crate::table) struct Maps {
    open: BTreeMap<PathBuf, OpenMap>,
}

#[derive(Clone, Debug)]
struct OpenMap {
    /// None until the file could be opened for the first time.
    handle: Option<Arc<MapHandle>>,
    state: MapState,
    /// What was reported last.
    trouble: String,
    /// Why the contents in use are not those that the file should have.
    hold: Arc<Hold>,
}

/// What a look at all maps found.
#[derive(Debug, Default)]
pub(in crate::table) struct Look {
    /// Maps with new contents.
    pub(in crate::table) changed: Vec<PathBuf>,
    /// Maps that were opened again, with the contents they had.
    pub(in crate::table) renewed: Vec<PathBuf>,
    /// Maps that changed and cannot be used, one line each.
    pub(in crate::table) problems: Vec<String>,
    /// Complaints about those that can.
    pub(in crate::table) warnings: Vec<String>,
}

impl Maps {
    /// The map at `path`, as all its tables see it now. One that is damaged is open too: its tables
    /// defer until it is repaired.
    ///
    /// # Errors
    /// There is no such file, or it may not be read.
    pub(in crate::table) fn state(
        &mut self,
        name: &TableName,
        path: &Path,
    ) -> Result<MapState, OpenError> {
        if let Some(map) = self.open.get(path) {
            return Ok(map.state.clone());
        }
        let map = match MapHandle::open(path) {
            Ok(handle) => OpenMap {
                state: MapState::Sound(handle.view()),
                handle: Some(Arc::new(handle)),
                trouble: String::new(),
                hold: Arc::default(),
            },
            Err(MapError::Io { source, .. }) => return Err(unreadable(name, path, source)),
            Err(error) => {
                let trouble = error.to_string();
                OpenMap {
                    handle: None,
                    state: MapState::Damaged(trouble.as_str().into()),
                    trouble,
                    hold: Arc::default(),
                }
            }
        };
        let state = map.state.clone();
        self.open.insert(path.to_owned(), map);
        Ok(state)
    }

    /// What holds back the map at `path`, if it is open.
    pub(in crate::table) fn hold(&self, path: &Path) -> Option<&Arc<Hold>> {
        self.open.get(path).map(|map| &map.hold)
    }

    /// What holds back the maps.
    pub(in crate::table) fn holds(&self) -> impl Iterator<Item = &Arc<Hold>> {
        self.open.values().map(|map| &map.hold)
    }

    /// Takes up every map that was replaced or changed.
    pub(in crate::table) fn look(&mut self, at_once: bool) -> Look {
        let mut look = Look::default();
        for (path, map) in &mut self.open {
            if at_once {
                map.trouble.clear();
            }
            map.look(path, &mut look);
        }
        look
    }

    /// Returns the maps that answer, for their maintenance.
    pub(in crate::table) fn handles(&self) -> impl Iterator<Item = &Arc<MapHandle>> {
        self.open.values().filter_map(|map| map.handle.as_ref())
    }

    /// What the tables of those that answer see.
    pub(in crate::table) fn views(&self) -> impl Iterator<Item = &Arc<MapView>> {
        self.open.values().filter_map(|map| match &map.state {
            MapState::Sound(view) => Some(view),
            MapState::Damaged(_) => None,
        })
    }

    /// Closes those that `wanted` does not want.
    pub(in crate::table) fn retain(&mut self, wanted: impl Fn(&Path) -> bool) {
        self.open.retain(|path, _| wanted(path));
    }
}

impl OpenMap {
    fn look(&mut self, path: &Path, look: &mut Look) {
        let opened = match &self.handle {
            Some(handle) => handle.refresh().map(|_| Arc::clone(handle)),
            None => MapHandle::open(path).map(Arc::new),
        };
        match opened {
            Ok(handle) => {
                let view = handle.view();
                self.trouble.clear();
                self.handle = Some(handle);
                match &self.state {
                    MapState::Sound(old) if Arc::ptr_eq(old, &view) => {
                        self.hold.set(None);
                        return;
                    }
                    MapState::Sound(old) if old.is_same(&view) => {
                        look.renewed.push(path.to_owned());
                    }
                    _ => {
                        look.warnings.extend_from_slice(view.warnings());
                        look.changed.push(path.to_owned());
                    }
                }
                // Snapshots that still use the old contents keep what held the map back.
                self.hold = Arc::default();
                self.state = MapState::Sound(view);
            }
            Err(error) => self.suffer(path, &error, look),
        }
    }

    fn suffer(&mut self, path: &Path, error: &MapError, look: &mut Look) {
        let trouble = error.to_string();
        let answers = match &self.state {
            MapState::Sound(view) => view.check_intact_now().is_ok(),
            MapState::Damaged(_) => false,
        };
        // New recipients may be in the map that cannot be used.
        let cause = answers.then(|| format!("{}: {trouble}", path.display()));
        self.hold.set(cause);
        if trouble != self.trouble {
            let consequence = match answers {
                true => "its old contents stay in use, and what they do not have is deferred",
                false => "every lookup in it is deferred",
            };
            look.problems
                .push(format!("{}: {trouble}; {consequence}", path.display()));
            if !answers {
                self.state = MapState::Damaged(trouble.as_str().into());
                look.changed.push(path.to_owned());
            }
            self.trouble = trouble;
        }
    }
}

fn unreadable(name: &TableName, path: &Path, source: std::io::Error) -> OpenError {
    let remedy = match source.kind() {
        std::io::ErrorKind::NotFound => "make it with \"mailstow map build\"",
        std::io::ErrorKind::PermissionDenied => "allow the user that runs mailstow to read it",
        _ => "name a recipient map",
    };
    OpenError::Read {
        name: name.full().to_owned(),
        path: path.display().to_string(),
        source,
        remedy,
    }
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;

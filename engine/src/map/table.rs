//! One table of a recipient map as a lookup table.
//!
//! Imports `view`, `handle`, `table`, `address`. Invariant: whatever is wrong with a map, the
//! lookup defers.

use super::handle::MapHandle;
use super::view::MapView;
use crate::address::fold_case;
use crate::sync::Arc;
use crate::table::{LookupTable, Nature, TableError};

#[derive(Debug)]
enum Source {
    Fixed(Arc<MapView>),
    Live(Arc<MapHandle>),
}

/// One table of a recipient map.
#[derive(Debug)]
pub struct MapTable {
    name: String,
    table: String,
    source: Source,
}

impl MapTable {
    /// `table` of a view that stays as it is; `name` is what the configuration calls it.
    pub fn fixed(view: Arc<MapView>, table: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: table.to_owned(),
            source: Source::Fixed(view),
        }
    }

    /// `table` of whatever view `handle` has when a key is asked.
    pub fn live(handle: Arc<MapHandle>, table: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: table.to_owned(),
            source: Source::Live(handle),
        }
    }

    fn ask(&self, view: &MapView, key: &str) -> Result<Option<String>, TableError> {
        let key = fold_case(key);
        match view.get(&self.table, &key) {
            Ok(Some(value)) if value.is_empty() => Err(TableError::EmptyValue {
                name: self.name.clone(),
                key: key.into_owned(),
            }),
            Ok(value) => Ok(value.map(std::borrow::Cow::into_owned)),
            Err(error) => Err(TableError::Unavailable {
                name: self.name.clone(),
                cause: error.to_string(),
            }),
        }
    }
}

impl LookupTable for MapTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        match &self.source {
            Source::Fixed(view) => self.ask(view, key),
            Source::Live(handle) => self.ask(&handle.view(), key),
        }
    }

    fn nature(&self) -> Nature {
        Nature::Fixed
    }

    fn name(&self) -> &str {
        &self.name
    }
}

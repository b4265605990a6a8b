//! The lookups of one key in recipient maps: one search serves all tables of a map.
//!
//! Invariant: what is kept for a key is what a new search in the same view gives, for a view never
//! changes.

use std::cell::Cell;

use super::error::MapError;
use super::view::{Attributes, Located, MapView};

/// What was found for one key in the view that was searched last. `'v` is how long views live.
#[derive(Debug, Default)]
pub(crate) struct MapSession<'v> {
    last: Cell<Option<Located<'v>>>,
    /// The view that was searched last, if none of its tables has the key.
    absent_in: Cell<Option<&'v MapView>>,
}

impl<'v> MapSession<'v> {
    /// Returns true if a search has shown that no table of `view` has the key.
    #[inline]
    pub(crate) fn is_absent_in(&self, view: &MapView) -> bool {
        let absent_in = self.absent_in.get();
        absent_in.is_some_and(|absent_in| std::ptr::eq(absent_in, view))
    }

    /// Returns all that `view` has for `key`, the folded key of this session. With `is_brief`, all
    /// lookups of the key follow each other without a wait, and the map is checked once.
    ///
    /// # Errors
    /// [`MapError`]: the answer is not known, or the map is not intact any more; defer.
    #[inline]
    pub(crate) fn find<'k>(
        &self,
        view: &'v MapView,
        key: &'k str,
        is_brief: bool,
    ) -> Result<Attributes<'k>, MapError>
    where
        'v: 'k,
    {
        let known = self.last.get().filter(|last| last.is_in(view));
        if known.is_none() || !is_brief {
            view.check_intact()?;
        }
        let located = match known {
            Some(located) => located,
            None => {
                let located = view.locate(key)?;
                self.last.set(Some(located));
                self.absent_in.set(located.is_empty().then_some(view));
                located
            }
        };
        Ok(located.attributes(key))
    }

    /// Has the processor fetch what a search for `key` in `view` reads first.
    #[inline]
    pub(crate) fn prefetch(&self, view: &MapView, key: &str) {
        if !self.last.get().is_some_and(|last| last.is_in(view)) {
            view.reader().fetch(key);
        }
    }
}

//! A key that several tables are asked for.
//!
//! Imports `address`, `map`. Invariant: what is remembered for a key is what its own text gives
//! when it is looked up anew in the same view, which never changes.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use crate::address::fold_case;
use crate::map::{Attributes, Located, MapError, MapView};

/// A key, and what the last recipient map that was asked has for it: one search serves all tables
/// of that map. `'t` is how long the tables live.
#[derive(Debug)]
pub struct Key<'k, 't> {
    text: &'k str,
    folded: OnceCell<Cow<'k, str>>,
    last: Cell<Option<Located<'t>>>,
}

impl<'k, 't> Key<'k, 't> {
    /// A key that nobody was asked for yet.
    #[inline]
    pub fn new(text: &'k str) -> Self {
        Self {
            text,
            folded: OnceCell::new(),
            last: Cell::new(None),
        }
    }

    /// The key as it is.
    #[inline]
    pub fn text(&self) -> &'k str {
        self.text
    }

    #[inline]
    fn folded(&self) -> &str {
        self.folded.get_or_init(|| fold_case(self.text))
    }

    /// All that `view` has for the key, folded.
    #[inline]
    pub(super) fn find_in(&self, view: &'t MapView) -> Result<Attributes<'_>, MapError> {
        let located = match self.last.get().filter(|last| last.is_in(view)) {
            Some(located) => located,
            None => {
                let located = view.locate(self.folded())?;
                self.last.set(Some(located));
                located
            }
        };
        Ok(located.attributes(self.folded()))
    }

    /// Has the processor fetch what a search in `view` will read first.
    #[inline]
    pub(super) fn fetch_in(&self, view: &MapView) {
        if !self.last.get().is_some_and(|last| last.is_in(view)) {
            view.reader().fetch(self.folded());
        }
    }
}

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
    /// The text is its own folded form.
    is_folded: bool,
    folded: OnceCell<Cow<'k, str>>,
    last: Cell<Option<Located<'t>>>,
}

impl<'k, 't> Key<'k, 't> {
    /// A key that nobody was asked for yet.
    #[inline]
    pub fn new(text: &'k str) -> Self {
        Self {
            text,
            is_folded: false,
            folded: OnceCell::new(),
            last: Cell::new(None),
        }
    }

    /// As [`Key::new`], for a text that [`fold_case`] leaves as it is.
    #[inline]
    pub(crate) fn of_folded(text: &'k str) -> Self {
        Self {
            is_folded: true,
            ..Self::new(text)
        }
    }

    /// The key as it is.
    #[inline]
    pub fn text(&self) -> &'k str {
        self.text
    }

    #[inline]
    fn folded(&self) -> &str {
        if self.is_folded {
            self.text
        } else {
            self.folded.get_or_init(|| fold_case(self.text))
        }
    }

    /// `view` was searched for the key, and has nothing for it in any of its tables.
    #[inline]
    pub(super) fn is_known_absent(&self, view: &MapView) -> bool {
        let last = self.last.get();
        last.is_some_and(|last| last.is_in(view) && last.is_empty())
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

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
    /// The last map that was asked, if it has nothing for the key in any of its tables.
    absent_in: Cell<Option<&'t MapView>>,
    /// All lookups of the key come one right after the other.
    is_brief: bool,
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
            absent_in: Cell::new(None),
            is_brief: false,
        }
    }

    /// As [`Key::new`], for a text that [`fold_case`] leaves as it is. `is_brief`: nobody waits
    /// between the first lookup of the key and the last, so that looking once whether a map is
    /// intact is enough.
    #[inline]
    pub(crate) fn of_folded(text: &'k str, is_brief: bool) -> Self {
        Self {
            is_folded: true,
            is_brief,
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
        let absent_in = self.absent_in.get();
        absent_in.is_some_and(|absent_in| std::ptr::eq(absent_in, view))
    }

    /// All that `view` has for the key, folded.
    ///
    /// # Errors
    /// [`MapError`]: the answer is not known, or the map is not intact any more; defer.
    #[inline]
    pub(super) fn find_in(&self, view: &'t MapView) -> Result<Attributes<'_>, MapError> {
        let known = self.last.get().filter(|last| last.is_in(view));
        if known.is_none() || !self.is_brief {
            view.check_intact()?;
        }
        let located = match known {
            Some(located) => located,
            None => {
                let located = view.locate(self.folded())?;
                self.last.set(Some(located));
                self.absent_in.set(located.is_empty().then_some(view));
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

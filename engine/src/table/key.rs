//! A key that several tables are asked for.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::address::fold_case;
use crate::map::MapSession;

/// A key that tables are asked for, and its lookups in recipient maps. `'t` is how long the tables
/// live.
#[derive(Debug)]
pub struct Key<'k, 't> {
    text: &'k str,
    /// The text is its own folded form.
    is_folded: bool,
    folded: OnceCell<Cow<'k, str>>,
    map_session: MapSession<'t>,
    /// All lookups of the key follow each other without a wait.
    is_brief: bool,
}

impl<'k, 't> Key<'k, 't> {
    /// Returns a key that no table was asked for yet.
    #[inline]
    pub fn new(text: &'k str) -> Self {
        Self {
            text,
            is_folded: false,
            folded: OnceCell::new(),
            map_session: MapSession::default(),
            is_brief: false,
        }
    }

    /// As [`Key::new`], for a text that [`fold_case`] leaves as it is. With `is_brief`, all lookups
    /// of the key follow each other without a wait, so that maps are checked once.
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

    /// Returns the key in lower case.
    #[inline]
    pub(super) fn folded(&self) -> &str {
        if self.is_folded {
            self.text
        } else {
            self.folded.get_or_init(|| fold_case(self.text))
        }
    }

    /// Returns its lookups in recipient maps.
    #[inline]
    pub(super) fn map_session(&self) -> &MapSession<'t> {
        &self.map_session
    }

    /// Returns true if all lookups of the key follow each other without a wait.
    #[inline]
    pub(super) fn is_brief(&self) -> bool {
        self.is_brief
    }
}

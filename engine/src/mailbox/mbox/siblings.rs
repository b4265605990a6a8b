//! What mboxes opened by one thread, one behind the other, have in common.
//!
//! Imports `dotlock`. Mboxes often lie side by side in one directory, and the lock files of those
//! open at the same time may be one: neither needs to be opened or made for each of them.

use super::dotlock::LockFiles;
use crate::target::Owner;
use std::sync::Arc;

/// The directory and the lock file of the mboxes opened so far. To be kept for one batch of
/// deliveries: a directory put in the place of another is not noticed.
#[derive(Debug)]
pub struct Siblings<H> {
    newest: Option<Parent<H>>,
    pub(super) lock_files: LockFiles<H>,
}

/// A directory as its user opened it.
#[derive(Debug)]
struct Parent<H> {
    path: String,
    owner: Owner,
    handle: Arc<H>,
}

impl<H> Default for Siblings<H> {
    fn default() -> Self {
        Self {
            newest: None,
            lock_files: LockFiles::default(),
        }
    }
}

impl<H> Siblings<H> {
    /// The directory at `path`, opened as `owner` unless that was done for the mbox
    /// before.
    pub(super) fn parent<E>(
        &mut self,
        path: &str,
        owner: Owner,
        open: impl FnOnce() -> Result<H, E>,
    ) -> Result<Arc<H>, E> {
        let newest = self.newest.as_ref();
        if let Some(known) = newest.filter(|known| known.owner == owner && known.path == path) {
            return Ok(Arc::clone(&known.handle));
        }
        let handle = Arc::new(open()?);
        self.newest = Some(Parent {
            path: path.to_owned(),
            owner,
            handle: Arc::clone(&handle),
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_once_in_a_row_for_the_same_user_and_group() {
        let mut siblings = Siblings::default();
        let mut opened = 0;
        let mut open = |path, (uid, gid)| {
            let owner = Owner { uid, gid };
            let parent = siblings.parent(path, owner, || {
                opened += 1;
                Ok::<_, ()>(opened)
            });
            *parent.unwrap()
        };
        let owners = [(1, 1), (1, 1), (1, 2), (2, 2)].map(|owner| open("a", owner));
        assert_eq!(
            owners,
            [1, 1, 2, 3],
            "what a group may open another may not"
        );
        assert_eq!(open("b", (2, 2)), 4);
    }
}

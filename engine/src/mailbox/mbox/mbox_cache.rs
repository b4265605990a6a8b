//! What mboxes that one thread opens one after the other share.
//!
//! Mboxes often are in one directory, and those open at the same time may share one lock file:
//! neither needs to be opened or made for each of them.

use super::dotlock::LockFiles;
use crate::target::Owner;
use std::sync::Arc;

/// The directory and the lock file of the mboxes opened so far. Must be kept for one batch of
/// deliveries at most, because it does not notice a directory that replaced another.
#[derive(Debug)]
pub struct MboxCache<H> {
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

impl<H> Default for MboxCache<H> {
    fn default() -> Self {
        Self {
            newest: None,
            lock_files: LockFiles::default(),
        }
    }
}

impl<H> MboxCache<H> {
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
        let mut cache = MboxCache::default();
        let mut opened = 0;
        let mut open = |path, (uid, gid)| {
            let owner = Owner { uid, gid };
            let parent = cache.parent(path, owner, || {
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

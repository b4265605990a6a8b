//! A value that is read without a lock and rarely replaced.
//!
//! Replaced values stay in memory, in a list: they are small, and a reader may still use them.
//! Without a lock, a child process can also read and replace the value at once.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The current value, if there is one.
pub(crate) struct Forever<T: 'static>(AtomicPtr<Node<T>>);

struct Node<T> {
    value: T,
    /// The value it replaced. It is only there for leak checkers, which find the memory by it.
    _before: *const Node<T>,
}

impl<T: Send + Sync + 'static> Forever<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire: pairs with the Release of the store.
        let node = self.0.load(Ordering::Acquire);
        // SAFETY: null, or the address of a box that was leaked below.
        unsafe { node.as_ref() }.map(|node| &node.value)
    }

    /// Stores a value. Of two threads that do so at once, either may be the last.
    pub(crate) fn set(&self, value: T) {
        self.replace_if(|_| true, value);
    }

    /// Stores `value` while `is_old` returns true for the current value.
    pub(crate) fn replace_if(&self, is_old: impl Fn(Option<&T>) -> bool, value: T) {
        let mut node = Box::new(Node {
            value,
            _before: ptr::null(),
        });
        loop {
            let before = self.0.load(Ordering::Acquire);
            // SAFETY: as in `get`.
            let current = unsafe { before.as_ref() };
            if !is_old(current.map(|node| &node.value)) {
                return;
            }
            node._before = before;
            let new = Box::into_raw(node);
            let order = Ordering::AcqRel;
            let stored = self
                .0
                .compare_exchange(before, new, order, Ordering::Acquire);
            if stored.is_ok() {
                return;
            }
            // SAFETY: leaked just now and not shared with another thread.
            node = unsafe { Box::from_raw(new) };
        }
    }
}

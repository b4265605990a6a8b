//! A value that is read without a lock and replaced now and then.
//!
//! What was replaced stays in memory, in a list: it is small, and a reader may have it still. No
//! lock means that a child process, too, can read and replace it at once.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The current value, if there is one.
pub(crate) struct Forever<T: 'static>(AtomicPtr<Node<T>>);

struct Node<T> {
    value: T,
    /// What it replaced. It is not read; tools that look for lost memory find it here.
    _before: *const Node<T>,
}

impl<T: Send + Sync + 'static> Forever<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire: with the Release of who stored it.
        let node = self.0.load(Ordering::Acquire);
        // SAFETY: null, or the address of a box that was given up below.
        unsafe { node.as_ref() }.map(|node| &node.value)
    }

    /// Stores a value. Of two threads that do so at once, either may be the last.
    pub(crate) fn set(&self, value: T) {
        self.replace_if(|_| true, value);
    }

    /// Stores `value` while `is_old` holds of what is there.
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
            // SAFETY: given up just now and shown to no other thread.
            node = unsafe { Box::from_raw(new) };
        }
    }
}

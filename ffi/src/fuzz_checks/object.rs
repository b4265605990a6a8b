//! The objects of a sequence of calls.

use super::content::Written;
use super::steps::Kind;
use std::collections::BTreeMap;
use std::ffi::c_void;

/// An object, and its state in the model.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) pointer: *mut c_void,
    pub(super) kind: Kind,
    pub(super) is_open: bool,
    /// Of messages and results: their handle.
    pub(super) owner: usize,
    /// Of messages, results and resolutions: how many recipients.
    pub(super) count: usize,
    /// Of messages.
    pub(super) content: Written,
    /// Of handles: recipients of submitted messages, and whether they are stored, by token.
    pub(super) flying: BTreeMap<u64, (usize, Option<bool>)>,
    /// Of handles: recipients whose results are not freed.
    pub(super) in_flight: usize,
}

impl Object {
    pub(super) fn new(pointer: *mut c_void, kind: Kind, owner: usize) -> Self {
        Self {
            pointer,
            kind,
            is_open: true,
            owner,
            count: 0,
            content: Written::default(),
            flying: BTreeMap::new(),
            in_flight: 0,
        }
    }
}

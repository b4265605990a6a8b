//! The content of a message: chunks in memory, spilled to an unlinked file past a bound.
//!
//! Imports `io`, `sync`. The content is held in its stored form: lines end with LF, header
//! fields that we set ourselves are gone.
use crate::sync::Arc;

/// A finished message, cheap to share between its recipients.
#[derive(Clone, Debug)]
pub struct Message(Arc<()>);

/// Takes a message in pieces.
#[derive(Debug)]
pub struct MessageBuilder {}

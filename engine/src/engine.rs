//! The engine: opens tables and writers, resolves, delivers, closes.

/// An open engine.
#[derive(Debug)]
pub struct Engine {}

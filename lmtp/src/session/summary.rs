//! What replies, log lines and notices say of a message.

use std::time::Duration;

/// A message whose recipients are being answered.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) sender: String,
    pub(super) size: u64,
    pub(super) received: Duration,
    pub(super) utf8: bool,
}

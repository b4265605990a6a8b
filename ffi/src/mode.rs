//! The three modes of a handle.

use crate::result::{MAILSTOW_INVALID, mailstow_result};

/// The handle owns a delivery log: one flush acknowledges many deliveries. For event loops and
/// daemons, one process for each state directory.
pub const MAILSTOW_MODE_LOGGED: u32 = 1;
/// Every message is flushed in its mailbox. For programs that deliver one message, and for any
/// number of processes at once.
pub const MAILSTOW_MODE_DIRECT: u32 = 2;
/// Messages are passed to a running `mailstow serve`, whose delivery log acknowledges them. For
/// many processes that deliver often.
pub const MAILSTOW_MODE_CLIENT: u32 = 3;

/// The mode of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Logged,
    Direct,
    Client,
}

impl Mode {
    pub(crate) fn new(number: u32) -> Result<Self, mailstow_result> {
        match number {
            MAILSTOW_MODE_LOGGED => Ok(Self::Logged),
            MAILSTOW_MODE_DIRECT => Ok(Self::Direct),
            MAILSTOW_MODE_CLIENT => Ok(Self::Client),
            _ => Err(MAILSTOW_INVALID),
        }
    }

    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Logged => MAILSTOW_MODE_LOGGED,
            Self::Direct => MAILSTOW_MODE_DIRECT,
            Self::Client => MAILSTOW_MODE_CLIENT,
        }
    }
}

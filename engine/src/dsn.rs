//! Delivery status notifications: what a sender asks for, and who tells it of a success.
//!
//! A leaf; imports `envelope`. Source: RFC 3461.

use crate::envelope::Recipient;
use crate::sync::Arc;
use std::collections::HashMap;
use std::fmt;

/// What the sender of a message asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dsn {
    /// `ENVID`, decoded: what the sender calls the message.
    pub envelope_id: Option<String>,
    /// `RET`: what a failure notice returns of the message.
    pub returned: Option<Returned>,
    /// What it asks for recipients; for none where it asks nothing.
    pub recipients: Arc<HashMap<Recipient, RecipientDsn>>,
}

/// What the sender asks for one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientDsn {
    /// `NOTIFY`
    pub notify: Option<Notify>,
    /// Address type and decoded address of `ORCPT`, joined by `;`; empty when not given.
    pub original: String,
}

/// `RET`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}

/// `NOTIFY`: which notices the sender wants; displays it. All of them false: none.
///
/// ```
/// use mailstow_engine::transport::Notify;
///
/// let notify = Notify { success: true, failure: true, delay: false };
/// assert_eq!(notify.to_string(), "SUCCESS,FAILURE");
/// assert_eq!(Notify::default().to_string(), "NEVER");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// That the mail was delivered.
    pub success: bool,
    /// That it is not going to be.
    pub failure: bool,
    /// That it was not yet.
    pub delay: bool,
}

/// What a success means for a sender who asked for a success notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// The mail has arrived.
    #[default]
    Delivered,
    /// It went on to where no notices are sent.
    Relayed,
    /// It went on to a server that sends the notice.
    RelayedWithDsn,
}

impl Notify {
    /// What is left for the members of an alias: the sender gets a notice of the expansion.
    pub fn without_success(self) -> Self {
        Self {
            success: false,
            ..self
        }
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ];
        let mut wanted = all.iter().filter(|(is_wanted, _)| *is_wanted);
        let Some((_, first)) = wanted.next() else {
            return f.write_str("NEVER");
        };
        f.write_str(first)?;
        wanted.try_for_each(|(_, word)| write!(f, ",{word}"))
    }
}

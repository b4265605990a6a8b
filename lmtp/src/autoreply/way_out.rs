//! How replies leave: to the queue of the mail server by sendmail(1), or over a relay.

use crate::notices::Sendmail;
use crate::relay::{Protocol, Relays, nexthop_problem};
use mailstow_engine::address::Address;
use mailstow_engine::config::Settings;
use mailstow_engine::{Mail, Recipient, ReversePath, Spool, Status, octets};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WayOut {
    Sendmail(Sendmail),
    Relay(Protocol, String),
}

/// Why a reply was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It may be later.
    Now(String),
    /// The sender's address is refused.
    ForGood(String),
}

impl WayOut {
    /// Finds the way out that `settings` name.
    ///
    /// # Errors
    /// Why there is none, and the remedy.
    pub(super) fn find(settings: &Settings) -> Result<Self, String> {
        let wanted = settings.autoreply.send_through.as_str();
        if wanted.is_empty() {
            return Sendmail::find(settings).map(Self::Sendmail);
        }
        let wrong = |cause: &str| format!("send_through = {wanted}: {cause}");
        let (transport, nexthop) = wanted.split_once(':').unwrap_or((wanted, ""));
        let protocol = match transport {
            "smtp" | "relay" => Protocol::Smtp,
            "lmtp" => Protocol::Lmtp,
            _ => return Err(wrong("use smtp:[HOST]:PORT, lmtp:unix:PATH, or nothing")),
        };
        let nexthop = match nexthop {
            "" => settings.routing.relayhost.as_str(),
            nexthop => nexthop,
        };
        if nexthop.is_empty() {
            return Err(wrong(
                "relayhost is empty; name a server, as smtp:[HOST]:25",
            ));
        }
        match nexthop_problem(transport, nexthop, settings) {
            Some(cause) => Err(wrong(&cause)),
            None => Ok(Self::Relay(protocol, nexthop.to_owned())),
        }
    }

    /// Hands a message with a null sender over to `recipient`. When this returns, the mail server
    /// has it.
    ///
    /// # Errors
    /// Why it was not sent, or may not have been.
    pub(super) fn hand_over(
        &self,
        (spool, relays): (&Spool, &Arc<Relays>),
        recipient: &Address,
        message: &[u8],
        limit: Duration,
    ) -> Result<(), Unsent> {
        match self {
            Self::Sendmail(sendmail) => {
                let recipient = recipient.external();
                let recipient = octets::octets(&recipient);
                let sent = sendmail.hand_over(&recipient, message, limit);
                sent.map_err(Unsent::Now)
            }
            Self::Relay(protocol, nexthop) => {
                let failed = |error: io::Error| Unsent::Now(error.to_string());
                let mut content = spool.message();
                content.write(message).map_err(failed)?;
                let content = content.finish().map_err(failed)?;
                let mail = Mail {
                    reverse_path: ReversePath::Null,
                    queue_id: None,
                    client: Default::default(),
                    dsn: Default::default(),
                    message: content,
                };
                let recipient = Recipient {
                    address: recipient.clone(),
                    original: None,
                };
                let to = (*protocol, nexthop.clone());
                said(&relays.send(Arc::new(mail), to, recipient, limit))
            }
        }
    }
}

fn said(status: &Status) -> Result<(), Unsent> {
    match status {
        status if status.is_success() => Ok(()),
        status if status.is_permanent() => Err(Unsent::ForGood(status.to_string())),
        status => Err(Unsent::Now(status.to_string())),
    }
}

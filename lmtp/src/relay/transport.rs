//! The relay as transports of the engine: `lmtp`, `smtp` and `relay`.
//!
//! `relay` is smtp(8) under another name, as in Postfix's master.cf; further names of lmtp(8) and
//! smtp(8) are those that master.cf gives them.

use super::backend::Outcomes;
use super::envelope::Forwarded;
use super::nexthop::Protocol;
use super::{Relays, Request};
use mailstow_engine::config::TransportSettings;
use mailstow_engine::transport::{Disposition, Done, Transport, TransportRequest};
use mailstow_engine::{Engine, Mail, Status};
use std::sync::Arc;

/// A transport, by what it speaks.
#[derive(Debug)]
struct Relay {
    relays: Arc<Relays>,
    protocol: Protocol,
}

impl Relays {
    /// Has an engine take mail to other servers.
    pub(crate) fn register(self: &Arc<Self>, engine: &Engine, settings: &TransportSettings) {
        let services = settings.services.iter();
        let services = services.filter_map(|service| match service.command.as_str() {
            "lmtp" => Some((service.name.as_str(), Protocol::Lmtp)),
            "smtp" => Some((service.name.as_str(), Protocol::Smtp)),
            _ => None,
        });
        let always = [
            ("lmtp", Protocol::Lmtp),
            ("smtp", Protocol::Smtp),
            ("relay", Protocol::Smtp),
        ];
        for (name, protocol) in always.into_iter().chain(services) {
            let relays = Arc::clone(self);
            engine.register_transport(name, Arc::new(Relay { relays, protocol }));
        }
    }
}

impl Transport for Relay {
    fn deliver(&self, request: TransportRequest) {
        let recipients = request.recipients.into_iter();
        let request = Request {
            forwarded: forwarded(&request.mail),
            mail: request.mail,
            nexthop: request.target.nexthop,
            recipients: recipients.map(|to| (to.index, to.recipient)).collect(),
            deadline: request.deadline,
            outcomes: Box::new(request.done),
        };
        self.relays.deliver(self.protocol, request);
    }
}

impl Outcomes for Done {
    fn begin(&self, index: usize) -> bool {
        Self::begin(self, index)
    }

    fn answer(&self, index: usize, status: Status, disposition: Disposition) {
        self.answer_as(index, status, disposition);
    }
}

/// What XFORWARD says of a message.
fn forwarded(mail: &Mail) -> Forwarded {
    let client = &mail.client;
    let attributes = [
        ("NAME", client.name.as_str()),
        ("ADDR", &client.address),
        ("PORT", &client.port),
        ("PROTO", &client.protocol),
        ("HELO", &client.helo),
        ("IDENT", mail.queue_id.as_deref().unwrap_or_default()),
    ];
    let known = attributes
        .into_iter()
        .filter(|(_, value)| !value.is_empty());
    Forwarded {
        attributes: known
            .map(|(name, value)| (name, value.to_owned()))
            .collect(),
    }
}

//! One message for one recipient, made by this server.

use super::backend::Outcomes;
use super::envelope::Forwarded;
use super::nexthop::Protocol;
use super::{Relays, Request};
use mailstow_engine::transport::Disposition;
use mailstow_engine::{Mail, Recipient, Status};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// How long an outcome is waited for past its deadline.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the outcome of the one recipient.
#[derive(Debug)]
struct Single(Sender<Status>);

impl Outcomes for Single {
    fn begin(&self, _index: usize) -> bool {
        true
    }

    fn answer(&self, _index: usize, status: Status, _disposition: Disposition) {
        // Who waits may have given up.
        let _ = self.0.send(status);
    }
}

impl Relays {
    /// Sends a message and waits for what becomes of it, at most about `limit`. Must not be called
    /// on a thread of the runtime.
    pub(crate) fn send(
        self: &Arc<Self>,
        mail: Arc<Mail>,
        (protocol, nexthop): (Protocol, String),
        recipient: Recipient,
        limit: Duration,
    ) -> Status {
        let (sender, status) = mpsc::channel();
        let request = Request {
            mail,
            nexthop,
            recipients: vec![(0, recipient)],
            forwarded: Forwarded::default(),
            deadline: Instant::now() + limit,
            outcomes: Box::new(Single(sender)),
        };
        self.deliver(protocol, request);
        let answered = status.recv_timeout(limit + GRACE);
        answered.unwrap_or_else(|_| Status::system("no answer from the server"))
    }
}

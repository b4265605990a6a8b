//! Goal: a message whose recipients are shared between mailboxes and transports reaches all of
//! them, with one outcome each. Method: the public face, real mailboxes, and a transport that
//! notes what it is given.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use common::{Place, target};
use mailstow_engine::transport::{Transport, TransportRequest};
use mailstow_engine::{Address, Engine, Mail, Outcome, Recipient, ReversePath, Status, Target};
use std::sync::{Arc, Mutex};

/// Takes everything but for `lost`, which it forgets.
#[derive(Debug, Default)]
struct Noting(Mutex<Vec<String>>);

impl Transport for Noting {
    fn deliver(&self, request: TransportRequest) {
        for one in &request.recipients {
            let to = one.recipient.address.external();
            self.0
                .lock()
                .unwrap()
                .push(format!("{} {to}", request.target));
            if !to.starts_with("lost") && request.done.begin(one.index) {
                request.done.answer(one.index, Status::ok("taken"));
            }
        }
    }
}

fn deliver(engine: &Engine, to: Vec<(&str, Target)>) -> Vec<Outcome> {
    let mut message = engine.new_message();
    message.write(b"Subject: x\n\nx\n").unwrap();
    let mail = Mail {
        reverse_path: ReversePath::Null,
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.finish().unwrap(),
    };
    let recipient = |name: &str| Recipient {
        address: Address::new(name, Some("vm.example")),
        original: None,
    };
    let to = to
        .into_iter()
        .map(|(name, target)| (recipient(name), target));
    engine.deliver(Arc::new(mail), to.collect())
}

fn statuses(outcomes: &[Outcome]) -> Vec<String> {
    let statuses = outcomes.iter().map(|outcome| outcome.status.to_string());
    statuses.collect()
}

#[test]
fn mailboxes_and_transports_share_a_message_and_answer_in_order() {
    let place = Place::new();
    let engine = Engine::open(&place.settings()).unwrap();
    let noting = Arc::new(Noting::default());
    engine.register_transport("note", noting.clone());
    let note = |nexthop: &str| Target::transport("note", nexthop);
    let outcomes = deliver(
        &engine,
        vec![
            ("a", note("x")),
            ("info", target("info/").into()),
            ("b", note("y")),
            ("lost", note("x")),
            ("sales", target("sales/").into()),
            ("a", note("X")),
            ("c", Target::transport("nowhere", "z")),
            ("d", Target::transport("error", "5.7.1 not for you")),
        ],
    );
    let unknown = "451 4.3.5 mail system configuration error: unknown transport nowhere";
    assert_eq!(
        statuses(&outcomes),
        [
            "250 2.0.0 taken",
            "250 2.0.0 delivered to maildir",
            "250 2.0.0 taken",
            "451 4.3.0 the transport gave no answer",
            "250 2.0.0 delivered to maildir",
            "250 2.0.0 taken",
            unknown,
            "550 5.7.1 not for you",
        ]
    );
    assert_eq!(outcomes[0].mailbox.as_deref(), Some("note:x"));
    let mut noted = noting.0.lock().unwrap().clone();
    noted.sort();
    // Who is named twice gets one.
    let wanted = [
        "note:x a@vm.example",
        "note:x lost@vm.example",
        "note:y b@vm.example",
    ];
    assert_eq!(noted, wanted);
    for mailbox in ["info", "sales"] {
        let new = place.base().join(mailbox).join("new");
        assert_eq!(std::fs::read_dir(new).unwrap().count(), 1, "{mailbox}");
    }
    engine.close();
}

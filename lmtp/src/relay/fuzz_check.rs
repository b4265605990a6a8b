//! What must hold for any bytes that a server sends.
//!
//! Built for tests and with `--cfg fuzzing` only. The first byte of an input chooses the protocol,
//! what is offered, and how many recipients there are; the rest is what the server sends, whatever
//! it is asked.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check fails by panicking"
)]

use super::envelope::{Envelope, Forwarded, Path, Rcpt};
use super::nexthop::Protocol;
use super::opening::{Next, Opening, TlsWish};
use super::outcome::Lost;
use super::replies::{Replies, Reply};
use super::transaction::{Broken, Peer, Step, Transaction};
use mailstow_engine::Status;
use std::collections::VecDeque;

/// Longest text of an outcome, in bytes: that of a reply, and what is said around it.
const TEXT_BYTES_MAX: usize = 1024;

/// Where the bytes come from: all at once, or one by one.
struct Server<'a> {
    replies: Replies,
    left: VecDeque<&'a [u8]>,
}

impl Server<'_> {
    fn reply(&mut self) -> Result<Reply, Lost> {
        loop {
            let next = self.replies.next();
            let next = next.map_err(|garbage| Lost::Garbage("server".into(), garbage))?;
            if let Some(reply) = next {
                return Ok(reply);
            }
            match self.left.pop_front() {
                Some(piece) => self.replies.push(piece),
                None => return Err(Lost::Closed("server".into())),
            }
        }
    }
}

/// Talks to a server that sends `bytes`.
///
/// # Panics
/// A recipient has no outcome, or one that the server did not give; or the outcomes depend on how
/// the bytes are cut.
pub fn check_relay(bytes: &[u8]) {
    let Some((choices, sent)) = bytes.split_first() else {
        return;
    };
    let whole = talk(*choices, VecDeque::from([sent]));
    let dripped = talk(*choices, sent.chunks(1).collect());
    assert_eq!(whole, dripped, "however the bytes are cut");
}

fn talk(choices: u8, left: VecDeque<&[u8]>) -> Result<Vec<Status>, Status> {
    let mut server = Server {
        replies: Replies::default(),
        left,
    };
    let protocol = match choices & 1 {
        0 => Protocol::Lmtp,
        _ => Protocol::Smtp,
    };
    let wish = match choices >> 1 & 3 {
        0 => TlsWish::May,
        1 => TlsWish::Must,
        _ => TlsWish::Never,
    };
    let mut opening = Opening::new(protocol, "client", "server", wish);
    let extensions = loop {
        let reply = server
            .reply()
            .map_err(|lost| lost.status(opening.stage()))?;
        match opening.reply(&reply) {
            Ok(Next::Ready(extensions)) => break extensions,
            Ok(Next::Send(line)) => assert!(line.ends_with("\r\n"), "{line}"),
            Ok(Next::StartTls) => drop(opening.secured()),
            Err(status) => {
                assert!(status.is_temporary(), "no session bounces mail: {status}");
                return Err(checked(status));
            }
        }
    };
    let count = usize::from(choices >> 3 & 7) + 1;
    let peer = Peer {
        name: "server".into(),
        protocol,
        extensions,
    };
    let outcomes = transact(&peer, count, choices & 64 != 0, &mut server);
    assert_eq!(outcomes.len(), count);
    Ok(outcomes.into_iter().map(checked).collect())
}

/// Runs a transaction; the outcome of each recipient.
fn transact(peer: &Peer, count: usize, reset: bool, server: &mut Server<'_>) -> Vec<Status> {
    let envelope = Envelope {
        sender: Path::new("s@x"),
        size: 100,
        envelope_id: None,
        returned: None,
        forwarded: Forwarded {
            attributes: vec![("IDENT", "4F1".into())],
        },
    };
    let address = |n| {
        if n == 2 {
            "ü@x".to_owned()
        } else {
            format!("r{n}@x")
        }
    };
    let recipients: Vec<Rcpt> = (0..count)
        .map(|n| Rcpt {
            path: Path::new(&address(n)),
            original: Some("rfc822;a b@x".into()),
            notify: None,
        })
        .collect();
    let mut transaction = Transaction::new(peer, &envelope, &recipients, reset);
    // Replies of success that came after the message.
    let (mut is_sent, mut successes) = (false, 0);
    loop {
        match transaction.step() {
            Step::Send(bytes) => {
                assert!(!is_sent && bytes.ends_with(b"\r\n"));
                let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
                let pairs = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
                assert_eq!(ends, pairs, "{}", bytes.escape_ascii());
            }
            Step::Content => {
                is_sent = true;
                transaction.ends_content();
            }
            Step::Over(_) => break,
            Step::Read => {
                let reply = match server.reply() {
                    Ok(reply) => reply,
                    Err(lost) => {
                        transaction.lost(&lost);
                        break;
                    }
                };
                if is_sent && reply.is_success() {
                    successes += 1;
                }
                match transaction.reply(&reply) {
                    Ok(()) => {}
                    Err(Broken::Closing(status)) => {
                        transaction.fail(&status);
                        break;
                    }
                    Err(Broken::Garbage(garbage)) => {
                        transaction.lost(&Lost::Garbage("server".into(), garbage));
                        break;
                    }
                }
            }
        }
    }
    let outcomes = transaction.outcomes();
    let delivered = outcomes.iter().filter(|status| status.is_success()).count();
    match peer.protocol {
        Protocol::Lmtp => assert_eq!(delivered, successes, "one reply for each recipient"),
        Protocol::Smtp => assert!(successes <= 1 && (delivered > 0) == (successes == 1)),
    }
    outcomes
}

/// What may go into replies and log lines.
fn checked(status: Status) -> Status {
    assert_eq!(status.code / 100, u16::from(status.enhanced.class));
    assert!(!status.text.contains(char::is_control), "{status:?}");
    assert!(status.text.len() < TEXT_BYTES_MAX, "{status:?}");
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn replies() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "250 ok\r\n",
            "250 2.0.0 ok\r\n",
            "250 ok\r\n",
            "250-a\r\n",
            "250-PIPELINING\r\n",
            "250-SMTPUTF8\r\n",
            "250-XFORWARD IDENT\r\n",
            "250-SIZE 50\r\n",
            "354 go\r\n",
            "354 go\r\n",
            "421 bye\r\n",
            "450 4.2.1 later\r\n",
            "550 5.1.1 no\r\n",
            "550 4.1.1 odd\r\n",
            "552 many\r\n",
            "503 what\r\n",
            "220 hi\r\n",
            "300 odd\r\n",
            "no reply\r\n",
            "\r\n",
            "25",
        ];
        vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn every_recipient_has_its_outcome_whatever_a_server_says(
            choices in any::<u8>(),
            is_greeted in any::<bool>(),
            replies in replies(),
        ) {
            let greeting = b"220 store\r\n250-store\r\n250-PIPELINING\r\n250 DSN\r\n";
            let mut bytes = vec![choices];
            if is_greeted {
                bytes.extend_from_slice(greeting);
            }
            bytes.extend(replies);
            check_relay(&bytes);
        }
    }
}

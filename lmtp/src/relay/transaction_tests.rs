//! Scripted dialogues of one transaction.

use super::super::envelope::{Forwarded, Path};
use super::*;

/// A server that answers by the letter, but for what a test changes.
struct Server {
    protocol: Protocol,
    /// Address and reply to RCPT.
    refuses: Vec<(&'static str, &'static str)>,
    mail: &'static str,
    data: &'static str,
    /// Replies after the message; the last one is repeated.
    answers: Vec<&'static str>,
    /// Replies before the connection ends.
    closes_after: usize,
}

impl Server {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            refuses: Vec::new(),
            mail: "250 2.1.0 ok",
            data: "354 go",
            answers: vec!["250 2.0.0 stored"],
            closes_after: usize::MAX,
        }
    }
}

fn peer(protocol: Protocol, pipelining: bool) -> Peer {
    Peer {
        name: "store".into(),
        protocol,
        extensions: Extensions {
            pipelining,
            eight_bit: true,
            size: Some(10_000),
            dsn: true,
            xforward: vec!["IDENT".into()],
            ..Extensions::default()
        },
    }
}

fn envelope() -> Envelope {
    Envelope {
        sender: Path::new("me@example.org"),
        size: 100,
        envelope_id: None,
        returned: None,
        forwarded: Forwarded {
            attributes: vec![("IDENT", "4F1".into())],
        },
    }
}

fn recipients(addresses: &[&str]) -> Vec<Rcpt> {
    let recipient = |address: &&str| Rcpt {
        path: Path::new(address),
        original: None,
        notify: None,
    };
    addresses.iter().map(recipient).collect()
}

fn reply(text: &str) -> Reply {
    let (code, text) = text.split_at(3);
    Reply {
        code: code.parse().unwrap(),
        lines: vec![text.trim_start().to_owned()],
    }
}

struct Talk {
    sent: String,
    statuses: Vec<String>,
    session: Session,
    groups: usize,
}

/// Runs a transaction against a server.
fn talk(peer: &Peer, to: &[Rcpt], reset: bool, server: &Server) -> Talk {
    let envelope = envelope();
    let mut transaction = Transaction::new(peer, &envelope, to, reset);
    let (mut sent, mut groups) = (String::new(), 0);
    let mut pending: VecDeque<String> = VecDeque::new();
    let (mut taken, mut replies) = (0, 0);
    let session = loop {
        match transaction.step() {
            Step::Send(bytes) => {
                groups += 1;
                let text = String::from_utf8(bytes).unwrap();
                for line in text.lines() {
                    let refusal = server.refuses.iter().find(|(a, _)| line.contains(a));
                    let answer = match line.split(' ').next().unwrap() {
                        "MAIL" => server.mail,
                        "RCPT" => refusal.map_or("250 2.1.5 ok", |(_, reply)| reply),
                        "DATA" => server.data,
                        _ => "250 2.0.0 ok",
                    };
                    if line.starts_with("RCPT") && answer.starts_with('2') {
                        taken += 1;
                    }
                    pending.push_back(answer.to_owned());
                }
                sent += &text;
            }
            Step::Content => {
                sent += "CONTENT\r\n";
                transaction.ends_content();
                let count = match server.protocol {
                    Protocol::Lmtp => taken,
                    Protocol::Smtp => 1,
                };
                let last = server.answers.len() - 1;
                let answers = (0..count).map(|n| server.answers[n.min(last)].to_owned());
                pending.extend(answers);
            }
            Step::Read => {
                let next = pending
                    .pop_front()
                    .filter(|_| replies < server.closes_after);
                let Some(next) = next else {
                    transaction.lost(&Lost::Closed("store".into()));
                    break Session::Closes;
                };
                replies += 1;
                match transaction.reply(&self::reply(&next)) {
                    Ok(()) => {}
                    Err(Broken::Closing(status)) => {
                        transaction.fail(&status);
                        break Session::Closes;
                    }
                    Err(Broken::Garbage(garbage)) => {
                        transaction.lost(&Lost::Garbage("store".into(), garbage));
                        break Session::Closes;
                    }
                }
            }
            Step::Over(session) => break session,
        }
    };
    let statuses = transaction.outcomes();
    assert_eq!(statuses.len(), to.len(), "one outcome for each recipient");
    let codes = |status: &Status| format!("{} {}", status.code, status.enhanced);
    Talk {
        sent,
        statuses: statuses.iter().map(codes).collect(),
        session,
        groups,
    }
}

#[test]
fn a_pipelined_transaction_waits_twice() {
    let to = recipients(&["a@x", "b@x"]);
    let lmtp = peer(Protocol::Lmtp, true);
    let talk = talk(&lmtp, &to, false, &Server::new(Protocol::Lmtp));
    assert_eq!(
        talk.sent,
        "XFORWARD IDENT=4F1\r\nMAIL FROM:<me@example.org> SIZE=100 BODY=8BITMIME\r\n\
         RCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nCONTENT\r\n"
    );
    assert_eq!(talk.groups, 1);
    assert_eq!(talk.statuses, ["250 2.0.0", "250 2.0.0"]);
    assert_eq!(talk.session, Session::Ready);
}

#[test]
fn without_pipelining_every_command_waits_for_its_reply() {
    let to = recipients(&["a@x", "b@x"]);
    let lmtp = peer(Protocol::Lmtp, false);
    let talk = talk(&lmtp, &to, true, &Server::new(Protocol::Lmtp));
    assert!(talk.sent.starts_with("RSET\r\nXFORWARD"), "{}", talk.sent);
    assert_eq!(talk.groups, 6);
    assert_eq!(talk.statuses, ["250 2.0.0", "250 2.0.0"]);
}

#[test]
fn each_recipient_has_the_reply_that_was_meant_for_it() {
    let to = recipients(&["a@x", "b@x", "c@x", "d@x"]);
    for pipelining in [true, false] {
        let mut server = Server::new(Protocol::Lmtp);
        server.refuses = vec![("b@x", "550 5.1.1 unknown")];
        server.answers = vec!["250 2.0.0 stored", "552 5.2.2 full", "451 4.3.0 later"];
        let talk = talk(&peer(Protocol::Lmtp, pipelining), &to, false, &server);
        let wanted = ["250 2.0.0", "550 5.1.1", "552 5.2.2", "451 4.3.0"];
        assert_eq!(talk.statuses, wanted);
        assert_eq!(talk.session, Session::Ready);
        server.protocol = Protocol::Smtp;
        server.answers = vec!["250 2.0.0 queued"];
        let talk = self::talk(&peer(Protocol::Smtp, pipelining), &to, false, &server);
        let wanted = ["250 2.0.0", "550 5.1.1", "250 2.0.0", "250 2.0.0"];
        assert_eq!(talk.statuses, wanted);
    }
}

#[test]
fn nothing_is_sent_when_nobody_is_accepted() {
    let to = recipients(&["a@x", "b@x"]);
    for pipelining in [true, false] {
        for protocol in [Protocol::Lmtp, Protocol::Smtp] {
            let mut server = Server::new(protocol);
            server.refuses = vec![("a@x", "550 5.1.1 no"), ("b@x", "450 4.2.1 later")];
            server.data = "503 5.5.1 no recipients";
            let talk = talk(&peer(protocol, pipelining), &to, false, &server);
            assert_eq!(talk.statuses, ["550 5.1.1", "450 4.2.1"]);
            assert!(!talk.sent.contains("CONTENT"));
            assert_eq!(talk.session, Session::NeedsReset);
            server.data = "354 go";
            let talk = self::talk(&peer(protocol, true), &to, false, &server);
            assert!(!talk.sent.contains("CONTENT"));
            assert_eq!(talk.session, Session::Closes);
        }
    }
}

#[test]
fn a_refused_sender_is_refused_for_every_recipient() {
    let to = recipients(&["a@x", "b@x"]);
    for pipelining in [true, false] {
        let mut server = Server::new(Protocol::Lmtp);
        server.mail = "550 5.7.1 not you";
        server.refuses = vec![("@x", "503 5.5.1 MAIL first")];
        server.data = "503 5.5.1 MAIL first";
        let talk = talk(&peer(Protocol::Lmtp, pipelining), &to, false, &server);
        assert_eq!(talk.statuses, ["550 5.7.1", "550 5.7.1"]);
    }
}

#[test]
fn a_connection_may_end_at_every_step_and_every_recipient_has_its_outcome() {
    let to = recipients(&["a@x", "b@x", "c@x"]);
    for pipelining in [true, false] {
        for protocol in [Protocol::Lmtp, Protocol::Smtp] {
            for closes_after in 0..9 {
                let mut server = Server::new(protocol);
                server.refuses = vec![("b@x", "550 5.1.1 unknown")];
                server.closes_after = closes_after;
                let talk = talk(&peer(protocol, pipelining), &to, false, &server);
                // XFORWARD, MAIL, three RCPT, DATA; then the replies to the message.
                let of_b = if closes_after > 3 {
                    "550 5.1.1"
                } else {
                    "451 4.4.2"
                };
                let stored = closes_after.saturating_sub(6);
                let (a, c) = match protocol {
                    Protocol::Lmtp => (stored >= 1, stored >= 2),
                    Protocol::Smtp => (stored >= 1, stored >= 1),
                };
                let code = |is_stored| if is_stored { "250 2.0.0" } else { "451 4.4.2" };
                let wanted = [code(a), of_b, code(c)];
                assert_eq!(talk.statuses, wanted, "{protocol:?} {closes_after}");
            }
        }
    }
}

#[test]
fn a_server_that_closes_or_talks_nonsense_defers_what_is_open() {
    let to = recipients(&["a@x", "b@x"]);
    for odd in ["421 4.3.2 bye", "354 go", "300 what"] {
        let mut server = Server::new(Protocol::Lmtp);
        server.answers = vec!["250 2.0.0 stored", odd];
        let talk = talk(&peer(Protocol::Lmtp, true), &to, false, &server);
        assert_eq!(talk.statuses[0], "250 2.0.0");
        assert!(talk.statuses[1].starts_with("451 "), "{:?}", talk.statuses);
        assert_eq!(talk.session, Session::Closes);
        let mut server = Server::new(Protocol::Lmtp);
        server.mail = odd;
        let talk = self::talk(&peer(Protocol::Lmtp, true), &to, false, &server);
        assert!(
            talk.statuses
                .iter()
                .all(|status| status.starts_with("451 "))
        );
    }
    let mut server = Server::new(Protocol::Lmtp);
    server.data = "250 what";
    let talk = talk(&peer(Protocol::Lmtp, true), &to, false, &server);
    assert!(
        talk.statuses
            .iter()
            .all(|status| status.starts_with("451 "))
    );
    assert!(!talk.sent.contains("CONTENT"));
}

#[test]
fn what_a_server_cannot_take_is_refused_without_asking_it() {
    let lmtp = peer(Protocol::Lmtp, true);
    let to = recipients(&["ü@x", "a@x", "\"a\r\n\"@x"]);
    let talk = talk(&lmtp, &to, false, &Server::new(Protocol::Lmtp));
    assert_eq!(talk.statuses, ["553 5.6.7", "250 2.0.0", "553 5.1.3"]);
    assert!(!talk.sent.contains("SMTPUTF8"));
    let mut smtputf8 = peer(Protocol::Lmtp, true);
    smtputf8.extensions.utf8 = true;
    let talk = self::talk(&smtputf8, &to, false, &Server::new(Protocol::Lmtp));
    assert_eq!(talk.statuses, ["250 2.0.0", "250 2.0.0", "553 5.1.3"]);
    assert!(talk.sent.contains("BODY=8BITMIME SMTPUTF8\r\n"));
    let mut small = peer(Protocol::Lmtp, true);
    small.extensions.size = Some(99);
    let talk = self::talk(&small, &to, false, &Server::new(Protocol::Lmtp));
    assert_eq!(talk.statuses, ["552 5.3.4"; 3]);
    assert!(talk.sent.is_empty());
    assert_eq!(talk.session, Session::Ready);
}

#[test]
fn long_pipelines_are_sent_in_groups_that_sockets_hold() {
    let addresses: Vec<String> = (0..1000)
        .map(|n| format!("user{n}@store.example"))
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let to = recipients(&addresses);
    let lmtp = peer(Protocol::Lmtp, true);
    let talk = talk(&lmtp, &to, false, &Server::new(Protocol::Lmtp));
    assert!(talk.statuses.iter().all(|status| status == "250 2.0.0"));
    assert!(talk.groups > 4, "{}", talk.groups);
    let envelope = envelope();
    let mut transaction = Transaction::new(&lmtp, &envelope, &to, false);
    let Step::Send(group) = transaction.step() else {
        panic!("commands come first");
    };
    assert!(group.len() < GROUP_BYTES + 200);
    assert_eq!(transaction.step(), Step::Read);
}

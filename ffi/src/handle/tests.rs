//! How a client behaves with servers that disconnect, refuse and lie.
//!
//! Method: a server of the test takes one connection after another and follows a script; it keeps
//! the bytes it received.

use super::*;
use crate::outcome::{MAILSTOW_DURABLE, MAILSTOW_IN_DOUBT, MAILSTOW_NOT_STORED};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::Duration;

/// The line beginnings that a connection waits for, and its replies. An empty reply at the end
/// breaks the connection.
type Script = Vec<(&'static str, &'static str)>;

const HELLO: (&str, &str) = ("LHLO", "250 localhost\r\n");
/// Takes the sender, one recipient and the content, which has no reply yet.
const TAKE_CONTENT: (&str, &str) = ("DATA", "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n");
const END: &str = ".\r\n";
/// Waits until the client has closed the connection.
const CLOSED: (&str, &str) = ("the end", "");

/// A server that follows a script for each connection, and a client of it.
struct Scene {
    _directory: tempfile::TempDir,
    server: Option<JoinHandle<Vec<String>>>,
    client: Option<Handle>,
}

impl Scene {
    fn new(scripts: Vec<Script>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lmtp");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut config = Config::default();
        let listen = format!("unix:{}", socket.display());
        config.set(b"lmtp.listen", listen.as_bytes()).unwrap();
        let client = Handle::open(&config, Mode::Client).unwrap();
        Self {
            _directory: directory,
            server: Some(std::thread::spawn(move || serve(&listener, scripts))),
            client: Some(client),
        }
    }

    fn client(&self) -> &Handle {
        self.client.as_ref().unwrap()
    }

    /// Delivers one message to one recipient; its state and its reply code.
    fn deliver(&self) -> (u32, u32) {
        let mut message = self.client().new_message().unwrap();
        message.set_sender(b"me@example.org").unwrap();
        message
            .add(b"info@example.com", None, Duration::from_secs(60))
            .unwrap();
        assert!(message.content.write(b"Subject: s\n\ntext\n").1.is_ok());
        let permit = self.client().admit(&message).unwrap();
        let results = self.client().deliver(message, permit);
        let outcome = results.outcome(0).unwrap();
        (outcome.state, outcome.code)
    }

    /// Returns all bytes that the server received.
    fn told(mut self) -> Vec<String> {
        self.client.take().unwrap().close();
        self.server.take().unwrap().join().unwrap()
    }
}

fn serve(listener: &UnixListener, scripts: Vec<Script>) -> Vec<String> {
    let mut told = Vec::new();
    for script in scripts {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        stream.write_all(b"220 localhost LMTP\r\n").unwrap();
        for (awaited, said) in script {
            let mut line = String::new();
            while !line.starts_with(awaited) {
                line.clear();
                if lines.read_line(&mut line).unwrap() == 0 {
                    assert_eq!(awaited, CLOSED.0, "the client closed the connection");
                    break;
                }
                told.push(line.clone());
            }
            stream.write_all(said.as_bytes()).unwrap();
        }
    }
    told
}

#[test]
fn an_address_that_would_end_a_command_is_never_sent() {
    let scene = Scene::new(vec![vec![
        HELLO,
        TAKE_CONTENT,
        (END, "250 2.0.0 stored\r\n"),
    ]]);
    let bad = [
        &b"a@b>\nRSET\nMAIL FROM:<"[..],
        b"a@b>\r\nRSET\r\nMAIL FROM:<",
        b"a\r@example.com",
        b"\"a\nb\"@example.com",
        b"a\0b@example.com",
        b"a@example.com\n",
        b"a@b> SIZE=1",
        b"a@b SIZE=1",
        b"<a@<b>>",
        b"a@b\t",
    ];
    let mut message = scene.client().new_message().unwrap();
    for address in bad {
        let shown = address.escape_ascii();
        let status = message.set_sender(address).expect_err("a sender");
        assert!(
            status.to_string().starts_with("501 5.1.7 "),
            "{shown}: {status}"
        );
        let refused = message.add(address, None, Duration::ZERO);
        let status = refused.expect_err("a recipient");
        assert!(
            status.to_string().starts_with("501 5.1.3 "),
            "{shown}: {status}"
        );
    }
    assert_eq!(scene.deliver(), (MAILSTOW_DURABLE, 250));
    let told = scene.told();
    assert!(
        told.iter().all(|line| !line.starts_with("RSET")),
        "{told:?}"
    );
}

#[test]
fn a_yes_to_data_is_no_promise() {
    for said in [
        "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 stored\r\n",
        "250 2.1.0 ok\r\n250 2.1.5 ok\r\n334 more\r\n",
    ] {
        let scene = Scene::new(vec![vec![HELLO, ("DATA", said), CLOSED]]);
        assert_eq!(scene.deliver(), (MAILSTOW_NOT_STORED, 451), "{said}");
        // The connection is closed: no message follows on it.
        let told = scene.told();
        assert_eq!(
            told.last().map(String::as_str),
            Some("DATA\r\n"),
            "{told:?}"
        );
    }
}

#[test]
fn a_refusal_after_content_without_a_reply_leaves_the_mail_in_doubt() {
    // The server's reply when the message is repeated.
    let later: [&[_]; 6] = [
        &[("DATA", "451 4.3.0 full\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n")],
        &[("DATA", "250 2.1.0 ok\r\n450 4.2.0 busy\r\n503 5.5.1 no\r\n")],
        &[(
            "DATA",
            "250 2.1.0 ok\r\n550 5.1.1 unknown\r\n503 5.5.1 no\r\n",
        )],
        &[("DATA", "250 2.1.0 ok\r\n250 2.1.5 ok\r\n451 4.3.0 full\r\n")],
        &[TAKE_CONTENT, (END, "452 4.3.1 full\r\n")],
        &[TAKE_CONTENT, (END, "552 5.2.2 full\r\n")],
    ];
    let unanswered = vec![HELLO, TAKE_CONTENT, (END, "")];
    for said in later {
        let again = [&[HELLO], said].concat();
        let scene = Scene::new(vec![unanswered.clone(), again]);
        // Mail that may be stored is not bounced.
        assert_eq!(scene.deliver(), (MAILSTOW_IN_DOUBT, 451), "{said:?}");
        scene.told();
    }
    let again = vec![HELLO, TAKE_CONTENT, (END, "250 2.0.0 stored\r\n")];
    let scene = Scene::new(vec![unanswered, again]);
    assert_eq!(scene.deliver(), (MAILSTOW_DURABLE, 250));
    scene.told();
    // Content that was refused where it was sent is not in doubt.
    let refused = vec![HELLO, TAKE_CONTENT, (END, "552 5.2.2 full\r\n")];
    let scene = Scene::new(vec![refused]);
    assert_eq!(scene.deliver(), (MAILSTOW_NOT_STORED, 552));
    scene.told();
}

#[test]
fn trouble_of_the_server_with_content_that_it_has_leaves_the_mail_in_doubt() {
    let trouble = vec![
        HELLO,
        TAKE_CONTENT,
        (END, "451 4.3.0 flushing to disk failed\r\n"),
    ];
    let scene = Scene::new(vec![trouble]);
    assert_eq!(scene.deliver(), (MAILSTOW_IN_DOUBT, 451));
    scene.told();
    // Without content there is nothing that could appear.
    let refused = vec![
        HELLO,
        (
            "DATA",
            "250 2.1.0 ok\r\n451 4.3.0 table\r\n503 5.5.1 no\r\n",
        ),
    ];
    let scene = Scene::new(vec![refused]);
    assert_eq!(scene.deliver(), (MAILSTOW_NOT_STORED, 451));
    scene.told();
}

#[test]
fn a_server_that_still_delivers_the_message_is_asked_again() {
    let busy = vec![HELLO, TAKE_CONTENT, (END, "451 4.4.2 under way\r\n")];
    let stored = vec![HELLO, TAKE_CONTENT, (END, "250 2.0.0 stored\r\n")];
    let scene = Scene::new(vec![busy.clone(), busy, stored]);
    assert_eq!(scene.deliver(), (MAILSTOW_DURABLE, 250));
    scene.told();
}

#[test]
fn no_content_is_sent_to_a_server_that_wants_it_for_nobody() {
    let said = "250 2.1.0 ok\r\n550 5.1.1 unknown\r\n354 go on\r\n";
    let scene = Scene::new(vec![vec![HELLO, ("DATA", said), CLOSED]]);
    assert_eq!(scene.deliver(), (MAILSTOW_NOT_STORED, 550));
    let told = scene.told();
    let last = told.last().map(String::as_str);
    assert_eq!(last, Some("DATA\r\n"), "{told:?}");
}

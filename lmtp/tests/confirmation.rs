//! What proves that the client has read its replies: a delivery whose replies it may have missed
//! answers for one repetition, any other for none. Over UNIX-domain sockets and TCP.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use mailstow_engine::config::{ListenAddress, Settings};
use mailstow_lmtp::server::Ended;
use nix::sys::socket::{MsgFlags, recv};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use support::{Socket, TestServer, eventually};

const MESSAGE: &str = "Subject: x\r\n\r\nbody\r\n.\r\n";
const BEFORE: &str = "250 2.0.0 <u1@example.com> ";

/// A client over either kind of socket.
type Client = support::Client<Either>;

enum Either {
    Unix(UnixStream),
    Inet(TcpStream),
}

impl Read for Either {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Inet(stream) => stream.read(buffer),
        }
    }
}

impl Write for Either {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Inet(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Socket for Either {
    fn be_patient(&self) {
        match self {
            Self::Unix(stream) => stream.be_patient(),
            Self::Inet(stream) => stream.be_patient(),
        }
    }
}

impl Either {
    fn close(&self, side: Shutdown) {
        match self {
            Self::Unix(stream) => stream.shutdown(side).unwrap(),
            Self::Inet(stream) => stream.shutdown(side).unwrap(),
        }
    }

    fn descriptor(&self) -> i32 {
        match self {
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Inet(stream) => stream.as_raw_fd(),
        }
    }
}

/// A server and the kind of socket that its clients use.
struct Site {
    server: TestServer,
    /// Empty for the UNIX-domain socket.
    host: &'static str,
    port: u16,
}

/// Runs `test` over each kind of socket. The server serves one client at a time: the next one is
/// greeted when the session before has ended.
fn over_every_socket(test: impl Fn(&mut Site)) {
    over_every_socket_with(|_| {}, test);
}

fn over_every_socket_with(change: impl Fn(&mut Settings), test: impl Fn(&mut Site)) {
    for host in ["", "127.0.0.1", "::1"] {
        let mut port = 0;
        let server = TestServer::with(|settings| {
            settings.limits.connections = 1;
            if !host.is_empty() {
                let free = TcpListener::bind((host, 0)).unwrap();
                port = free.local_addr().unwrap().port();
                let host = host.to_owned();
                settings.lmtp.listen = vec![ListenAddress::Inet { host, port }];
            }
            change(settings);
        });
        println!("over {}", if host.is_empty() { "unix" } else { host });
        test(&mut Site { server, host, port });
    }
}

impl Site {
    fn connect(&self) -> Client {
        Client::new(match self.host {
            "" => Either::Unix(UnixStream::connect(self.server.socket()).unwrap()),
            host => {
                let stream = TcpStream::connect((host, self.port)).unwrap();
                stream.set_nodelay(true).unwrap();
                Either::Inet(stream)
            }
        })
    }

    /// A client that has said LHLO.
    fn greeted(&self) -> Client {
        let mut found = None;
        eventually("the end of the session before", || {
            let mut client = self.connect();
            let greeting = client.reply();
            found = greeting.filter(|g| g.starts_with("220 ")).map(|_| client);
            found.is_some()
        });
        let mut client = found.unwrap();
        client.ask("LHLO client.example", "250");
        client
    }

    /// A client that is about to send its message for `u1`.
    fn about_to_send(&self) -> Client {
        self.about_to_send_to(&["u1"])
    }

    fn about_to_send_to(&self, names: &[&str]) -> Client {
        let mut client = self.greeted();
        client.envelope(names);
        client.ask("DATA", "354");
        client
    }

    /// Sends `message` once more and expects so many copies of it.
    fn send_again(&self, message: &str, copies: usize) {
        let mut client = self.about_to_send();
        client.send(message);
        client.expect(BEFORE);
        client.ask("QUIT", "221");
        assert_eq!(self.server.message_count(), copies);
    }

    /// Sends a message under an XFORWARD ident and loses the reply.
    fn lose_reply(&self, ident: &str, message: &str) {
        let mut client = self.greeted();
        self.send_as(&mut client, ident, message);
        await_unread(&client, BEFORE);
    }

    /// Sends a message under an XFORWARD ident and expects so many copies of it.
    fn send_again_as(&self, ident: &str, message: &str, copies: usize) {
        let mut client = self.greeted();
        self.send_as(&mut client, ident, message);
        client.expect(BEFORE);
        client.ask("QUIT", "221");
        assert_eq!(self.server.message_count(), copies, "{ident} {message}");
    }

    fn send_as(&self, client: &mut Client, ident: &str, message: &str) {
        if !ident.is_empty() {
            client.ask(&format!("XFORWARD IDENT={ident}"), "250");
        }
        client.envelope(&["u1"]);
        client.ask("DATA", "354");
        client.send(message);
    }
}

/// Waits until `reply` has arrived, and reads nothing.
fn await_unread(client: &Client, reply: &str) {
    let mut bytes = [0; 4096];
    eventually("the reply", || {
        let count = recv(client.stream.descriptor(), &mut bytes, MsgFlags::MSG_PEEK).unwrap();
        String::from_utf8_lossy(&bytes[..count]).contains(reply)
    });
}

#[test]
fn a_client_that_closes_without_quit_after_its_reply_has_read_it() {
    over_every_socket(|site| {
        for copies in 1..4 {
            let mut client = site.about_to_send();
            client.send(MESSAGE);
            client.expect(BEFORE);
            drop(client);
            assert_eq!(site.server.message_count(), copies);
        }
        site.send_again(MESSAGE, 4);
    });
}

#[test]
fn a_client_that_ends_its_side_after_its_reply_has_read_it() {
    over_every_socket(|site| {
        for (copies, side) in [(1, Shutdown::Write), (2, Shutdown::Both)] {
            let mut client = site.about_to_send();
            client.send(MESSAGE);
            client.expect(BEFORE);
            client.stream.close(side);
            client.expect_closed();
            assert_eq!(site.server.message_count(), copies);
        }
        site.send_again(MESSAGE, 3);
    });
}

#[test]
fn a_client_that_ends_its_side_before_its_replies_and_reads_them_has_read_them() {
    over_every_socket(|site| {
        for (copies, quit) in [(1, ""), (2, "QUIT\r\n")] {
            let mut client = site.about_to_send();
            client.send(format!("{MESSAGE}{quit}"));
            client.stream.close(Shutdown::Write);
            client.expect(BEFORE);
            if !quit.is_empty() {
                client.expect("221 ");
            }
            client.expect_closed();
            assert_eq!(site.server.message_count(), copies);
        }
        site.send_again(MESSAGE, 3);
    });
}

#[test]
fn a_client_that_closes_over_a_reply_has_not_read_it() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(MESSAGE);
        await_unread(&client, BEFORE);
        drop(client);
        site.send_again(MESSAGE, 1);
    });
}

#[test]
fn a_client_that_closes_before_its_reply_is_sent_has_not_read_it() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(MESSAGE);
        drop(client);
        site.send_again(MESSAGE, 1);
    });
}

#[test]
fn a_client_that_closes_after_the_first_of_its_replies_has_not_read_them_all() {
    over_every_socket(|site| {
        let mut client = site.about_to_send_to(&["u1", "u2"]);
        client.send(MESSAGE);
        await_unread(&client, "250 2.0.0 <u2@example.com> ");
        let first = BEFORE.len() + 3;
        client.stream.read_exact(&mut vec![0; first]).unwrap();
        drop(client);
        let mut client = site.about_to_send_to(&["u1", "u2"]);
        client.send(MESSAGE);
        client.expect(BEFORE);
        client.expect("250 2.0.0 <u2@example.com> ");
        assert_eq!(site.server.message_count(), 2);
    });
}

#[test]
fn a_client_that_ends_its_side_and_reads_nothing_has_read_nothing() {
    over_every_socket(|site| {
        for is_early in [true, false] {
            let mut client = site.about_to_send();
            client.send(MESSAGE);
            if is_early {
                client.stream.close(Shutdown::Write);
                await_unread(&client, BEFORE);
            } else {
                await_unread(&client, BEFORE);
                client.stream.close(Shutdown::Write);
            }
            drop(client);
            site.send_again(MESSAGE, 1);
            std::fs::remove_dir_all(site.server.directory.path().join("mail/example.com/u1"))
                .unwrap();
        }
    });
}

#[test]
fn a_session_that_was_silent_for_too_long_has_read_its_reply() {
    let hasty = |settings: &mut Settings| settings.lmtp.idle_timeout = Duration::from_millis(300);
    over_every_socket_with(hasty, |site| {
        let mut client = site.about_to_send();
        client.send(MESSAGE);
        client.expect(BEFORE);
        // It never reads that it is too late, and closes over it.
        await_unread(&client, "421 4.4.2");
        drop(client);
        site.send_again(MESSAGE, 2);
    });
}

#[test]
fn a_quit_sent_with_the_message_does_not_prove_that_the_replies_were_read() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(format!("{MESSAGE}QUIT\r\n"));
        await_unread(&client, "221 ");
        drop(client);
        site.send_again(MESSAGE, 1);
    });
}

#[test]
fn nor_does_one_that_waits_in_the_socket_while_the_message_is_delivered() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        // The first read ends with the message.
        let line = "x".repeat(16_384 - MESSAGE.len() - 2);
        let message = format!("Subject: x\r\n\r\n{line}\r\nbody\r\n.\r\n");
        assert_eq!(message.len(), 16_384);
        client.send(format!("{message}QUIT\r\n"));
        await_unread(&client, "221 ");
        drop(client);
        site.send_again(&message, 1);
    });
}

#[test]
fn nor_does_one_sent_by_a_client_that_reads_nothing() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(MESSAGE);
        await_unread(&client, BEFORE);
        client.send("QUIT\r\n");
        await_unread(&client, "221 ");
        drop(client);
        site.send_again(MESSAGE, 1);
    });
}

#[test]
fn other_commands_sent_with_the_message_do_not_prove_it_either() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(format!("{MESSAGE}RSET\r\nMAIL FROM:<a@example.org>\r\n"));
        await_unread(&client, "250 2.1.0");
        drop(client);
        site.send_again(MESSAGE, 1);
    });
}

#[test]
fn a_client_that_sends_quit_with_the_message_and_closes_after_the_replies_has_read_them() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(format!("{MESSAGE}QUIT\r\n"));
        client.expect(BEFORE);
        client.expect("221 ");
        client.expect_closed();
        drop(client);
        site.send_again(MESSAGE, 2);
    });
}

#[test]
fn a_quit_sent_after_the_replies_proves_that_they_were_read() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(MESSAGE);
        client.expect(BEFORE);
        client.send("QUIT\r\n");
        await_unread(&client, "221 ");
        drop(client);
        site.send_again(MESSAGE, 2);
    });
}

#[test]
fn equal_messages_of_one_session_are_all_stored() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        for copies in 1..4 {
            client.send(MESSAGE);
            client.expect(BEFORE);
            assert_eq!(site.server.message_count(), copies);
            client.envelope(&["u1"]);
            client.ask("DATA", "354");
        }
    });
}

#[test]
fn a_side_that_was_closed_before_the_replies_proves_nothing() {
    over_every_socket(|site| {
        let mailbox = site.server.directory.path().join("mail/example.com/mbox");
        let lock = mailbox.with_extension("lock");
        let mut client = site.about_to_send_to(&["mbox"]);
        std::fs::write(&lock, b"").unwrap();
        client.send(format!("{MESSAGE}QUIT\r\n"));
        client.stream.close(Shutdown::Write);
        std::fs::remove_file(&lock).unwrap();
        await_unread(&client, "221 ");
        drop(client);
        let mut client = site.about_to_send_to(&["mbox"]);
        client.send(MESSAGE);
        client.expect("250 2.0.0 <mbox@example.com> ");
        client.ask("QUIT", "221");
        let stored = std::fs::read_to_string(&mailbox).unwrap();
        assert_eq!(stored.matches("Subject: x").count(), 1, "{stored}");
    });
}

#[test]
fn a_client_that_does_not_close_after_quit_does_not_keep_the_server_from_ending() {
    over_every_socket(|site| {
        let mut client = site.about_to_send();
        client.send(format!("{MESSAGE}QUIT\r\n"));
        await_unread(&client, "221 ");
        assert_eq!(site.server.stop(), Ended::Drained);
        client.expect(BEFORE);
    });
}

#[test]
fn without_a_queue_id_a_delivery_is_in_doubt_for_the_short_time() {
    let short = |settings: &mut Settings| {
        settings.delivery_log.in_doubt_time_without_id = Duration::ZERO;
    };
    let other = "Received: by mx.example; now\r\nSubject: id 4F\r\n\r\nbody\r\n.\r\n";
    over_every_socket_with(short, |site| {
        for (count, message) in [(0, MESSAGE), (2, other)] {
            site.lose_reply("", message);
            site.send_again(message, count + 2);
        }
    });
}

#[test]
fn with_a_queue_id_a_delivery_is_in_doubt_for_the_long_time() {
    let short = |settings: &mut Settings| {
        settings.delivery_log.in_doubt_time_without_id = Duration::ZERO;
    };
    let named = "Received: from a (b [192.0.2.1])\r\n\tby mx.example (Postfix) with ESMTP id 4F2B\
                 \r\n\tfor <u1@example.com>; now\r\nSubject: x\r\n\r\nbody\r\n.\r\n";
    over_every_socket_with(short, |site| {
        site.lose_reply("4F2B", MESSAGE);
        site.send_again_as("4F2B", MESSAGE, 1);
        site.lose_reply("", named);
        site.send_again_as("", named, 2);
    });
}

#[test]
fn an_equal_message_with_another_queue_id_is_another_message() {
    over_every_socket(|site| {
        site.lose_reply("4F2B", MESSAGE);
        site.send_again_as("4F2C", MESSAGE, 2);
        site.send_again_as("4F2B", MESSAGE, 2);
    });
}

//! Tests of what the end of a connection shows where the system does not tell what was read.

use super::*;
use crate::drain::{Drain, DrainListener};
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream as Client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// A client on another machine: its own socket cannot be looked at.
struct Remote(TcpStream);

impl AsyncRead for Remote {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Remote {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl ClientSocket for Remote {
    fn is_delivered(&self) -> bool {
        self.0.is_delivered()
    }

    fn reading(&self) -> Reading {
        match self.is_delivered() {
            true => Reading::Unknown,
            false => Reading::Unread,
        }
    }

    fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }

    fn broken(&self) -> impl Future<Output = ()> + Send {
        self.0.broken()
    }
}

/// A client and the server's side of its connection.
fn connected() -> (Wire<Remote>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    let server = Remote(TcpStream::from_std(server).unwrap());
    let settings = LmtpSettings::default();
    let drain = DrainListener::new(&Drain::new());
    let wire = Wire::new(server, &settings, Pool::default(), drain);
    (wire, client)
}

async fn reply(wire: &mut Wire<Remote>) {
    wire.look().await;
    wire.out = REPLY.to_vec();
    wire.flush().await.unwrap();
}

const REPLY: &[u8] = b"250 2.0.0 Ok\r\n";

fn read_reply(client: &mut Client) {
    client.read_exact(&mut [0; REPLY.len()]).unwrap();
}

/// Waits for the end of the client's side.
async fn end(wire: &mut Wire<Remote>) {
    assert!(wire.fill(100, Wait::Transaction).await.is_err());
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_remote_client_that_closes_after_it_received_its_reply_has_read_it() {
    run(async {
        let (mut wire, mut client) = connected();
        reply(&mut wire).await;
        read_reply(&mut client);
        drop(client);
        end(&mut wire).await;
        assert!(wire.was_read().await);
    });
}

#[test]
fn a_remote_client_that_ends_its_side_after_it_received_its_reply_has_read_it() {
    run(async {
        let (mut wire, mut client) = connected();
        reply(&mut wire).await;
        read_reply(&mut client);
        client.shutdown(Shutdown::Write).unwrap();
        end(&mut wire).await;
        assert!(wire.was_read().await);
    });
}

#[test]
fn a_remote_client_that_closes_over_its_reply_has_not_read_it() {
    run(async {
        let (mut wire, client) = connected();
        reply(&mut wire).await;
        drop(client);
        end(&mut wire).await;
        assert!(!wire.was_read().await);
    });
}

#[test]
fn a_remote_client_that_closes_before_its_reply_arrives_has_not_read_it() {
    run(async {
        let (mut wire, client) = connected();
        wire.look().await;
        drop(client);
        // The end is there before the connection breaks, and the read shows no more than that.
        wire.stream.0.readable().await.unwrap();
        wire.out = REPLY.to_vec();
        wire.flush().await.unwrap();
        end(&mut wire).await;
        let start = Instant::now();
        assert!(!wire.was_read().await);
        assert!(start.elapsed() < CLOSE_WAIT / 2, "it is known at once");
    });
}

#[test]
fn of_a_remote_client_that_ended_its_side_before_its_reply_nothing_is_known() {
    run(async {
        let (mut wire, mut client) = connected();
        client.shutdown(Shutdown::Write).unwrap();
        wire.stream.0.readable().await.unwrap();
        reply(&mut wire).await;
        read_reply(&mut client);
        end(&mut wire).await;
        assert!(!wire.was_read().await);
    });
}

#[test]
fn a_remote_client_that_said_quit_has_read_its_reply_when_it_closes_in_order() {
    for reads in [true, false] {
        run(async {
            let (mut wire, mut client) = connected();
            reply(&mut wire).await;
            let client = std::thread::spawn(move || {
                if reads {
                    client.read_to_end(&mut Vec::new()).unwrap();
                }
            });
            assert_eq!(wire.was_read().await, reads);
            client.join().unwrap();
        });
    }
}

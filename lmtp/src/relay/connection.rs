//! A session with a server: the I/O around `opening` and `transaction`.

use super::message::{Outgoing, unreadable};
use super::nexthop::{Place, Protocol};
use super::opening::{Extensions, Next, Opening, TlsWish};
use super::outcome::{Lost, Stage, refused};
use super::replies::{Garbage, Replies, Reply};
use super::stream::{Resolver, Stream};
use super::tls::Tls;
use super::transaction::{Broken, Peer, Session, Step, Transaction};
use mailstow_engine::config::TlsLevel;
use mailstow_engine::{EnhancedCode, Status};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;
/// How long to wait for the reason when a server disconnects in the middle of a message.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the QUIT to a server may take.
const QUIT_LIMIT: Duration = Duration::from_secs(1);

/// Whom to connect to, and how.
#[derive(Debug)]
pub(super) struct Dial<'a> {
    pub(super) place: &'a Place,
    pub(super) protocol: Protocol,
    /// Its name, for people.
    pub(super) name: &'a str,
    /// The name we greet with.
    pub(super) me: &'a str,
    pub(super) tls: &'a Tls,
    pub(super) resolver: &'a Resolver,
}

/// A session that is ready for mail.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    replies: Replies,
    pub(super) peer: Arc<Peer>,
    needs_reset: bool,
    /// Counts it among all sessions with other servers.
    _permit: OwnedSemaphorePermit,
}

/// Until when things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of the message.
    pub(super) deadline: Instant,
    /// Of one reply.
    pub(super) reply: Duration,
}

impl Limits {
    fn command(&self) -> Instant {
        self.deadline.min(Instant::now() + self.reply)
    }
}

/// How a transaction ended. The outcomes of its recipients are in it, but for those that were lost.
#[derive(Debug)]
pub(super) enum End {
    /// The session goes on, or not.
    Over(Session),
    /// The server closed the session, and says so.
    Closing(Status),
    Lost(Lost),
}

impl Connection {
    /// Connects and begins a session.
    ///
    /// # Errors
    /// The server cannot be reached or takes no mail: the reply for recipients.
    pub(super) async fn open(
        dial: &Dial<'_>,
        permit: OwnedSemaphorePermit,
        until: Instant,
    ) -> Result<Self, Status> {
        let is_local = matches!(dial.place, Place::Unix(_));
        let wish = match dial.tls.level {
            TlsLevel::None => TlsWish::Never,
            // What stays on this machine needs no TLS.
            _ if is_local => TlsWish::Never,
            TlsLevel::May => TlsWish::May,
            TlsLevel::Encrypt | TlsLevel::Verify => TlsWish::Must,
        };
        let opened = match begin(dial, wish, until).await {
            // As Postfix does: no TLS is better than no mail.
            Err(Refused::Tls(_)) if wish == TlsWish::May => {
                begin(dial, TlsWish::Never, until).await
            }
            opened => opened,
        };
        let (talk, extensions) = opened.map_err(Refused::status)?;
        Ok(Self {
            stream: talk.stream,
            replies: talk.replies,
            peer: Arc::new(Peer {
                name: dial.name.to_owned(),
                protocol: dial.protocol,
                extensions,
            }),
            needs_reset: false,
            _permit: permit,
        })
    }

    /// True when the server has closed the session, or said something that it was not asked.
    pub(super) async fn is_stale(&mut self) -> bool {
        if !self.replies.is_empty() {
            return true;
        }
        let mut bytes = [0; 1];
        poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            Poll::Ready(read.is_ready())
        })
        .await
    }

    /// Whether an earlier transaction has to be reset.
    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset
    }

    /// Runs a transaction. Outcomes are left in it.
    pub(super) async fn run(
        &mut self,
        transaction: &mut Transaction<'_>,
        outgoing: &Outgoing,
        limits: Limits,
    ) -> End {
        let peer = Arc::clone(&self.peer);
        let mut talk = TalkMut {
            stream: &mut self.stream,
            replies: &mut self.replies,
            name: &peer.name,
        };
        loop {
            let done = match transaction.step() {
                Step::Over(session) => {
                    self.needs_reset = session == Session::NeedsReset;
                    return End::Over(match self.replies.is_empty() {
                        true => session,
                        // It answered more than it was asked.
                        false => Session::Closes,
                    });
                }
                Step::Send(bytes) => talk.send(&bytes, limits.command()).await,
                Step::Content => match talk.content(transaction, outgoing, limits).await {
                    Ok(done) => done,
                    Err(status) => return End::Closing(status),
                },
                Step::Read => {
                    let until = match transaction.stage() {
                        Stage::Answers => limits.deadline,
                        _ => limits.command(),
                    };
                    match talk.reply(until).await {
                        Ok(reply) => match transaction.reply(&reply) {
                            Ok(()) => Ok(()),
                            Err(Broken::Closing(status)) => return End::Closing(status),
                            Err(Broken::Garbage(garbage)) => Err(talk.garbage(garbage)),
                        },
                        Err(lost) => Err(lost),
                    }
                }
            };
            if let Err(lost) = done {
                return End::Lost(lost);
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn quit(mut self) {
        let until = Instant::now() + QUIT_LIMIT;
        let peer = Arc::clone(&self.peer);
        let mut talk = TalkMut {
            stream: &mut self.stream,
            replies: &mut self.replies,
            name: &peer.name,
        };
        if talk.send(b"QUIT\r\n", until).await.is_ok() {
            let _ = talk.reply(until).await;
        }
    }
}

/// Connects and begins a session, with TLS or without.
async fn begin<'a>(
    dial: &Dial<'a>,
    wish: TlsWish,
    until: Instant,
) -> Result<(Talk<'a>, Extensions), Refused> {
    let stream = Stream::connect(dial.place, dial.resolver, until).await;
    let stream = stream.map_err(|error| unreachable(dial.name, &error))?;
    let mut talk = Talk {
        stream,
        replies: Replies::default(),
        name: dial.name,
    };
    let mut opening = Opening::new(dial.protocol, dial.me, dial.name, wish);
    let extensions = loop {
        let reply = talk.reply(until).await;
        let reply = reply.map_err(|lost| Refused::Mail(lost.status(opening.stage())))?;
        let bytes = match opening.reply(&reply).map_err(Refused::Mail)? {
            Next::Ready(extensions) => break extensions,
            Next::Send(bytes) => bytes,
            Next::StartTls => {
                talk = talk.secure(dial, until).await?;
                opening.secured()
            }
        };
        let sent = talk.send(bytes.as_bytes(), until).await;
        sent.map_err(|lost| Refused::Mail(lost.status(opening.stage())))?;
    };
    Ok((talk, extensions))
}

/// Why a session did not come about.
enum Refused {
    Mail(Status),
    Tls(Status),
}

impl Refused {
    fn status(self) -> Status {
        match self {
            Self::Mail(status) | Self::Tls(status) => status,
        }
    }
}

fn unreachable(name: &str, error: &io::Error) -> Refused {
    let text = match error.kind() {
        io::ErrorKind::TimedOut => format!("cannot connect to {name} in time"),
        _ => format!("cannot connect to {name}: {error}"),
    };
    Refused::Mail(Status::new(451, EnhancedCode::new(4, 4, 1), text))
}

/// A connection whose session begins.
struct Talk<'a> {
    stream: Stream,
    replies: Replies,
    name: &'a str,
}

impl<'a> Talk<'a> {
    fn borrowed(&mut self) -> TalkMut<'_> {
        TalkMut {
            stream: &mut self.stream,
            replies: &mut self.replies,
            name: self.name,
        }
    }

    async fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), Lost> {
        self.borrowed().send(bytes, until).await
    }

    async fn reply(&mut self, until: Instant) -> Result<Reply, Lost> {
        self.borrowed().reply(until).await
    }

    /// Negotiates TLS.
    async fn secure(self, dial: &Dial<'_>, until: Instant) -> Result<Self, Refused> {
        let failed = |cause: String| {
            let text = format!("cannot use TLS with {}: {cause}", self.name);
            Refused::Tls(Status::new(451, EnhancedCode::new(4, 7, 5), text))
        };
        // What was sent before TLS must not be taken for what is said under it (RFC 3207
        // section 6).
        if !self.replies.is_empty() {
            return Err(failed("it talks before the handshake".to_owned()));
        }
        let (Place::Inet(host, _), Stream::Tcp(stream)) = (dial.place, self.stream) else {
            return Err(failed("it is not on TCP".to_owned()));
        };
        let Some(connector) = dial.tls.connector() else {
            return Err(failed("it is not set up".to_owned()));
        };
        let host = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
        let stream = match timeout_at(until, connector.connect(host, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("the handshake took too long".to_owned())),
        };
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            replies: Replies::default(),
            name: self.name,
        })
    }
}

/// A connection in use.
struct TalkMut<'a> {
    stream: &'a mut Stream,
    replies: &'a mut Replies,
    name: &'a str,
}

impl TalkMut<'_> {
    fn silent(&self) -> Lost {
        Lost::Timeout(self.name.to_owned())
    }

    fn garbage(&self, garbage: Garbage) -> Lost {
        Lost::Garbage(self.name.to_owned(), garbage)
    }

    fn broken(&self, error: io::Error) -> Lost {
        Lost::Broken(self.name.to_owned(), error)
    }

    async fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), Lost> {
        let written = async {
            self.stream.write_all(bytes).await?;
            // TLS holds bytes back.
            self.stream.flush().await
        };
        match timeout_at(until, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn reply(&mut self, until: Instant) -> Result<Reply, Lost> {
        loop {
            match self.replies.next() {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(garbage) => return Err(self.garbage(garbage)),
            }
            let mut bytes = [0; READ_BYTES];
            match timeout_at(until, self.stream.read(&mut bytes)).await {
                Ok(Ok(0)) => return Err(Lost::Closed(self.name.to_owned())),
                Ok(Ok(count)) => self.replies.push(bytes.get(..count).unwrap_or_default()),
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => return Err(self.silent()),
            }
        }
    }

    /// Sends the message.
    ///
    /// # Errors
    /// The reply for the recipients when it cannot be sent completely.
    async fn content(
        &mut self,
        transaction: &mut Transaction<'_>,
        outgoing: &Outgoing,
        limits: Limits,
    ) -> Result<Result<(), Lost>, Status> {
        let mut pieces = outgoing.pieces();
        loop {
            let piece = match pieces.next() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => return Err(unreadable(&error)),
            };
            if let Err(lost) = self.send(piece, limits.command()).await {
                // A server may refuse in the middle and hang up.
                let until = limits.deadline.min(Instant::now() + LAST_WORDS);
                if matches!(lost, Lost::Broken(..))
                    && let Ok(reply) = self.reply(until).await
                    && reply.is_refusal()
                {
                    return Err(refused(&reply, self.name, "the message"));
                }
                return Ok(Err(lost));
            }
        }
        transaction.ends_content();
        Ok(Ok(()))
    }
}

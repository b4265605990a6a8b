//! The two directions of one connection, with their time limits.
//!
//! Imports `input`, `buffers`, `drain`. Invariants: between transactions, while nothing is unused,
//! a connection holds no buffers; no wait is longer than the idle timeout; a client that
//! sends a byte now and then to stay alive is cut like a silent one. Source for what the close of
//! a connection says: unix(7) and RFC 9293 section 3.10.4, by which one that is closed over unread
//! bytes is reset.

use crate::buffers::{Buffers, Pool};
use crate::drain::DrainListener;
use crate::input::Input;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Replies are sent at the latest when so many bytes wait.
pub(super) const OUT_BYTES_MAX: usize = 16 * 1024;

/// How long a refused client may go on sending before its connection is closed under it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that said QUIT before it was answered may take to read and to close.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Most that is taken in with one [`look`](Wire::look), in bytes, unless the buffer is larger.
const LOOK_BYTES: usize = 4096;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Gone {
    /// The client closed it.
    Closed,
    /// The client sent nothing, or too slowly.
    Silent,
    /// The client does not read its replies.
    Deaf,
    /// The system says it is broken.
    Broken(io::Error),
    /// We end it: QUIT, or a final 421 was written.
    Ended,
}

/// What waiting for bytes brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// So many more bytes are in the input.
    Bytes(usize),
    /// The server is to come to an end.
    Drain,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    /// Bytes received and not yet used.
    pub(super) input: Input,
    /// Replies not yet sent.
    pub(super) out: Vec<u8>,
    timer: Timer,
    /// The client did something since the timer started: it starts anew with this length before
    /// the next wait. To ask the clock for every command would be too much.
    alive: Option<Duration>,
    /// A look found that the client has closed its side.
    is_half_closed: bool,
    pool: Pool,
    drain: DrainListener,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, idle_timeout: Duration, pool: Pool, drain: DrainListener) -> Self {
        Self {
            stream,
            input: Input::default(),
            out: Vec::new(),
            timer: Timer::new(idle_timeout),
            alive: None,
            is_half_closed: false,
            pool,
            drain,
        }
    }

    /// The client did something: the idle timeout starts anew, now with this length.
    pub(super) fn is_alive(&mut self, idle_timeout: Duration) {
        self.alive = Some(idle_timeout);
    }

    /// Waits for more bytes, in a buffer of about `target` bytes; first sends what is to be
    /// sent. With `until_drain`, the order to drain ends the wait.
    pub(super) async fn fill(&mut self, target: usize, until_drain: bool) -> Result<Arrival, Gone> {
        self.flush().await?;
        poll_fn(|context| self.poll_fill(context, target, until_drain)).await
    }

    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        target: usize,
        until_drain: bool,
    ) -> Poll<Result<Arrival, Gone>> {
        if let Poll::Ready(read) = self.poll_read(context, target) {
            return Poll::Ready(read.map(Arrival::Bytes));
        }
        if until_drain {
            if self.drain.poll(context).is_ready() {
                return Poll::Ready(Ok(Arrival::Drain));
            }
            if let Some(input) = self.input.release() {
                let out = std::mem::take(&mut self.out);
                self.pool.put(Buffers { input, out });
            }
        }
        if let Some(timeout) = self.alive.take() {
            self.timer.restart(timeout);
        }
        ready!(self.timer.poll(context));
        Poll::Ready(Err(Gone::Silent))
    }

    fn poll_read(&mut self, context: &mut Context<'_>, target: usize) -> Poll<Result<usize, Gone>> {
        if !self.input.has_buffer() {
            let Buffers { input, out } = self.pool.take();
            self.input.use_buffer(input);
            self.out = out;
        }
        let mut buffer = ReadBuf::new(self.input.room(target));
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
        let count = buffer.filled().len();
        self.input.received(count);
        Poll::Ready(match (read, count) {
            (Err(error), _) => Err(Gone::Broken(error)),
            (Ok(()), 0) => Err(Gone::Closed),
            (Ok(()), count) => Ok(count),
        })
    }

    /// Takes in what the client has sent by now, so that what it sends later can be told from it.
    /// Waits for nothing, and asks the system only when it has announced something.
    pub(super) async fn look(&mut self) {
        let read = |context: &mut Context<'_>| Poll::Ready(self.poll_read(context, LOOK_BYTES));
        if let Poll::Ready(Err(_)) = poll_fn(read).await {
            // Whoever reads or writes next learns of it.
            self.is_half_closed = true;
        }
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut sent = 0;
        let mut waited = false;
        let result = poll_fn(|context| {
            loop {
                let rest = self.out.get(sent..).unwrap_or_default();
                if rest.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                match Pin::new(&mut self.stream).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Gone::Closed)),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Gone::Broken(error))),
                    Poll::Pending => {
                        if !std::mem::replace(&mut waited, true) {
                            let timeout = self.alive.take().unwrap_or(self.timer.timeout);
                            self.timer.restart(timeout);
                        }
                        ready!(self.timer.poll(context));
                        return Poll::Ready(Err(Gone::Deaf));
                    }
                }
            }
        })
        .await;
        self.out.clear();
        result
    }

    /// Sends `last` and closes. Bytes the client is still sending are thrown away for a moment:
    /// closing over them could destroy the reply on its way (RFC 9293 section 3.10.4).
    pub(super) async fn end(&mut self, last: &crate::reply::Reply) -> Gone {
        last.write(&mut self.out);
        if let Err(gone) = self.flush().await {
            return gone;
        }
        if self.shut().await {
            // Out of time means it was closed on a client that does not stop: nothing more to do.
            let _ = tokio::time::timeout(LINGER, self.throw_away(false)).await;
        }
        Gone::Ended
    }

    /// Closes our side after everything was sent, and waits for the client to close its own. True
    /// when it did so in good order, which the system lets it do only if it has read everything.
    pub(super) async fn was_read(&mut self) -> bool {
        if !self.shut().await || self.is_half_closed {
            return false;
        }
        let closed = tokio::time::timeout(CLOSE_WAIT, self.throw_away(true)).await;
        let closed = match closed {
            Ok(None) => tokio::time::timeout(LINGER, self.throw_away(false)).await,
            closed => closed,
        };
        matches!(closed, Ok(Some(Gone::Closed)))
    }

    /// Closes our side.
    async fn shut(&mut self) -> bool {
        let shut = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context));
        shut.await.is_ok()
    }

    /// Throws away what the client still sends, until the connection is over; `None` when that is
    /// broken off, with `until_drain`, by the order to drain.
    async fn throw_away(&mut self, until_drain: bool) -> Option<Gone> {
        loop {
            let all = self.input.unused().len();
            self.input.consume(all);
            let read = poll_fn(|context| self.poll_fill(context, LOOK_BYTES, until_drain));
            match read.await {
                Ok(Arrival::Bytes(_)) => {}
                Ok(Arrival::Drain) => return None,
                Err(gone) => return Some(gone),
            }
        }
    }

    /// Whether the server is to come to an end.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_ordered()
    }
}

/// A timer for the life of a connection. It is moved only when it goes off, not whenever it
/// starts anew, which is thousands of times more often.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
    timeout: Duration,
}

impl Timer {
    /// Goes off after `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        let due = Instant::now() + timeout;
        Self {
            sleep: Box::pin(sleep_until(due)),
            due,
            timeout,
        }
    }

    /// Starts anew.
    pub(super) fn restart(&mut self, timeout: Duration) {
        self.due = Instant::now() + timeout;
        if timeout < self.timeout {
            self.sleep.as_mut().reset(self.due);
        }
        self.timeout = timeout;
    }

    /// Ready once it went off.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(context));
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.due);
        }
    }
}

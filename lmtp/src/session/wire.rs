//! The two directions of one connection, with their time limits.
//!
//! Imports `input`, `buffers`, `drain`. Invariants: between transactions, while nothing is unused,
//! a connection holds no buffers; no wait is longer than the idle timeout; a client that
//! sends a byte now and then to stay alive is cut like a silent one.

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
        if !self.input.has_buffer() {
            let Buffers { input, out } = self.pool.take();
            self.input.use_buffer(input);
            self.out = out;
        }
        let mut buffer = ReadBuf::new(self.input.room(target));
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.input.received(count);
                return Poll::Ready(match count {
                    0 => Err(Gone::Closed),
                    _ => Ok(Arrival::Bytes(count)),
                });
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Gone::Broken(error))),
            Poll::Pending => {}
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
        let shut = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context));
        if shut.await.is_err() {
            return Gone::Ended;
        }
        let throw_away = async {
            loop {
                let all = self.input.unused().len();
                self.input.consume(all);
                let read = poll_fn(|context| self.poll_fill(context, 4096, false));
                if read.await.is_err() {
                    return;
                }
            }
        };
        // Out of time means it was closed on a client that does not stop: nothing more to do.
        let _ = tokio::time::timeout(LINGER, throw_away).await;
        Gone::Ended
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

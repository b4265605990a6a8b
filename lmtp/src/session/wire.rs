//! The two directions of one connection, with their time limits.
//!
//! Invariants: between transactions, while nothing is unused, a connection holds no buffers; no
//! wait is longer than the idle timeout; a client that sends a byte now and then to stay alive is
//! cut like a silent one; once the server is to end, no wait for a client is longer than a moment.

use crate::buffers::{Buffers, Pool};
use crate::client_socket::{ClientSocket, Reading};
use crate::drain::DrainListener;
use crate::input::Input;
use mailstow_engine::config::LmtpSettings;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep_until};

/// Replies are sent at the latest when so many bytes wait.
pub(super) const OUT_BYTES_MAX: usize = 16 * 1024;

/// How long a refused client may go on sending before its connection is closed under it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that closed its side, or said QUIT, may take to read the rest.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How long a client may be silent in the middle of a message, or leave a reply unread, once the
/// server is to end.
const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// How long a client that waits for nothing may take to read, or its system to acknowledge, the
/// last replies before more is sent.
const READING_WAIT: Duration = Duration::from_millis(200);

/// How far apart the system is asked whether a client has read its replies: doubled from the first
/// to the last.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(10);

/// Most that is taken in with one [`look`](Wire::look), in bytes, unless the buffer is larger.
const LOOK_BYTES: usize = 4096;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Closed {
    /// The client closed it.
    ByClient,
    /// The client sent nothing, or too slowly.
    IdleTimeout,
    /// The client does not read its replies.
    WriteTimeout,
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

/// What a wait for bytes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The next transaction. Ends when the server is to end; buffers are given back meanwhile.
    Transaction,
    /// A command of a transaction. Ends when the server is to end.
    Command,
    /// The rest of a message. Goes on for a while when the server is to end.
    Content,
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
    /// The client has closed its side.
    is_closed: bool,
    /// It did so before everything had been sent to it.
    was_closed_early: bool,
    /// Reading or writing failed, or nothing could be sent any more.
    is_broken: bool,
    pool: Pool,
    drain: DrainListener,
    /// How long messages may still be received once the server is to end.
    drain_limit: Duration,
    /// Until when; known once it is to end.
    drain_until: Option<Instant>,
}

impl<S: ClientSocket> Wire<S> {
    pub(super) fn new(
        stream: S,
        settings: &LmtpSettings,
        pool: Pool,
        drain: DrainListener,
    ) -> Self {
        Self {
            stream,
            input: Input::default(),
            out: Vec::new(),
            timer: Timer::new(settings.idle_timeout),
            alive: None,
            is_closed: false,
            was_closed_early: false,
            is_broken: false,
            pool,
            drain,
            // Deliveries need the rest of the time.
            drain_limit: settings.drain_timeout / 2,
            drain_until: None,
        }
    }

    /// The client did something: the idle timeout starts anew, now with this length.
    pub(super) fn is_alive(&mut self, idle_timeout: Duration) {
        self.alive = Some(idle_timeout);
    }

    /// Waits for more bytes, in a buffer of about `target` bytes; first sends what is to be sent.
    pub(super) async fn fill(&mut self, target: usize, wait: Wait) -> Result<Arrival, Closed> {
        self.flush().await?;
        poll_fn(|context| self.poll_fill(context, target, wait)).await
    }

    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        target: usize,
        wait: Wait,
    ) -> Poll<Result<Arrival, Closed>> {
        if let Poll::Ready(read) = self.poll_read(context, target) {
            return Poll::Ready(read.map(Arrival::Bytes));
        }
        if self.drain.poll(context).is_ready() {
            if wait != Wait::Content {
                return Poll::Ready(Ok(Arrival::Drain));
            }
            self.hurry();
        }
        if wait == Wait::Transaction
            && let Some(input) = self.input.release()
        {
            let out = std::mem::take(&mut self.out);
            self.pool.put(Buffers { input, out });
        }
        if let Some(timeout) = self.alive.take() {
            self.timer.restart(self.at_most(timeout));
        }
        ready!(self.timer.poll(context));
        Poll::Ready(match self.drain_until {
            Some(_) => Ok(Arrival::Drain),
            None => Err(Closed::IdleTimeout),
        })
    }

    /// The server is to end: the client may only take so long from now on.
    fn hurry(&mut self) {
        if self.drain_until.is_none() {
            self.drain_until = Some(Instant::now() + self.drain_limit);
            self.alive = Some(self.timer.timeout);
        }
    }

    /// As long as `timeout`, or as short as the end of the server asks for.
    fn at_most(&self, timeout: Duration) -> Duration {
        let left = self
            .drain_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(timeout, |left| timeout.min(DRAIN_SILENCE).min(left))
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        target: usize,
    ) -> Poll<Result<usize, Closed>> {
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
            (Err(error), _) => {
                self.is_broken = true;
                Err(Closed::Broken(error))
            }
            (Ok(()), 0) => {
                self.is_closed = true;
                Err(Closed::ByClient)
            }
            (Ok(()), count) => Ok(count),
        })
    }

    /// Takes in what the client has sent by now, so that later commands can be distinguished from
    /// it. Waits for nothing, and asks the system only when it has announced something.
    pub(super) async fn look(&mut self) {
        let read = |context: &mut Context<'_>| Poll::Ready(self.poll_read(context, LOOK_BYTES));
        if let Poll::Ready(Err(_)) = poll_fn(read).await {
            // The next read or write reports it.
            self.was_closed_early = true;
        }
    }

    /// Returns true if it is known that the client reads nothing that is sent from now on.
    pub(super) fn is_gone(&self) -> bool {
        self.is_closed || self.stream.is_gone()
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut sent = 0;
        let (mut waited, mut hurried) = (false, false);
        let result = poll_fn(|context| {
            loop {
                let rest = self.out.get(sent..).unwrap_or_default();
                if rest.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                match Pin::new(&mut self.stream).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Closed::ByClient)),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Closed::Broken(error))),
                    Poll::Pending => {
                        let is_draining = self.drain.poll(context).is_ready();
                        if !waited || is_draining && !hurried {
                            (waited, hurried) = (true, is_draining);
                            let timeout = self.alive.take().unwrap_or(self.timer.timeout);
                            self.timer.restart(match is_draining {
                                true => timeout.min(DRAIN_SILENCE),
                                false => timeout,
                            });
                        }
                        ready!(self.timer.poll(context));
                        return Poll::Ready(Err(Closed::WriteTimeout));
                    }
                }
            }
        })
        .await;
        self.is_broken |= result.is_err();
        self.out.clear();
        result
    }

    /// Sends `last` and closes. Bytes the client is still sending are thrown away for a moment:
    /// closing over them could destroy the reply on its way (RFC 9293 section 3.10.4).
    pub(super) async fn end(&mut self, last: &crate::reply::Reply) -> Closed {
        last.write(&mut self.out);
        if let Err(gone) = self.flush().await {
            return gone;
        }
        if self.shut().await {
            let thrown_away = poll_fn(|context| self.poll_throw_away(context));
            // Out of time means it is closed on a client that does not stop: nothing more to do.
            let _ = tokio::time::timeout(LINGER, thrown_away).await;
        }
        Closed::Ended
    }

    /// Whether the client's system has all that was sent to it; of a UNIX-domain socket, whether
    /// the client has read it. For every message, hence no more than one system call.
    pub(super) fn is_delivered(&self) -> bool {
        self.stream.is_delivered()
    }

    /// Whether it is known, or becomes known within a moment, that the client has read all that was
    /// sent to it.
    pub(super) async fn is_read(&mut self) -> bool {
        let mut limit = Timer::new(READING_WAIT);
        self.reading(&mut limit).await == Reading::Read
    }

    /// Whether it is known that the client has not read all that was sent to it.
    pub(super) fn is_unread(&self) -> bool {
        self.is_broken || self.stream.reading() == Reading::Unread
    }

    /// Whether the client has read all that was sent to it, as far as that shows before it has
    /// closed the connection, or a while after it closed its side. Where the system cannot tell
    /// what the client has read, an orderly close by a client that had received everything
    /// shows that it has: a socket that is closed over unread bytes breaks the connection.
    pub(super) async fn was_read(&mut self) -> bool {
        let mut limit = Timer::new(CLOSE_WAIT);
        match self.reading(&mut limit).await {
            Reading::Read => true,
            Reading::Unread => false,
            Reading::Unknown => self.closes_in_order(limit).await,
        }
    }

    /// What is known of the client's reading when it is not unread any more, or out of time.
    async fn reading(&mut self, limit: &mut Timer) -> Reading {
        let mut interval = LOOK_INTERVAL;
        let mut hurried = false;
        loop {
            // A read does not tell it of a connection whose end has come before it broke.
            self.is_broken |= self.stream.is_broken();
            if self.is_broken {
                return Reading::Unread;
            }
            match self.stream.reading() {
                // It closed its side before it had received everything.
                Reading::Unread => self.was_closed_early |= self.is_closed,
                known => return known,
            }
            // Our side stays open: the system knows no more of a connection closed on both.
            let out_of_time = poll_fn(|context| {
                if !hurried && self.drain.poll(context).is_ready() {
                    hurried = true;
                    limit.shorten(LINGER);
                }
                limit.poll(context)
            });
            tokio::select! {
                () = self.stream.broken() => self.is_broken = true,
                () = out_of_time => return Reading::Unread,
                () = tokio::time::sleep(interval) => {}
            }
            interval = LOOK_INTERVAL_MAX.min(interval * 2);
        }
    }

    /// Closes our side and waits for the client to close its own. True when it does so after it
    /// has received everything.
    async fn closes_in_order(&mut self, mut limit: Timer) -> bool {
        if self.was_closed_early {
            return false;
        }
        if self.is_closed {
            return true;
        }
        if !self.shut().await {
            return false;
        }
        let mut hurried = false;
        poll_fn(|context| {
            if !hurried && self.drain.poll(context).is_ready() {
                hurried = true;
                limit.shorten(LINGER);
            }
            match self.poll_throw_away(context) {
                Poll::Ready(gone) => Poll::Ready(matches!(gone, Closed::ByClient)),
                Poll::Pending => limit.poll(context).map(|()| false),
            }
        })
        .await
    }

    /// Closes our side.
    async fn shut(&mut self) -> bool {
        let shut = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context));
        shut.await.is_ok()
    }

    /// Throws away what the client still sends, until the connection is over.
    fn poll_throw_away(&mut self, context: &mut Context<'_>) -> Poll<Closed> {
        loop {
            let all = self.input.unused().len();
            self.input.consume(all);
            if let Err(gone) = ready!(self.poll_read(context, LOOK_BYTES)) {
                return Poll::Ready(gone);
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

    /// Goes off after `timeout`, or earlier.
    fn shorten(&mut self, timeout: Duration) {
        if self.due > Instant::now() + timeout {
            self.restart(timeout);
        }
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

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

//! Receiving a message: `DATA` and `BDAT`.
//!
//! Whatever is wrong with a message, all of it is read, and every
//! accepted recipient gets its reply: a client that counts replies never falls out of step.
//! Sources: RFC 2033 sections 4.2 and 4.3, RFC 3030.

use super::body::Body;
use super::state::Chunks;
use super::transaction::Transaction;
use super::wire::{Arrival, Closed, Wait};
use super::{CLOSING, COMMAND_BYTES, Session};
use crate::client_socket::ClientSocket;
use crate::command::Body as BodyKind;
use crate::decode::DataDecoder;
use crate::reply::{Reply, write_status};
use crate::shared::Shared;
use mailstow_engine::LineEnds;
use std::sync::Arc;

/// Buffer for a message of unknown size, in bytes.
const CONTENT_BYTES: usize = 16 * 1024;

/// Largest buffer, in bytes.
const CONTENT_BYTES_MAX: usize = 64 * 1024;

/// The same for a long message, of which few come at a time: so many bytes are worth a few
/// system calls less.
const LONG_CONTENT_BYTES_MAX: usize = 256 * 1024;

/// A message is long from here on, in bytes.
const LONG_BYTES: usize = 1 << 20;

/// A client that sends fewer bytes than this within the idle timeout is cut.
const PROGRESS_BYTES: usize = 512;

/// How the next read of a message is to be done.
#[derive(Debug)]
struct Pace {
    target: usize,
    progress: usize,
    received: usize,
}

impl Pace {
    /// For a message of about `size` bytes.
    fn new(size: Option<u64>) -> Self {
        let target = match size.map(usize::try_from) {
            // Line ends, stuffed dots and the final dot come on top.
            Some(Ok(size)) => size.saturating_add(size / 16 + 512),
            _ => CONTENT_BYTES,
        };
        Self {
            target: target.clamp(COMMAND_BYTES, CONTENT_BYTES_MAX),
            progress: 0,
            received: 0,
        }
    }
}

impl<S: ClientSocket> Session<S> {
    /// `DATA`
    pub(super) async fn data(&mut self) -> Result<(), Closed> {
        let Some(transaction) = self.state.transaction() else {
            self.reply(503, "5.5.1", "MAIL needed first");
            return Ok(());
        };
        if transaction.accepted.is_empty() {
            // The client may have pipelined DATA after recipients that were all refused: it
            // must be able to go on with the next message (RFC 2033 section 4.2).
            self.reset();
            self.reply(503, "5.5.1", "No valid recipients");
            return Ok(());
        }
        if self.state.is_between_chunks() {
            self.reply(503, "5.5.1", "DATA is not allowed after BDAT");
            return Ok(());
        }
        if transaction.mail.body == BodyKind::BinaryMime {
            self.reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT");
            return Ok(());
        }
        let size = transaction.mail.size;
        let body = Body::new(self.shared.engine.new_message(), &transaction.settings);
        if !self.await_room().await? {
            self.reset();
            self.reply(451, "4.3.2", "Too many deliveries are waiting");
            return Ok(());
        }
        self.reply(354, "", "OK");
        let body = self.receive_data(body, size).await?;
        self.conclude(body).await
    }

    /// Waits until the engine has room for another delivery; false when it takes too long, or the
    /// server is to end.
    async fn await_room(&mut self) -> Result<bool, Closed> {
        let shared = Arc::clone(&self.shared);
        let engine = &shared.engine;
        if engine.has_capacity() {
            return Ok(true);
        }
        self.wire.flush().await?;
        let room = std::future::poll_fn(|context| engine.poll_capacity(context));
        let limit = self.settings.lmtp.delivery_deadline;
        Ok(tokio::select! {
            in_time = tokio::time::timeout(limit, room) => in_time.is_ok(),
            () = shared.drain.cancelled() => false,
        })
    }

    async fn receive_data(&mut self, mut body: Body, size: Option<u64>) -> Result<Body, Closed> {
        let mut decoder = DataDecoder::default();
        let mut pace = Pace::new(size);
        loop {
            let bytes = self.wire.input.unused_mut();
            let decoded = decoder.decode(bytes);
            let piece = bytes.get(..decoded.produced).unwrap_or_default();
            body.write_content(decoded.cr_first, piece, decoder.lines());
            self.wire.input.consume(decoded.consumed);
            receive_in_place(&self.shared, self.state.transaction(), &mut body);
            if decoded.finished {
                return Ok(body);
            }
            self.more_content(&mut pace).await?;
        }
    }

    /// Waits for more of a message.
    async fn more_content(&mut self, pace: &mut Pace) -> Result<(), Closed> {
        let count = match self.wire.fill(pace.target, Wait::Content).await? {
            Arrival::Bytes(count) => count,
            Arrival::Drain => return Err(self.wire.end(&CLOSING).await),
        };
        self.client_goes_on();
        if count + 2 >= pace.target {
            pace.target = match pace.received > LONG_BYTES {
                true => LONG_CONTENT_BYTES_MAX,
                false => CONTENT_BYTES_MAX,
            };
        }
        pace.received = pace.received.saturating_add(count);
        pace.progress += count;
        if pace.progress >= PROGRESS_BYTES {
            pace.progress = 0;
            self.wire.is_alive(self.settings.lmtp.idle_timeout);
        }
        Ok(())
    }

    /// `BDAT octets [LAST]`. The octets are read in every case.
    pub(super) async fn bdat(&mut self, octets: u64, last: bool) -> Result<(), Closed> {
        let Some(transaction) = self.state.transaction() else {
            self.receive_chunk(octets, None).await?;
            self.reply(503, "5.5.1", "MAIL needed first");
            return Ok(());
        };
        let has_recipients = !transaction.accepted.is_empty();
        let mut chunks = match self.state.take_chunks() {
            Some(chunks) => chunks,
            None if has_recipients && !self.await_room().await? => {
                return self.refuse_first_chunk(octets, last).await;
            }
            None => self.first_chunk(),
        };
        self.receive_chunk(octets, Some(&mut chunks)).await?;
        if last {
            if chunks.line_ends.finish()
                && let Some(body) = &mut chunks.body
            {
                body.write(b"\r", chunks.line_ends.lines());
            }
            return match chunks.body {
                Some(body) => self.conclude(body).await,
                None => {
                    // One reply for each accepted recipient: none (RFC 2033 section 4.3).
                    self.reset();
                    Ok(())
                }
            };
        }
        match &chunks.body {
            None => self.reply(503, "5.5.1", "No valid recipients"),
            Some(body) => match body.refusal() {
                Some(status) => write_status(&mut self.wire.out, status, &[], false),
                None => {
                    let text = format!("{octets} octets received");
                    Reply::with_text(250, "2.0.0", text).write(&mut self.wire.out);
                }
            },
        }
        self.state.put_chunks(chunks);
        Ok(())
    }

    fn first_chunk(&self) -> Box<Chunks> {
        let wanted = |t: &&Transaction| !t.accepted.is_empty();
        let transaction = self.state.transaction().filter(wanted);
        let body = transaction.map(|transaction| {
            let mut builder = self.shared.engine.new_message();
            if transaction.mail.body == BodyKind::BinaryMime {
                builder = builder.binary();
            }
            Body::new(builder, &transaction.settings)
        });
        Box::new(Chunks {
            body,
            line_ends: LineEnds::default(),
        })
    }

    /// The engine has no room for the message: the whole of it is refused for now.
    async fn refuse_first_chunk(&mut self, octets: u64, last: bool) -> Result<(), Closed> {
        let mut chunks = self.first_chunk();
        if let Some(body) = &mut chunks.body {
            let text = "Too many deliveries are waiting";
            let enhanced = mailstow_engine::EnhancedCode::new(4, 3, 2);
            body.refuse(mailstow_engine::Status::new(451, enhanced, text));
        }
        self.state.put_chunks(chunks);
        Box::pin(self.bdat(octets, last)).await
    }

    /// Reads `octets` into `chunks`, or past them.
    async fn receive_chunk(
        &mut self,
        octets: u64,
        mut chunks: Option<&mut Chunks>,
    ) -> Result<(), Closed> {
        let mut left = octets;
        let mut pace = Pace::new(Some(octets));
        while left > 0 {
            if self.wire.input.is_empty() {
                self.more_content(&mut pace).await?;
            }
            let unused = self.wire.input.unused_mut();
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let count = most.min(unused.len());
            let piece = unused.get_mut(..count).unwrap_or_default();
            if let Some(Chunks {
                body: Some(body),
                line_ends,
            }) = chunks.as_deref_mut()
            {
                let converted = line_ends.convert(piece);
                let piece = piece.get(..converted.produced).unwrap_or_default();
                body.write_content(converted.cr_first, piece, line_ends.lines());
                receive_in_place(&self.shared, self.state.transaction(), body);
            }
            self.wire.input.consume(count);
            left -= count as u64;
        }
        Ok(())
    }
}

/// Receives a long message for one mailbox in place.
fn receive_in_place(shared: &Shared, transaction: Option<&Transaction>, body: &mut Body) {
    let engine = &shared.engine;
    let may = |size| engine.may_receive_in_place(size);
    body.receive_in_place(may, |message| {
        let transaction = transaction?;
        let (recipients, target) = transaction.only_mailbox()?;
        let reverse_path = &transaction.mail.reverse_path;
        let slots = &shared.in_place_slots;
        slots.receive(engine, message, reverse_path, (&recipients, target))
    });
}

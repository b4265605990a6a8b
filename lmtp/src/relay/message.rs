//! A message that is sent on: its trace field and its content, encoded once for all servers.

use super::content::{Encoder, HOPS_MAX, TraceFields};
use mailstow_engine::{EnhancedCode, Mail, Status};
use std::io;
use std::sync::{Arc, OnceLock};

/// Bytes that are read and sent at once.
const PIECE_BYTES: usize = 128 * 1024;

/// A message.
#[derive(Debug)]
pub(super) struct Outgoing {
    mail: Arc<Mail>,
    trace: String,
    /// The whole of it as it is sent, for a message that is in memory.
    encoded: OnceLock<Vec<u8>>,
}

impl Outgoing {
    /// A message that goes on from `host`, which got it over `protocol`.
    ///
    /// # Errors
    /// It goes round in circles, or it cannot be read.
    pub(super) fn new(mail: Arc<Mail>, host: &str, protocol: &str) -> Result<Self, Status> {
        let fields = TraceFields::of(&mail.message).map_err(|error| unreadable(&error))?;
        if fields.hops >= HOPS_MAX {
            let text = format!("Mail loop: the message has {} Received fields", fields.hops);
            return Err(Status::new(554, EnhancedCode::new(5, 4, 6), text));
        }
        let trace = fields.trace(host, protocol, mail.queue_id.as_deref());
        Ok(Self {
            mail,
            trace,
            encoded: OnceLock::new(),
        })
    }

    /// Returns the message.
    pub(super) fn mail(&self) -> &Mail {
        &self.mail
    }

    /// Returns its bytes as it is sent, but for doubled dots.
    pub(super) fn wire_size(&self) -> u64 {
        let lines = self.trace.matches('\n').count();
        self.mail.message.wire_size() + (self.trace.len() + lines) as u64
    }

    /// Returns it from the beginning, in pieces.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        Pieces {
            outgoing: self,
            encoder: Some(Encoder::new()),
            offset: 0,
            buffer: Vec::new(),
            read: Vec::new(),
        }
    }

    fn whole(&self, content: &[u8]) -> &[u8] {
        self.encoded.get_or_init(|| {
            let mut out = Vec::with_capacity(content.len() + content.len() / 32 + 512);
            let mut encoder = Encoder::new();
            encoder.encode(self.trace.as_bytes(), &mut out);
            encoder.encode(content, &mut out);
            encoder.finish(&mut out);
            out
        })
    }
}

/// The reply for a message that cannot be read.
pub(super) fn unreadable(error: &io::Error) -> Status {
    tracing::error!("a message that is kept in a file cannot be read: {error}");
    Status::system("the message cannot be read")
}

/// A message in pieces, the last of which ends it.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    outgoing: &'a Outgoing,
    /// `None` once the last piece was returned.
    encoder: Option<Encoder>,
    offset: u64,
    buffer: Vec<u8>,
    read: Vec<u8>,
}

impl Pieces<'_> {
    /// Returns the next piece; `None` behind the last one.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(None);
        };
        let message = &self.outgoing.mail.message;
        if let Some(content) = message.in_memory() {
            return Ok(Some(self.outgoing.whole(content)));
        }
        self.buffer.clear();
        if self.offset == 0 {
            encoder.encode(self.outgoing.trace.as_bytes(), &mut self.buffer);
        }
        let left = message.size() - self.offset;
        let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        self.read.resize(length, 0);
        message.read_exact_at(&mut self.read, self.offset)?;
        self.offset += length as u64;
        encoder.encode(&self.read, &mut self.buffer);
        if self.offset >= message.size() {
            encoder.finish(&mut self.buffer);
        } else {
            self.encoder = Some(encoder);
        }
        Ok(Some(&self.buffer))
    }
}

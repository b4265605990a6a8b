//! The content of a message, as it arrives: from memory, an iovec, a descriptor, or piece by piece.
//!
//! The engine converts line ends, so that both LF and CRLF are accepted. Faulty content may be
//! written to its end; the outcome of the delivery reports the error.

use crate::dots::Dots;
use crate::failure::Failure;
use crate::result::{MAILSTOW_END, MAILSTOW_INVALID, MAILSTOW_REFUSED};
use crate::source::Source;
use mailstow_engine::{EnhancedCode, LineEnds, Message, MessageBuilder, Status};
use std::io;
use std::os::fd::BorrowedFd;

/// The size of the pieces in which content is taken, in bytes; each is copied once.
const PIECE_BYTES: usize = 64 * 1024;

/// The content of a message.
#[derive(Debug)]
pub(crate) struct Content {
    builder: Result<MessageBuilder, Status>,
    dots: Option<Dots>,
    line_ends: LineEnds,
    /// The last byte was a CR, which the line ends may hold.
    after_cr: bool,
    size: u64,
    /// Most bytes; 0 means no limit.
    size_max: u64,
    has_begun: bool,
    has_ended: bool,
    piece: Vec<u8>,
}

impl Content {
    pub(crate) fn new(builder: MessageBuilder, size_max: u64) -> Self {
        Self {
            builder: Ok(builder),
            dots: None,
            line_ends: LineEnds::default(),
            after_cr: false,
            size: 0,
            size_max,
            has_begun: false,
            has_ended: false,
            piece: Vec::new(),
        }
    }

    /// Sets the form of the content, before its first bytes.
    pub(crate) fn set_dots(&mut self, dots: Option<Dots>) -> Result<(), Failure> {
        if self.has_begun {
            let text = "content was taken already; set its form before";
            return Err(Failure::new(MAILSTOW_INVALID, text));
        }
        self.dots = dots;
        Ok(())
    }

    /// Takes the next bytes. Returns how many: all, unless the content ends before.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> (usize, Result<(), Failure>) {
        self.has_begun = true;
        let mut taken = 0;
        while !self.has_ended
            && let Some(rest) = bytes.get(taken..)
            && !rest.is_empty()
        {
            let rest = rest.get(..PIECE_BYTES).unwrap_or(rest);
            taken += self.take(rest);
        }
        let answer = match (&self.builder, self.has_ended) {
            (_, true) => Err(MAILSTOW_END.into()),
            (Err(_), false) => Err(MAILSTOW_REFUSED.into()),
            (Ok(_), false) => Ok(()),
        };
        (taken, answer)
    }

    /// Takes all bytes up to the end of a file or stream, or up to the line that ends the content;
    /// takes none after that line.
    pub(crate) fn read(&mut self, from: BorrowedFd<'_>) -> Result<(), Failure> {
        let mut source = Source::new(from, self.dots.is_some());
        let mut answer = Ok(());
        loop {
            if self.has_ended {
                return Err(MAILSTOW_END.into());
            }
            let left_min = self.dots.as_ref().map_or(usize::MAX, Dots::left_min);
            let seen = match source.next(left_min) {
                Ok([]) => return answer,
                Ok(seen) => seen,
                Err(error) => return Err(self.unreadable(error)),
            };
            let (taken, written) = self.write(seen);
            if let Err(error) = source.take(taken) {
                return Err(self.unreadable(error));
            }
            answer = written;
        }
    }

    fn unreadable(&mut self, error: io::Error) -> Failure {
        let text = format!("cannot read the message: {error}");
        self.refuse(Status::system(text));
        error.into()
    }

    /// Takes one piece; how much of it.
    fn take(&mut self, piece: &[u8]) -> usize {
        let mut taken = piece.len();
        self.piece.clear();
        if let Some(dots) = &mut self.dots {
            let (consumed, ended) = dots.undo(piece, &mut self.piece);
            taken = consumed;
            self.has_ended = ended;
        } else if !self.after_cr && memchr::memchr(b'\r', piece).is_none() {
            // Nothing to convert, the usual case for content from a mail server.
            self.store(piece);
            return taken;
        } else {
            self.piece.extend_from_slice(piece);
        }
        let mut piece = std::mem::take(&mut self.piece);
        self.after_cr = match piece.last() {
            Some(last) => *last == b'\r',
            None => self.after_cr,
        };
        let converted = self.line_ends.convert(&mut piece);
        if converted.cr_first {
            self.store(b"\r");
        }
        self.store(piece.get(..converted.produced).unwrap_or_default());
        self.piece = piece;
        taken
    }

    fn store(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        let Ok(builder) = &mut self.builder else {
            return;
        };
        if self.size_max > 0 && self.size > self.size_max {
            self.refuse(too_large(self.size_max));
        } else if let Err(error) = builder.write(piece) {
            self.refuse(storage(&error));
        }
    }

    fn refuse(&mut self, status: Status) {
        if self.builder.is_ok() {
            self.builder = Err(status);
        }
    }

    /// Returns whether the line that ends the content is missing. Refused content need not be
    /// complete.
    pub(crate) fn is_cut_short(&self) -> bool {
        let needs_end = self.dots.as_ref().is_some_and(Dots::needs_end);
        needs_end && !self.has_ended && self.builder.is_ok()
    }

    /// The content is complete.
    pub(crate) fn finish(mut self) -> Result<Message, Status> {
        if let Some(dots) = &mut self.dots
            && !self.has_ended
        {
            let mut rest = std::mem::take(&mut self.piece);
            rest.clear();
            dots.finish(&mut rest);
            let converted = self.line_ends.convert(&mut rest);
            if converted.cr_first {
                self.store(b"\r");
            }
            self.store(rest.get(..converted.produced).unwrap_or_default());
        }
        if self.line_ends.finish() {
            self.store(b"\r");
        }
        self.builder?.finish().map_err(|error| storage(&error))
    }
}

/// `552 5.3.4`
pub(crate) fn too_large(size_max: u64) -> Status {
    let text = format!("Message is larger than the maximum of {size_max} bytes");
    Status::new(552, EnhancedCode::new(5, 3, 4), text)
}

fn storage(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::storage_full("No space left to receive the message")
        }
        _ => {
            tracing::error!("cannot keep a message: {error}; see the state directory");
            Status::system("Cannot receive the message")
        }
    }
}

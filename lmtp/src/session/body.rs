//! A message being received: its size, the policies about content, and where it goes.
//!
//! Once the message is refused nothing is stored; the rest is only read past, so that the session
//! stays in step.

use crate::in_place::InPlaceSlot;
use mailstow_engine::config::{BareNewline, NulPolicy, Settings};
use mailstow_engine::{EnhancedCode, Lines, Message, MessageBuilder, Status};
use rustix::io::Errno;
use std::io;

/// A message that is not complete yet.
#[derive(Debug)]
pub(super) struct Body {
    builder: Result<MessageBuilder, Status>,
    size: u64,
    /// It was decided whether the message is received in place.
    was_asked: bool,
    /// Held while it is received in place.
    slot: Option<InPlaceSlot>,
    size_max: u64,
    refuse_nul: bool,
    refuse_bare_newline: bool,
    line_bytes_max: usize,
}

impl Body {
    pub(super) fn new(builder: MessageBuilder, settings: &Settings) -> Self {
        Self {
            builder: Ok(builder),
            size: 0,
            was_asked: false,
            slot: None,
            size_max: settings.routing.message_size_limit,
            refuse_nul: settings.lmtp.nul == NulPolicy::Reject,
            refuse_bare_newline: settings.lmtp.bare_newline == BareNewline::Reject,
            line_bytes_max: settings.limits.message_line_bytes,
        }
    }

    /// Takes what became of a piece when its line ends were converted: perhaps a CR from before
    /// it, then the piece.
    pub(super) fn write_content(&mut self, cr_first: bool, piece: &[u8], lines: Lines) {
        if cr_first {
            self.write(b"\r", lines);
        }
        self.write(piece, lines);
    }

    /// Takes the next piece, lines ending with LF, and what is known of its lines so far.
    ///
    /// The size that counts is that of the stored form: it is what Postfix counts for the same
    /// `message_size_limit`, while CRLF would push a message over it that Postfix let pass. And a
    /// little more is taken, see [`largest`].
    pub(super) fn write(&mut self, piece: &[u8], lines: Lines) {
        self.size += piece.len() as u64;
        let Ok(builder) = &mut self.builder else {
            return;
        };
        let refusal = if self.size_max > 0 && self.size > largest(self.size_max) {
            Some(too_large(self.size_max))
        } else if self.refuse_bare_newline && lines.bare_newline {
            Some(content("Message contains a line end that is not CRLF"))
        } else if self.refuse_nul && memchr::memchr(0, piece).is_some() {
            Some(content("Message contains NUL characters"))
        } else if self.line_bytes_max > 0 && lines.longest > self.line_bytes_max {
            Some(content("Message contains a line that is too long"))
        } else {
            let written = match &self.slot {
                Some(slot) => slot.work(|| builder.write(piece)),
                None => builder.write(piece),
            };
            written.err().map(|error| storage(&error))
        };
        if let Some(refusal) = refusal {
            self.refuse(refusal);
        }
    }

    /// Asks once for a slot in which the message is received in place, when so much has come that
    /// it `may` be worth it.
    pub(super) fn receive_in_place(
        &mut self,
        may: impl FnOnce(u64) -> bool,
        ask: impl FnOnce(&mut MessageBuilder) -> Option<InPlaceSlot>,
    ) {
        if self.was_asked || !may(self.size) {
            return;
        }
        self.was_asked = true;
        if let Ok(builder) = &mut self.builder {
            self.slot = ask(builder);
        }
    }

    /// Why the message is refused, if it is by now.
    pub(super) fn refusal(&self) -> Option<&Status> {
        self.builder.as_ref().err()
    }

    /// Refuses the message.
    pub(super) fn refuse(&mut self, status: Status) {
        let given_up = std::mem::replace(&mut self.builder, Err(status));
        if let Some(slot) = &self.slot {
            slot.work(|| drop(given_up));
        }
    }

    /// Bytes received, lines ending with LF.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The message is complete.
    pub(super) fn finish(mut self) -> Result<Message, Status> {
        let builder = std::mem::replace(&mut self.builder, Err(unfinished()))?;
        let finished = match &self.slot {
            Some(slot) => slot.work(|| builder.finish()),
            None => builder.finish(),
        };
        finished.map_err(|error| storage(&error))
    }
}

impl Drop for Body {
    /// Gives up what is in a mailbox, which may have to wait for the mailbox, too.
    fn drop(&mut self) {
        if self.slot.is_some() && self.builder.is_ok() {
            self.refuse(unfinished());
        }
    }
}

/// The status of a message that was given up; no client sees it.
fn unfinished() -> Status {
    Status::system("The message is not complete")
}

/// The size up to which a message is taken under a `message_size_limit`. Postfix applies the same
/// limit to its queue file, and when it hands the message over it breaks long lines, with two
/// bytes for every 998 (postconf(5) `smtp_line_length_limit`): to refuse those would bounce mail
/// that Postfix has accepted.
fn largest(size_max: u64) -> u64 {
    size_max.saturating_add(size_max / 256)
}

/// `552 5.3.4`
pub(super) fn too_large(size_max: u64) -> Status {
    Status::new(
        552,
        EnhancedCode::new(5, 3, 4),
        format!("Message is larger than the maximum of {size_max} bytes"),
    )
}

fn content(text: &'static str) -> Status {
    Status::new(554, EnhancedCode::new(5, 6, 0), text)
}

fn storage(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::storage_full("No space left to receive the message")
        }
        _ if Errno::from_io_error(error) == Some(Errno::MFILE) => {
            Status::storage_full("Too many messages are being received")
        }
        _ => {
            tracing::error!("cannot receive a message into the state directory: {error}");
            Status::system("Cannot receive the message")
        }
    }
}

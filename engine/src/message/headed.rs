//! A message with further lines before its header, as mail has that is sent on.
//!
//! The content is shared with the message it was made of, not copied.

use super::budget::Budget;
use super::message::{Body, Content, Message};
use super::sink::MessageSink;
use crate::sync::Arc;
use std::io;

/// Lines, and the message behind them.
#[derive(Debug)]
struct Headed {
    lines: Vec<u8>,
    message: Message,
}

impl MessageSink for Headed {
    fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let length = self.lines.len() as u64;
        let at = usize::try_from(offset.min(length)).unwrap_or(usize::MAX);
        let own = self.lines.get(at..).unwrap_or_default();
        let (first, rest) = buffer.split_at_mut(own.len().min(buffer.len()));
        first.copy_from_slice(own.get(..first.len()).unwrap_or_default());
        match rest.is_empty() {
            true => Ok(()),
            false => self
                .message
                .read_exact_at(rest, offset.saturating_sub(length)),
        }
    }
}

impl Message {
    /// Returns this message behind further header lines, each of which ends with LF.
    pub(crate) fn headed(&self, lines: Vec<u8>) -> Self {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        Self(Arc::new(Content {
            size: self.size() + lines.len() as u64,
            bare_newlines: self.bare_newlines() + count,
            ends_with_newline: match self.size() {
                0 => lines.last() == Some(&b'\n'),
                _ => self.ends_with_newline(),
            },
            has_status_fields: self.has_status_fields(),
            body: Body::File {
                sink: Box::new(Headed {
                    lines,
                    message: self.clone(),
                }),
                // The lines are few.
                _share: Budget::new(0).share(),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Spool;
    use crate::config::Limits;

    #[test]
    fn lines_stand_before_the_content_wherever_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for memory in [1 << 20, 8] {
            let limits = Limits {
                message_memory_bytes: memory,
                ..Limits::default()
            };
            let spool = Spool::open(directory.path(), &limits).unwrap();
            let mut builder = spool.message();
            builder.write(b"Subject: x\n\nbody\n").unwrap();
            let message = builder.finish().unwrap().headed(b"A: b\nC: d\n".to_vec());
            let whole = b"A: b\nC: d\nSubject: x\n\nbody\n";
            let mut read = Vec::new();
            message.copy_to(&mut read).unwrap();
            assert_eq!(read, whole);
            assert_eq!(message.size(), whole.len() as u64);
            assert_eq!(message.wire_size(), whole.len() as u64 + 5);
            assert!(message.ends_with_newline());
            for (from, length) in [(0, 3), (3, 12), (8, 4), (10, 5), (14, 13)] {
                let mut part = vec![0; length];
                message.read_exact_at(&mut part, from as u64).unwrap();
                assert_eq!(part, whole[from..from + length], "{from}");
            }
        }
    }
}

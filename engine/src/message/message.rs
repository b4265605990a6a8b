//! A finished message: its content, in memory or in a file.

use super::budget::Share;
use super::sink::MessageSink;
use crate::sync::Arc;
use std::any::Any;
use std::io;

/// Bytes read from a file at once.
pub(super) const READ_BYTES: usize = 128 * 1024;

/// A finished message, cheap to clone and to share between its recipients and threads.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// let mut builder = engine.new_message();
/// builder.write(b"Subject: hello\n\nIt works.")?;
/// let message = builder.finish()?;
/// // The last line got its end.
/// assert_eq!(message.in_memory(), Some(&b"Subject: hello\n\nIt works.\n"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message(pub(super) Arc<Content>);

#[derive(Debug)]
pub(super) struct Content {
    pub(super) body: Body,
    pub(super) size: u64,
    pub(super) bare_newlines: u64,
    pub(super) ends_with_newline: bool,
    pub(super) has_status_fields: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Memory {
        bytes: Vec<u8>,
        _share: Share,
    },
    File {
        sink: Box<dyn MessageSink>,
        _share: Share,
    },
}

impl Message {
    /// Bytes of the stored form (LF line ends).
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Returns how many LF of the content have no CR before them: an IMAP server shows each as
    /// CRLF.
    pub fn bare_newlines(&self) -> u64 {
        self.0.bare_newlines
    }

    /// Returns the bytes of the content as an IMAP server shows it.
    pub fn wire_size(&self) -> u64 {
        self.0.size + self.0.bare_newlines
    }

    /// True when the last line is complete; false for an empty message.
    pub fn ends_with_newline(&self) -> bool {
        self.0.ends_with_newline
    }

    /// True when its header has fields in which mbox readers keep their state.
    pub(crate) fn has_status_fields(&self) -> bool {
        self.0.has_status_fields
    }

    /// The whole content, if it is held in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.0.body {
            Body::Memory { bytes, .. } => Some(bytes),
            Body::File { .. } => None,
        }
    }

    /// Hands the content over piece by piece, in order.
    ///
    /// # Errors
    /// The file cannot be read, or whatever `take` answers; reading stops there.
    pub fn for_each_chunk<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Body::Memory { bytes, .. } = &self.0.body {
            return take(bytes);
        }
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = 0;
        while offset < self.0.size {
            let left = usize::try_from(self.0.size - offset).unwrap_or(READ_BYTES);
            let length = left.min(buffer.len());
            let (part, _) = buffer.split_at_mut(length);
            match &self.0.body {
                Body::Memory { .. } => {}
                Body::File { sink, .. } => sink.read_exact_at(part, offset)?,
            }
            take(part)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Reads the content from `offset` on into the whole of `part`.
    ///
    /// # Errors
    /// The file cannot be read, or the content ends before.
    pub fn read_exact_at(&self, part: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0.body {
            Body::Memory { bytes, .. } => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(part.len());
                let read = bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
                part.copy_from_slice(read);
                Ok(())
            }
            Body::File { sink, .. } => sink.read_exact_at(part, offset),
        }
    }

    /// Returns the sink that has the content, if it is of this type.
    pub(crate) fn sink<S: MessageSink>(&self) -> Option<&S> {
        match &self.0.body {
            Body::Memory { .. } => None,
            Body::File { sink, .. } => {
                let sink: &dyn Any = sink.as_ref();
                sink.downcast_ref()
            }
        }
    }

    /// Writes the content to `writer`.
    ///
    /// # Errors
    /// The file cannot be read, or the writer fails.
    pub fn copy_to(&self, writer: &mut impl io::Write) -> io::Result<()> {
        self.for_each_chunk(|chunk| writer.write_all(chunk))
    }
}

//! What the content of a message goes to when it is too long for memory.

use crate::io::Scratch;
use std::any::Any;
use std::fmt;
use std::io;

/// Takes the content of one message, and returns it to readers.
pub(crate) trait MessageSink: Any + fmt::Debug + Send + Sync {
    /// Appends to the content. A sink that failed has what was appended before.
    ///
    /// # Errors
    /// As write(2).
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Notes that nothing more is appended.
    ///
    /// # Errors
    /// As fstat(2).
    fn end(&mut self) -> io::Result<()>;

    /// Reads a part of the content.
    ///
    /// # Errors
    /// As pread(2), or the content is shorter, or another program changed it.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl MessageSink for Scratch {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::append(self, bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, buffer, offset)
    }
}

//! Appending messages to an open, locked mbox.
//!
//! Invariant: when it returns, the file holds exactly the messages reported as written behind its
//! old content; what failed midway was cut off again.

use super::Mbox;
use super::entry::MboxEntry;
use super::form::Form;
use crate::io::Disk;
use crate::limits::MBOX_APPEND_BYTES;
use crate::mailbox::{MailboxError, MailboxSettings};
use crate::sync::Arc;
use std::io;

/// Of the file; what the page cache writes together.
const PAGE_BYTES: u64 = 4096;

/// Why one entry was not written.
enum Refusal {
    OverLimit,
    /// Writing or reading failed; all that follows the old end is in doubt.
    Failed(&'static str, io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed("reading the message", error)
    }
}

impl<H> Mbox<H> {
    /// Where the next message will begin, in bytes.
    pub fn next_offset(&self) -> u64 {
        self.end + self.tail.len() as u64
    }

    /// Appends messages made by [`render`](super::render) where [`Mbox::next_offset`] says.
    ///
    /// # Errors
    /// Nothing of them is in the file then, as well as can be.
    pub fn append_rendered<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        messages: &[u8],
    ) -> Result<(), MailboxError> {
        self.check_untorn()?;
        match disk.write_all(&self.file, [self.tail.as_bytes(), messages]) {
            Ok(()) => {
                self.end = self.next_offset() + messages.len() as u64;
                self.tail = "";
                Ok(())
            }
            Err(error) => {
                self.cut(disk);
                let path = self.path.display();
                Err(MailboxError::from_io(path, "appending the message", error))
            }
        }
    }

    /// Appends the messages, in order; one result for each. When something fails, the messages
    /// are tried again one by one, so that each fails only for its own sake.
    pub fn append<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        settings: &MailboxSettings,
        entries: &[MboxEntry<'_>],
    ) -> Vec<Result<(), Arc<MailboxError>>> {
        if self.is_torn {
            let torn = Arc::new(self.torn());
            return entries.iter().map(|_| Err(Arc::clone(&torn))).collect();
        }
        let mut results = Vec::with_capacity(entries.len());
        let Err((doing, error)) = self.append_all(disk, settings, entries, &mut results) else {
            return results;
        };
        let failed = Arc::new(MailboxError::from_io(self.path.display(), doing, error));
        if !self.cut(disk) || entries.len() < 2 {
            return entries.iter().map(|_| Err(Arc::clone(&failed))).collect();
        }
        let one_by_one = entries
            .chunks(1)
            .flat_map(|one| self.append(disk, settings, one));
        one_by_one.collect()
    }

    /// Whether messages can be appended: behind an incomplete one that could not be cut off they
    /// would look like a part of it.
    ///
    /// # Errors
    /// There is an incomplete message.
    pub fn check_untorn(&self) -> Result<(), MailboxError> {
        match self.is_torn {
            true => Err(self.torn()),
            false => Ok(()),
        }
    }

    fn torn(&self) -> MailboxError {
        let doing = "appending after an incomplete message";
        MailboxError::from_io(self.path.display(), doing, io::ErrorKind::Other.into())
    }

    /// All or none, but for those that are over the limit.
    fn append_all<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        settings: &MailboxSettings,
        entries: &[MboxEntry<'_>],
        results: &mut Vec<Result<(), Arc<MailboxError>>>,
    ) -> Result<(), (&'static str, io::Error)> {
        let mut appender = Appender {
            disk,
            file: &self.file,
            settings,
            end: self.end,
            buffer: Vec::new(),
        };
        let mut outcome = Ok(());
        for entry in entries {
            let is_first = appender.end == self.end && appender.buffer.is_empty();
            let tail = if is_first { self.tail } else { "" };
            match appender.entry(tail, entry) {
                Ok(()) => results.push(Ok(())),
                Err(Refusal::OverLimit) => results.push(Err(Arc::new(MailboxError::OverLimit {
                    mailbox: self.path.display().to_owned(),
                    limit_bytes: settings.limit_bytes,
                }))),
                Err(Refusal::Failed(doing, error)) => {
                    outcome = Err((doing, error));
                    break;
                }
            }
        }
        let outcome = outcome.and_then(|()| {
            let flushed = appender.flush();
            flushed.map_err(|error| ("appending the message", error))
        });
        let end = appender.end;
        if outcome.is_ok() && end != self.end {
            self.tail = "";
            self.end = end;
        }
        outcome
    }
}

/// Collects what is appended and writes it in large pieces.
struct Appender<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::Handle,
    settings: &'a MailboxSettings,
    /// Where the file ends, the buffer not included.
    end: u64,
    buffer: Vec<u8>,
}

impl<D: Disk> Appender<'_, D> {
    fn entry(&mut self, tail: &str, entry: &MboxEntry<'_>) -> Result<(), Refusal> {
        let message = entry.message;
        let least = (tail.len() + entry.header.len()) as u64 + message.size();
        // Of a message that gets shorter the length is not known before.
        if !entry.without_status && self.is_over_limit(least) {
            return Err(Refusal::OverLimit);
        }
        let (file_mark, buffer_mark) = (self.end, self.buffer.len());
        let written = self.write_entry(tail, entry);
        if matches!(written, Err(Refusal::OverLimit)) {
            self.back_to(file_mark, buffer_mark)?;
        }
        written
    }

    fn write_entry(&mut self, tail: &str, entry: &MboxEntry<'_>) -> Result<(), Refusal> {
        self.buffer.extend_from_slice(tail.as_bytes());
        self.buffer.extend_from_slice(entry.header);
        let mut form = Form::new(entry.without_status);
        entry.message.for_each_chunk(|chunk| {
            form.feed(chunk, &mut self.buffer);
            self.flush_if_full()
        })?;
        form.finish(&mut self.buffer);
        if self.is_over_limit(0) {
            return Err(Refusal::OverLimit);
        }
        self.flush_if_full()
    }

    /// True when the file would be too long with `more` bytes behind the buffer.
    fn is_over_limit(&self, more: u64) -> bool {
        self.settings
            .is_over_limit(self.end + self.buffer.len() as u64 + more)
    }

    fn flush_if_full(&mut self) -> Result<(), Refusal> {
        if self.buffer.len() < MBOX_APPEND_BYTES {
            return Ok(());
        }
        // A crash may leave the file with the end of any write: pages begin where writes do, so
        // that the rest of a message can be recognised by its sectors.
        let behind = (self.end + self.buffer.len() as u64) % PAGE_BYTES;
        let keep = usize::try_from(behind).unwrap_or(0).min(self.buffer.len());
        let rest = self.buffer.split_off(self.buffer.len() - keep);
        let flushed = self.flush();
        self.buffer.extend_from_slice(&rest);
        flushed.map_err(|error| Refusal::Failed("appending the message", error))
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.disk.write_all(self.file, [&self.buffer, &[]])?;
            self.end += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Forgets all behind a mark, whether it was written since or not.
    fn back_to(&mut self, file_mark: u64, buffer_mark: usize) -> Result<(), Refusal> {
        let mark = file_mark + buffer_mark as u64;
        if let Some(unwritten) = mark.checked_sub(self.end) {
            self.buffer
                .truncate(usize::try_from(unwritten).unwrap_or(usize::MAX));
            return Ok(());
        }
        self.buffer.clear();
        self.end = mark;
        self.disk
            .truncate(self.file, self.end)
            .map_err(|error| Refusal::Failed("cutting a message off again", error))
    }
}

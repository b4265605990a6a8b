//! Building a map from the text tables it stands for.
//!
//! Imports `map`. Invariant: an entry means what it means in its text
//! table: same lines, same quoting, same folding of keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;

use super::pieces::{StreamError, read_entries};
use crate::map::{MapBuilder, MapError};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes of entries handed over at once.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches read ahead of the one being taken in.
const BATCHES_AHEAD: usize = 4;

/// Entries on their way from one thread to the other: all texts in one piece, and where each ends.
#[derive(Default)]
struct Batch {
    text: String,
    /// Ends of key and value.
    ends: Vec<(usize, usize)>,
}

impl Batch {
    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, end)| {
            let key = self.text.get(start..key_end).unwrap_or_default();
            let value = self.text.get(key_end..end).unwrap_or_default();
            start = end;
            (key, value)
        })
    }
}

/// A text whose bytes are counted as they are read.
struct Counted {
    input: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        // Relaxed: a number for people.
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl MapBuilder<'_> {
    /// Adds all entries of the text at `path`, in the form of postmap(1), to the table called
    /// `table`. Returns complaints about lines that were skipped or look odd. One thread reads
    /// while another takes the entries in.
    ///
    /// # Errors
    /// As [`MapBuilder::add`]; [`MapError::Io`] if the text cannot be read.
    pub fn add_text(&mut self, table: &str, path: &Path) -> Result<Vec<String>, MapError> {
        let table = self.table(table)?;
        let file = File::open(path).map_err(|source| MapError::io(path, "open", source))?;
        let name = path.display().to_string();
        let file = Counted {
            input: file,
            bytes: self.bytes_read(),
        };
        std::thread::scope(|scope| {
            let (sender, batches) = mpsc::sync_channel::<Batch>(BATCHES_AHEAD);
            let reader = scope.spawn(move || {
                let mut batch = Batch::default();
                let complaints = read_entries(&name, file, |key, value| {
                    batch.text.push_str(key);
                    let key_end = batch.text.len();
                    batch.text.push_str(value);
                    batch.ends.push((key_end, batch.text.len()));
                    if batch.text.len() < BATCH_BYTES {
                        return Ok(());
                    }
                    sender.send(std::mem::take(&mut batch))
                })?;
                sender.send(batch).map_err(StreamError::Taker)?;
                Ok(complaints)
            });
            for batch in batches {
                for (key, value) in batch.entries() {
                    self.add(table, key, value)?;
                }
            }
            match reader.join() {
                Ok(Ok(complaints)) => Ok(complaints),
                Ok(Err(StreamError::Read(source))) => Err(MapError::io(path, "read", source)),
                // All batches were taken, so neither of these comes about.
                Ok(Err(StreamError::Taker(_))) | Err(_) => Err(MapError::Stopped),
            }
        })
    }
}

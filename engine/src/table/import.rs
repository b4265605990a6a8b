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

/// Entries on their way from one thread to the other: all in one piece, and where each ends.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let entry = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            entry
        })
    }
}

/// Why the reader stops early.
enum Stop {
    /// Nobody takes its batches any more.
    Gone,
    /// An entry that no map can hold.
    Entry(MapError),
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
        let number = self.table(table)?;
        let encoder = self.encoder(number, table);
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
                    encoder
                        .encode(key, value, &mut batch.bytes)
                        .map_err(Stop::Entry)?;
                    batch.ends.push(batch.bytes.len());
                    if batch.bytes.len() < BATCH_BYTES {
                        return Ok(());
                    }
                    let room = batch.bytes.capacity();
                    let full = std::mem::take(&mut batch);
                    batch.bytes.reserve(room);
                    sender.send(full).map_err(|_| Stop::Gone)
                })?;
                sender
                    .send(batch)
                    .map_err(|_| StreamError::Taker(Stop::Gone))?;
                Ok(complaints)
            });
            for batch in batches {
                for entry in batch.entries() {
                    self.add_encoded(entry)?;
                }
            }
            match reader.join() {
                Ok(Ok(complaints)) => Ok(complaints),
                Ok(Err(StreamError::Read(source))) => Err(MapError::io(path, "read", source)),
                Ok(Err(StreamError::Taker(Stop::Entry(error)))) => Err(error),
                // All batches were taken, so neither of these comes about.
                Ok(Err(StreamError::Taker(Stop::Gone))) | Err(_) => Err(MapError::Stopped),
            }
        })
    }
}

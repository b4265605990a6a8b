//! Builds a map from text tables.
//!
//! Invariant: an entry means what it means in its text table: same lines, same quoting, same
//! folding of keys.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::Scope;

use super::problems::Problems;
use crate::map::{EntryEncoder, MapBuilder, MapError, PartedEntries};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::table::patterns::pieces::{Piece, Pieces};

/// Bytes of text that a thread takes at once: the caches hold them with their entries.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for each thread, before it and behind it.
const PIECES_AHEAD: usize = 2;
/// Threads that make entries of lines; more would wait for the one that takes the entries in.
const ENCODERS_MAX: usize = 4;

/// What was in one piece of a text.
struct Encoded {
    entries: PartedEntries,
    problems: Problems,
}

impl Encoded {
    /// The entries of `piece`, in the room of `entries`.
    fn new(
        piece: &Piece,
        mut entries: PartedEntries,
        encoder: &EntryEncoder<'_>,
        (source, any_octets): (&str, bool),
    ) -> Result<Self, MapError> {
        let mut problems = Problems::new(source);
        entries.clear();
        let octets = any_octets.then(|| piece.with_octets());
        let piece = octets.as_ref().unwrap_or(piece);
        piece.read(&mut problems, |key, value| {
            encoder.encode(key, value, &mut entries)
        })?;
        Ok(Self { entries, problems })
    }
}

/// A thread that makes entries, from outside. What was used goes back to where it came from, for
/// memory that is got anew for each piece costs more than the work on it.
struct Encoder {
    encoded: Receiver<Result<Encoded, MapError>>,
    spare: Sender<PartedEntries>,
}

impl Encoder {
    /// Begins a thread that takes pieces from the channel that is returned, and gives their
    /// buffers to `used`. They are of the text `source`, which may hold any octets or not.
    ///
    /// # Errors
    /// The system gives no thread.
    fn spawn<'s>(
        scope: &'s Scope<'s, '_>,
        encoder: &'s EntryEncoder<'_>,
        source: (&'s str, bool),
        used: Sender<Vec<u8>>,
    ) -> io::Result<(SyncSender<Piece>, Self)> {
        let (to_encoder, pieces) = mpsc::sync_channel::<Piece>(PIECES_AHEAD);
        let (sender, encoded) = mpsc::sync_channel(PIECES_AHEAD);
        let (spare, spares) = mpsc::channel::<PartedEntries>();
        let thread = std::thread::Builder::new().name("mailstow-enc".into());
        thread.spawn_scoped(scope, move || {
            for piece in pieces {
                let room = spares.try_recv();
                let room = room.unwrap_or_else(|_| PartedEntries::with_capacity(piece.len()));
                let encoded = Encoded::new(&piece, room, encoder, source);
                // After an error on either side, the receiver is gone.
                if sender.send(encoded).is_err() {
                    break;
                }
                // At the end of the text, it is not needed.
                let _ = used.send(piece.into_buffer());
            }
        })?;
        Ok((to_encoder, Self { encoded, spare }))
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
    /// `table`. Returns complaints about lines that were skipped or look odd. One thread reads,
    /// others make entries of the lines, and this one takes them in, in the text's order.
    ///
    /// # Errors
    /// As [`MapBuilder::add`]; [`MapError::Io`] if the text cannot be read.
    pub fn add_text(&mut self, table: &str, path: &Path) -> Result<Vec<String>, MapError> {
        let number = self.table(table)?;
        let encoder = &self.encoder(number, table);
        let file = File::open(path).map_err(|source| MapError::io(path, "open", source))?;
        let source = &path.display().to_string();
        let any_octets = self.any_octets();
        let file = Counted {
            input: file,
            bytes: self.bytes_read(),
        };
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let count = count.min(ENCODERS_MAX);
        std::thread::scope(|scope| {
            let no_thread = |source| MapError::io(path, "start a thread for", source);
            let (used, spare) = mpsc::channel();
            let (mut pieces, mut encoders) = (Vec::new(), Vec::new());
            for _ in 0..count {
                let begun = Encoder::spawn(scope, encoder, (source, any_octets), used.clone());
                let (to, from) = begun.map_err(no_thread)?;
                pieces.push(to);
                encoders.push(from);
            }
            // Pieces go round, and so do their entries: they come in the text's order.
            let reader = move || {
                let all = Pieces::new(file, PIECE_BYTES, spare);
                for (to, piece) in pieces.iter().cycle().zip(all) {
                    if to.send(piece?).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let thread = std::thread::Builder::new().name("mailstow-read".into());
            let reader = thread.spawn_scoped(scope, reader).map_err(no_thread)?;
            let mut problems = Problems::new(source);
            for from in encoders.iter().cycle() {
                let Ok(encoded) = from.encoded.recv() else {
                    break;
                };
                let encoded = encoded?;
                self.add_encoded(&encoded.entries)?;
                problems.append(encoded.problems);
                // At the end of the text, it is not needed.
                let _ = from.spare.send(encoded.entries);
            }
            match reader.join() {
                Ok(Ok(())) => Ok(problems.finish().warnings),
                Ok(Err(source)) => Err(MapError::io(path, "read", source)),
                Err(_) => Err(MapError::Stopped),
            }
        })
    }
}

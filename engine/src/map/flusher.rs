//! Flushes a file in the background while it is being written, so that little is left to wait
//! for at its end.
//!
//! Invariant: the error of a flush in the background is reported, because the kernel reports it
//! only once.

use crate::thread;
use std::fs::File;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

/// Bytes written between one flush and the next.
const STEP_BYTES: u64 = 32 * 1024 * 1024;

/// A thread that flushes one file.
pub(super) struct Flusher {
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
    next: u64,
}

impl Flusher {
    /// Flushes nothing until much was written.
    pub(super) fn new() -> Self {
        Self {
            thread: None,
            next: STEP_BYTES,
        }
    }

    /// `written` bytes were written in all. Without a thread, all of it is left for the end.
    ///
    /// # Errors
    /// The file cannot be opened once more.
    pub(super) fn wrote(&mut self, file: &File, written: u64) -> io::Result<()> {
        if written < self.next {
            return Ok(());
        }
        debug_assert!(written >= STEP_BYTES, "a small file is flushed at its end");
        self.next = written + STEP_BYTES;
        if self.thread.is_none() {
            self.thread = start(file.try_clone()?).ok();
        }
        let Some((sender, _)) = &self.thread else {
            return Ok(());
        };
        // One that is still flushing, or that failed, needs no order.
        let _ = sender.try_send(());
        Ok(())
    }

    /// Waits for the flush that is going on.
    ///
    /// # Errors
    /// A flush failed: what was written may be lost.
    pub(super) fn finish(self) -> io::Result<()> {
        let Some((sender, thread)) = self.thread else {
            return Ok(());
        };
        drop(sender);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the flushing thread panicked")))
    }
}

fn start(file: File) -> io::Result<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (sender, asked) = mpsc::sync_channel(1);
    let flush = move || asked.iter().try_for_each(|()| file.sync_data());
    let thread = thread::spawn("mailstow-flush", flush)?;
    Ok((sender, thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_fails_is_told_at_the_end() {
        // A pipe cannot be flushed.
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut flusher = Flusher::new();
        flusher.wrote(&file, STEP_BYTES - 1).unwrap();
        flusher.wrote(&file, STEP_BYTES).unwrap();
        assert!(flusher.finish().is_err());
        let mut quiet = Flusher::new();
        quiet.wrote(&file, STEP_BYTES - 1).unwrap();
        quiet.finish().unwrap();
    }
}

//! A thread that writes log lines, so that nothing else ever waits for the log.
//!
//! Invariants: at most [`PENDING_BYTES_MAX`] bytes wait; past that lines are dropped and counted,
//! and the count is logged as soon as the log moves again. (tracing-appender bounds lines, not
//! bytes, logs no count of what it dropped, drops lines that a full pipe refuses for the moment,
//! and its thread does not outlast a panic.)

use mailstow_engine::octets;
use mailstow_engine::supervisor::Supervisor;
use parking_lot::{Condvar, Mutex};
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait to be written.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(2);

/// How often a log that is full for the moment is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Stack of the thread, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// The log; clones share it.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    supervisor: Supervisor,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    lost: u64,
    writing: bool,
    waiting: bool,
    closing: bool,
}

impl Log {
    /// Starts the thread, which writes to `to` until the process ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            written: Condvar::new(),
        });
        let supervisor = Supervisor::default();
        let writer = Arc::clone(&shared);
        let work = move || writer.run(&mut to);
        let thread = supervisor.spawn("mailstow-lines", STACK_BYTES, work)?;
        thread.detach();
        Ok(Self { shared, supervisor })
    }

    /// Supervises the thread, and whatever else belongs to the process.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Waits until all lines are written, at most `limit`.
    pub fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        state.closing = true;
        self.shared.changed.notify_one();
        while state.writing || !state.pending.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.shared.written.wait_for(&mut state, left);
        }
        state.closing = false;
    }

    fn push(&self, line: &[u8]) {
        let line = shown(line);
        let mut state = self.shared.state.lock();
        if state.pending.len() + line.len() > PENDING_BYTES_MAX {
            state.lost += 1;
            return;
        }
        state.pending.extend_from_slice(&line);
        if std::mem::take(&mut state.waiting) {
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn run(&self, to: &mut impl Write) {
        // After a panic nothing is being written any more.
        self.state.lock().writing = false;
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            while state.pending.is_empty() {
                state.waiting = true;
                self.changed.wait(&mut state);
            }
            if !state.closing {
                drop(state);
                std::thread::sleep(GATHER);
                state = self.state.lock();
            }
            std::mem::swap(&mut lines, &mut state.pending);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            if lost > 0 {
                let note = format!("{lost} log lines were lost: the log was not read in time\n");
                lines.extend_from_slice(note.as_bytes());
            }
            write_patiently(to, &lines);
            lines.clear();
            self.state.lock().writing = false;
            self.written.notify_all();
        }
    }
}

/// A line as people see it: nothing in it is an octet that is not UTF-8.
fn shown(line: &[u8]) -> Cow<'_, [u8]> {
    if !octets::may_hold_octets(line) {
        return Cow::Borrowed(line);
    }
    match str::from_utf8(line).map(octets::shown) {
        Ok(Cow::Owned(shown)) => Cow::Owned(shown.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(line),
    }
}

/// Writes all of `lines`; what a broken log refuses is lost, there is nowhere to say so.
fn write_patiently(to: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match to.write(lines) {
            Ok(0) => return,
            Ok(count) => lines = lines.get(count..).unwrap_or_default(),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
                _ => return,
            },
        }
    }
}

impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Log;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_it_lost() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::start(writer).unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let start = Instant::now();
        for _ in 0..3000 {
            (&log).write_all(&line).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        let reading = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut piece = vec![0; 65536];
            while !text.windows(13).any(|w| w == b"lines were lo") {
                let count = reader.read(&mut piece).unwrap();
                text.extend_from_slice(&piece[..count]);
            }
            text
        });
        let text = reading.join().unwrap();
        assert!(text.len() >= PENDING_BYTES_MAX / 2);
    }

    #[test]
    fn a_log_whose_output_panics_goes_on_and_the_failure_shows() {
        struct Panics(Option<io::PipeWriter>, bool);
        impl Write for Panics {
            fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
                assert!(std::mem::replace(&mut self.1, true), "planted");
                self.0.as_mut().unwrap().write(lines)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::start(Panics(Some(writer), false)).unwrap();
        (&log).write_all(b"one\n").unwrap();
        while log.supervisor().failures().is_empty() {
            std::thread::yield_now();
        }
        (&log).write_all(b"two\n").unwrap();
        let mut text = [0; 4];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"two\n");
    }

    #[test]
    fn finishing_waits_for_the_lines() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::start(writer).unwrap();
        (&log).write_all(b"one\n").unwrap();
        (&log).write_all(b"two\n").unwrap();
        log.finish(Duration::from_secs(10));
        let mut text = [0; 8];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }
}

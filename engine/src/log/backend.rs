//! The ways to write a batch and flush it, and the choice between them.
//!
//! The choice is made on the log's own disk with the writes it is going to do: which way is faster
//! depends on kernel, file system and device.

use super::settings::BackendChoice;
use crate::clock;
use crate::io::uring::Ring;
use crate::thread;
use rustix::io::ReadWriteFlags;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Writes per way when measuring.
const ROUNDS: usize = 12;
/// As a small message takes.
const ROUND_BYTES: usize = 8192;

/// A way to write and flush.
#[derive(Debug)]
pub(super) enum Flusher {
    Uring(Box<Ring>),
    Plain,
    PlainDsync,
}

/// What was chosen and why, for the log.
#[derive(Debug, Default)]
pub(super) struct Backend {
    name: &'static str,
    reason: String,
    pub(super) direct: bool,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() {
            Flusher::Plain.name()
        } else {
            self.name
        };
        let direct = if self.direct { "direct" } else { "buffered" };
        write!(f, "{name}, {direct} I/O")?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

impl Flusher {
    fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => "io_uring write + fdatasync",
            Self::Plain => "pwrite + fdatasync",
            Self::PlainDsync => "pwritev2 with RWF_DSYNC",
        }
    }

    /// Takes the way asked for, or the fastest. The bytes of `scratch` are lost.
    ///
    /// Rings are tried by a separate thread: when one is given up, the kernel interrupts the
    /// thread that used it, in whatever system call it is by then.
    pub(super) fn choose(choice: BackendChoice, scratch: &File) -> io::Result<(Self, Backend)> {
        std::thread::scope(|scope| {
            let choose = || Self::choose_here(choice, scratch);
            let choosing = match thread::spawn_scoped(scope, "mailstow-try", choose) {
                Ok(choosing) => choosing,
                Err(error) => return Ok(Self::plain(format!("no thread to try others: {error}"))),
            };
            let panicked = |_| Err(io::Error::other("the thread that tries flushes panicked"));
            choosing.join().unwrap_or_else(panicked)
        })
    }

    /// The plainest way, which every system has.
    fn plain(reason: String) -> (Self, Backend) {
        let backend = Backend {
            name: Self::Plain.name(),
            reason,
            direct: false,
        };
        (Self::Plain, backend)
    }

    fn choose_here(choice: BackendChoice, scratch: &File) -> io::Result<(Self, Backend)> {
        let (flusher, reason) = match choice {
            BackendChoice::Plain => (Self::Plain, "as set".to_owned()),
            BackendChoice::PlainDsync => (Self::PlainDsync, "as set".to_owned()),
            BackendChoice::Uring => match Ring::new() {
                Ok(ring) => (Self::Uring(Box::new(ring)), "as set".to_owned()),
                Err(error) => (Self::Plain, format!("io_uring is not available: {error}")),
            },
            BackendChoice::Auto => Self::fastest(scratch)?,
        };
        let backend = Backend {
            name: flusher.name(),
            reason,
            direct: false,
        };
        Ok((flusher, backend))
    }

    /// Tries all ways in turns, so that other traffic on the disk meets all of them.
    fn fastest(scratch: &File) -> io::Result<(Self, String)> {
        let mut report = Vec::new();
        let mut ways = vec![Self::Plain, Self::PlainDsync];
        match Ring::new() {
            Ok(ring) => ways.push(Self::Uring(Box::new(ring))),
            Err(error) => report.push(format!("io_uring is not available: {error}")),
        }
        let (mut best, mut failure): (Option<(Duration, Self)>, _) = (None, None);
        for (way, times) in try_in_turns(ways, scratch) {
            match times {
                Ok(time) => {
                    report.push(format!("{} {} us", way.name(), time.as_micros()));
                    // Another way has to be clearly better than the plainest.
                    let better = |fastest: &Duration| time < *fastest - *fastest / 20;
                    if best.as_ref().is_none_or(|(fastest, _)| better(fastest)) {
                        best = Some((time, way));
                    }
                }
                Err(error) => {
                    report.push(format!("{}: {error}", way.name()));
                    failure.get_or_insert(error);
                }
            }
        }
        match (best, failure) {
            (Some((_, way)), _) => Ok((way, report.join(", "))),
            (None, Some(error)) => Err(error),
            (None, None) => Ok((Self::Plain, report.join(", "))),
        }
    }

    pub(super) fn write_and_flush(
        &mut self,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        match self {
            Self::Uring(ring) => {
                let written = ring.write_then_sync(file, bytes, offset)?;
                if written == bytes.len() {
                    return Ok(());
                }
                // A short write broke the chain before the flush: finish by plain calls.
                let rest = bytes.get(written..).unwrap_or_default();
                file.write_all_at(rest, offset + written as u64)?;
                file.sync_data()
            }
            Self::Plain => {
                file.write_all_at(bytes, offset)?;
                file.sync_data()
            }
            Self::PlainDsync => write_dsync(file, bytes, offset),
        }
    }
}

/// Each way with the time it usually takes: the lower quartile, which is what the disk does when
/// nothing else happens.
fn try_in_turns(ways: Vec<Flusher>, scratch: &File) -> Vec<(Flusher, io::Result<Duration>)> {
    let mut buffer = super::buffer::AlignedBuffer::new(ROUND_BYTES);
    buffer.put(&[0; ROUND_BYTES]);
    let mut tried: Vec<_> = ways
        .into_iter()
        .map(|way| (way, Vec::new(), None))
        .collect();
    for _ in 0..ROUNDS {
        for (way, times, failure) in &mut tried {
            let began = clock::now();
            match way.write_and_flush(scratch, buffer.bytes(), 0) {
                Ok(()) => times.push(began.elapsed()),
                Err(error) => *failure = Some(error),
            }
        }
    }
    tried
        .into_iter()
        .map(|(way, mut times, failure)| {
            times.sort_unstable();
            let usual = times.get(times.len() / 4).copied().unwrap_or_default();
            (way, failure.map_or(Ok(usual), Err))
        })
        .collect()
}

fn write_dsync(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let slices = [IoSlice::new(bytes)];
        match rustix::io::pwritev2(file, &slices, offset, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn whoever_opens_a_log_is_not_interrupted_by_it_later() {
        let scratch = tempfile::tempfile().unwrap();
        scratch.set_len(1 << 20).unwrap();
        let (mut silent, _other) = UnixStream::pair().unwrap();
        let pause = Duration::from_millis(30);
        silent.set_read_timeout(Some(pause)).unwrap();
        for _ in 0..10 {
            Flusher::choose(BackendChoice::Auto, &scratch).unwrap();
            let nothing = silent.read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }
}

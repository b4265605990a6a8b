//! Goal: a log that a writer is using is never called damaged by a process that only reads it.
//! Method: a scan stops before its read 0, 1, 2 ..., the writer works for a while, and the scan
//! goes on.

use super::super::medium::{Access, LogFile, LogMedium, Pacing};
use super::super::scan;
use super::super::sim::SimMedium;
use super::support::{Bench, Oracle, small, some_records};
use crate::io::sim::SimRandom;
use crate::sync::{Arc, Mutex};
use std::io;

/// The writer and what it has to do.
struct Work {
    bench: Bench,
    oracle: Oracle,
    random: SimRandom,
    ids: u128,
}

impl Work {
    fn on(medium: &SimMedium, seed: u64) -> Self {
        Self {
            bench: Bench::open(medium, &small()).unwrap().0,
            oracle: Oracle::default(),
            random: SimRandom::new(seed),
            ids: 0,
        }
    }

    fn go_on(&mut self, rounds: u64) {
        for _ in 0..rounds {
            if self.random.below(2) == 0 {
                self.bench.preallocate().unwrap();
            }
            let records = some_records(&mut self.random, &mut self.ids);
            let is_full = self.bench.batch(&records).unwrap().is_none();
            if is_full || self.random.below(4) == 0 {
                let next = self.bench.next();
                let below = next - self.random.below(3).min(next - 1);
                self.bench.checkpoint(below, &mut self.oracle).unwrap();
            }
        }
    }
}

/// A disk that lets the writer work before a certain read.
#[derive(Clone)]
struct Paused {
    disk: SimMedium,
    /// Reads until then, and how long it works.
    pause: Arc<Mutex<(u64, u64)>>,
    work: Arc<Mutex<Work>>,
}

impl Paused {
    fn before_read(&self) {
        let mut pause = self.pause.lock();
        match pause.0.checked_sub(1) {
            Some(left) => pause.0 = left,
            None => self.work.lock().go_on(std::mem::take(&mut pause.1)),
        }
    }

    fn was_reached(&self) -> bool {
        self.pause.lock().1 == 0
    }
}

impl LogMedium for Paused {
    type File = PausedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.before_read();
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<PausedFile> {
        self.before_read();
        Ok(PausedFile {
            file: self.disk.open(name, access)?,
            medium: self.clone(),
        })
    }

    fn create(&self, _: &str, _: u64, _: &dyn Fn() -> Pacing) -> io::Result<PausedFile> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_file(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn tune(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn fresh_identity(&self) -> u64 {
        self.disk.fresh_identity()
    }
}

struct PausedFile {
    file: <SimMedium as LogMedium>::File,
    medium: Paused,
}

impl LogFile for PausedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.medium.before_read();
        self.file.read_at(buffer, offset)
    }

    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Scans with a pause before read `at`; false when the scan ended before that.
fn scan_with_pause(seed: u64, worked: u64, at: u64, rounds: u64) -> bool {
    let disk = SimMedium::new(seed);
    let mut work = Work::on(&disk, seed);
    work.go_on(worked);
    let paused = Paused {
        disk,
        pause: Arc::new(Mutex::new((at, rounds))),
        work: Arc::new(Mutex::new(work)),
    };
    let report = scan(&paused, &mut |_| {}).unwrap();
    let place = format!("seed {seed} worked {worked} at {at} rounds {rounds}");
    assert_eq!(report.damage, [], "{place}");
    paused.was_reached()
}

#[test]
fn a_log_in_use_is_never_called_damaged_however_long_a_look_at_it_is_held_up() {
    for seed in 0..6 {
        for worked in [0, 1, 3, 9, 20] {
            for rounds in [1, 4, 8, 40] {
                let mut at = 0;
                while scan_with_pause(seed, worked, at, rounds) {
                    at += 1;
                }
                assert!(at > 3, "the scan read something");
            }
        }
    }
}

//! `log_throughput DIR [SECONDS]`: the delivery log beside the bare disk, in turns, so that both
//! meet the same machine.
//!
//! Every line is one way to the disk with one number of appenders: records of 4 KiB a second, the
//! time an appender waits for its record (p50, p99), and processor time per record. `floor` is a
//! loop of one 4 KiB write and fdatasync after the other on a file written before. Source of the
//! dated records under `records/`.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot run stops")]

use mailstow_engine::sim::{
    Accepted, AcceptedEncoder, AcceptedRecipient, BackendChoice, CopyLocation, DeliveryId,
    EncodedRecord, LogWriter, LogWriterSettings, Sequence,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;
const APPENDERS: [usize; 3] = [1, 16, 64];

struct Series {
    name: String,
    records: usize,
    elapsed: Duration,
    cpu_us: i64,
    waits: Vec<Duration>,
}

fn record() -> EncodedRecord {
    let envelope = Accepted {
        id: DeliveryId(7),
        accepted_at: Duration::from_secs(1_700_000_000),
        reverse_path: "sender@lists.example.com".to_owned(),
        queue_id: "4XyZ1b2c3d".to_owned(),
        recipients: vec![AcceptedRecipient {
            address: "someone@example.org".to_owned(),
            original: String::new(),
            mailbox: "example.org/someone".to_owned(),
            uid: 5000,
            gid: 5000,
            location: CopyLocation::Maildir {
                file_name: "1700000000.M123456P4242V801I7f3a9c.mail.example.org".to_owned(),
            },
        }],
    };
    let mut encoder = AcceptedEncoder::new(&envelope, 4096);
    encoder.push(&[b'x'; 4096]);
    encoder.finish()
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds()
}

fn append_for(log: &LogWriter, appenders: usize, time: Duration) -> Vec<Duration> {
    let record = record();
    let until = Instant::now() + time;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..appenders)
            .map(|_| {
                let record = &record;
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    while Instant::now() < until {
                        let began = Instant::now();
                        let sequence = log.append_and_wait(record.clone()).unwrap();
                        waits.push(began.elapsed());
                        if sequence.0.is_multiple_of(8192) {
                            let below = Sequence(sequence.0.saturating_sub(1024));
                            log.truncate_before(below).unwrap();
                        }
                    }
                    waits
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn floor_for(file: &File, time: Duration) -> Vec<Duration> {
    let memory = vec![0; 3 * 4096];
    let start = memory.as_ptr().align_offset(4096);
    let block = memory.get(start..start + 4096).unwrap();
    let until = Instant::now() + time;
    let mut waits = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all_at(block, (waits.len() as u64 % 1024) * 4096)
            .unwrap();
        file.sync_data().unwrap();
        waits.push(began.elapsed());
    }
    waits
}

/// Runs `work`, adding to the series `name`.
fn measure(series: &mut Vec<Series>, name: String, work: impl FnOnce() -> Vec<Duration>) {
    let (cpu, began) = (cpu_us(), Instant::now());
    let waits = work();
    let (cpu_us, elapsed) = (cpu_us() - cpu, began.elapsed());
    let index = series
        .iter()
        .position(|known| known.name == name)
        .unwrap_or_else(|| {
            series.push(Series {
                name,
                records: 0,
                elapsed: Duration::ZERO,
                cpu_us: 0,
                waits: Vec::new(),
            });
            series.len() - 1
        });
    let known = series.get_mut(index).unwrap();
    known.records += waits.len();
    known.elapsed += elapsed;
    known.cpu_us += cpu_us;
    known.waits.extend(waits);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(directory) = arguments.first().map(Path::new) else {
        eprintln!("usage: log_throughput DIR [SECONDS]");
        std::process::exit(64);
    };
    let seconds = arguments.get(1).map_or(1.0, |text| text.parse().unwrap());
    let time = Duration::from_secs_f64(seconds);
    let probe = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(directory.join("probe"))
        .unwrap();
    floor_for(&probe, Duration::from_millis(500));
    let logs: Vec<(&str, LogWriter)> = [
        ("plain", BackendChoice::Plain),
        ("dsync", BackendChoice::PlainDsync),
        ("uring", BackendChoice::Uring),
    ]
    .into_iter()
    .map(|(name, backend)| {
        let settings = LogWriterSettings {
            backend,
            ..LogWriterSettings::default()
        };
        let path = directory.join(name);
        (name, LogWriter::open(&path, settings).unwrap().0)
    })
    .collect();
    let auto = LogWriter::open(&directory.join("auto"), LogWriterSettings::default()).unwrap();
    println!("auto would take: {}", auto.0.backend());
    drop(auto);
    let mut series = Vec::new();
    for _ in 0..ROUNDS {
        measure(&mut series, "floor 4 KiB".to_owned(), || {
            floor_for(&probe, time)
        });
        for appenders in APPENDERS {
            for (name, log) in &logs {
                let name = format!("{name} {appenders}");
                measure(&mut series, name, || append_for(log, appenders, time));
            }
        }
    }
    println!(
        "{:<12} {:>10} {:>8} {:>8} {:>8}",
        "way", "records/s", "p50 us", "p99 us", "cpu us"
    );
    for mut known in series {
        known.waits.sort_unstable();
        let at = |share: usize| {
            known
                .waits
                .get(known.waits.len() * share / 100)
                .unwrap()
                .as_micros()
        };
        println!(
            "{:<12} {:>10.0} {:>8} {:>8} {:>8.1}",
            known.name,
            known.records as f64 / known.elapsed.as_secs_f64(),
            at(50),
            at(99),
            known.cpu_us as f64 / known.records as f64
        );
    }
}

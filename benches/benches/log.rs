//! The delivery log: encoding, reading, and appending with group commit.
//!
//! `MAILSTOW_BENCH_DIR` names a directory on the disk to measure; without it a temporary one is
//! used, which may lie in memory. Appends are measured as a server would see them: threads that
//! each wait for their record to be durable.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench that cannot run stops, and criterion's macros write no docs"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailstow_engine::sim::{
    Accepted, AcceptedEncoder, AcceptedRecipient, BackendChoice, CopyLocation, DeliveryId,
    DirectoryMedium, EncodedRecord, LogWriter, LogWriterSettings, Record, Sequence, scan,
};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

fn envelope() -> Accepted {
    Accepted {
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
    }
}

/// Text as in mail: headers with changing values, then words in lines.
fn mail(bytes: usize) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "the", "meeting", "on", "Thursday", "will", "be", "moved", "to", "another", "room",
        "please", "find", "attached", "a", "draft", "of", "report", "and", "let", "me", "know",
        "whether", "numbers", "agree", "with", "yours", "best", "regards", "from", "Lisbon",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut text = String::new();
    for hop in 0..4 {
        let _ = write!(
            text,
            "Received: from mx{hop}.example.net (mx{hop}.example.net [192.0.2.{}])\n\
             \tby relay{hop}.example.com (Postfix) with ESMTPS id {:010X}\n\
             \tfor <someone@example.org>; Tue, 14 Nov 2023 22:13:{:02} +0000 (UTC)\n",
            random() % 250,
            random() % (1 << 40),
            random() % 60
        );
    }
    let _ = write!(
        text,
        "Message-ID: <{:016x}.{:016x}@example.net>\nSubject: Minutes\n\
         Content-Type: text/plain; charset=utf-8\n\n",
        random(),
        random()
    );
    let mut column = 0;
    while text.len() < bytes {
        let word = WORDS.get((random() % WORDS.len() as u64) as usize).unwrap();
        text.push_str(word);
        column += word.len() + 1;
        text.push(if column > 68 { '\n' } else { ' ' });
        column %= 69;
    }
    text.truncate(bytes);
    text.into_bytes()
}

fn encoded(content: &[u8]) -> EncodedRecord {
    let mut encoder = AcceptedEncoder::new(&envelope(), content.len());
    encoder.push(content);
    encoder.finish()
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let content = mail(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("encode", bytes), &content, |b, content| {
            b.iter(|| encoded(black_box(content)));
        });
        let record = encoded(&content);
        group.bench_with_input(BenchmarkId::new("decode", bytes), &record, |b, record| {
            b.iter(|| Record::decode(1, black_box(record.payload())).unwrap());
        });
    }
    group.finish();
}

/// What compression would cost and save, per message.
fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("zstd");
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let content = mail(bytes);
        for level in [-5, 1] {
            let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
            let length = compressor.compress(&content).unwrap().len();
            println!("zstd level {level}: {bytes} bytes become {length}");
            group.throughput(Throughput::Bytes(bytes as u64));
            let id = BenchmarkId::new(format!("level {level}"), bytes);
            group.bench_with_input(id, &content, |b, content| {
                b.iter(|| compressor.compress(black_box(content)).unwrap());
            });
        }
    }
    group.finish();
}

/// A separate directory below the one to measure.
fn directory() -> tempfile::TempDir {
    match std::env::var_os("MAILSTOW_BENCH_DIR").map(PathBuf::from) {
        Some(base) => tempfile::tempdir_in(base).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// `rounds` records over `threads` threads, each waiting for its own.
fn append_all(log: &LogWriter, record: &EncodedRecord, threads: u64, rounds: u64) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || {
                let share = rounds / threads + u64::from(number < rounds % threads);
                for _ in 0..share {
                    let sequence = log.append_and_wait(record.clone()).unwrap();
                    if sequence.0.is_multiple_of(4096) {
                        log.truncate_before(Sequence(sequence.0.saturating_sub(1024)))
                            .unwrap();
                    }
                }
            });
        }
    });
    began.elapsed()
}

fn appends(criterion: &mut Criterion) {
    let record = encoded(&mail(4 << 10));
    let mut group = criterion.benchmark_group("append");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(6));
    group.throughput(Throughput::Elements(1));
    let choices = [
        ("plain", BackendChoice::Plain),
        ("dsync", BackendChoice::PlainDsync),
        ("uring", BackendChoice::Uring),
        ("auto", BackendChoice::Auto),
    ];
    for (name, backend) in choices {
        let directory = directory();
        let settings = LogWriterSettings {
            backend,
            ..LogWriterSettings::default()
        };
        let (log, _) = LogWriter::open(directory.path(), settings).unwrap();
        println!("{name}: {}", log.backend());
        for threads in [1, 16, 64] {
            group.bench_function(BenchmarkId::new(name, threads), |b| {
                b.iter_custom(|rounds| append_all(&log, &record, threads, rounds));
            });
        }
    }
    group.finish();
}

fn scanning(criterion: &mut Criterion) {
    let directory = directory();
    let settings = LogWriterSettings::default();
    let (log, _) = LogWriter::open(directory.path(), settings).unwrap();
    let record = encoded(&mail(4 << 10));
    append_all(&log, &record, 64, 20_000);
    log.close().unwrap();
    let medium = DirectoryMedium::open_read_only(directory.path()).unwrap();
    let mut group = criterion.benchmark_group("scan");
    group.sample_size(10);
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("20000 records of 4 KiB", |b| {
        b.iter(|| {
            scan(&medium, &mut |entry| {
                drop(black_box(entry.record().unwrap()))
            })
            .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, records, compression, appends, scanning);
criterion_main!(benches);

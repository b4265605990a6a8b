//! Lookups in a warm recipient map beside LMDB, cdb and a HashMap, each with the same recipients
//! and the same questions in the same order.
//!
//! `MAILSTOW_MAP_RECIPIENTS=10000,1000000 cargo bench -p mailstow-benches --bench map`
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench may stop where it stands"
)]

mod map_stores;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailstow_engine::map::MapView;
use map_stores::{Questions, Recipients, TABLE, cdb, lmdb, mailstow};

/// Keys asked in one round: enough to leave the processor's caches behind.
const QUESTIONS: u64 = 1_000_000;

fn lookups(criterion: &mut Criterion) {
    for count in map_stores::counts() {
        let recipients = Recipients::new(count);
        let map = MapView::open(&mailstow(&recipients)).expect("map opens");
        let cdb_path = cdb::build(&recipients);
        let cdb = cdb::Cdb::open(&cdb_path);
        let lmdb_path = lmdb::build(&recipients);
        let lmdb = lmdb::Lmdb::open(&lmdb_path);
        let heap: HashMap<Box<str>, Box<str>> = (0..count)
            .map(|i| (recipients.key(i).into(), recipients.value(i).into()))
            .collect();
        print_sizes(count, &[map.path(), &cdb_path, &lmdb_path]);
        for present in [true, false] {
            let questions = recipients.questions(QUESTIONS.min(count * 20), present);
            let mut group = criterion.benchmark_group(if present { "hit" } else { "miss" });
            group
                .throughput(Throughput::Elements(questions.iter().count() as u64))
                .sample_size(10)
                .warm_up_time(Duration::from_secs(1))
                .measurement_time(Duration::from_secs(3));
            let mut bench = |name: &str, mut get: &mut dyn FnMut(&str) -> usize| {
                let expected = if present { questions.iter().count() } else { 0 };
                assert_eq!(ask(&questions, &mut get), expected, "{name}");
                group.bench_function(BenchmarkId::new(name, count), |b| {
                    b.iter(|| black_box(ask(&questions, &mut get)));
                });
            };
            // Each store gives the value as text in the caller's buffer, which is what routing
            // works with.
            let mut text = String::new();
            let mut copy = |value: &[u8]| {
                text.clear();
                text.push_str(std::str::from_utf8(value).expect("value is text"));
                black_box(text.as_str());
                1
            };
            bench("cdb", &mut |key| {
                cdb.get(key.as_bytes()).map_or(0, &mut copy)
            });
            let read = lmdb.read();
            bench("lmdb", &mut |key| {
                let found = lmdb.table.get(&read, key.as_bytes());
                found.expect("LMDB answers").map_or(0, &mut copy)
            });
            bench("hash_map", &mut |key| {
                heap.get(key).map_or(0, |value| copy(value.as_bytes()))
            });
            let reader = map.reader();
            let table = reader.table(TABLE).expect("the map has the table");
            bench("mailstow", &mut |key| {
                let Some(value) = reader.get(table, key).expect("map answers") else {
                    return 0;
                };
                text.clear();
                value.append_to(&mut text).expect("value is text");
                black_box(text.as_str());
                1
            });
            group.finish();
        }
    }
}

fn ask(questions: &Questions, get: &mut dyn FnMut(&str) -> usize) -> usize {
    questions.iter().map(get).sum()
}

fn print_sizes(count: u64, paths: &[&Path]) {
    for path in paths {
        let bytes = std::fs::metadata(path).expect("file is there").len();
        let each = bytes as f64 / count as f64;
        println!(
            "size {count} {}: {bytes} bytes, {each:.1} each",
            path.display()
        );
    }
}

fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(1));
    for count in map_stores::counts() {
        let path = mailstow(&Recipients::new(count));
        group.bench_function(BenchmarkId::new("mailstow", count), |b| {
            b.iter(|| MapView::open(black_box(&path)).expect("map opens"));
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, opening);
criterion_main!(benches);

//! The first lookups after the page cache lost the files: what a server pays after a restart.
//!
//! Each sample opens a store whose pages were dropped and asks it [`QUESTIONS`] random keys.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench may stop where it stands"
)]

mod map_stores;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mailstow_engine::map::MapView;
use map_stores::{Questions, Recipients, TABLE, cdb, lmdb, mailstow};

const QUESTIONS: u64 = 20_000;
const SAMPLES: usize = 5;

fn main() {
    // `cargo test` runs benches with --test; there is nothing to test here.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    for count in map_stores::counts() {
        let recipients = Recipients::new(count);
        let map = mailstow(&recipients);
        let cdb = cdb::build(&recipients);
        let lmdb = lmdb::build(&recipients);
        for present in [true, false] {
            let questions = recipients.questions(QUESTIONS, present);
            measure("mailstow", count, present, &map, || {
                ask_map(&map, &questions)
            });
            measure("cdb", count, present, &cdb, || ask_cdb(&cdb, &questions));
            measure("lmdb", count, present, &lmdb, || {
                ask_lmdb(&lmdb, &questions)
            });
        }
    }
}

fn measure(name: &str, count: u64, present: bool, path: &Path, mut ask: impl FnMut() -> usize) {
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            drop_pages(path);
            let begin = Instant::now();
            black_box(ask());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let median = times[SAMPLES / 2].as_secs_f64();
    let kind = if present { "hit" } else { "miss" };
    println!(
        "cold {kind} {count} {name}: {:.0} lookups/s (median of {SAMPLES}, {:.1} to {:.1} ms)",
        QUESTIONS as f64 / median,
        times[0].as_secs_f64() * 1e3,
        times[SAMPLES - 1].as_secs_f64() * 1e3,
    );
}

/// Drops the file's pages: dd(1) with `nocache` and no data calls posix_fadvise(2).
fn drop_pages(path: &Path) {
    let done = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["iflag=nocache", "count=0", "status=none"])
        .status()
        .expect("dd runs");
    assert!(done.success());
}

fn ask_map(path: &Path, questions: &Questions) -> usize {
    let view = MapView::open(path).expect("map opens");
    let table = view.reader().table(TABLE).expect("the map has the table");
    let mut text = String::new();
    let get = |key| {
        let Some(value) = view.reader().get(table, key).expect("map answers") else {
            return 0;
        };
        text.clear();
        value.append_to(&mut text).expect("value is text");
        1
    };
    questions.iter().map(get).sum()
}

fn ask_cdb(path: &PathBuf, questions: &Questions) -> usize {
    let cdb = cdb::Cdb::open(path);
    let get = |key: &str| usize::from(cdb.get(key.as_bytes()).is_some());
    questions.iter().map(get).sum()
}

fn ask_lmdb(path: &Path, questions: &Questions) -> usize {
    let lmdb = lmdb::Lmdb::open(path);
    let read = lmdb.read();
    let get = |key: &str| {
        let found = lmdb.table.get(&read, key.as_bytes()).expect("LMDB answers");
        usize::from(found.is_some())
    };
    questions.iter().map(get).sum()
}

//! Killing the program that changes a map, at any moment: the map stays whole, and no change that
//! was acknowledged is lost.
//!
//! The test starts itself again as the writer, which counts in the map: it changes single keys,
//! merges and builds anew, and writes down each number once it was acknowledged.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mailstow_engine::map::{
    BuildOptions, Change, MapBuilder, MapView, PendingChanges, change, merge,
};

/// Set in the writer: the directory to work in.
const DIRECTORY: &str = "MAILSTOW_MAP_KILL_DIRECTORY";
const TABLE: &str = "counters";
const ROUNDS: u32 = 12;

fn build(path: &Path, count: u64) {
    let options = BuildOptions {
        pending_changes: PendingChanges::Discard,
        ..BuildOptions::default()
    };
    let mut builder = MapBuilder::new(path, options).unwrap();
    let table = builder.table(TABLE).unwrap();
    for key in ["left", "right"] {
        builder.add(table, key, &count.to_string()).unwrap();
    }
    builder.finish().unwrap();
}

fn set(path: &Path, count: u64) {
    let set = |key: &str| Change::Set {
        table: TABLE.into(),
        key: key.into(),
        value: count.to_string(),
    };
    change(path, &[set("left"), set("right")]).unwrap();
}

/// The number in the map; both keys always have the same one.
fn count(path: &Path) -> u64 {
    let view = MapView::open(path).unwrap();
    view.reader().verify(|_, _| {}).unwrap();
    let left = view.get(TABLE, "left").unwrap().unwrap();
    assert_eq!(view.get(TABLE, "right").unwrap().unwrap(), left);
    left.parse().unwrap()
}

/// The last number that was reported durable to the writer.
fn acknowledged(directory: &Path) -> u64 {
    let text = std::fs::read_to_string(directory.join("acknowledged")).unwrap_or_default();
    // A number without its line end may be cut off.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().last().map_or(0, |line| line.parse().unwrap())
}

/// Does nothing unless it was started by the test below.
#[test]
fn the_writer_counts_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let path = directory.join("map");
    let mut told = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(directory.join("acknowledged"))
        .unwrap();
    for next in count(&path) + 1.. {
        match next % 7 {
            0 => build(&path, next),
            3 => {
                merge(&path, |_, _| true).unwrap();
                set(&path, next);
            }
            _ => set(&path, next),
        }
        writeln!(told, "{next}").unwrap();
    }
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_counts_until_it_is_killed"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_writer_leaves_a_whole_map_with_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, 0);
    for round in 0..ROUNDS {
        let before = acknowledged(directory.path());
        let mut writer = start(directory.path());
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged(directory.path()) < before + 1 + u64::from(round % 8) {
            assert!(Instant::now() < deadline, "the writer makes no progress");
            std::thread::yield_now();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let (told, found) = (acknowledged(directory.path()), count(&path));
        // The last change may be durable before the writer could tell.
        assert!(
            (told..=told + 1).contains(&found),
            "{told} told, {found} found"
        );
    }
    set(&path, 1);
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(left, [""; 0], "unfinished files stay behind");
}

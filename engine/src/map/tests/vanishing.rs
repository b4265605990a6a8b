//! Files that are cut or overwritten while a map is in use: right answers or errors, no signal.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const KEYS: usize = 20_000;

fn key(number: usize) -> String {
    format!("user{number}@domain{}.example", number % 50)
}

fn build_many(path: &Path, value: &str) {
    let mut builder = MapBuilder::new(path, BuildOptions::default()).unwrap();
    let table = builder.table("t").unwrap();
    for number in 0..KEYS {
        let value = format!("{value}/{number}/");
        builder.add(table, &key(number), &value).unwrap();
    }
    builder.finish().unwrap();
}

fn open(path: &Path) -> MapReader {
    MapReader::open(File::open(path).unwrap(), path).unwrap()
}

fn cut(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// The value of a key: an error when it is not known.
fn ask(reader: &MapReader, number: usize) -> Result<String, MapError> {
    let table = reader.table("t").unwrap();
    let key = key(number);
    let value = reader
        .get(table, &key)?
        .expect("a key that is there is never absent");
    value.text().map(|text| text.into_owned())
}

#[test]
fn a_file_that_is_cut_gives_what_was_asked_for_before_and_errors_for_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build_many(&path, "old");
    for bytes in [0, 100_000] {
        build_many(&path, "old");
        let reader = open(&path);
        assert_eq!(ask(&reader, 7).unwrap(), "old/7/");
        cut(&path, bytes);
        assert_eq!(ask(&reader, 7).unwrap(), "old/7/");
        let failed = (0..KEYS).filter(|number| match ask(&reader, *number) {
            Ok(value) => {
                assert_eq!(value, format!("old/{number}/"));
                false
            }
            Err(error) => {
                assert!(error.status().is_temporary(), "{error}");
                true
            }
        });
        assert!(failed.count() > KEYS / 4);
        assert!(reader.verify(|_, _| {}).is_err());
        assert!(reader.for_each(|_, _| Ok(())).is_err());
    }
}

#[test]
fn a_view_of_a_file_that_was_cut_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build_many(&path, "old");
    let view = MapView::open(&path).unwrap();
    cut(&path, 0);
    let error = view.find(&key(7)).unwrap_err();
    assert!(matches!(error, MapError::Overwritten { .. }), "{error}");
}

#[test]
fn a_value_with_a_damaged_block_in_its_middle_is_never_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let value = "v".repeat(20_000);
    build(&path, &[("t", "k", &value)]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes
        .windows(64)
        .position(|part| part == [b'v'; 64])
        .unwrap()
        + 10_000;
    bytes[middle] ^= 1;
    let reader = MapReader::new(&bytes).unwrap();
    let table = reader.table("t").unwrap();
    for _ in 0..3 {
        assert!(reader.get(table, "k").is_err());
    }
}

#[test]
fn readers_of_a_file_that_is_overwritten_again_and_again_are_never_told_that_a_key_is_absent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let maps: Vec<Vec<u8>> = ["one", "two"]
        .map(|value| {
            build_many(&path, value);
            fs::read(&path).unwrap()
        })
        .into();
    let handle = MapHandle::open(&path).unwrap();
    let stop = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut answered = 0;
            for number in (0..KEYS).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // A file that is not whole leaves the old view in use.
                let _ = handle.refresh();
                let view = handle.view();
                let key = key(number);
                if let Ok(found) = view.get("t", &key) {
                    let value = found.expect("a key that is there is never absent");
                    assert!(value.ends_with(&format!("/{number}/")), "{value}");
                    answered += 1;
                }
            }
            answered
        });
        for map in maps.iter().cycle().take(60) {
            let mut file = File::create(&path).unwrap();
            for part in map.chunks(64 * 1024) {
                std::io::Write::write_all(&mut file, part).unwrap();
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(answered > 0);
    handle.refresh().unwrap();
    assert_eq!(get(&handle.view(), "t", &key(3)).as_deref(), Some("two/3/"));
}

#[test]
fn reading_a_whole_map_keeps_nothing_and_memory_is_given_back_and_filled_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build_many(&path, "x");
    let mut reader = open(&path);
    let opened = reader.copy().copied_bytes();
    reader.verify(|_, _| {}).unwrap();
    assert_eq!(reader.copy().copied_bytes(), opened);
    ask(&reader, 7).unwrap();
    assert!(reader.copy().copied_bytes() >= opened);
    reader.forget();
    assert_eq!(reader.copy().copied_bytes(), 0);
    for number in 0..KEYS {
        assert_eq!(ask(&reader, number).unwrap(), format!("x/{number}/"));
    }
    let all = fs::metadata(&path).unwrap().len();
    assert!(reader.copy().copied_bytes() as u64 <= all);
}

//! Tests of the cache: sharing, and what a changed file does.

use super::super::{OpenError, TableList};
use super::*;
use crate::clock;
use std::path::PathBuf;

struct Room {
    dir: tempfile::TempDir,
    cache: TableCache,
}

impl Room {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            cache: TableCache::new(TableContext::default()),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    /// Edits the file in place.
    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
        self.age(&self.path());
    }

    /// Replaces the file by rename.
    fn replace(&self, text: &str) {
        let new = self.dir.path().join("t.new");
        std::fs::write(&new, text).unwrap();
        self.age(&new);
        std::fs::rename(new, self.path()).unwrap();
    }

    /// Makes the file old enough to need no second look for its time stamp's sake.
    fn age(&self, path: &Path) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(10);
        file.set_modified(old).unwrap();
    }

    fn list(&self, kind: &str) -> TableList {
        TableList::parse(&format!("{kind}:{}", self.path().display()), "hash").unwrap()
    }

    fn ask(&self, key: &str) -> Option<String> {
        let set = self.cache.open_all(&self.list("hash")).unwrap();
        set.lookup(key, false).unwrap().map(|(value, _)| value)
    }

    /// Two looks, as two turns of the poll: what the second one says.
    fn settle(&self) -> Refresh {
        assert_eq!(self.cache.refresh(), Refresh::default());
        self.cache.refresh()
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_changed_file_is_taken_when_two_looks_agree() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    assert_eq!(room.cache.refresh(), Refresh::default());
    for (edit, value) in [
        (Room::write as fn(&Room, &str), "two"),
        (Room::replace, "three"),
    ] {
        edit(&room, &format!("k {value}\nk dup\n"));
        let refresh = room.settle();
        assert!(refresh.changed);
        assert_eq!(refresh.reloaded.len(), 1);
        assert_eq!(refresh.warnings.len(), 1);
        assert_eq!(refresh.problems.len(), 0);
        assert_eq!(room.ask("k"), some(value));
        assert_eq!(room.cache.refresh(), Refresh::default());
    }
}

#[test]
fn a_file_that_keeps_changing_is_left_alone_until_it_rests() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    for n in 0..4 {
        room.write(&format!("k two{}\n", "x".repeat(n)));
        assert_eq!(room.cache.refresh(), Refresh::default());
        assert_eq!(room.ask("k"), some("one"));
    }
    assert!(room.cache.refresh().changed);
    assert_eq!(room.ask("k"), some("twoxxx"));
}

#[test]
fn an_operator_who_asks_gets_changes_at_once() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    room.write("k second\n");
    assert!(room.cache.refresh_now().changed);
    assert_eq!(room.ask("k"), some("second"));
    assert!(!room.cache.refresh_now().changed);
}

#[test]
fn a_file_that_no_longer_parses_keeps_the_old_contents_and_is_reported_once() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    room.write("k two\nno-value\n");
    let refresh = room.settle();
    assert!(!refresh.changed);
    assert_eq!(refresh.problems.len(), 1);
    assert!(refresh.problems[0].contains("t:2: no value"), "{refresh:?}");
    assert_eq!(room.cache.refresh(), Refresh::default());
    assert_eq!(room.ask("k"), some("one"));
    assert_eq!(room.cache.refresh_now().problems.len(), 1);
    room.write("k three\n");
    assert!(room.settle().changed);
    assert_eq!(room.ask("k"), some("three"));
}

#[test]
fn at_start_malformed_lines_are_skipped_with_a_warning() {
    let room = Room::new();
    room.write("no-value\nk one\n");
    let set = room.cache.open_all(&room.list("hash")).unwrap();
    assert_eq!(set.warnings().count(), 1);
    assert_eq!(room.ask("k"), some("one"));
}

#[test]
fn a_file_that_vanishes_keeps_the_old_contents_and_is_reported_once() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    std::fs::remove_file(room.path()).unwrap();
    let refresh = room.settle();
    assert_eq!(refresh.problems.len(), 1);
    assert!(refresh.problems[0].contains("old contents"), "{refresh:?}");
    assert_eq!(room.cache.refresh(), Refresh::default());
    assert_eq!(room.ask("k"), some("one"));
    room.replace("k two\n");
    assert!(room.settle().changed);
    assert_eq!(room.ask("k"), some("two"));
}

#[test]
fn a_file_written_anew_with_the_same_contents_is_no_change() {
    let room = Room::new();
    room.write("k one\n");
    assert_eq!(room.ask("k"), some("one"));
    room.replace("k one\n");
    assert_eq!(room.settle(), Refresh::default());
    room.write("k two\n");
    assert!(room.settle().changed);
}

#[test]
fn a_change_that_leaves_the_stamp_as_it_was_is_found_by_the_second_look() {
    let room = Room::new();
    std::fs::write(room.path(), "k one\n").unwrap();
    assert_eq!(room.ask("k"), some("one"));
    let file = std::fs::File::options()
        .write(true)
        .open(room.path())
        .unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"k two\n", 0).unwrap();
    file.set_modified(modified).unwrap();
    let deadline = clock::now() + Duration::from_secs(5);
    while !room.cache.refresh().changed {
        assert!(clock::now() < deadline, "not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(room.ask("k"), some("two"));
    // The contents are known now: nothing is read until the stamp changes.
    assert_eq!(room.cache.refresh(), Refresh::default());
}

#[test]
fn sets_that_are_out_never_change() {
    let room = Room::new();
    room.write("k one\n");
    let old = room.cache.open_all(&room.list("hash")).unwrap();
    room.write("k two!\n");
    assert!(room.cache.refresh_now().changed);
    assert_eq!(old.lookup("k", false).unwrap().unwrap().0, "one");
    assert_eq!(room.ask("k"), some("two!"));
}

#[test]
fn tables_are_shared_by_name_and_closed_when_they_are_used_no_more() {
    let room = Room::new();
    room.write("k one\n");
    let list = room.list("hash");
    let ask = |set: &TableSet| std::ptr::from_ref(set.tables().next().unwrap()).cast::<u8>();
    let first = room.cache.open_all(&list).unwrap();
    let second = room.cache.open_all(&list).unwrap();
    assert_eq!(ask(&first), ask(&second));
    room.cache.begin_generation();
    room.cache.open_all(&list).unwrap();
    room.cache.close_unused();
    assert_eq!(ask(&first), ask(&room.cache.open_all(&list).unwrap()));
    room.cache.begin_generation();
    room.cache.close_unused();
    assert_ne!(ask(&first), ask(&room.cache.open_all(&list).unwrap()));
}

#[test]
fn every_kind_of_file_is_watched() {
    let room = Room::new();
    for (kind, one, two) in [
        ("texthash", "k 1\n", "k 2 \n"),
        ("regexp", "/^k$/ 1\n", "/^k$/ 2 \n"),
        ("pcre", "/^k$/ 1\n", "/^k$/ 2 \n"),
    ] {
        room.write(one);
        let list = room.list(kind);
        let ask = || {
            let set = room.cache.open_all(&list).unwrap();
            set.lookup("k", false).unwrap().unwrap().0
        };
        room.cache.begin_generation();
        room.cache.close_unused();
        assert_eq!(ask(), "1");
        room.write("no table line\n/a\n\"\n");
        assert_eq!(room.settle().problems.len(), 1, "{kind}");
        room.write(two);
        assert!(room.settle().changed);
        assert_eq!(ask(), "2");
    }
}

#[test]
fn a_file_that_cannot_be_read_does_not_open_and_says_what_to_do() {
    let room = Room::new();
    let error = room.cache.open_all(&room.list("hash")).unwrap_err();
    assert!(matches!(error, OpenError::Read { .. }));
    let text = error.to_string();
    assert!(
        text.contains("/t: ") && text.contains("create it"),
        "{text}"
    );
}

//! Tables that are read while they are written: what is held back, and until when.

use std::io::Write as _;
use std::path::PathBuf;

use super::super::TableList;
use super::*;

/// A directory with one table, the cache that watches it, and its hold time.
struct Room {
    directory: tempfile::TempDir,
    cache: TableCache,
}

fn cache(hold_time: Duration) -> TableCache {
    TableCache::new(TableContext {
        hold_time,
        ..TableContext::default()
    })
}

impl Room {
    fn new(hold_time: Duration, text: &str) -> Self {
        let room = Self::unopened(hold_time, text);
        room.set();
        room
    }

    fn unopened(hold_time: Duration, text: &str) -> Self {
        let room = Self {
            directory: tempfile::tempdir().unwrap(),
            cache: cache(hold_time),
        };
        std::fs::write(room.path(), text).unwrap();
        room
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("t")
    }

    fn set(&self) -> TableSet {
        self.set_of("hash")
    }

    fn set_of(&self, kind: &str) -> TableSet {
        let list = format!("{kind}:{}", self.path().display());
        let list = TableList::parse(&list, "hash").unwrap();
        self.cache.open_all(&list).unwrap()
    }

    /// Writes the file in place.
    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn has(&self, key: &str) -> bool {
        self.set().lookup(key, false).unwrap().is_some()
    }

    fn is_held(&self) -> bool {
        self.set().unsettled().is_some()
    }

    /// Looks until `done`, and says what was reported.
    fn look_until(&self, done: impl Fn(&Self) -> bool) -> Refresh {
        let deadline = crate::clock::now() + Duration::from_secs(20);
        let mut all = Refresh::default();
        loop {
            let refresh = self.cache.refresh();
            all.changed |= refresh.changed;
            all.problems.extend(refresh.problems);
            all.warnings.extend(refresh.warnings);
            if done(self) {
                return all;
            }
            assert!(crate::clock::now() < deadline, "{all:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1500);

fn users(count: usize) -> String {
    (0..count).map(|n| format!("user{n} path{n}/\n")).collect()
}

#[test]
fn a_table_that_is_emptied_and_filled_again_never_loses_an_entry() {
    let room = Room::new(LONG, &users(50));
    room.write("");
    let held = room.look_until(Room::is_held);
    assert!(held.problems[0].contains("the file is empty"), "{held:?}");
    assert!(held.problems[0].contains("table publish"), "{held:?}");
    assert!(room.has("user7") && !room.has("user50"));
    assert!(room.cache.held_back()[0].contains("empty"));
    room.write(&users(51));
    let taken = room.look_until(|room| room.has("user50"));
    assert_eq!(taken.problems.len(), 0);
    assert!(!room.is_held());
    assert_eq!(room.cache.held_back(), Vec::<String>::new());
}

#[test]
fn what_old_contents_lack_is_deferred_where_they_are_in_use_beside_the_new_ones() {
    let room = Room::new(LONG, &users(50));
    room.write("");
    room.look_until(Room::is_held);
    let old = room.set();
    room.write(&users(51));
    room.look_until(|room| room.has("user50"));
    assert!(!room.is_held());
    assert!(old.unsettled().is_some(), "user50 is not in them");
}

#[test]
fn a_table_that_is_written_line_by_line_never_loses_an_entry() {
    let room = Room::new(LONG, &users(12));
    // Once with the file open all the time, once opened for each line, as scripts do.
    for keeps_open in [true, false] {
        let text = users(12);
        let mut file = std::fs::File::create(room.path()).unwrap();
        let mut kept = keeps_open.then(|| file.try_clone().unwrap());
        for line in text.lines() {
            writeln!(file, "{line}").unwrap();
            if !keeps_open {
                drop(file);
            }
            for _ in 0..3 {
                room.cache.refresh();
                for n in 0..12 {
                    assert!(room.has(&format!("user{n}")), "user{n} after {line}");
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            file = std::fs::File::options()
                .append(true)
                .open(room.path())
                .unwrap();
        }
        drop((file, kept.take()));
        room.look_until(|room| !room.is_held() && !room.cache.is_restless());
    }
}

#[test]
fn a_table_that_shrinks_suddenly_counts_when_it_was_left_alone_for_the_hold_time() {
    let room = Room::new(SHORT, &users(40));
    room.write(&users(20));
    let held = room.look_until(Room::is_held);
    let text = "the file lacks 20 of the 40 entries in use";
    assert!(held.problems[0].contains(text), "{held:?}");
    assert!(room.has("user30"));
    let taken = room.look_until(|room| !room.has("user30"));
    assert!(taken.changed && !room.is_held());
    assert!(
        taken.problems[0].contains("without 20 of the 40"),
        "{taken:?}"
    );
    assert!(room.has("user10"));
}

#[test]
fn a_line_without_an_end_is_waited_for() {
    let room = Room::new(SHORT, "a 1\n");
    room.write("a 1\nb 2/3");
    let held = room.look_until(Room::is_held);
    assert!(held.problems[0].contains("middle of a line"), "{held:?}");
    room.look_until(|room| room.has("b"));
    assert!(!room.is_held());
}

#[test]
fn a_file_with_lines_that_are_no_entries_defers_what_it_may_name_until_it_is_corrected() {
    for corrected in ["a 1\nb 2\n", "a 1\n"] {
        let room = Room::new(SHORT, "a 1\n");
        room.write("a 1\nb 2\nbroken\n");
        let is_refused = |room: &Room| {
            let unsettled = room.set().unsettled();
            unsettled.is_some_and(|error| error.to_string().contains("no entries"))
        };
        let refused = room.look_until(is_refused);
        assert!(room.has("a") && !room.has("b"));
        let text = refused.problems.concat();
        assert!(text.contains("old contents stay in use"), "{refused:?}");
        // Time alone does not make it whole.
        std::thread::sleep(2 * SHORT);
        assert_eq!(room.cache.refresh().problems.len(), 0);
        assert!(is_refused(&room));
        room.write(corrected);
        room.look_until(|room| !room.is_held());
        assert_eq!(room.has("b"), corrected.contains('b'));
    }
}

#[test]
fn a_file_that_somebody_writes_or_has_locked_is_held_back_until_he_is_done() {
    let room = Room::new(LONG, "a 1\n");
    let writer = std::fs::File::options()
        .append(true)
        .open(room.path())
        .unwrap();
    (&writer).write_all(b"b 2\n").unwrap();
    let held = room.look_until(Room::is_held);
    assert!(held.problems[0].contains("open for writing"), "{held:?}");
    assert!(!room.has("b"));
    drop(writer);
    room.look_until(|room| room.has("b"));
    assert!(!room.is_held());
    let locked = std::fs::File::open(room.path()).unwrap();
    rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive).unwrap();
    room.write("a 1\nb 2\nc 3\n");
    room.look_until(Room::is_held);
    assert!(!room.has("c"));
    drop(locked);
    room.look_until(|room| room.has("c"));
    assert!(!room.is_held());
}

#[test]
fn one_entry_less_counts_long_before_the_hold_time() {
    let room = Room::new(LONG, "a 1\nb 2\n");
    room.look_until(|room| !room.cache.is_restless());
    room.write("a 1\n");
    let taken = room.look_until(|room| !room.has("b"));
    assert_eq!(taken.problems.len(), 0);
}

#[test]
fn a_published_table_counts_at_once_however_much_it_lost() {
    let room = Room::new(LONG, &users(50));
    super::super::publish(&room.path(), b"user1 x/\n").unwrap();
    assert_eq!(room.cache.refresh(), Refresh::default());
    assert!(room.cache.refresh().changed);
    assert!(room.has("user1") && !room.has("user2"));
}

#[test]
fn a_file_that_vanishes_is_waited_for() {
    let room = Room::new(SHORT, "a 1\n");
    std::fs::remove_file(room.path()).unwrap();
    let held = room.look_until(Room::is_held);
    assert!(held.problems[0].contains("old contents"), "{held:?}");
    let later = room.look_until(|room| !room.is_held());
    assert_eq!(later.problems.len(), 0);
    assert!(room.has("a"));
}

#[test]
fn an_empty_table_that_was_empty_from_the_start_stays_empty() {
    for path in [None, Some("/dev/null")] {
        let room = Room::unopened(LONG, "");
        let path = path.map_or(room.path(), PathBuf::from);
        let list = format!("hash:{}", path.display());
        let list = TableList::parse(&list, "hash").unwrap();
        let set = room.cache.open_all(&list).unwrap();
        assert!(set.lookup("a", false).unwrap().is_none());
        assert!(set.unsettled().is_none(), "{}", path.display());
        assert_eq!(room.cache.refresh(), Refresh::default());
        assert!(set.unsettled().is_none());
    }
}

#[test]
fn a_table_that_is_being_written_at_the_start_defers_until_it_is_whole() {
    let room = Room::unopened(LONG, "");
    let mut writer = std::fs::File::create(room.path()).unwrap();
    writer.write_all(b"a 1\nb 2/").unwrap();
    assert!(room.is_held(), "somebody has it open");
    assert!(room.has("a") && !room.has("b"), "half a path is no path");
    writer.write_all(b"3\nc 3\n").unwrap();
    drop(writer);
    room.look_until(|room| room.has("c"));
    room.look_until(|room| !room.is_held());
    assert_eq!(room.set().lookup("b", false).unwrap().unwrap().0, "2/3");
}

#[test]
fn a_table_that_was_emptied_before_the_start_defers_until_it_is_filled_or_was_left_alone() {
    let room = Room::unopened(SHORT, "a 1\n");
    // The file must be older than its content.
    let born = crate::clock::now();
    while born.elapsed() < Duration::from_millis(2200) {
        std::thread::sleep(Duration::from_millis(50));
    }
    room.write("");
    assert!(room.is_held());
    room.look_until(|room| !room.is_held());
    assert!(!room.has("a"));
}

#[test]
fn a_file_that_is_appended_to_after_the_start_is_held_back_until_it_rests() {
    let room = Room::new(LONG, "a 1\n");
    room.write("a 1\nb 2\n");
    room.look_until(Room::is_held);
    room.look_until(|room| room.has("b"));
    assert!(!room.is_held());
}

#[test]
fn patterns_indexes_and_descriptions_are_held_back_as_well() {
    let rules: String = (0..10).map(|n| format!("/^u{n}$/ {n}\n")).collect();
    for kind in ["regexp", "pcre"] {
        let room = Room::unopened(LONG, &rules);
        room.set_of(kind);
        room.write("/^u0$/ 0\n");
        room.look_until(|room| room.set_of(kind).unsettled().is_some());
        let set = room.set_of(kind);
        assert_eq!(set.lookup("u7", false).unwrap().unwrap().0, "7");
    }
}

#[test]
fn a_set_knows_the_files_of_its_members_and_no_others() {
    let room = Room::new(LONG, &users(9));
    let other = room.directory.path().join("other");
    std::fs::write(&other, "a 1\n").unwrap();
    let open = |list: String| {
        let list = TableList::parse(&list, "hash").unwrap();
        room.cache.open_all(&list).unwrap()
    };
    let (path, other) = (room.path(), other.display().to_string());
    let union = open(format!("unionmap:{{static:x, hash:{}}}", path.display()));
    let other = open(format!("hash:{other}"));
    room.write("");
    room.look_until(Room::is_held);
    assert!(union.unsettled().is_some() && other.unsettled().is_none());
    assert_eq!(room.cache.holds().len(), 2);
    let moved = room.cache.for_context(TableContext {
        recipient_delimiter: "+".to_owned(),
        hold_time: LONG,
        ..TableContext::default()
    });
    let list = TableList::parse(&format!("hash:{}", path.display()), "hash").unwrap();
    let set = moved.open_all(&list).unwrap();
    assert!(set.lookup("user3", false).unwrap().is_some() && set.unsettled().is_some());
}

#[test]
fn a_file_of_the_same_size_whose_time_was_set_back_is_seen_to_have_changed() {
    let room = Room::new(Duration::from_secs(60), "anna@example.com x/\n");
    let file = std::fs::File::options()
        .write(true)
        .open(room.path())
        .unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    room.write("otto@example.com x/\n");
    file.set_modified(before).unwrap();
    drop(file);
    room.look_until(|room| room.has("otto@example.com"));
    assert!(!room.has("anna@example.com"));
}

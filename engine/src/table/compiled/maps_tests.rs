//! Tests of recipient maps in the cache: what a new map, a changed key and a damaged file do.

use crate::map::{BuildOptions, Change, MapBuilder, change};
use crate::table::{LookupTable, TableCache, TableContext, TableList, TableSet};
use std::fs;
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
        self.dir.path().join("map")
    }

    fn build(&self, value: &str) {
        let mut builder = MapBuilder::new(&self.path(), BuildOptions::default()).unwrap();
        for name in ["virtual_mailbox_maps", "virtual_uid_maps"] {
            let table = builder.table(name).unwrap();
            builder.add(table, "k", value).unwrap();
        }
        builder.finish().unwrap();
    }

    fn set(&self, parameter: &str) -> TableSet {
        let list = format!("mailstow:{}", self.path().display());
        let list = TableList::parse(&list, "hash").unwrap();
        self.cache.open_all(&list.for_parameter(parameter)).unwrap()
    }

    /// What both parameters answer; None when they defer.
    fn ask(&self) -> Option<String> {
        let answers = ["virtual_mailbox_maps", "virtual_uid_maps"].map(|parameter| {
            let set = self.set(parameter);
            let found = set.lookup("K", false).ok()?;
            Some(found.map_or_else(|| "nothing".to_owned(), |(value, _)| value))
        });
        assert_eq!(answers[0], answers[1], "of one moment");
        let [answer, _] = answers;
        answer
    }
}

#[test]
fn new_maps_and_changed_keys_are_taken_at_the_next_look() {
    let room = Room::new();
    room.build("one");
    assert_eq!(room.ask().as_deref(), Some("one"));
    assert!(!room.cache.refresh().changed);
    let old = room.set("virtual_uid_maps");
    room.build("two");
    let refresh = room.cache.refresh();
    assert!(refresh.changed && refresh.problems.is_empty());
    assert_eq!(refresh.reloaded.len(), 1);
    assert_eq!(room.ask().as_deref(), Some("two"));
    assert_eq!(old.lookup("k", false).unwrap().unwrap().0, "one");
    let unset = ["virtual_mailbox_maps", "virtual_uid_maps"].map(|table| Change::Unset {
        table: table.into(),
        key: "k".into(),
    });
    change(&room.path(), &unset).unwrap();
    assert!(room.cache.refresh().changed);
    assert_eq!(room.ask().as_deref(), Some("nothing"));
    assert!(!room.cache.refresh().changed);
    assert_eq!(room.cache.maps().len(), 1);
}

#[test]
fn a_broken_map_in_the_place_of_a_whole_one_is_reported_once_and_not_taken() {
    let room = Room::new();
    room.build("one");
    assert_eq!(room.ask().as_deref(), Some("one"));
    let broken = room.dir.path().join("broken");
    fs::write(&broken, "no map").unwrap();
    fs::rename(&broken, room.path()).unwrap();
    let refresh = room.cache.refresh();
    assert!(!refresh.changed);
    assert!(
        refresh.problems[0].contains("old contents stay in use"),
        "{refresh:?}"
    );
    assert_eq!(room.cache.refresh(), crate::table::Refresh::default());
    assert_eq!(room.ask().as_deref(), Some("one"));
    assert_eq!(room.cache.refresh_now().problems.len(), 1);
    fs::remove_file(room.path()).unwrap();
    assert_eq!(room.cache.refresh().problems.len(), 1);
    assert_eq!(room.ask().as_deref(), Some("one"));
    room.build("two");
    assert!(room.cache.refresh().changed);
    assert_eq!(room.ask().as_deref(), Some("two"));
}

#[test]
fn a_map_that_is_overwritten_defers_until_there_is_a_whole_one_again() {
    let room = Room::new();
    room.build("one");
    assert_eq!(room.ask().as_deref(), Some("one"));
    for damage in [b"".as_slice(), &[7; 100_000]] {
        fs::write(room.path(), damage).unwrap();
        let refresh = room.cache.refresh();
        assert!(refresh.changed, "{refresh:?}");
        assert!(
            refresh.problems[0].contains("is deferred"),
            "{}",
            refresh.problems[0]
        );
        assert_eq!(room.ask(), None);
        assert!(!room.cache.refresh().changed);
        room.build("two");
        assert!(room.cache.refresh().changed);
        assert_eq!(room.ask().as_deref(), Some("two"));
    }
}

#[test]
fn a_map_that_is_damaged_from_the_start_defers_and_one_that_is_not_there_is_refused() {
    let room = Room::new();
    let list = format!("mailstow:{}:t", room.path().display());
    let list = TableList::parse(&list, "hash").unwrap();
    let missing = room.cache.open_all(&list).unwrap_err().to_string();
    assert!(missing.contains("mailstow map build"), "{missing}");
    fs::write(room.path(), "no map").unwrap();
    assert_eq!(room.ask(), None);
    assert_eq!(room.cache.defects().len(), 2);
    assert_eq!(room.cache.warnings(), room.cache.defects());
    assert!(room.cache.maps().is_empty());
    room.build("one");
    assert!(room.cache.refresh().changed);
    assert_eq!(room.ask().as_deref(), Some("one"));
    assert!(room.cache.defects().is_empty());
    assert_eq!(room.cache.maps().len(), 1);
}

#[test]
fn a_map_asked_without_a_table_says_how_to_name_one() {
    let room = Room::new();
    room.build("one");
    let list = format!("mailstow:{}", room.path().display());
    let list = TableList::parse(&list, "hash").unwrap();
    let error = room.cache.open_all(&list).unwrap_err().to_string();
    assert!(error.contains(":virtual_mailbox_maps"), "{error}");
}

#[test]
fn maps_within_other_tables_belong_to_the_same_parameter() {
    let room = Room::new();
    room.build("one");
    let list = format!("unionmap:{{mailstow:{}, static:x}}", room.path().display());
    let list = TableList::parse(&list, "hash").unwrap();
    let set = room
        .cache
        .open_all(&list.for_parameter("virtual_uid_maps"))
        .unwrap();
    assert_eq!(set.lookup("k", false).unwrap().unwrap().0, "one,x");
    assert!(
        set.tables()
            .all(|table: &dyn LookupTable| !table.may_block())
    );
}

#[test]
fn what_an_old_map_lacks_is_deferred_where_it_is_in_use_beside_the_new_one() {
    let room = Room::new();
    room.build("one");
    let old = room.set("virtual_uid_maps");
    let other = room.dir.path().join("other");
    fs::write(&other, "no map").unwrap();
    fs::rename(other, room.path()).unwrap();
    room.cache.refresh();
    assert!(old.unsettled().is_some(), "the new one cannot be used");
    room.build("two");
    assert!(room.cache.refresh().changed);
    assert_eq!(room.ask().as_deref(), Some("two"));
    assert!(room.set("virtual_uid_maps").unsettled().is_none());
    assert!(old.unsettled().is_some());
}

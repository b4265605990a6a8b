//! Maps large enough for full buckets, several blocks and parts.

use super::*;

#[test]
fn every_key_of_a_large_map_is_found_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let options = BuildOptions {
        buffer_bytes: 300_000,
        ..BuildOptions::default()
    };
    let mut builder = MapBuilder::new(&path, options).unwrap();
    let mailboxes = builder.table("virtual_mailbox_maps").unwrap();
    let uids = builder.table("virtual_uid_maps").unwrap();
    let key = |i: u32| format!("user{i}@domain{}.example", i % 300);
    let value = |i: u32| format!("domain{}.example/user{i}/", i % 300);
    for i in 0..30_000 {
        builder.add(mailboxes, &key(i), &value(i)).unwrap();
        builder
            .add(uids, &key(i), &(5000 + i % 3).to_string())
            .unwrap();
    }
    let report = builder.finish().unwrap();
    assert_eq!((report.stats.keys, report.stats.values), (30_000, 60_000));
    assert!(
        report.stats.file_bytes < 30_000 * 45,
        "{}",
        report.stats.file_bytes
    );
    let view = MapView::open(&path).unwrap();
    for i in 0..30_000 {
        let key = key(i);
        let found = view.find(&key).unwrap();
        assert_eq!(
            found.text("virtual_mailbox_maps").unwrap().unwrap(),
            value(i)
        );
        assert_eq!(
            found.number("virtual_uid_maps").unwrap(),
            Some(5000 + u64::from(i % 3))
        );
        let absent = format!("user{i}@domain{}.example", i % 300 + 1);
        assert!(view.reader().find(&absent).unwrap().is_none());
    }
    let verified = view.reader().verify(|_, _| {}).unwrap();
    assert_eq!((verified.keys, verified.values), (30_000, 60_000));
}

#[test]
fn an_empty_map_answers_that_it_has_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, &[]);
    let view = MapView::open(&path).unwrap();
    assert_eq!(get(&view, "t", "a"), None);
    assert_eq!(view.reader().verify(|_, _| {}).unwrap().keys, 0);
}

#[test]
fn a_merge_gives_the_map_a_build_from_the_same_entries_would() {
    let directory = tempfile::tempdir().unwrap();
    let (merged, built) = (directory.path().join("a"), directory.path().join("b"));
    let entries = varied_entries();
    build(&merged, &entries[..20]);
    let changes: Vec<Change> = entries[20..].iter().map(|(t, k, v)| set(t, k, v)).collect();
    change(&merged, &changes).unwrap();
    merge(&merged, |_, _| true).unwrap().unwrap();
    build(&built, &entries);
    let (merged, built) = (
        MapView::open(&merged).unwrap(),
        MapView::open(&built).unwrap(),
    );
    let (a, b) = (merged.reader().stats(), built.reader().stats());
    assert_eq!((a.keys, a.values), (b.keys, b.values));
    built
        .for_each(|table, key, value| {
            assert_eq!(get(&merged, table, key).as_deref(), Some(value));
            Ok(())
        })
        .unwrap();
}

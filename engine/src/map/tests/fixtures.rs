//! Maps written by earlier versions of the format. A new version adds its file; none is removed
//! while its version can be read.

use super::*;

const V1: &[u8] = include_bytes!("../fixtures/v1.map");
const V1_CHANGES: &[u8] = include_bytes!("../fixtures/v1.map.changes");

fn changes() -> Vec<Change> {
    vec![
        set("virtual_alias_maps", "info@example.com", "anna@example.com"),
        unset("virtual_mailbox_maps", "bert@example.com"),
        set("virtual_quota", "anna@example.com", "1000000"),
    ]
}

#[test]
fn version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v1.map");
    std::fs::write(&path, V1).unwrap();
    let view = MapView::open(&path).unwrap();
    view.reader().verify(|_, _| {}).unwrap();
    for (table, key, value) in varied_entries() {
        assert_eq!(
            get(&view, table, key).as_deref(),
            Some(value),
            "{table} {key}"
        );
    }
    std::fs::write(directory.path().join("v1.map.changes"), V1_CHANGES).unwrap();
    let view = MapView::open(&path).unwrap();
    assert!(view.warnings().is_empty());
    for change in changes() {
        let (table, key, value) = change.parts();
        assert_eq!(get(&view, table, key).as_deref(), value, "{table} {key}");
    }
}

/// The writer's bytes are the fixture's: a change of the format that forgets its version number
/// fails here. `MAILSTOW_WRITE_FIXTURES=1` writes the files of a new version.
#[test]
fn the_writer_still_writes_version_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v1.map");
    let log = directory.path().join("v1.map.changes");
    build(&path, &varied_entries());
    change(&path, &changes()).unwrap();
    if std::env::var_os("MAILSTOW_WRITE_FIXTURES").is_some() {
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/map/fixtures");
        std::fs::copy(&path, to.join("v1.map")).unwrap();
        std::fs::copy(&log, to.join("v1.map.changes")).unwrap();
        return;
    }
    assert!(
        std::fs::read(&path).unwrap() == V1,
        "the map's bytes changed"
    );
    assert!(
        std::fs::read(&log).unwrap() == V1_CHANGES,
        "the log's bytes changed"
    );
}

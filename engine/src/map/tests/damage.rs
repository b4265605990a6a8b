//! Damaged maps: the right answer or an error, never a panic, never a wrong answer.

use super::*;

fn map_bytes() -> (Vec<u8>, Vec<(&'static str, &'static str, &'static str)>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let entries = varied_entries();
    build(&path, &entries);
    (std::fs::read(path).unwrap(), entries)
}

/// Asks everything; panics on a wrong answer, and returns whether all answers were given.
fn ask(bytes: &[u8], entries: &[(&str, &str, &str)]) -> bool {
    let Ok(reader) = MapReader::new(bytes) else {
        return false;
    };
    let mut whole = true;
    for (table, key, value) in entries {
        let id = reader.table(table).unwrap();
        match reader.get(id, key) {
            Ok(Some(found)) => match found.text() {
                Ok(text) => assert_eq!(text, *value),
                Err(_) => whole = false,
            },
            Ok(None) => panic!("{key} in {table} was lost"),
            Err(_) => whole = false,
        }
    }
    for key in ["nobody@example.com", "anna@nowhere.example", "x", ""] {
        match reader.find(key) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("{key} appeared"),
            Err(_) => whole = false,
        }
    }
    whole
}

/// Uses everything, caring for nothing but that it ends.
fn exercise(bytes: &[u8], entries: &[(&str, &str, &str)]) {
    let Ok(reader) = MapReader::new(bytes) else {
        return;
    };
    for (_, key, _) in entries {
        if let Ok(Some(record)) = reader.find(key) {
            for value in record.values() {
                let _ = value.map(|(_, value)| value.text().map(|text| text.len()));
            }
        }
    }
    let _ = reader.find("nobody@example.com");
    let _ = reader.verify(|_, _| {});
}

#[test]
fn a_flipped_byte_anywhere_gives_the_right_answer_or_an_error() {
    let (whole, entries) = map_bytes();
    assert!(ask(&whole, &entries));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        ask(&bytes, &entries);
        let verified = MapReader::new(&bytes[..]).and_then(|reader| reader.verify(|_, _| {}));
        assert!(verified.is_err(), "damage at byte {at} was not found");
    }
}

#[test]
fn a_map_cut_at_any_length_does_not_open() {
    let (whole, _) = map_bytes();
    for len in 0..whole.len() {
        assert!(MapReader::new(&whole[..len]).is_err(), "{len} bytes");
    }
    let mut longer = whole;
    longer.push(0);
    assert!(MapReader::new(&longer[..]).is_err());
}

/// Checksums that match wrong bytes: a broken writer, or a file made to harm.
#[test]
fn wrong_bytes_under_right_checksums_never_panic() {
    let (whole, entries) = map_bytes();
    for at in 8..whole.len() {
        // Padding and the checksums themselves are the same for every value.
        let interesting = at < 256 || whole[at] != 0 || at % 64 == 0;
        if !interesting {
            continue;
        }
        for value in [
            0,
            0xff,
            whole[at] ^ 0x01,
            whole[at] ^ 0x80,
            whole[at].wrapping_add(7),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if reseal(&mut bytes) {
                exercise(&bytes, &entries);
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    #[test]
    fn many_wrong_bytes_under_right_checksums_never_panic(
        damage in proptest::collection::vec((0usize..20_000, proptest::prelude::any::<u8>()), 1..20)
    ) {
        let (mut bytes, entries) = map_bytes();
        let len = bytes.len();
        for (at, value) in damage {
            bytes[at % len] = value;
        }
        if reseal(&mut bytes) {
            exercise(&bytes, &entries);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        exercise(&bytes, &varied_entries());
    }
}

#[test]
fn a_damaged_change_log_is_an_error_and_its_torn_end_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let log = directory.path().join("map.changes");
    build(&path, &[("t", "a", "1")]);
    change(&path, &[set("t", "a", "2")]).unwrap();
    change(&path, &[set("t", "b", "3")]).unwrap();
    let whole = std::fs::read(&log).unwrap();

    // A crash in the middle of an append: the end is there in part.
    let mut torn = whole.clone();
    torn.extend_from_slice(&[40, 0, 0, 0, 1, 2, 3, 4, 5]);
    std::fs::write(&log, &torn).unwrap();
    let view = MapView::open(&path).unwrap();
    assert_eq!(get(&view, "t", "b").as_deref(), Some("3"));
    change(&path, &[set("t", "c", "4")]).unwrap();
    let view = MapView::open(&path).unwrap();
    assert_eq!(get(&view, "t", "a").as_deref(), Some("2"));
    assert_eq!(get(&view, "t", "b").as_deref(), Some("3"));
    assert_eq!(get(&view, "t", "c").as_deref(), Some("4"));

    // Damage in what was acknowledged: nothing is answered, nothing is appended.
    let mut damaged = whole;
    damaged[90] ^= 1;
    std::fs::write(&log, &damaged).unwrap();
    let error = MapView::open(&path).unwrap_err();
    assert!(matches!(error, MapError::ChangesCorrupt { .. }), "{error}");
    assert!(error.status().is_temporary());
    assert!(change(&path, &[set("t", "c", "4")]).is_err());
    assert!(merge(&path, |_, _| true).is_err());
    let discard = BuildOptions {
        pending_changes: PendingChanges::Discard,
        ..BuildOptions::default()
    };
    build_with(&path, &[("t", "a", "1")], discard).unwrap();
    assert_eq!(MapView::open(&path).unwrap().changes(), 0);
}

#[test]
fn a_log_of_another_map_is_ignored_with_a_warning_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let log = directory.path().join("map.changes");
    build(&path, &[("t", "a", "1")]);
    change(&path, &[set("t", "a", "2")]).unwrap();
    let old_log = std::fs::read(&log).unwrap();
    merge(&path, |_, _| true).unwrap().unwrap();
    assert!(!log.exists());
    // As if the crash had come between the new map's publication and the log's removal.
    std::fs::write(&log, old_log).unwrap();
    let view = MapView::open(&path).unwrap();
    assert_eq!(view.warnings().len(), 1);
    assert_eq!(get(&view, "t", "a").as_deref(), Some("2"));
    change(&path, &[unset("t", "a")]).unwrap();
    let view = MapView::open(&path).unwrap();
    assert_eq!((view.warnings().len(), get(&view, "t", "a")), (0, None));
}

#[test]
fn every_map_error_is_temporary() {
    let io = || std::io::ErrorKind::Other.into();
    let path = Path::new("map");
    let errors = [
        MapError::io(path, "open", io()),
        MapError::header("x"),
        MapError::TooNew {
            version: 9,
            features: 1,
        },
        MapError::Corrupt {
            what: "index",
            offset: 1,
        },
        MapError::ChangesCorrupt {
            path: path.into(),
            offset: 1,
        },
        MapError::TooMany {
            what: "tables",
            limit: 1,
        },
        MapError::Stopped,
    ];
    for error in errors {
        assert!(error.status().is_temporary(), "{error}");
    }
}

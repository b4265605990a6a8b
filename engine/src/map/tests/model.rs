//! The map beside a HashMap: same entries, same changes, same answers.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

const TABLES: [&str; 3] = [
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_alias_maps",
];

#[derive(Clone, Debug)]
enum Op {
    Change(Vec<Change>),
    Merge,
    Rebuild(PendingChanges),
}

fn entry() -> impl Strategy<Value = (usize, String, String)> {
    // Few different keys, so that they come twice and in several tables.
    let key = prop_oneof![
        8 => "[a-f]{1,2}@(aa|bb|cc\\.example)",
        1 => "[a-f]{1,3}",
        1 => "@[a-c]{2}",
        1 => "k{200,400}@aa",
    ];
    let value = prop_oneof![
        4 => "(aa|bb)/[a-f]{1,2}/",
        4 => "[0-9]{0,5}",
        1 => "[a-f@.é ]{0,30}",
        1 => "v{250,600}",
    ];
    (0..TABLES.len(), key, value)
}

fn op() -> impl Strategy<Value = Op> {
    let change = (entry(), any::<bool>()).prop_map(|((table, key, value), keep)| {
        if keep {
            set(TABLES[table], &key, &value)
        } else {
            unset(TABLES[table], &key)
        }
    });
    prop_oneof![
        6 => prop::collection::vec(change, 1..4).prop_map(Op::Change),
        1 => Just(Op::Merge),
        1 => Just(Op::Rebuild(PendingChanges::Keep)),
        1 => Just(Op::Rebuild(PendingChanges::Discard)),
    ]
}

type Model = HashMap<(String, String), String>;

fn apply(model: &mut Model, change: &Change) {
    match change.clone() {
        Change::Set { table, key, value } => {
            model.insert((table, key), value);
        }
        Change::Unset { table, key } => {
            model.remove(&(table, key));
        }
    }
}

fn check(view: &MapView, model: &Model, asked: &[String]) {
    for key in asked {
        let attributes = view.find(key).unwrap();
        for table in TABLES {
            let expected = model.get(&(table.to_owned(), key.clone()));
            assert_eq!(get(view, table, key).as_ref(), expected, "{table} {key}");
            let text = attributes.text(table).unwrap();
            assert_eq!(text.as_deref(), expected.map(String::as_str));
        }
    }
    let mut all = BTreeMap::new();
    view.for_each(|table, key, value| {
        let before = all.insert((table.to_owned(), key.to_owned()), value.to_owned());
        assert_eq!(before, None, "{table} {key} comes twice");
        Ok(())
    })
    .unwrap();
    assert_eq!(all, model.clone().into_iter().collect());
}

fn model_of(entries: &[(usize, String, String)], last_wins: bool) -> Model {
    let mut model = Model::new();
    for (table, key, value) in entries {
        let at = (TABLES[*table].to_owned(), key.clone());
        if last_wins {
            model.insert(at, value.clone());
        } else {
            model.entry(at).or_insert_with(|| value.clone());
        }
    }
    model
}

fn build_entries(path: &Path, entries: &[(usize, String, String)], options: BuildOptions) {
    let mut builder = MapBuilder::new(path, options).unwrap();
    for (table, key, value) in entries {
        let table = builder.table(TABLES[*table]).unwrap();
        builder.add(table, key, value).unwrap();
    }
    builder.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_map_answers_as_a_hash_map_does_through_changes_and_merges(
        entries in prop::collection::vec(entry(), 0..200),
        ops in prop::collection::vec(op(), 0..12),
        buffer_bytes in prop_oneof![Just(1usize), Just(500), Just(1 << 20)],
        last_wins: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let options = |pending_changes| BuildOptions {
            buffer_bytes,
            pending_changes,
            duplicates: if last_wins { Duplicates::LastWins } else { Duplicates::FirstWins },
            ..BuildOptions::default()
        };
        build_entries(&path, &entries, options(PendingChanges::Refuse));
        let sources = model_of(&entries, last_wins);
        let mut model = sources.clone();
        let mut pending: Vec<Change> = Vec::new();
        let asked: Vec<String> = entries.iter().map(|(_, key, _)| key.clone())
            .chain(["a@aa", "zz@aa", "a", "@aa", "a@", "b@bb", "", "aa"].map(str::to_owned))
            .collect();
        let handle = MapHandle::open(&path).unwrap();
        for op in ops {
            match op {
                Op::Change(changes) => {
                    change(&path, &changes).unwrap();
                    changes.iter().for_each(|change| apply(&mut model, change));
                    pending.extend(changes);
                }
                Op::Merge => {
                    let merged = merge(&path, |_, _| true).unwrap();
                    assert_eq!(merged.is_some(), !pending.is_empty());
                    pending.clear();
                }
                Op::Rebuild(policy) => {
                    build_entries(&path, &entries, options(policy));
                    model.clone_from(&sources);
                    if policy == PendingChanges::Keep {
                        pending.iter().for_each(|change| apply(&mut model, change));
                    }
                    pending.clear();
                }
            }
            handle.refresh().unwrap();
            check(&handle.view(), &model, &asked);
        }
        let view = MapView::open(&path).unwrap();
        check(&view, &model, &asked);
        view.reader().verify(|_, _| {}).unwrap();
    }
}

#[test]
fn duplicates_are_counted_and_named_and_can_be_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let entries = [
        ("t", "a@b", "1"),
        ("t", "a@b", "2"),
        ("u", "a@b", "3"),
        ("t", "a@b", "4"),
    ];
    let report = build(&path, &entries);
    assert_eq!(report.duplicates, 2);
    assert_eq!(
        report.duplicates_named,
        [("t".to_owned(), "a@b".to_owned())]
    );
    assert_eq!(
        get(&MapView::open(&path).unwrap(), "t", "a@b").as_deref(),
        Some("1")
    );
    let refuse = BuildOptions {
        duplicates: Duplicates::Refuse,
        ..BuildOptions::default()
    };
    let error = build_with(&path, &entries, refuse).unwrap_err();
    assert!(matches!(error, MapError::Entry { .. }), "{error}");
    assert_eq!(
        get(&MapView::open(&path).unwrap(), "t", "a@b").as_deref(),
        Some("1")
    );
}

#[test]
fn a_build_never_drops_pending_changes_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, &[("t", "a", "1")]);
    change(&path, &[set("t", "a", "2"), set("new", "b", "3")]).unwrap();
    let error = build_with(&path, &[("t", "a", "9")], BuildOptions::default()).unwrap_err();
    assert!(
        matches!(error, MapError::ChangesPending { changes: 2, .. }),
        "{error}"
    );
    let keep = BuildOptions {
        pending_changes: PendingChanges::Keep,
        ..BuildOptions::default()
    };
    let report = build_with(&path, &[("t", "a", "9"), ("t", "c", "8")], keep).unwrap();
    assert_eq!((report.changes_kept, report.duplicates), (2, 0));
    let view = MapView::open(&path).unwrap();
    assert_eq!(get(&view, "t", "a").as_deref(), Some("2"));
    assert_eq!(get(&view, "new", "b").as_deref(), Some("3"));
    assert_eq!(get(&view, "t", "c").as_deref(), Some("8"));
    assert_eq!(view.changes(), 0);
}

#[test]
fn entries_the_format_cannot_hold_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let mut builder = MapBuilder::new(&path, BuildOptions::default()).unwrap();
    let table = builder.table("t").unwrap();
    assert!(matches!(
        builder.add(table, "", "v"),
        Err(MapError::Entry { .. })
    ));
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    assert!(matches!(
        builder.add(table, &key, "v"),
        Err(MapError::Entry { .. })
    ));
    assert!(builder.table("").is_err());
    drop(builder);
    assert!(!path.exists());
    assert!(change(&path, &[set("t", "", "v")]).is_err());
}

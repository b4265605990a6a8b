//! A map's publication, stopped at every step and killed at any moment.

use std::io;

use super::super::files::{Step, TempFile};
use super::*;
use crate::supervisor::Supervisor;

#[test]
fn a_publication_stopped_before_any_step_leaves_the_old_or_the_new_file() {
    use std::io::Write as _;
    for stop_at in [Step::SyncFile, Step::Rename, Step::SyncDirectory] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        std::fs::write(&path, "old").unwrap();
        let temp = TempFile::beside(&path).unwrap();
        temp.file().write_all(b"new").unwrap();
        let mut steps = Vec::new();
        let result = temp.publish_watched(&mut |step| {
            steps.push(step);
            if step == stop_at {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
        assert!(result.is_err());
        let expected = if stop_at == Step::SyncDirectory {
            "new"
        } else {
            "old"
        };
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(steps.last(), Some(&stop_at));
    }
}

#[test]
fn the_file_is_flushed_before_it_gets_its_name_and_the_directory_after() {
    let directory = tempfile::tempdir().unwrap();
    let temp = TempFile::beside(&directory.path().join("map")).unwrap();
    let mut steps = Vec::new();
    temp.publish_watched(&mut |step| {
        steps.push(step);
        Ok(())
    })
    .unwrap();
    assert_eq!(steps, [Step::SyncFile, Step::Rename, Step::SyncDirectory]);
}

#[test]
fn a_build_that_is_dropped_or_stopped_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, &[("t", "a", "1")]);
    let before = std::fs::read(&path).unwrap();
    let mut builder = MapBuilder::new(&path, BuildOptions::default())
        .unwrap()
        .on_progress(|_| false);
    let table = builder.table("t").unwrap();
    builder.add(table, "a", "2").unwrap();
    assert!(matches!(builder.finish(), Err(MapError::Stopped)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["map", "map.lock"]);
}

#[test]
fn a_new_map_has_the_permissions_of_the_old_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    build(&path, &[("t", "a", "1")]);
    assert_eq!(mode(&path), 0o644);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    build(&path, &[("t", "a", "1")]);
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn readers_see_every_version_whole_while_maps_and_changes_replace_each_other() {
    use crate::sync::Arc;
    use crate::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    let number = |i: u32| i.to_string();
    build(&path, &[("t", "left", "0"), ("t", "right", "0")]);
    let handle = Arc::new(MapHandle::open(&path).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (handle, done) = (Arc::clone(&handle), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let view = handle.view();
                    let left: u32 = get(&view, "t", "left").unwrap().parse().unwrap();
                    assert_eq!(get(&view, "t", "right"), Some(left.to_string()));
                    assert!(left >= last);
                    last = left;
                }
            })
        })
        .collect();
    for i in 1..60 {
        change(
            &path,
            &[set("t", "left", &number(i)), set("t", "right", &number(i))],
        )
        .unwrap();
        if i % 7 == 0 {
            merge(&path, |_, _| true).unwrap();
        }
        assert!(handle.refresh().unwrap());
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_keeper_takes_over_new_maps_and_merges_many_changes() {
    use std::time::{Duration, Instant};

    use crate::sync::Arc;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, &[("t", "a", "1")]);
    let handle = Arc::new(MapHandle::open(&path).unwrap());
    let maintainer = MapMaintainer::start(
        &Supervisor::default(),
        Arc::clone(&handle),
        Duration::from_millis(5),
    )
    .unwrap();
    let many: Vec<Change> = (0..CHANGES_MERGE_AT)
        .map(|i| set("t", &format!("k{i}"), "v"))
        .collect();
    change(&path, &many).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let view = handle.view();
        if view.changes() == 0 && view.reader().stats().keys == CHANGES_MERGE_AT as u64 + 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the changes were not merged");
        std::thread::yield_now();
    }
    drop(maintainer);
    assert_eq!(get(&handle.view(), "t", "k77").as_deref(), Some("v"));
    handle.view().reader().verify(|_, _| {}).unwrap();
}

#[test]
fn links_that_stand_beside_a_map_are_not_followed() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map");
    build(&path, &[("t", "a", "1")]);
    change(&path, &[set("t", "b", "1")]).unwrap();
    let beside = |name: &str| directory.path().join(name);
    let refused = |expected: &str| {
        let error = change(&path, &[set("t", "c", "1")])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("then move it away"), "{error}");
    };

    std::fs::remove_file(beside("map.lock")).unwrap();
    symlink(beside("missing"), beside("map.lock")).unwrap();
    refused("map.lock is a symbolic link");
    assert!(!beside("missing").exists());
    std::fs::remove_file(beside("map.lock")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        beside("map.lock"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    refused("map.lock is no regular file");
    std::fs::remove_file(beside("map.lock")).unwrap();

    let changes = beside("map.changes");
    std::fs::hard_link(&changes, beside("other")).unwrap();
    refused("map.changes is a file with 2 names");
    std::fs::remove_file(&changes).unwrap();
    symlink(beside("other"), &changes).unwrap();
    let before = std::fs::read(beside("other")).unwrap();
    refused("map.changes is a symbolic link");
    assert_eq!(std::fs::read(beside("other")).unwrap(), before);
}

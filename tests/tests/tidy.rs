//! House rules that no compiler checks, over every file of the tree.
//!
//! Each `.rs` file opens with `//!`; no file grows past 600 lines, no comment past 100 columns;
//! `unsafe` stands only in the files listed here, each reviewed; and the tree speaks of the
//! project alone: no issue numbers, no machine's paths, no leftovers.

use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may stand. A new entry needs a reason no safe crate can meet.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/map_stores/lmdb.rs",
    "engine/src/io/uring/mod.rs",
    "engine/src/map/copy.rs",
    "engine/src/map/processor.rs",
    "engine/src/table/perl.rs",
    "engine/src/table/posix.rs",
    "engine/src/table/writers.rs",
    "ffi/src/boundary/call.rs",
    "ffi/src/boundary/callback.rs",
    "ffi/src/boundary/descriptor.rs",
    "ffi/src/boundary/forever.rs",
    "ffi/src/boundary/fork.rs",
    "ffi/src/boundary/slot.rs",
    "ffi/src/boundary/structs.rs",
    "ffi/src/lib.rs",
    "lmtp/src/client_socket/unsent.rs",
];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the package lies in the workspace")
        .to_owned()
}

/// Every text file of the tree with its path from the root.
fn files() -> Vec<(String, String)> {
    const SKIPPED: &[&str] = &[
        "target",
        ".git",
        "corpus",
        "artifacts",
        "vhosts",
        "__pycache__",
    ];
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("the tree is readable") {
            let entry = entry.expect("readdir");
            let name = entry.file_name().to_string_lossy().into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let kind = entry.file_type().expect("stat");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry.path();
                let path = path.strip_prefix(&root).expect("below the root");
                found.push((path.display().to_string(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the tree was found");
    found
}

fn rust_files() -> Vec<(String, String)> {
    let mut files = files();
    files.retain(|(path, _)| path.ends_with(".rs"));
    files
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// `path:line: text` of every line that `offends`.
fn offending_lines(files: &[(String, String)], offends: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if offends(line) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_rust_file_opens_with_what_it_is_for() {
    let offences: Vec<_> = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert_none("the first line must be `//! purpose`", &offences);
}

#[test]
fn no_rust_file_is_longer_than_600_lines() {
    let offences: Vec<_> = rust_files()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX)
        .map(|(path, text)| format!("{path}: {} lines", text.lines().count()))
        .collect();
    assert_none("split by concept", &offences);
}

#[test]
fn comments_stay_within_100_columns() {
    let offences = offending_lines(&rust_files(), |line| {
        let comment = line.trim_start().starts_with("//");
        comment && !unbreakable(line) && line.chars().count() > COLUMNS_MAX
    });
    assert_none("wrap the comment", &offences);
}

/// Addresses and table rows cannot be wrapped.
fn unbreakable(line: &str) -> bool {
    line.contains("://") || line.trim_start().starts_with("//! | ")
}

#[test]
fn unsafe_stands_only_in_the_listed_files() {
    // The words are put together here, so that this file does not find itself.
    let words = ["{", "fn", "impl", "extern", "trait"].map(|w| format!("{} {w}", "unsafe"));
    let attribute = format!("allow({}_code", "unsafe");
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let uses = code
            .filter(|line| words.iter().any(|w| line.contains(w)) || line.contains(&attribute))
            .count();
        let listed = UNSAFE_FILES.contains(&path.as_str());
        if uses > 0 && !listed {
            offences.push(format!("{path} uses it and is not listed"));
        }
        if uses == 0 && listed {
            offences.push(format!("{path} is listed and does not use it"));
        }
    }
    assert_none("unsafe code", &offences);
}

#[test]
fn nothing_is_left_undone_in_the_tree() {
    let words = [
        format!("{}!(", "todo"),
        format!("{}!(", "unimplemented"),
        format!("{}!(", "dbg"),
        format!("{}{}", "TO", "DO"),
        format!("{}{}", "FIX", "ME"),
        format!("{}{}", "XX", "X:"),
        format!("#[{}]", "ignore"),
    ];
    let offences = offending_lines(&files(), |line| words.iter().any(|w| line.contains(w)));
    assert_none("finish it or take it out", &offences);
}

#[test]
fn the_tree_speaks_of_the_project_alone() {
    let paths = ["work/", "root/", "tmp/wt"].map(|p| format!("/{p}"));
    let offences = offending_lines(&files(), |line| {
        paths.iter().any(|p| names_path(line, p)) || names_an_issue(line)
    });
    assert_none("paths of one machine, or issue numbers", &offences);
}

/// True for a path that starts there, not for one that only contains it further on.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-$}@".contains(c))
    })
}

/// True for the word "issue" before a number, with or without `#`.
fn names_an_issue(line: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices("issue ").any(|(at, word)| {
        let rest = line[at + word.len()..].trim_start_matches('#');
        rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn every_item_at_the_root_of_the_engine_has_an_example() {
    let files = rust_files();
    let (_, lib) = files
        .iter()
        .find(|(path, _)| path == "engine/src/lib.rs")
        .expect("the engine");
    let exports = lib.split("\npub use ").skip(1);
    let lists = exports.map(|export| export.split(';').next().unwrap_or_default());
    let names: Vec<&str> = lists
        .filter_map(|list| list.split_once("::"))
        .flat_map(|(_, names)| names.trim_matches(['{', '}', '\n']).split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    assert!((30..=60).contains(&names.len()), "{names:?}");
    let has_example = |name: &str| {
        let kinds = ["struct", "enum", "fn", "type"];
        let starts = kinds.map(|kind| format!("\npub {kind} {name}"));
        files.iter().any(|(path, text)| {
            let found = starts.iter().find_map(|start| {
                let at = text.find(start.as_str())?;
                let after = text[at + start.len()..].chars().next()?;
                (!after.is_alphanumeric()).then_some(at)
            });
            path.starts_with("engine/src") && found.is_some_and(|at| documents(&text[..at], "```"))
        })
    };
    let offences: Vec<String> = names
        .iter()
        .filter(|name| !has_example(name))
        .map(|name| format!("{name} has no example"))
        .collect();
    assert_none("write one that runs", &offences);
}

/// True when the comment at the end of `text`, before attributes, holds `word`.
fn documents(text: &str, word: &str) -> bool {
    let lines = text.lines().rev();
    let mut doc = lines.take_while(|line| !line.is_empty());
    doc.any(|line| line.starts_with("///") && line.contains(word))
}

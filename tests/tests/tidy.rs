//! House rules that no compiler checks, over every file of the tree.
//!
//! Each `.rs` file opens with `//!`; no file grows past 600 lines, no comment past 100 columns;
//! `unsafe` stands only in the files listed here, each reviewed; rooms, and the files of some of
//! them, import each other in one direction; and the tree speaks of the project alone: no issue
//! numbers, no machine's paths, no leftovers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may stand. A new entry needs a reason no safe crate can meet.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/map_stores/lmdb.rs",
    "engine/src/io/uring/mod.rs",
    "engine/src/map/copy.rs",
    "engine/src/map/processor.rs",
    "engine/src/map/reserved.rs",
    "engine/src/table/perl.rs",
    "engine/src/table/posix.rs",
    "engine/src/table/writers.rs",
    "engine/src/transport/pipe/child.rs",
    "ffi/src/boundary/call.rs",
    "ffi/src/boundary/callback.rs",
    "ffi/src/boundary/cancel.rs",
    "ffi/src/boundary/descriptor.rs",
    "ffi/src/boundary/forever.rs",
    "ffi/src/boundary/fork.rs",
    "ffi/src/boundary/slot.rs",
    "ffi/src/boundary/sockets.rs",
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
        "found",
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

/// What rooms of the engine never import: they are above, or beside and joined above.
const NEVER_IMPORTED: &[(&str, &[&str])] = &[
    (
        "target",
        &["route", "delivery", "log", "mailbox", "io", "table"],
    ),
    (
        "log",
        &["route", "delivery", "mailbox", "message", "table", "map"],
    ),
    ("mailbox", &["route", "delivery", "log", "table", "map"]),
    ("delivery", &["route", "table", "map"]),
    (
        "transport",
        &["route", "delivery", "log", "mailbox", "table", "map"],
    ),
    ("route", &["delivery", "log", "mailbox", "message"]),
    ("message", &["route", "delivery", "log", "mailbox", "table"]),
];

#[test]
fn rooms_of_the_engine_import_nothing_from_above() {
    let files = rust_files();
    let mut offences = Vec::new();
    for (room, never) in NEVER_IMPORTED {
        let (folder, file) = (
            format!("engine/src/{room}/"),
            format!("engine/src/{room}.rs"),
        );
        let mut room_files = files.clone();
        room_files.retain(|(path, _)| path.starts_with(&folder) || *path == file);
        assert!(!room_files.is_empty(), "{room} was found");
        offences.extend(offending_lines(&room_files, |line| {
            let is_code = !line.trim_start().starts_with("//");
            let mut imported = line.split("crate::").skip(1).map(|path| {
                let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
                &path[..end.unwrap_or(path.len())]
            });
            is_code && imported.any(|name| never.contains(&name))
        }));
    }
    assert_none("move what they share into a leaf", &offences);
}

/// Rooms whose files import each other in one direction only.
const ONE_WAY_ROOMS: &[&str] = &["engine/src/delivery"];

#[test]
fn files_of_a_room_do_not_import_themselves_through_others() {
    let files = rust_files();
    let mut offences = Vec::new();
    for room in ONE_WAY_ROOMS {
        let graph = imports(room, &files);
        assert!(graph.len() > 20, "the files of {room} were found");
        assert!(graph.values().flatten().count() > 40, "imports were read");
        offences.extend(cycle(&graph).map(|cycle| cycle.join(" -> ")));
    }
    assert_none("move what they share into a file below", &offences);
}

/// The steps of a room, each of which imports only those before it.
const STEPS: &[(&str, &[&str])] = &[(
    "engine/src/delivery",
    &[
        "ledger",
        "context",
        "delivery",
        "batch",
        "recovery",
        "log_supervisor",
        "writer",
        "watch",
        "store",
    ],
)];

#[test]
fn steps_of_a_room_import_only_those_before_them() {
    let files = rust_files();
    let mut offences = Vec::new();
    for (room, steps) in STEPS {
        let graph = between_steps(room, &imports(room, &files));
        offences.extend(cycle(&graph).map(|cycle| cycle.join(" -> ")));
        for (number, step) in steps.iter().enumerate() {
            let imported = graph.get(*step);
            assert!(imported.is_some(), "{step} was found in {room}");
            let later = steps[number..].iter();
            let above = later.filter(|step| imported.is_some_and(|all| all.contains(**step)));
            offences.extend(above.map(|above| format!("{step} imports {above}")));
        }
    }
    assert_none("move what they share into a step before them", &offences);
}

/// The imports between the steps of a room, where a folder is one step with the file of its name.
fn between_steps(
    room: &str,
    graph: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    let step = |path: &str| {
        let path = path.strip_prefix(room).unwrap_or(path);
        let first = path.trim_start_matches('/').split('/').next();
        first.unwrap_or_default().trim_end_matches(".rs").to_owned()
    };
    let mut steps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, imported) in graph {
        let to = imported.iter().map(|path| step(path));
        let others = to.filter(|to| *to != step(from));
        steps.entry(step(from)).or_default().extend(others);
    }
    steps
}

#[test]
fn a_cycle_of_imports_is_found_in_whatever_way_they_are_written() {
    let file = |name: &str, text: &str| (format!("room/{name}.rs"), text.to_owned());
    let found = |files: &[(String, String)]| cycle(&imports("room", files));
    let root = file("mod", "mod a;\nmod b;\npub use a::A;\nuse b::B;\n");
    let one = file("a", "use super::b::{B, C};\n");
    let leaf = file("b", "//! Not `super::a`.\nuse crate::io;\n");
    assert_eq!(found(&[root.clone(), one.clone(), leaf]), None);
    for back in [
        "use super::{\n    a::A,\n    c,\n};\n",
        "use crate::room::a::A;\n",
        "fn f() -> super::a::A {}\n",
        "use super::A;\n",
        "#[cfg(test)]\nuse super::a::A;\n",
    ] {
        let files = [root.clone(), one.clone(), file("b", back)];
        assert!(found(&files).is_some(), "{back}");
    }
    let tests = "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n";
    assert_eq!(found(&[root, one, file("b", tests)]), None);
}

/// Which files of a room each of them imports: by their modules, as `a::b`.
fn imports(room: &str, files: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let within = |path: &str| {
        let path = path
            .strip_prefix(room)?
            .strip_prefix('/')?
            .strip_suffix(".rs")?;
        let is_test = path.contains("tests") || path.ends_with("_loom");
        let module = path.strip_suffix("/mod").unwrap_or(path);
        let module = if module == "mod" { "" } else { module };
        (!is_test).then(|| module.replace('/', "::"))
    };
    let modules: BTreeMap<String, &(String, String)> = files
        .iter()
        .filter_map(|file| Some((within(&file.0)?, file)))
        .collect();
    let node = |module: &str| {
        let path = modules.get(module).map(|(path, _)| path.as_str());
        path.unwrap_or(room).to_owned()
    };
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, (_, text)) in &modules {
        let from = node(module);
        let edges = graph.entry(from.clone()).or_default();
        for path in paths(&code(text)).iter().filter(|path| path.contains("::")) {
            let Some(mut at) = resolved(room, module, path) else {
                continue;
            };
            while !modules.contains_key(&at) {
                at = at
                    .rsplit_once("::")
                    .map_or("", |(above, _)| above)
                    .to_owned();
            }
            let to = node(&at);
            if to != from {
                edges.insert(to);
            }
        }
    }
    graph
}

/// Where a path leads that is written in a module, both from the room's root; `None` when it leads
/// out of the room.
fn resolved(room: &str, module: &str, path: &str) -> Option<String> {
    let room = room.rsplit('/').next().unwrap_or(room);
    let mut at: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    let mut names = path.split("::").peekable();
    match *names.peek()? {
        "crate" => {
            names.next();
            (names.next()? == room).then(|| at.clear())?;
        }
        "super" => {
            while names.next_if_eq(&"super").is_some() {
                at.pop()?;
            }
        }
        "self" => drop(names.next()),
        _ => {}
    }
    at.extend(names);
    Some(at.join("::"))
}

/// The code of a file without its tests, and without the paths of `pub(in ...)`.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next();
    let lines = code.unwrap_or_default().lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join(" ");
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_owned();
    let others = parts.filter_map(|part| part.split_once(')'));
    others.fold(first, |code, (_, part)| code + part)
}

/// Every name and path in some code, with braces behind a path taken apart.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    while let Some(start) = rest.find(is_path) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
        let (path, after) = rest.split_at(end);
        rest = after;
        match path.strip_suffix("::") {
            Some(before) if after.starts_with('{') => {
                let (inner, behind) = braced(after);
                let inner = inner.into_iter().flat_map(|part| paths(&part));
                found.extend(inner.map(|path| format!("{before}::{path}")));
                rest = behind;
            }
            _ if path.contains("::") || !path.contains(':') => found.push(path.to_owned()),
            _ => {}
        }
    }
    found
}

/// The parts between the braces that `text` begins with, and what follows.
fn braced(text: &str) -> (Vec<String>, &str) {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (c, depth) {
            ('}', 0) => return (parts, &text[at + 1..]),
            ('{', 1) => {}
            (',', 1) => parts.push(String::new()),
            (c, _) => parts.last_mut().expect("there is one").push(c),
        }
    }
    (parts, "")
}

/// A way from a file back to itself.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    graph.keys().find_map(|start| {
        // The shortest way, by width.
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = vec![start.as_str()];
        while let Some(at) = next.pop() {
            for to in graph.get(at).into_iter().flatten() {
                if to == start {
                    let mut way = vec![start.clone(), at.to_owned()];
                    let mut at = at;
                    while let Some(before) = came_from.get(at) {
                        way.push((*before).to_owned());
                        at = before;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(to.as_str()) {
                    came_from.insert(to, at);
                    next.insert(0, to);
                }
            }
        }
        None
    })
}

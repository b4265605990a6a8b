//! House rules that no compiler checks, over every file of the tree.
//!
//! Each `.rs` file opens with `//!`; no file grows past 600 lines, no comment past 100 columns;
//! `unsafe` stands only in the files listed here, each reviewed; rooms, and files, import each
//! other in one direction; and the tree speaks of the project alone: no issue
//! numbers, no machine's paths, no leftovers.

use mailstow_tests::imports::{Imports, cycle};
use mailstow_tests::prose::{self, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where `unsafe` may stand. A new entry needs a reason no safe crate can meet.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/map_stores/lmdb.rs",
    "engine/src/io/uring/mod.rs",
    "engine/src/map/copy.rs",
    "engine/src/map/processor.rs",
    "engine/src/map/reserved.rs",
    "engine/src/table/patterns/perl.rs",
    "engine/src/table/patterns/posix.rs",
    "engine/src/table/watch/writers.rs",
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
                // What cargo builds is marked.
                if !entry.path().join("CACHEDIR.TAG").exists() {
                    open.push(entry.path());
                }
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

/// What plain technical English says in other words.
const IDIOMS: &[&str] = &[
    "anybody",
    "are told",
    "as ever",
    "be told",
    "for good",
    "for want of",
    "get to know",
    "gets to know",
    "heal",
    "healed",
    "heals",
    "hung up",
    "in good order",
    "in hand",
    "in one's stead",
    "in their stead",
    "in its stead",
    "is told",
    "mend",
    "mended",
    "mends",
    "nobody",
    "of its own",
    "of our own",
    "of their own",
    "put off",
    "puts off",
    "somebody",
    "stand behind",
    "stand for",
    "stands behind",
    "stands for",
    "under way",
    "was told",
    "were told",
    "whoever",
];

#[test]
fn comments_messages_and_pages_say_it_plainly() {
    let mut offences = Vec::new();
    let mut count = 0;
    for (path, text) in files() {
        let is_page = path.ends_with(".md") && !path.starts_with("benches/records/");
        let is_test = ["tests/", "tests.rs", "fuzz", "loom"].map(|part| path.contains(part));
        let passages = match path.rsplit_once('.') {
            Some((_, "rs")) => prose::of_rust(&text),
            _ if is_page || path.starts_with("lmtp/src/cli/help/") => prose::of_page(&text),
            _ => continue,
        };
        for passage in passages {
            let is_name = !passage.text.contains(' ');
            if passage.origin == Origin::Literal && (is_name || is_test.contains(&true)) {
                continue;
            }
            count += 1;
            let text = passage.text.to_lowercase();
            let found = IDIOMS.iter().filter(|idiom| has_words(&text, idiom));
            let line = passage.line;
            offences.extend(found.map(|idiom| format!("{path}:{line}: \"{idiom}\"")));
        }
    }
    println!("{count} passages, {} idioms", IDIOMS.len());
    assert!(count > 10_000, "the prose was found");
    assert_none("say who does what", &offences);
}

/// True when `words` are in `text`; a quoted name does not count.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || "`\"\\@-_=".contains(c);
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn no_module_tells_in_prose_what_it_imports() {
    let engine_or_server = |path: &str| path.contains("/src/");
    let files: Vec<_> = rust_files()
        .into_iter()
        .filter(|(path, _)| engine_or_server(path))
        .collect();
    let offences = offending_lines(&files, |line| line.starts_with("//! Imports "));
    assert_none(
        "the graph of imports is checked; leave the sentence out",
        &offences,
    );
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

/// The rooms of each crate, from the ground up. A room imports only rooms of the layers below its
/// own; those of one layer do not know each other.
const ROOMS: &[(&str, &[&[&str]])] = &[
    (
        "engine",
        &[
            &[
                "limits", "status", "octets", "sync", "thread", "clock", "suggest", "choices",
            ],
            &["config", "swap", "io"],
            &["address", "target", "descriptors", "supervisor"],
            &["envelope", "message"],
            &["dsn"],
            &["mail", "map", "log", "mailbox"],
            &["table", "transport"],
            &["route", "delivery"],
            &["routing", "delivery_log", "system", "sim"],
            &["engine", "fuzz_checks"],
            &["lib", "manual"],
        ],
    ),
    (
        "lmtp",
        &[
            &[
                "buffers", "clock", "reply", "decode", "input", "tasks", "waiting",
            ],
            &[
                "listen_error",
                "reload_error",
                "started_with",
                "envelope_memory",
            ],
            &[
                "client_socket",
                "command",
                "dial",
                "drain",
                "ids",
                "log",
                "notices",
                "relay",
            ],
            &[
                "admission",
                "autoreply",
                "in_place",
                "socket_file",
                "systemd",
            ],
            &["peers", "shared", "health"],
            &["listener", "session", "socketmap"],
            &["accept"],
            &["server"],
            &["lifecycle"],
            &["cli", "fuzz_checks"],
            &["lib"],
        ],
    ),
    (
        "ffi",
        &[
            &["result", "thread", "dots"],
            &["failure", "mode", "source"],
            &["boundary"],
            &[
                "config",
                "content",
                "log",
                "map",
                "metrics",
                "outcome",
                "resolution",
            ],
            &["counters"],
            &["message", "results"],
            &["flight"],
            &["completions"],
            &["client"],
            &["check", "handle"],
            &["api"],
            &["fuzz_checks"],
            &["lib"],
        ],
    ),
];

/// Rooms that do not know each other, whatever their layers: what lies in mailboxes and logs is
/// nothing to those that say where mail goes, and the other way round.
const STRANGERS: &[(&[&str], &[&str])] = &[
    (
        &["table", "map", "route"],
        &["log", "mailbox", "delivery", "message", "transport"],
    ),
    (&["target"], &["io", "config"]),
    (&["log"], &["message"]),
    (&["transport"], &["mailbox", "log"]),
];

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
        "watchdog",
        "store",
    ],
)];

/// The root of each crate that is checked.
const CRATES: &[&str] = &[
    "engine/src/lib.rs",
    "lmtp/src/lib.rs",
    "ffi/src/lib.rs",
    "tests/support/lib.rs",
];

/// The imports of each crate, by its name.
fn imports() -> &'static BTreeMap<&'static str, Imports> {
    static IMPORTS: OnceLock<BTreeMap<&str, Imports>> = OnceLock::new();
    IMPORTS.get_or_init(|| {
        let files: BTreeMap<String, String> = rust_files().into_iter().collect();
        let text_of = |file: &str| files.get(file).map(String::as_str);
        let read = |root: &'static str| {
            let name = root.split('/').next().expect("a folder");
            (name, Imports::read(root, text_of))
        };
        CRATES.iter().map(|root| read(root)).collect()
    })
}

/// The first part of a path below `folder`, without its ending.
fn part<'p>(folder: &str, path: &'p str) -> Option<&'p str> {
    let below = path.strip_prefix(folder)?.strip_prefix('/')?;
    let first = below.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

#[test]
fn no_file_imports_itself_through_others() {
    let mut offences = Vec::new();
    for (name, imports) in imports() {
        let graph = imports.graph();
        let cycle = cycle(&graph);
        let (files, edges) = (graph.len(), imports.edges().count());
        println!(
            "{name}: {files} files, {edges} imports, {} cycles",
            usize::from(cycle.is_some())
        );
        assert!(files > 20 && edges > 40, "the files of {name} were read");
        offences.extend(cycle.map(|cycle| cycle.join(" -> ")));
    }
    assert_none("move what they share into a file below", &offences);
}

#[test]
fn rooms_import_only_those_below_them() {
    let mut offences = Vec::new();
    for (name, layers) in ROOMS {
        let folder = format!("{name}/src");
        let layer = |room: &str| layers.iter().position(|layer| layer.contains(&room));
        let imports = &imports()[name];
        let mut rooms = BTreeSet::new();
        let mut between = BTreeSet::new();
        let graph = imports.graph();
        rooms.extend(graph.keys().filter_map(|file| part(&folder, file)));
        let unlisted = rooms.iter().filter(|room| layer(room).is_none());
        offences.extend(unlisted.map(|room| format!("{folder}/{room} has no layer")));
        let missing = layers.iter().flat_map(|layer| *layer);
        let missing = missing.filter(|room| !rooms.contains(**room));
        offences.extend(missing.map(|room| format!("{folder}/{room} is listed and not there")));
        for (from, to, names) in imports.edges() {
            let (above, below) = (part(&folder, from), part(&folder, to));
            let (Some(above), Some(below)) = (above, below) else {
                continue;
            };
            let are_strangers = |(some, others): &(&[&str], &[&str])| {
                (some.contains(&above) && others.contains(&below))
                    || (others.contains(&above) && some.contains(&below))
            };
            let is_wrong = *name == "engine" && STRANGERS.iter().any(are_strangers);
            if above != below {
                between.insert((above, below));
                if layer(above) <= layer(below) || is_wrong {
                    offences.push(format!("{from} imports {names:?} of {to}"));
                }
            }
        }
        println!(
            "{name}: {} rooms, {} imports between them",
            rooms.len(),
            between.len()
        );
    }
    assert_none("move what they share into a room below", &offences);
}

#[test]
fn steps_of_a_room_import_only_those_before_them() {
    let mut offences = Vec::new();
    for (room, steps) in STEPS {
        let place = |file: &str| {
            let step = part(room, file)?;
            steps.iter().position(|other| *other == step)
        };
        let mut count = 0;
        for (from, to, names) in imports()["engine"].edges() {
            if let (Some(step), Some(before)) = (place(from), place(to)) {
                count += 1;
                if step < before {
                    offences.push(format!("{from} imports {names:?} of {to}"));
                }
            }
        }
        println!(
            "{room}: {} steps, {count} imports in and between them",
            steps.len()
        );
        assert!(count > 20, "the files of {room} were read");
    }
    assert_none("move what they share into a step before them", &offences);
}

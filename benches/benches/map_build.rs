//! Building a map from the text of a table, beside `postmap lmdb:` and `postmap cdb:`: time,
//! memory, size of the file.
//!
//! `MAILSTOW_MAP_RECIPIENTS=1000000 cargo bench -p mailstow-benches --bench map_build`
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench may stop where it stands"
)]

#[allow(
    dead_code,
    reason = "the other stores are measured by the other benches"
)]
mod map_stores;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mailstow_engine::map::{BuildOptions, MapBuilder};
use map_stores::{Recipients, TABLE, counts, directory};
use nix::sys::resource::{UsageWho, getrusage};

/// Set in the process whose time and memory are measured: the text, the map.
const CHILD: &str = "MAILSTOW_MAP_BUILD_CHILD";

fn main() {
    // `cargo test` runs benches with --test; there is nothing to test here.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    if let Some(text) = std::env::var_os(CHILD) {
        build(Path::new(&text));
        return;
    }
    for count in counts() {
        let directory = directory(count);
        let text = directory.join("vmailbox");
        write_text(&Recipients::new(count), &text);
        let configuration = directory.join("postfix");
        std::fs::create_dir_all(&configuration).expect("directory is made");
        // A map large enough from the start: LMDB would else begin anew each time it is full.
        std::fs::write(
            configuration.join("main.cf"),
            "lmdb_map_size = 8589934592\n",
        )
        .expect("main.cf is written");
        // No process has old contents to remove.
        for kind in ["map", "lmdb", "cdb"] {
            let _ = std::fs::remove_file(text.with_extension(kind));
        }
        let this = std::env::current_exe().expect("this program has a path");
        measure(count, "mailstow", Command::new(this).env(CHILD, &text));
        // postmap takes many minutes for a cdb of ten million.
        let kinds: &[&str] = if count > 1_000_000 {
            &["lmdb"]
        } else {
            &["lmdb", "cdb"]
        };
        for kind in kinds {
            let mut postmap = Command::new("postmap");
            postmap.arg("-c").arg(&configuration);
            postmap.arg(format!("{kind}:{}", text.display()));
            measure(count, &format!("postmap {kind}"), &mut postmap);
        }
        for name in ["vmailbox", "vmailbox.map", "vmailbox.lmdb", "vmailbox.cdb"] {
            if let Ok(metadata) = std::fs::metadata(directory.join(name)) {
                println!("build {count} {name}: {} bytes", metadata.len());
            }
        }
    }
}

fn write_text(recipients: &Recipients, path: &Path) {
    let mut text = BufWriter::new(File::create(path).expect("text is made"));
    for i in 0..recipients.count() {
        writeln!(text, "{}\t{}", recipients.key(i), recipients.value(i)).expect("text is written");
    }
    let text = text.into_inner().expect("text is written");
    text.sync_all().expect("text is flushed");
}

fn build(text: &Path) {
    let map = text.with_extension("map");
    let mut builder = MapBuilder::new(&map, BuildOptions::default()).expect("map is begun");
    let warnings = builder.add_text(TABLE, text).expect("text is read");
    assert!(warnings.is_empty(), "{warnings:?}");
    builder.finish().expect("map is built");
}

fn measure(count: u64, name: &str, command: &mut Command) {
    let begin = Instant::now();
    let status = command.status().expect("command runs");
    let seconds = begin.elapsed().as_secs_f64();
    assert!(status.success(), "{name}");
    // The largest of all children so far: ours goes first.
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage is known");
    println!(
        "build {count} {name}: {seconds:.2} s, at most {} MiB so far",
        memory.max_rss() / 1024
    );
}

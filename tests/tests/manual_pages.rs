//! The manual pages of the command and of the C library can be read everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Every manual page of the repository.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directories = ["lmtp/man", "ffi/man3"].map(|directory| root.join(directory));
    let files = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).expect("manual pages"));
    files.map(|file| file.expect("a page").path()).collect()
}

/// What a program says about the pages.
fn complaints(program: &str, options: &[&str]) -> String {
    let output = Command::new(program)
        .args(options)
        .args(pages())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

#[test]
fn mandoc_finds_nothing_to_warn_of() {
    assert!(pages().len() > 2);
    assert_eq!(complaints("mandoc", &["-Tlint", "-Wwarning"]), "");
}

#[test]
fn groff_finds_nothing_to_warn_of() {
    assert_eq!(complaints("groff", &["-man", "-Tutf8", "-ww", "-z"]), "");
}

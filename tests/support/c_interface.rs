//! The header file of the C library, made from its code.
//!
//! It is committed, as the manual pages made from it are; a test compares them with what is made
//! here, and `cargo run -p mailstow-tests --bin c-interface` writes them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The directory of the C library.
pub fn directory() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").join("ffi")
}

/// The manifest's version.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The introduction: the comment at the head of the library.
fn introduction() -> Vec<String> {
    let lib = std::fs::read_to_string(directory().join("src/lib.rs")).expect("the library");
    let lines = lib.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned());
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Returns `mailstow.h`.
pub fn header() -> String {
    let ffi = directory();
    let mut head = String::from("/*\n");
    for line in introduction() {
        let line = line.trim_start_matches("# ");
        let _ = writeln!(head, "{}", format!(" * {line}").trim_end());
    }
    head.push_str(" *\n * This file is made from the code of the library.\n */");
    let mut numbers = version()
        .split('.')
        .map(|part| part.parse::<u32>().expect("a number"));
    let mut number = || numbers.next().expect("three numbers");
    let versions = format!(
        "\n/** The version of this header. */\n#define MAILSTOW_VERSION \"{}\"\n\
         #define MAILSTOW_VERSION_MAJOR {}\n#define MAILSTOW_VERSION_MINOR {}\n\
         #define MAILSTOW_VERSION_PATCH {}",
        version(),
        number(),
        number(),
        number()
    );
    let mut config =
        cbindgen::Config::from_file(ffi.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    config.header = Some(head);
    config.after_includes = Some(versions);
    let bindings = cbindgen::Builder::new()
        .with_crate(&ffi)
        .with_config(config)
        .generate()
        .expect("the header can be made");
    let mut header = Vec::new();
    bindings.write(&mut header);
    String::from_utf8(header).expect("UTF-8")
}

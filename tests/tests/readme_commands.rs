//! The first commands of the README do what it says, as they are printed there, and its examples
//! are parts of programs that are built.
//!
//! Method: the indented lines are taken from README.md; only `cargo run --release --` is replaced
//! by the binary under test. They run in an empty directory.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailstow::{NOBODY, executable_for_all};
use mailstow_tests::{Scratch, eventually};

/// The first indented line of README.md that starts with `beginning`.
fn printed(beginning: &str) -> String {
    let readme = include_str!("../../README.md");
    let lines = readme.lines().filter_map(|line| line.strip_prefix("    "));
    let line = lines.into_iter().find(|line| line.starts_with(beginning));
    line.unwrap_or_else(|| panic!("README.md prints no command {beginning:?}"))
        .to_owned()
}

/// Runs a line in a shell, without root's rights when the tests have them.
fn shell(line: &str, directory: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = tied("sh");
    command.args(["-c", line]).current_dir(directory);
    command.env("HOME", directory).env("PATH", "/usr/bin:/bin");
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn the_first_command_serves_and_the_second_sends_a_message_that_appears() {
    let scratch = Scratch::new("readme");
    let directory = scratch.mkdir("here");
    if nix::unistd::geteuid().is_root() {
        scratch.mkdir_owned("here", NOBODY, NOBODY);
    }
    let binary = executable_for_all(&scratch).display().to_string();
    let serve = printed("cargo run --release -- serve");
    let serve = serve.replace("cargo run --release --", &format!("exec {binary}"));
    let server = Daemon::start(&mut shell(&serve, &directory), &scratch.join("server.log"));
    eventually("the announcement", Duration::from_secs(20), || {
        server.output().contains("listening").then_some(())
    });

    let send = shell(&printed("python3 -c"), &directory)
        .output()
        .expect("sh");
    assert!(send.status.success(), "{send:?}");
    let look = shell(&printed("cat vhosts/"), &directory)
        .output()
        .expect("sh");
    assert!(look.status.success(), "{look:?}");
    let shown = String::from_utf8_lossy(&look.stdout);
    assert!(shown.contains("Subject: hello\n\nIt works.\n"), "{shown}");
}

/// The block of README.md in this language.
fn block(language: &str) -> String {
    let readme = include_str!("../../README.md");
    let begin = format!("```{language}\n");
    let (_, rest) = readme.split_once(&begin).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_examples_are_parts_of_programs() {
    let rust = include_str!("../../engine/examples/deliver.rs");
    assert!(rust.contains(&block("rust")), "engine/examples/deliver.rs");
    let c = include_str!("../../ffi/examples/deliver.c");
    assert!(c.contains(&block("c")), "ffi/examples/deliver.c");
}

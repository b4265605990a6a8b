//! Users that one program knows, and nothing else on the machine.
//!
//! `/etc/passwd` and `/etc/group` are covered by copies in a separate mount namespace.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::tied;
use crate::scratch::Scratch;

/// A user and a group of the same name and id.
#[derive(Clone, Debug)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User and group id.
    pub id: u32,
    /// Home directory.
    pub home: String,
}

/// The command that runs a program, tied to the test, which knows these users beside those of the
/// machine.
pub fn with_accounts(program: &Path, scratch: &Scratch, accounts: &[Account]) -> Command {
    if accounts.is_empty() {
        return tied(program);
    }
    let mut passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let mut group = fs::read_to_string("/etc/group").expect("/etc/group");
    for Account { name, id, home } in accounts {
        let _ = writeln!(passwd, "{name}:x:{id}:{id}::{home}:/bin/sh");
        let _ = writeln!(group, "{name}:x:{id}:");
    }
    let mut command = tied("unshare");
    command
        .args(["--mount", "--", "sh", "-c"])
        .arg(
            "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group && shift 2 && \
             exec \"$@\"",
        )
        .arg("sh")
        .arg(scratch.write("passwd", passwd))
        .arg(scratch.write("group", group))
        .arg(program);
    command
}

//! Root acts in directories of other users: sockets, the state directory, recipient maps. Their
//! owners cannot redirect root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailstow::{binary, run_with_input};
use mailstow_tests::scratch::needs_root;
use mailstow_tests::{Scratch, eventually};

/// A local user with a directory, and no rights elsewhere.
const STRANGER: u32 = 6666;
/// sysexits(3) `EX_CONFIG`.
const CONFIGURATION: i32 = 78;

/// Replaces each socket that appears under a name by a link.
const SWAPPER: &str = r#"
import os, stat, sys, time
name, victim = sys.argv[1:]
print("ready", flush=True)
while True:
    try:
        if stat.S_ISSOCK(os.lstat(name).st_mode):
            os.unlink(name)
            os.symlink(victim, name)
    except OSError:
        time.sleep(0.0005)
"#;

/// System calls before which the server waits, so that a watching process can act in between.
const SLOWED: &str = "inject=bind,listen,connect,fchmodat,?fchmodat2,chmod,fchownat,chown,lchown,\
                      renameat2:delay_enter=20000";

/// A file that only root may read.
fn secret(scratch: &Scratch) -> PathBuf {
    let path = scratch.write("secret", "precious");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    path
}

fn assert_untouched(secret: &Path, what: &str) {
    let found = fs::symlink_metadata(secret).expect("it is there");
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    assert_eq!((mode, owner), (0o600, 0), "{what}: mode {mode:o}");
    let content = fs::read_to_string(secret).expect("read");
    assert_eq!(content, "precious", "{what}");
}

/// A command that runs the server slowly where others may come in between.
fn slowed() -> Command {
    let mut command = tied("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=none", "-e", SLOWED]);
    command.arg(binary());
    command
}

/// `mailstow serve` for a domain, as root, with a small log.
fn serve(mut command: Command, scratch: &Scratch, state: &Path, more: &[&str]) -> Command {
    let toml = scratch.write(
        "mailstow.toml",
        "[delivery_log]\nbytes_max = 1048576\nsegment_bytes = 16384\n",
    );
    command.args(["serve", "--domain", "example.com", "--base"]);
    command.arg(scratch.mkdir("base")).arg("--config").arg(toml);
    command.arg("--state-directory").arg(state).args(more);
    command
}

#[test]
fn whoever_owns_the_directory_of_a_socket_gets_no_file_of_root() {
    needs_root("another user owns the directory of a socket");
    let scratch = Scratch::new("swapped");
    let secret = secret(&scratch);
    let directory = scratch.mkdir_owned("private", STRANGER, STRANGER);
    let socket = directory.join("lmtp");
    let mut swapper = tied("setpriv");
    swapper.args(["--reuid=6666", "--regid=6666", "--clear-groups"]);
    swapper.args(["/usr/bin/python3", "-c", SWAPPER]);
    swapper.arg(&socket).arg(&secret);
    let swapper = Daemon::start(&mut swapper, &scratch.join("swapper.log"));
    eventually("the swapper", Duration::from_secs(30), || {
        swapper.output().contains("ready").then_some(())
    });
    let listen = ["--listen", socket.to_str().expect("UTF-8")];
    let mut started = 0;
    for attempt in 0..20 {
        let state = scratch.join(format!("state{attempt}"));
        let log = scratch.join(format!("server{attempt}.log"));
        let mut server = Daemon::start(&mut serve(slowed(), &scratch, &state, &listen), &log);
        // It serves, or it found out; either is fine.
        eventually("the start", Duration::from_secs(30), || {
            let is_up = server.output().contains("listening on");
            (is_up || server.status().is_some()).then_some(())
        });
        started += usize::from(server.status().is_none());
        server.kill();
        assert_untouched(&secret, &format!("start {attempt}"));
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_dir_all(&state);
    }
    assert!(started > 0, "no server ever listened");
    let left = fs::read_dir(&directory).expect("readdir").count();
    assert!(left <= 1, "{left} names are left beside the socket");
}

/// Starts the server, which must refuse its state directory and say why.
fn refused(scratch: &Scratch, state: &Path) -> String {
    let socket = scratch.join("socket");
    let listen = ["--listen", socket.to_str().expect("UTF-8")];
    let serve = serve(tied(binary()), scratch, state, &listen);
    let output = run_with_input(serve, b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{said}");
    assert!(!socket.exists());
    said
}

#[test]
fn a_state_directory_that_others_can_change_is_refused_with_the_remedy() {
    needs_root("the state directory belongs to another user");
    let scratch = Scratch::new("foreign-state");
    let secret = secret(&scratch);

    let state = scratch.mkdir("open");
    for mode in [0o777, 0o1777, 0o770] {
        fs::set_permissions(&state, Permissions::from_mode(mode)).expect("chmod");
        let said = refused(&scratch, &state);
        assert!(said.contains("run: chmod go-w"), "{said}");
    }
    let state = scratch.mkdir_owned("theirs", STRANGER, STRANGER);
    let said = refused(&scratch, &state);
    assert!(said.contains("belongs to uid 6666"), "{said}");
    assert!(said.contains("run: chown 0 "), "{said}");

    let elsewhere = scratch.mkdir("elsewhere");
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).expect("chmod");
    let theirs = scratch.mkdir_owned("home", STRANGER, STRANGER);
    symlink(&elsewhere, theirs.join("state")).expect("symlink");
    lchown(theirs.join("state"), Some(STRANGER), Some(STRANGER)).expect("lchown");
    let said = refused(&scratch, &theirs.join("state"));
    assert!(said.contains("symbolic link of uid 6666"), "{said}");

    let state = scratch.mkdir("linked-log");
    symlink(&elsewhere, state.join("delivery-log")).expect("symlink");
    let said = refused(&scratch, &state);
    assert!(said.contains("delivery-log is a symbolic link"), "{said}");
    let left = fs::read_dir(&elsewhere).expect("readdir").count();
    assert_eq!(left, 0, "nothing was made behind a link");

    let log = scratch.mkdir("linked-lock/delivery-log");
    fs::hard_link(&secret, log.join("lock")).expect("link");
    let said = refused(&scratch, &scratch.join("linked-lock"));
    assert!(
        said.contains("lock of the delivery log is a file with 2 names"),
        "{said}"
    );
    fs::remove_file(log.join("lock")).expect("remove");
    symlink(&secret, log.join("lock")).expect("symlink");
    let said = refused(&scratch, &scratch.join("linked-lock"));
    assert!(
        said.contains("lock of the delivery log is a symbolic link"),
        "{said}"
    );
    assert_untouched(&secret, "the victim of lock");
}

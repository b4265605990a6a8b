//! Who may connect to UNIX sockets when nothing is configured: Postfix, and no other local user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::mailstow::{Builder, NOBODY, binary, command, run_with_input};
use mailstow_tests::scratch::needs_root;
use mailstow_tests::site::{Handover, Site};
use mailstow_tests::{Mailstow, Postfix, Scratch, eventually};
use nix::unistd::User;

/// A local user who has nothing to do with mail.
const STRANGER: u32 = 6666;

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{info@example.com=example.com/info/}
virtual_uid_maps = static:@OWNER@
virtual_gid_maps = static:@OWNER@
";

/// Prints what a server says first, or why there is no connection.
const KNOCK: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
try:
    s.connect(sys.argv[1])
    print(s.recv(1000).decode() or "closed")
except PermissionError:
    print("not permitted")
"#;

/// What a process of `uid` gets to see of the server behind a socket.
fn knock(uid: u32, socket: &Path) -> String {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    command.args(["--clear-groups", "/usr/bin/python3", "-c", KNOCK]);
    let output = command.arg(socket).output().expect("setpriv");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn postfix_user() -> u32 {
    let user = User::from_name("postfix").expect("getpwnam");
    user.expect("Postfix is installed").uid.as_raw()
}

fn main_cf(owner: u32) -> String {
    MAIN_CF.replace("@OWNER@", &owner.to_string())
}

/// A separate store, with a socketmap, for mailboxes of `owner`.
fn store(name: &str, owner: u32) -> Builder {
    needs_root("users connect to sockets");
    let builder = Mailstow::build(name).main_cf(&main_cf(owner));
    builder.scratch().mkdir_owned("vhosts", owner, owner);
    builder.toml("[socketmap]\nlisten = \"unix:@ROOT@/run/map\"")
}

#[test]
fn behind_postfix_the_default_lets_postfix_in_and_no_other_user() {
    let postfix = Postfix::build("default-socket").main_cf(&main_cf(5000));
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let reply = site
        .postfix
        .submit("s@client.example", &["info@example.com"], &plain("x"));
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    assert_eq!(site.postfix.outcome("info@example.com").status, "sent");
    assert_eq!(maildir(&site.mailbox("example.com/info")).len(), 1);
    let server = site.store.as_ref().expect("a store");
    let socket = server.scratch().join("run/lmtp");
    assert_eq!(knock(STRANGER, &socket), "not permitted\n");
    let found = fs::symlink_metadata(&socket).expect("the socket");
    assert_eq!(
        (found.uid(), found.mode() & 0o777),
        (postfix_user(), 0o600),
        "owner and mode"
    );
}

#[test]
fn the_sockets_of_a_server_of_root_are_closed_to_all_but_postfix() {
    let server = store("root-sockets", 5000).start();
    for name in ["run/lmtp", "run/map", "state/health"] {
        let socket = server.scratch().join(name);
        assert_eq!(knock(STRANGER, &socket), "not permitted\n", "{name}");
    }
    let greeting = knock(postfix_user(), &server.scratch().join("run/lmtp"));
    assert!(greeting.starts_with("220 "), "{greeting}");
}

#[test]
fn a_server_without_root_asks_each_client_who_it_is() {
    let server = store("user-sockets", NOBODY).as_user(NOBODY).start();
    let lmtp = server.scratch().join("run/lmtp");
    for uid in [postfix_user(), NOBODY, 0] {
        let greeting = knock(uid, &lmtp);
        assert!(greeting.starts_with("220 "), "{uid}: {greeting}");
    }
    let refusal = knock(STRANGER, &lmtp);
    assert!(refusal.starts_with("421 4.7.0 "), "{refusal}");
    let map = server.scratch().join("run/map");
    assert_eq!(knock(STRANGER, &map), "closed\n");
    let line = server.log_line("socket_users");
    assert!(line.contains("uid 6666"), "{line}");
}

#[test]
fn a_server_that_a_user_starts_without_postfix_serves_that_user_alone() {
    needs_root("users connect to sockets");
    let server = Mailstow::domain("own-socket").start();
    let socket = server.scratch().join("run/lmtp");
    assert_eq!(knock(STRANGER, &socket), "not permitted\n");
    assert_eq!(knock(postfix_user(), &socket), "not permitted\n");
    assert!(knock(NOBODY, &socket).starts_with("220 "));
}

#[test]
fn check_says_who_may_connect_and_warns_when_postfix_may_not_or_everybody_may() {
    let check = |toml: &str| {
        let builder = store("check-access", 5000).toml(toml);
        let scratch = builder.scratch();
        let (socket, state) = (scratch.mkdir("run").join("lmtp"), scratch.join("state"));
        let mut check = command(&["check"]);
        check
            .args(builder.configuration())
            .arg("--listen")
            .arg(socket);
        check.arg("--state-directory").arg(state);
        let output = run_with_input(check, b"");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = check("");
    let expected = "note: only root, the user of the server and Postfix's user postfix may";
    assert!(said.contains(expected), "{said}");
    let said = check("[lmtp]\nsocket_owner = \"daemon\"");
    assert!(
        said.contains("who may not connect to UNIX sockets"),
        "{said}"
    );
    assert!(said.contains("set socket_users = \"postfix\""), "{said}");
    let said = check("[lmtp]\nsocket_mode = \"0666\"");
    assert!(
        said.contains("every user of this machine may hand in mail"),
        "{said}"
    );
}

/// Does what systemd does for a socket unit with `SocketMode=0666`.
const ACTIVATE: &str = r#"
import os, socket, sys
path, command = sys.argv[1], sys.argv[2:]
s = socket.socket(socket.AF_UNIX)
s.bind(path)
os.chmod(path, 0o666)
s.listen(16)
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"] = "1"
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"#;

#[test]
fn a_socket_of_systemd_keeps_the_mode_that_its_unit_gave_it() {
    needs_root("users connect to sockets");
    let scratch = Scratch::new("activated");
    for (users, expected) in [("", "220 "), ("socket_users = \"postfix\"\n", "421 4.7.0 ")] {
        let toml = scratch.write("mailstow.toml", format!("[lmtp]\n{users}"));
        let socket = scratch.join(format!("socket{}", users.len()));
        let mut command = tied("/usr/bin/python3");
        command.args(["-c", ACTIVATE]).arg(&socket).arg(binary());
        command.args(["serve", "--domain", "example.com", "--base"]);
        command.arg(scratch.mkdir("base")).arg("--config").arg(toml);
        command.arg("--state-directory").arg(scratch.join("state"));
        let mut server = Daemon::start(&mut command, &scratch.join("server.log"));
        eventually("the server", Duration::from_secs(30), || {
            assert!(server.status().is_none(), "it ended");
            let said = server.output();
            said.contains(socket.to_str().expect("UTF-8")).then_some(())
        });
        let mode = fs::symlink_metadata(&socket).expect("it is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o666);
        let said = knock(STRANGER, &socket);
        assert!(said.starts_with(expected), "{said}");
        server.stop();
    }
}

#[test]
fn the_directory_of_the_default_socket_is_made_whether_the_socket_is_named_or_not() {
    needs_root("another file system is mounted on /run");
    for listen in ["", "[lmtp]\nlisten = \"unix:/run/mailstow/lmtp\"\n"] {
        let scratch = Scratch::new("empty-run");
        let root = scratch.path().display();
        scratch.mkdir_owned("vhosts", 5000, 5000);
        let toml = format!(
            "state_directory = \"{root}/state\"\n[routing]\n\
             virtual_mailbox_base = \"{root}/vhosts\"\nvirtual_mailbox_domains = \"example.com\"\n\
             virtual_mailbox_maps = \"static:all/\"\nvirtual_uid_maps = \"static:5000\"\n\
             virtual_gid_maps = \"static:5000\"\n{listen}"
        );
        let toml = scratch.write("mailstow.toml", toml);
        let mut command = tied("unshare");
        let in_empty_run = "mount -t tmpfs none /run && exec \"$@\"";
        command.args(["--mount", "sh", "-c", in_empty_run, "sh"]);
        command.arg(binary()).args(["serve", "--config"]).arg(toml);
        let mut server = Daemon::start(&mut command, &scratch.join("log"));
        let socket = format!("/proc/{}/root/run/mailstow/lmtp", server.pid());
        eventually("the socket", Duration::from_secs(30), || {
            let ended = server.status();
            assert!(ended.is_none(), "the server ended: {}", server.log());
            fs::symlink_metadata(&socket).ok()
        });
    }
}

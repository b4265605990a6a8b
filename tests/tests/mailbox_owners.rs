//! Who may own the directories of a mailbox: ordinary layouts take mail, mailboxes that a local
//! user has prepared for another user take none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::mailstow::{Builder, command, run_with_input};
use mailstow_tests::scratch::needs_root;
use mailstow_tests::{Mailstow, Reply};

/// The recipient, and the one user of shared layouts.
const ANN: u32 = 5001;
const VMAIL: u32 = 5000;
/// A local user who wants to read the recipient's mail.
const MALLORY: u32 = 6666;

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{ann@example.com=example.com/ann/, box@example.com=example.com/box}
virtual_uid_maps = static:5001
virtual_gid_maps = static:5001
";

/// A directory below the base: path, owner, group, mode.
type Directory = (&'static str, u32, u32, u32);

/// What it is or what is expected, owner and group and mode of the base, directories below.
type Layout = (&'static str, (u32, u32, u32), Vec<Directory>);

fn store(base: (u32, u32, u32), directories: &[Directory]) -> Builder {
    needs_root("directories belong to several users");
    let builder = Mailstow::build("mailbox-owners").main_cf(MAIN_CF);
    let (uid, gid, mode) = base;
    make(&builder.scratch().join("vhosts"), uid, gid, mode);
    for (path, uid, gid, mode) in directories {
        let path = builder.scratch().join("vhosts").join(path);
        make(&path, *uid, *gid, *mode);
    }
    builder
}

fn make(path: &Path, uid: u32, gid: u32, mode: u32) {
    fs::create_dir(path).expect("mkdir");
    chown(path, Some(uid), Some(gid)).expect("chown needs root");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

fn deliver(server: &Mailstow, recipient: &str) -> Reply {
    let mut client = server.client();
    let mut replies = client.deliver("s@client.example", &[recipient], &plain("x"));
    replies.remove(0)
}

/// What `mailstow check` says of the store.
fn check(builder: &Builder) -> (bool, String) {
    let mut check = command(&["check"]);
    check.args(builder.configuration());
    check
        .arg("--listen")
        .arg(builder.scratch().mkdir("run").join("lmtp"));
    check
        .arg("--state-directory")
        .arg(builder.scratch().join("state"));
    let output = run_with_input(check, b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said)
}

#[test]
fn ordinary_layouts_take_mail() {
    let ann = |path, mode| (path, ANN, ANN, mode);
    let layouts: [Layout; 9] = [
        (
            "one user owns all",
            (ANN, ANN, 0o755),
            vec![ann("example.com", 0o700)],
        ),
        (
            "root's domains, a directory for each user",
            (0, 0, 0o755),
            vec![("example.com", 0, 0, 0o755), ann("example.com/ann", 0o700)],
        ),
        (
            "domains of one user, mail of another",
            (0, 0, 0o755),
            vec![
                ("example.com", VMAIL, VMAIL, 0o755),
                ann("example.com/ann", 0o700),
            ],
        ),
        (
            "a base that may only be searched",
            (0, 0, 0o711),
            vec![("example.com", 0, 0, 0o711), ann("example.com/ann", 0o700)],
        ),
        (
            "set-group-id directories of the recipients' group",
            (0, 0, 0o755),
            vec![("example.com", 0, ANN, 0o2775)],
        ),
        (
            "a spool that everyone may write",
            (0, 0, 0o1777),
            vec![ann("example.com", 0o755)],
        ),
        (
            "a spool of group mail",
            (0, 8, 0o2775),
            vec![("example.com", 0, 0, 0o755), ann("example.com/ann", 0o700)],
        ),
        (
            "a Maildir of root that the recipient's group may write",
            (0, 0, 0o755),
            vec![
                ("example.com", 0, 0, 0o755),
                ("example.com/ann", 0, ANN, 0o775),
            ],
        ),
        (
            "a domain that the recipient's group may write",
            (VMAIL, VMAIL, 0o755),
            vec![("example.com", VMAIL, ANN, 0o775)],
        ),
    ];
    for (name, base, directories) in layouts {
        let builder = store(base, &directories);
        let (ok, said) = check(&builder);
        assert!(!said.contains("uid 5001)"), "{name}: {said}");
        assert!(
            ok || said.contains("of mboxes") || said.contains("cannot be written"),
            "{said}"
        );
        let server = builder.start();
        for _ in 0..2 {
            let reply = deliver(&server, "ann@example.com");
            assert_eq!(reply.code, 250, "{name}: {reply}");
        }
        let stored = maildir(&server.mailbox("example.com/ann"));
        assert_eq!(stored.len(), 2, "{name}");
    }
}

#[test]
fn a_mailbox_that_another_user_prepared_or_can_replace_takes_no_mail() {
    let planted: [Layout; 6] = [
        (
            "belongs to uid 6666",
            (0, 0, 0o1777),
            vec![
                ("example.com", 0, 0, 0o1777),
                ("example.com/ann", MALLORY, MALLORY, 0o755),
                ("example.com/ann/new", MALLORY, ANN, 0o770),
            ],
        ),
        (
            "belongs to uid 6666",
            (0, 0, 0o1777),
            vec![("example.com", MALLORY, MALLORY, 0o1777)],
        ),
        (
            "may be written by group 6666",
            (0, 0, 0o1777),
            vec![
                ("example.com", 0, 0, 0o755),
                ("example.com/ann", ANN, MALLORY, 0o770),
            ],
        ),
        (
            "is writable by everyone",
            (0, 0, 0o755),
            vec![
                ("example.com", 0, 0, 0o755),
                ("example.com/ann", ANN, ANN, 0o1777),
            ],
        ),
        (
            "belongs to uid 6666",
            (0, 0, 0o755),
            vec![
                ("example.com", 0, 0, 0o755),
                ("example.com/ann", MALLORY, ANN, 0o770),
            ],
        ),
        (
            "may be written by group 6666",
            (0, 0, 0o755),
            vec![
                ("example.com", 0, MALLORY, 0o775),
                ("example.com/ann", ANN, ANN, 0o700),
            ],
        ),
    ];
    for (expected, base, directories) in planted {
        let builder = store(base, &directories);
        let (ok, said) = check(&builder);
        assert!(!ok && said.contains(expected), "{expected}: {said}");
        let server = builder.start();
        let reply = deliver(&server, "ann@example.com");
        assert_eq!(reply.codes(), "451 4.2.0", "{directories:?}: {reply}");
        let line = server.log_line("ann@example.com");
        assert!(line.contains(expected), "{expected}: {line}");
        assert!(line.contains("run: ch"), "the remedy: {line}");
        let new = server.mailbox("example.com/ann/new");
        let left = fs::read_dir(new).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{directories:?}");
    }
}

#[test]
fn a_link_that_another_user_prepared_leads_no_mail_away() {
    let builder = store(
        (0, 0, 0o1777),
        &[("other", ANN, ANN, 0o755), ("other/ann", ANN, ANN, 0o700)],
    );
    let link = builder.scratch().join("vhosts/example.com");
    symlink("other", &link).expect("symlink");
    lchown(&link, Some(MALLORY), Some(MALLORY)).expect("lchown");
    let server = builder.start();
    for recipient in ["ann@example.com", "box@example.com"] {
        let reply = deliver(&server, recipient);
        assert_eq!(reply.codes(), "451 4.2.0", "{recipient}: {reply}");
    }
    assert!(
        server
            .log_line("ann@example.com")
            .contains("belongs to uid 6666")
    );
    // The recipient's own link is followed.
    lchown(&link, Some(ANN), Some(ANN)).expect("lchown");
    for recipient in ["ann@example.com", "box@example.com"] {
        let reply = deliver(&server, recipient);
        assert_eq!(reply.code, 250, "{recipient}: {reply}");
    }
}

#[test]
fn a_mailbox_in_use_is_looked_at_again_when_another_was_put_in_its_place() {
    let builder = store(
        (0, 0, 0o1777),
        &[
            ("example.com", 0, 0, 0o1777),
            ("example.com/ann", ANN, ANN, 0o700),
        ],
    );
    let server = builder.start();
    assert_eq!(deliver(&server, "ann@example.com").code, 250);
    let ann = server.mailbox("example.com/ann");
    fs::rename(&ann, server.mailbox("example.com/old")).expect("rename");
    make(&ann, MALLORY, MALLORY, 0o755);
    make(&ann.join("new"), ANN, ANN, 0o700);
    let reply = deliver(&server, "ann@example.com");
    assert_eq!(reply.codes(), "451 4.2.0", "{reply}");
}

#[test]
fn recovery_writes_no_mail_below_todays_minimum_uid_and_keeps_it() {
    let builder = store((ANN, ANN, 0o755), &[]);
    let mut server = builder.start();
    assert_eq!(deliver(&server, "ann@example.com").code, 250);
    server.kill();
    let new = server.mailbox("example.com/ann/new");
    for message in fs::read_dir(&new).expect("readdir") {
        fs::remove_file(message.expect("readdir").path()).expect("unlink");
    }
    let today = format!("{MAIN_CF}virtual_minimum_uid = 6000\n");
    let root = server.scratch().path().display().to_string();
    let main_cf = server
        .scratch()
        .write("today/main.cf", today.replace("@ROOT@", &root));
    let mut recover = command(&["log", "recover", "--postfix"]);
    recover.arg(main_cf.parent().expect("a directory"));
    recover.arg(server.scratch().join("state/delivery-log"));
    let output = run_with_input(recover, b"");
    let [said, log] = [output.stdout, output.stderr];
    let [said, log] = [said, log].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(output.status.code(), Some(1), "{said}{log}");
    assert!(said.contains("1 copies wait for their mailboxes"), "{said}");
    let expected = "to be written as uid 5001, below virtual_minimum_uid = 6000";
    assert!(log.contains(expected), "{log}");
    assert_eq!(fs::read_dir(&new).expect("readdir").count(), 0);

    server.restart();
    assert_eq!(maildir(&server.mailbox("example.com/ann")).len(), 1);
}

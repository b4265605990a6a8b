//! OpenSMTPD hands mail over by its `lmtp` action, and to the C LDA by its `mda` action.
//!
//! Method: Debian's opensmtpd in a mount namespace, with the configuration of
//! `ffi/mta/README.md`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use mailstow_tests::content::plain;
use mailstow_tests::daemon::Daemon;
use mailstow_tests::mailboxes::{body, header, maildir};
use mailstow_tests::other_mta::{
    CONFIGURATION, LDA, LMTP, OtherMta, arrived, c_program, recipe, store, wait_for_greeting,
};
use mailstow_tests::scratch::loopback_host;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Address, Client, Mailstow, Scratch, eventually};

const SMTPD: u32 = 5102;
const QUEUE: u32 = 5103;

/// No shell may read it.
const SENDER: &str = "o'neil`id`$HOME@client.example";

struct Site {
    smtpd: Daemon,
    store: Mailstow,
    _scratch: Scratch,
    smtp: Address,
}

impl Site {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let users = [("opensmtpd", SMTPD), ("opensmtpq", QUEUE), ("vmail", OWNER)];
        let mta = OtherMta::new("opensmtpd", &scratch, &users);
        let store = store(&format!("{name}-store"), &[OWNER]).start();
        c_program("examples/deliver.c", &[], &scratch.join("deliver"));
        // What the package makes when it is installed; smtpd makes its queue.
        fs::create_dir_all(mta.file("/var/lib/opensmtpd/empty")).expect("mkdir");
        let spool = mta.file("/var/spool/smtpd");
        fs::create_dir_all(spool.join("offline")).expect("mkdir");
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o711)).expect("chmod");
        chown(spool.join("offline"), Some(0), Some(QUEUE)).expect("chown needs root");
        let mode = fs::Permissions::from_mode(0o770);
        fs::set_permissions(spool.join("offline"), mode).expect("chmod");
        let host = loopback_host();
        let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        let rules = recipe(
            "opensmtpd",
            &[
                (CONFIGURATION, &text(store.scratch().join("mailstow.toml"))),
                (LMTP, &text(store.scratch().join("run/lmtp"))),
                (LDA, &text(scratch.join("deliver"))),
            ],
        );
        let listen = format!("listen on {host} port 10025 hostname mx.origin.example\n");
        let path = mta.file("/etc/smtpd.conf");
        fs::write(&path, format!("{listen}{rules}")).expect("smtpd.conf");
        let mut command = mta.command("/usr/sbin/smtpd");
        command.arg("-d");
        let mut smtpd = Daemon::start(&mut command, &scratch.join("console"));
        let smtp = Address::Inet(host, 10025);
        wait_for_greeting(&mut smtpd, &smtp);
        Self {
            smtpd,
            store,
            _scratch: scratch,
            smtp,
        }
    }

    fn submit(&self, sender: &str, recipient: &str, subject: &str) {
        let mut client = Client::smtp(&self.smtp);
        let recipients = [format!("<{recipient}>")];
        let reply = client.submit(&format!("<{sender}>"), &recipients, &plain(subject));
        assert_eq!(reply.code, 250, "{reply}");
    }

    /// Waits for what smtpd logs about the delivery to a recipient.
    fn result(&self, recipient: &str) -> String {
        let is_result = |line: &&str| line.contains(" mda delivery ") && line.contains(recipient);
        eventually(
            "a result of the delivery",
            std::time::Duration::from_secs(60),
            || {
                let log = self.smtpd.log() + &self.smtpd.output();
                log.lines().find(is_result).map(str::to_owned)
            },
        )
    }
}

#[test]
fn opensmtpds_lmtp_and_mda_actions_deliver() {
    let site = Site::start("opensmtpd");
    for (mailbox, recipient) in [
        ("example.com/info", "info@example.com"),
        ("example.net/info", "info@example.net"),
    ] {
        site.submit(SENDER, recipient, "an action");
        let result = site.result(recipient);
        assert!(result.contains("result=Ok"), "{result}");
        let stored = arrived(&site.store.mailbox(mailbox));
        // OpenSMTPD writes additional fields before the message.
        assert_eq!(header(&stored, "Delivered-To"), [recipient, recipient]);
        assert_eq!(header(&stored, "Return-Path"), [format!("<{SENDER}>")]);
        assert_eq!(header(&stored, "Subject"), ["an action"]);
        assert_eq!(body(&stored), body(&plain("an action")));
    }
    // A notice, whose sender is empty.
    site.submit("", "info+notice@example.net", "notice");
    let result = site.result("info+notice@example.net");
    assert!(result.contains("result=Ok"), "{result}");
    let stored = maildir(&site.store.mailbox("example.net/info"));
    let mut stored = stored.iter().map(|message| &message.bytes);
    let notice = stored.find(|message| header(message, "Subject") == ["notice"]);
    let notice = notice.expect("the notice is stored");
    assert_eq!(header(notice, "Return-Path"), ["<>"]);
}

#[test]
fn opensmtpd_returns_what_the_lda_refuses_and_keeps_mail_while_the_server_is_away() {
    let mut site = Site::start("opensmtpd-refused");
    for (recipient, expected) in [
        ("nobody@example.net", "result=PermFail"),
        // Its mail.lmtp takes every refusal for a temporary one.
        ("nobody@example.com", "result=TempFail"),
    ] {
        site.submit(SENDER, recipient, "a stranger");
        let result = site.result(recipient);
        assert!(result.contains(expected), "{result}");
    }
    site.store.kill();
    site.submit(SENDER, "info@example.com", "kept");
    let result = site.result("info@example.com");
    assert!(result.contains("result=TempFail"), "{result}");
}

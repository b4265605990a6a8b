//! Exim asks libmailstow at RCPT, and hands mail over by its LMTP transport and to the C LDA.
//!
//! Method: Debian's exim4-daemon-heavy in a mount namespace, with the configuration of
//! `ffi/mta/README.md`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mailstow_tests::content::{plain, sized};
use mailstow_tests::daemon::Daemon;
use mailstow_tests::mailboxes::{body, header, list, maildir};
use mailstow_tests::other_mta::{
    CONFIGURATION, LDA, LMTP, OtherMta, arrived, c_plugin, c_program, rcpt, recipe, store,
    wait_for_greeting,
};
use mailstow_tests::scratch::loopback_host;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Address, Client, Mailstow, Scratch, eventually};

/// The user of Debian's package.
const EXIM: u32 = 5101;

/// Before the recipe.
const MAIN: &str = r#"
primary_hostname = mx.origin.example
local_interfaces = @HOST@
daemon_smtp_ports = 10025
keep_environment =
spool_directory = @DIR@/spool
log_file_path = @DIR@/log-%slog
host_lookup =
tls_advertise_hosts =
rfc1413_query_timeout = 0s
"#;

/// Behind it.
const RETRY: &str = "
begin retry
* * F,1h,1m
";

/// No shell may read it.
const SENDER: &str = "o'neil`id`$HOME@client.example";

struct Site {
    _exim: Daemon,
    store: Mailstow,
    scratch: Scratch,
    smtp: Address,
}

impl Site {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let mta = OtherMta::new("exim", &scratch, &[("Debian-exim", EXIM), ("vmail", OWNER)]);
        let store = store(&format!("{name}-store"), &[EXIM]).start();
        c_plugin("mta/exim.c", &scratch.join("exim.so"));
        c_program("examples/deliver.c", &[], &scratch.join("deliver"));
        scratch.mkdir_owned("spool", EXIM, EXIM);
        for log in ["log-mainlog", "log-paniclog", "log-rejectlog"] {
            let path = scratch.write(log, "");
            std::os::unix::fs::chown(path, Some(EXIM), Some(EXIM)).expect("chown needs root");
        }
        let host = loopback_host();
        let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        let main = MAIN
            .replace("@HOST@", &host)
            .replace("@DIR@", &text(scratch.path().to_owned()));
        let rules = recipe(
            "exim",
            &[
                (
                    "/usr/local/lib/mailstow-exim.so",
                    &text(scratch.join("exim.so")),
                ),
                (CONFIGURATION, &text(store.scratch().join("mailstow.toml"))),
                (LMTP, &text(store.scratch().join("run/lmtp"))),
                (LDA, &text(scratch.join("deliver"))),
            ],
        );
        let configuration = format!("{main}{rules}{RETRY}");
        let path = mta.file("/etc/exim4/exim4.conf");
        fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
        fs::write(path, configuration).expect("exim4.conf");
        let mut command = mta.command("/usr/sbin/exim4");
        command.args(["-bdf", "-q10s"]);
        let mut exim = Daemon::start(&mut command, &scratch.join("console"));
        let smtp = Address::Inet(host, 10025);
        wait_for_greeting(&mut exim, &smtp);
        Self {
            _exim: exim,
            store,
            scratch,
            smtp,
        }
    }

    /// Waits for a line of the main log with all of these words.
    fn log_line(&self, words: &[&str]) -> String {
        eventually(
            &format!("{words:?} in the log"),
            Duration::from_secs(60),
            || {
                let log = fs::read_to_string(self.scratch.join("log-mainlog")).ok()?;
                let mut lines = log.lines();
                let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
                found.map(str::to_owned)
            },
        )
    }

    fn submit(&self, sender: &str, recipients: &[&str], subject: &str) {
        let recipients: Vec<String> = recipients.iter().map(|r| format!("<{r}>")).collect();
        let mut client = Client::smtp(&self.smtp);
        let reply = client.submit(&format!("<{sender}>"), &recipients, &plain(subject));
        assert_eq!(reply.code, 250, "{reply}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["log-mainlog", "log-paniclog"] {
                let text = fs::read_to_string(self.scratch.join(log)).unwrap_or_default();
                eprintln!("--- {log} ---\n{text}");
            }
        }
    }
}

#[test]
fn exim_refuses_unknown_and_too_large_mail_at_rcpt_and_defers_while_nobody_knows() {
    let mut site = Site::start("exim-rcpt");
    assert_eq!(
        rcpt(&site.smtp, 1000, "info@example.com").get(..3),
        Some("250")
    );
    assert_eq!(
        rcpt(&site.smtp, 1000, "info+x@example.com").get(..3),
        Some("250")
    );
    assert_eq!(rcpt(&site.smtp, 1000, "nobody@example.com"), "550 5.1.1");
    assert_eq!(
        rcpt(&site.smtp, 1000, "\"no body\"@example.com"),
        "550 5.1.1"
    );
    assert_eq!(rcpt(&site.smtp, 100_001, "info@example.com"), "552 5.3.4");
    site.store.kill();
    assert_eq!(
        rcpt(&site.smtp, 1000, "info@example.com").get(..1),
        Some("4")
    );
    assert_eq!(
        rcpt(&site.smtp, 1000, "nobody@example.com").get(..1),
        Some("4")
    );
    site.store.restart();
    assert_eq!(
        rcpt(&site.smtp, 1000, "info@example.com").get(..3),
        Some("250")
    );
}

#[test]
fn exims_lmtp_transport_and_its_pipe_to_the_c_lda_deliver() {
    let site = Site::start("exim-delivery");
    site.submit(
        SENDER,
        &["info@example.com", "sales@example.com", "info@example.net"],
        "both ways",
    );
    for (mailbox, recipient) in [
        ("example.com/info", "info@example.com"),
        ("example.com/sales", "sales@example.com"),
        ("example.net/info", "info@example.net"),
    ] {
        let stored = arrived(&site.store.mailbox(mailbox));
        assert_eq!(header(&stored, "Delivered-To"), [recipient]);
        assert_eq!(header(&stored, "Return-Path"), [format!("<{SENDER}>")]);
        assert_eq!(header(&stored, "Subject"), ["both ways"]);
        assert_eq!(body(&stored), body(&plain("both ways")));
    }
    // A notice, whose sender is empty.
    site.submit(
        "",
        &["box@example.com", "info+notice@example.net"],
        "notice",
    );
    let mailbox = site.store.mailbox("example.net/info");
    let notice = eventually("a notice", Duration::from_secs(60), || {
        let stored = maildir(&mailbox).into_iter();
        stored
            .map(|m| m.bytes)
            .find(|m| header(m, "Subject") == ["notice"])
    });
    assert_eq!(header(&notice, "Return-Path"), ["<>"]);
    assert_eq!(header(&notice, "Delivered-To"), ["info+notice@example.net"]);
    // The queue is empty when both transports have said that they delivered.
    let input = site.scratch.join("spool/input");
    eventually("an empty queue", Duration::from_secs(30), || {
        list(&input).is_empty().then_some(())
    });
}

#[test]
fn what_the_store_refuses_or_defers_is_returned_or_kept_by_exim() {
    let site = Site::start("exim-refusals");
    let recipients = ["info@example.com", "info@example.net"].map(|r| format!("<{r}>"));
    // Not announced, so that it is refused only with the content.
    let large = sized("large", 200_000);
    let reply = Client::smtp(&site.smtp).submit("<s@client.example>", &recipients, &large);
    assert_eq!(reply.code, 250, "{reply}");
    // 65 is EX_DATAERR; what the LDA said goes to the sender.
    for (recipient, reason) in [
        ("info@example.com", "552 5.3.4"),
        ("info@example.net", "returned 65"),
    ] {
        let line = site.log_line(&[" ** ", recipient]);
        assert!(line.contains(reason), "{line}");
    }
    let blocked = site.store.mailbox("example.net/info");
    fs::write(&blocked, "").expect("a file in the place of the Maildir");
    site.submit(SENDER, &["info@example.net"], "kept");
    site.log_line(&[" == info@example.net", "T=mailstow_lda"]);
}

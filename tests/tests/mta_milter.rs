//! The milter in C refuses unknown recipients and messages that are too large at RCPT, for
//! Postfix and for Sendmail.
//!
//! Method: neither MTA has a table of recipients; all that they know is what `ffi/mta/milter.c`
//! answers. It runs as a user without rights and asks the socketmap of the server.

use std::os::unix::process::CommandExt;
use std::path::Path;

use mailstow_tests::content::plain;
use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::header;
use mailstow_tests::mailstow::NOBODY;
use mailstow_tests::other_mta::{arrived, c_program, rcpt, store};
use mailstow_tests::{Address, Mailstow, Postfix, eventually};

/// The server behind and the milter.
struct Filter {
    store: Mailstow,
    milter: Daemon,
}

impl Filter {
    fn start(name: &str, users: &[u32]) -> Self {
        let users: Vec<u32> = users.iter().copied().chain([NOBODY]).collect();
        let store = store(&format!("{name}-store"), &users).start();
        let scratch = store.scratch();
        scratch.mkdir_owned("milter", NOBODY, NOBODY);
        scratch.mkdir("c");
        c_program("mta/milter.c", &["-lmilter"], &scratch.join("c/milter"));
        let mut filter = Self {
            milter: start_milter(scratch.path()),
            store,
        };
        filter.wait();
        filter
    }

    /// Waits until it listens.
    fn wait(&mut self) {
        let socket = self.socket();
        eventually(
            "the milter's socket",
            std::time::Duration::from_secs(30),
            || {
                let ended = self.milter.status();
                assert!(ended.is_none(), "the milter ended: {}", self.milter.log());
                std::os::unix::net::UnixStream::connect(&socket).ok()
            },
        );
    }

    fn socket(&self) -> std::path::PathBuf {
        self.store.scratch().join("milter/socket")
    }
}

fn start_milter(root: &Path) -> Daemon {
    // libmilter makes its socket with the umask of the process; every user may connect here.
    let mut command = tied("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
    command.arg(root.join("c/milter"));
    command.arg(root.join("mailstow.toml"));
    command.arg(format!("unix:{}", root.join("milter/socket").display()));
    command.uid(NOBODY).gid(NOBODY);
    Daemon::start(&mut command, &root.join("milter/log"))
}

/// What every MTA with the milter answers.
fn refuses_at_rcpt(smtp: &Address) {
    assert_eq!(rcpt(smtp, 1000, "info@example.com").get(..3), Some("250"));
    assert_eq!(rcpt(smtp, 1000, "info+x@example.com").get(..3), Some("250"));
    assert_eq!(rcpt(smtp, 1000, "nobody@example.com"), "550 5.1.1");
    assert_eq!(rcpt(smtp, 1000, "100%s%n@example.com"), "550 5.1.1");
    assert_eq!(
        rcpt(smtp, 100_000, "info@example.com").get(..3),
        Some("250")
    );
    assert_eq!(rcpt(smtp, 100_001, "info@example.com"), "552 5.3.4");
}

#[test]
fn postfix_refuses_at_rcpt_what_the_milter_refuses_and_defers_while_it_cannot_know() {
    let postfix_user = nix::unistd::User::from_name("postfix").expect("getpwnam");
    let postfix_user = postfix_user.expect("the package postfix").uid.as_raw();
    let mut filter = Filter::start("milter", &[postfix_user]);
    let lmtp = filter.store.unix().spelled();
    let postfix = Postfix::build("milter")
        .main_cf(&format!(
            "relay_domains = example.com\n\
             relay_recipient_maps =\n\
             relay_transport = lmtp:{lmtp}\n\
             smtpd_milters = unix:{}\n\
             milter_default_action = tempfail\n",
            filter.socket().display()
        ))
        .start();
    refuses_at_rcpt(&postfix.smtp());

    let reply = postfix.submit("s@client.example", &["info@example.com"], &plain("through"));
    assert_eq!(reply.code, 250, "{reply}");
    let stored = arrived(&filter.store.mailbox("example.com/info"));
    assert_eq!(header(&stored, "Subject"), ["through"]);

    // The server is away: nobody knows who exists, and nobody is refused for good.
    filter.store.kill();
    let unknown = |recipient: &str| rcpt(&postfix.smtp(), 1000, recipient);
    assert_eq!(unknown("nobody@example.com").get(..1), Some("4"));
    assert_eq!(unknown("info@example.com").get(..1), Some("4"));
    filter.store.restart();
    assert_eq!(unknown("nobody@example.com"), "550 5.1.1");
    assert!(filter.milter.stop().success(), "{}", filter.milter.log());
}

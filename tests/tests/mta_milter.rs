//! The milter in C refuses unknown recipients and messages that are too large at RCPT, for
//! Postfix and for Sendmail.
//!
//! Method: neither MTA has a table of recipients; all that they know is what `ffi/mta/milter.c`
//! answers. It runs as a user without rights and asks the socketmap of the server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::header;
use mailstow_tests::mailstow::NOBODY;
use mailstow_tests::other_mta::{
    OtherMta, arrived, c_program, rcpt, recipe, store, wait_for_greeting,
};
use mailstow_tests::scratch::loopback_host;
use mailstow_tests::{Address, Client, Mailstow, Postfix, Scratch, eventually};

/// The configuration of Sendmail before the recipe, for m4(1).
const SENDMAIL: &str = "\
OSTYPE(`debian')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
define(`confDOMAIN_NAME', `mx.origin.example')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl
define(`confTO_IDENT', `0')dnl
";

/// Puts the directories of the sockets where the recipe names them, makes the configuration and
/// becomes the daemon.
const START_SENDMAIL: &str = "\
set -e
mkdir /run/mailstow /run/mailstow-milter
mount --bind \"$2\" /run/mailstow
mount --bind \"$3\" /run/mailstow-milter
cd /etc/mail
m4 -D_CF_DIR_=/usr/share/sendmail/cf/ /usr/share/sendmail/cf/m4/cf.m4 sendmail.mc >sendmail.cf
exec /usr/libexec/sendmail/sendmail -C/etc/mail/sendmail.cf -bD -q10s -X \"$1\"";

/// The server behind and the milter.
struct Filter {
    store: Mailstow,
    milter: Daemon,
    address: Address,
}

impl Filter {
    /// The milter listens on a UNIX-domain socket, or on a port of this loopback host.
    fn start(name: &str, users: &[u32], host: Option<String>) -> Self {
        let users: Vec<u32> = users.iter().copied().chain([NOBODY]).collect();
        let store = store(&format!("{name}-store"), &users).start();
        let scratch = store.scratch();
        // As the recipe has it: the socket gets the group of its directory.
        let directory = scratch.mkdir_owned("milter", NOBODY, postfix_group());
        let mode = fs::Permissions::from_mode(0o2750);
        fs::set_permissions(&directory, mode).expect("chmod");
        scratch.mkdir("c");
        let options = ["-lmilter", "-fsanitize=address", "-fno-omit-frame-pointer"];
        c_program("mta/milter.c", &options, &scratch.join("c/milter"));
        let address = match host {
            Some(host) => Address::Inet(host, 10026),
            None => Address::Unix(directory.join("socket")),
        };
        // libmilter makes its socket with the umask of the process.
        let mut command = tied("sh");
        command.args(["-c", "umask 007; exec \"$@\"", "sh"]);
        command.arg(scratch.join("c/milter"));
        command.arg(scratch.join("mailstow.toml"));
        command.arg(spelled(&address)).uid(NOBODY).gid(NOBODY);
        let mut milter = Daemon::start(&mut command, &directory.join("log"));
        eventually("the milter to listen", Duration::from_secs(30), || {
            let ended = milter.status();
            assert!(ended.is_none(), "the milter ended: {}", milter.log());
            Client::dial(&address).ok()
        });
        Self {
            store,
            milter,
            address,
        }
    }
}

/// The group of Postfix's daemons.
fn postfix_group() -> u32 {
    let group = nix::unistd::Group::from_name("postfix").expect("getgrnam");
    group.expect("the package postfix").gid.as_raw()
}

/// As libmilter and Sendmail spell it.
fn spelled(milter: &Address) -> String {
    match milter {
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Inet(host, port) => format!("inet:{port}@{host}"),
    }
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
    let mut filter = Filter::start("milter", &[postfix_user], None);
    let lmtp = filter.store.unix().spelled();
    let postfix = Postfix::build("milter")
        .main_cf(&recipe(
            "postfix",
            &[
                ("unix:/run/mailstow/lmtp", &lmtp),
                (
                    "unix:/run/mailstow-milter/socket",
                    &spelled(&filter.address),
                ),
            ],
        ))
        .start();
    refuses_at_rcpt(&postfix.smtp());

    let reply = postfix.submit("s@client.example", &["info@example.com"], &plain("through"));
    assert_eq!(reply.code, 250, "{reply}");
    let stored = arrived(&filter.store.mailbox("example.com/info"));
    assert_eq!(header(&stored, "Subject"), ["through"]);

    // The server is unavailable: it is unknown who exists, and no recipient is refused permanently.
    filter.store.kill();
    let unknown = |recipient: &str| rcpt(&postfix.smtp(), 1000, recipient);
    assert_eq!(unknown("nobody@example.com").get(..1), Some("4"));
    assert_eq!(unknown("info@example.com").get(..1), Some("4"));
    filter.store.restart();
    assert_eq!(unknown("nobody@example.com"), "550 5.1.1");
    assert!(filter.milter.stop().success(), "{}", filter.milter.log());
}

#[test]
fn sendmail_refuses_at_rcpt_what_the_milter_refuses_and_hands_the_rest_over() {
    let filter = Filter::start("milter-sendmail", &[], None);
    check_sendmail(&filter, &recipe("sendmail", &[]));
}

#[test]
fn sendmail_does_so_over_tcp() {
    let filter = Filter::start("milter-sendmail-tcp", &[], Some(loopback_host()));
    let Address::Inet(host, port) = filter.store.inet() else {
        panic!("{:?} is no port", filter.store.inet());
    };
    let rules = recipe(
        "sendmail",
        &[
            (
                "unix:/run/mailstow-milter/socket",
                &spelled(&filter.address),
            ),
            ("FILE /run/mailstow/lmtp", &format!("TCP [{host}] {port}")),
        ],
    );
    check_sendmail(&filter, &rules);
}

/// Sendmail with these rules of the recipe refuses at RCPT, and delivers.
fn check_sendmail(filter: &Filter, rules: &str) {
    let scratch = Scratch::new("sendmail");
    let mta = OtherMta::new("sendmail", &scratch, &[("smmta", 5104), ("smmsp", 5105)]);
    let host = loopback_host();
    let listen = format!("DAEMON_OPTIONS(`Family=inet, Name=MTA, Port=10025, Addr={host}')dnl\n");
    let mc = format!("{SENDMAIL}{listen}{rules}");
    // Without a full name for this machine, Sendmail waits a minute for one.
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("/proc");
    let hosts = format!("127.0.0.1 mx.origin.example localhost {name}");
    for (path, content) in [
        ("/etc/hosts", hosts.as_str()),
        ("/etc/mail/sendmail.mc", mc.as_str()),
        ("/etc/mail/mailertable", "example.com mailstow:store\n"),
        ("/etc/mail/relay-domains", "example.com\n"),
        ("/etc/mail/local-host-names", "mx.origin.example\n"),
        ("/etc/mail/aliases", ""),
        (
            "/etc/mail/service.switch",
            "passwd files\nhosts files\naliases files\n",
        ),
    ] {
        let path = mta.file(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
        fs::write(path, content).expect("a file of Sendmail");
    }
    for directory in ["/var/spool/mqueue", "/var/lib/sendmail"] {
        let path = mta.file(directory);
        fs::create_dir_all(&path).expect("mkdir");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("chmod");
    }
    let traffic = scratch.join("traffic");
    let mut command = mta.command("sh");
    command.args(["-c", START_SENDMAIL, "sh"]).arg(&traffic);
    command.arg(filter.store.scratch().join("run"));
    command.arg(filter.store.scratch().join("milter"));
    let mut sendmail = Daemon::start(&mut command, &scratch.join("console"));
    let smtp = Address::Inet(host, 10025);
    wait_for_greeting(&mut sendmail, &smtp);
    refuses_at_rcpt(&smtp);

    let mut client = Client::smtp(&smtp);
    let recipients = ["<info@example.com>".to_owned()];
    let reply = client.submit("<s@client.example>", &recipients, &plain("through"));
    assert_eq!(reply.code, 250, "{reply}");
    let stored = arrived(&filter.store.mailbox("example.com/info"));
    assert_eq!(header(&stored, "Subject"), ["through"]);
    assert_eq!(header(&stored, "Delivered-To"), ["info@example.com"]);
}

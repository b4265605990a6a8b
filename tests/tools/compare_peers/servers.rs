//! The servers that are compared, each with its configuration.
//!
//! Dovecot runs as its manual sets up an LMTP server, with its default `mail_fsync = optimized`.
//! `dovecot-tuned` adds the fastest settings that keep that durability: the indexes of Maildirs
//! are in memory, and no log line or statistic is written for a message.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::{list, mbox_count};
use mailstow_tests::mailstow::NOBODY;
use mailstow_tests::{Address, Client, Mailstow, Postfix, Scratch, eventually};

use crate::load;
use crate::options::Options;

/// Every server that can be named.
pub(crate) const KINDS: &[Kind] = &[
    Kind::Mailstow,
    Kind::Dovecot { tuned: false },
    Kind::Dovecot { tuned: true },
    Kind::Dovecot24 { tuned: false },
    Kind::Dovecot24 { tuned: true },
    Kind::Postfix,
];

/// Which server, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mailstow,
    /// Debian's, of the 2.3 series.
    Dovecot {
        tuned: bool,
    },
    /// Built from source; `$DOVECOT24` is its prefix.
    Dovecot24 {
        tuned: bool,
    },
    Postfix,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mailstow => "mailstow",
            Self::Dovecot { tuned: false } => "dovecot",
            Self::Dovecot { tuned: true } => "dovecot-tuned",
            Self::Dovecot24 { tuned: false } => "dovecot24",
            Self::Dovecot24 { tuned: true } => "dovecot24-tuned",
            Self::Postfix => "postfix",
        }
    }

    /// Its version and set-up, for the table.
    pub(crate) fn described(self) -> String {
        let (software, command, setup) = match self {
            Self::Mailstow => (
                "mailstow",
                vec![
                    mailstow_tests::mailstow::binary().display().to_string(),
                    "--version".into(),
                ],
                "defaults",
            ),
            Self::Dovecot { tuned } => (
                "Dovecot",
                vec![
                    dovecot_binary(self).display().to_string(),
                    "--version".into(),
                ],
                dovecot_setup(tuned),
            ),
            Self::Dovecot24 { tuned } => (
                "Dovecot",
                vec![
                    dovecot_binary(self).display().to_string(),
                    "--version".into(),
                ],
                dovecot_setup(tuned),
            ),
            Self::Postfix => (
                "Postfix virtual(8)",
                ["/usr/sbin/postconf", "-dh", "mail_version"]
                    .map(str::to_owned)
                    .to_vec(),
                "100 processes, no inflow delay",
            ),
        };
        format!("{software} {}, {setup}", version(&command))
    }
}

const fn dovecot_setup(tuned: bool) -> &'static str {
    match tuned {
        true => "tuned: index in memory, no log lines, no statistics",
        false => "as its manual says",
    }
}

/// The first word of what a command prints that begins with a digit.
fn version(command: &[String]) -> String {
    let (program, arguments) = command.split_first().expect("a command");
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let mut words = text.split_whitespace();
    let number = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number.unwrap_or("of unknown version").to_owned()
}

fn dovecot_binary(kind: Kind) -> PathBuf {
    match kind {
        Kind::Dovecot24 { .. } => {
            let prefix = std::env::var_os("DOVECOT24");
            let prefix = prefix.expect("DOVECOT24: set it to the prefix of a built Dovecot 2.4");
            Path::new(&prefix).join("sbin/dovecot")
        }
        _ => PathBuf::from("/usr/sbin/dovecot"),
    }
}

/// A server that is ready for mail.
pub(crate) enum Server {
    Mailstow(Box<Mailstow>),
    /// Held so that it runs.
    Dovecot(
        #[expect(dead_code, reason = "ends when dropped")] Daemon,
        Scratch,
    ),
    Postfix(Box<Postfix>),
}

impl Server {
    pub(crate) fn start(kind: Kind, options: &Options) -> Self {
        match kind {
            Kind::Mailstow => Self::Mailstow(Box::new(mailstow(options))),
            Kind::Dovecot { tuned } => dovecot(kind, options, dovecot23, tuned),
            Kind::Dovecot24 { tuned } => dovecot(kind, options, dovecot24, tuned),
            Kind::Postfix => Self::Postfix(Box::new(postfix(options))),
        }
    }

    /// Sends it the messages and waits until all are stored.
    pub(crate) fn take(&self, options: &Options, messages: usize) {
        match self {
            Self::Mailstow(server) => load::send(options, messages, &server.unix(), true),
            Self::Dovecot(_, scratch) => {
                let socket = Address::Unix(scratch.join("lmtp"));
                load::send(options, messages, &socket, true);
            }
            Self::Postfix(server) => {
                load::send(options, messages, &server.smtp(), false);
                server.drain();
            }
        }
    }

    /// Counts the messages in its mailboxes.
    pub(crate) fn stored(&self, options: &Options) -> usize {
        let base = match self {
            Self::Mailstow(server) => server.scratch().join("mail"),
            Self::Dovecot(_, scratch) => scratch.join("mail"),
            Self::Postfix(server) => server.scratch().join("mail"),
        };
        let count = |path: &Path| match options.is_mbox {
            true => mbox_count(path),
            false => list(&path.join("new")).len() + list(&path.join("cur")).len(),
        };
        let names = (0..options.mailboxes).map(load::user);
        names.map(|name| count(&base.join(name))).sum()
    }
}

fn table(options: &Options) -> String {
    let slash = if options.is_mbox { "" } else { "/" };
    let line = |n| format!("{0}@bench.example {0}{slash}\n", load::user(n));
    (0..options.mailboxes).map(line).collect()
}

/// For mailstow and for virtual(8).
fn main_cf() -> String {
    format!(
        "virtual_mailbox_domains = bench.example\nvirtual_mailbox_base = @ROOT@/mail\n\
         virtual_mailbox_maps = hash:@DIR@/vmailbox\nvirtual_minimum_uid = 1\n\
         virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
         virtual_mailbox_limit = 0\n"
    )
}

fn mailstow(options: &Options) -> Mailstow {
    let builder = Mailstow::build("peer")
        .main_cf(&main_cf())
        .table("vmailbox", &table(options));
    builder.scratch().mkdir_owned("mail", NOBODY, NOBODY);
    builder.start()
}

fn postfix(options: &Options) -> Postfix {
    let builder = Postfix::build("peer")
        .main_cf(&main_cf())
        .main_cf("virtual_transport = virtual\ndefault_process_limit = 100\nin_flow_delay = 0")
        .table("vmailbox", &table(options));
    builder.scratch().mkdir_owned("mail", NOBODY, NOBODY);
    builder.start()
}

/// Starts a Dovecot with what `configuration` writes.
fn dovecot(
    kind: Kind,
    options: &Options,
    configuration: fn(&Options, &Scratch, bool) -> String,
    tuned: bool,
) -> Server {
    let scratch = Scratch::new("peer-dovecot");
    scratch.mkdir_owned("mail", NOBODY, NOBODY);
    scratch.mkdir_owned("home", NOBODY, NOBODY);
    let text = configuration(options, &scratch, tuned);
    let file = scratch.write("dovecot.conf", text);
    let mut command = tied(dovecot_binary(kind).to_str().expect("a path in UTF-8"));
    command.arg("-F").arg("-c").arg(file);
    let daemon = Daemon::start(&mut command, &scratch.join("console"));
    let socket = Address::Unix(scratch.join("lmtp"));
    eventually("Dovecot to greet", Duration::from_secs(30), || {
        let mut client = Client::dial(&socket).ok()?;
        client.read_reply().ok().filter(|reply| reply.code == 220)
    });
    Server::Dovecot(daemon, scratch)
}

/// Processes and clients of each. An mbox wants a process for each client; for Maildirs 16
/// processes share the clients evenly.
fn processes(options: &Options) -> (usize, usize) {
    let sessions = options.sessions + 8;
    match options.is_mbox {
        true => (sessions, 1),
        false => (16, sessions.div_ceil(16)),
    }
}

const TUNING: &str = "mailbox_list_index = no\nmaildir_very_dirty_syncs = yes\n\
                      info_log_path = /dev/null\nstats_writer_socket_path =\n";

fn dovecot23(options: &Options, scratch: &Scratch, tuned: bool) -> String {
    let root = scratch.path().display();
    let (processes, clients) = processes(options);
    let location = match (options.is_mbox, tuned) {
        (true, _) => format!("mbox:{root}/home/%n:INBOX={root}/mail/%n"),
        (false, false) => format!("maildir:{root}/mail/%n"),
        (false, true) => format!("maildir:{root}/mail/%n:INDEX=MEMORY"),
    };
    let tuning = if tuned { TUNING } else { "" };
    format!(
        "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\nssl = no\n\
         protocols = lmtp\nmail_location = {location}\nfirst_valid_uid = 1\n\
         passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
         userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={root}/home/%n \
         allow_all_users=yes\n}}\n\
         service lmtp {{\n  unix_listener {root}/lmtp {{\n    mode = 0666\n  }}\n  \
         client_limit = {clients}\n  process_limit = {processes}\n  \
         process_min_avail = 16\n  service_count = 0\n}}\n{tuning}"
    )
}

/// The settings of `dovecot23` in the syntax of 2.4, which also limits deliveries to one user
/// unless configured otherwise.
fn dovecot24(options: &Options, scratch: &Scratch, tuned: bool) -> String {
    let root = scratch.path().display();
    let (processes, clients) = processes(options);
    let version = version(&[
        dovecot_binary(Kind::Dovecot24 { tuned })
            .display()
            .to_string(),
        "--version".to_owned(),
    ]);
    let location = match (options.is_mbox, tuned) {
        (true, _) => format!(
            "mail_driver = mbox\nmail_path = ~/mail\n\
             mail_inbox_path = {root}/mail/%{{user|username}}"
        ),
        (false, false) => {
            format!("mail_driver = maildir\nmail_path = {root}/mail/%{{user|username}}")
        }
        (false, true) => format!(
            "mail_driver = maildir\nmail_path = {root}/mail/%{{user|username}}\n\
             mail_index_path = MEMORY"
        ),
    };
    let tuning = if tuned { TUNING } else { "" };
    format!(
        "dovecot_config_version = {version}\ndovecot_storage_version = {version}\n\
         base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\nssl = no\n\
         protocols = lmtp\n{location}\nmail_home = {root}/home/%{{user|username}}\n\
         mail_uid = {NOBODY}\nmail_gid = {NOBODY}\nfirst_valid_uid = 1\n\
         lmtp_user_concurrency_limit = unlimited\n\
         passdb static {{\n  fields {{\n    nopassword = yes\n  }}\n}}\n\
         userdb static {{\n  userdb_static_allow_all_users = yes\n}}\n\
         service lmtp {{\n  unix_listener lmtp {{\n    path = {root}/lmtp\n    mode = 0666\n  }}\n  \
         client_limit = {clients}\n  process_limit = {processes}\n  \
         process_min_avail = 16\n  restart_request_count = unlimited\n}}\n{tuning}"
    )
}

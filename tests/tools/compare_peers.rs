//! `benches/peers/compare`: how fast mail is taken and stored, beside Dovecot and Postfix.
//!
//! Imports the support library only. Method: servers take turns; each gets the same messages from
//! smtp-source(1), spread over the same mailboxes, and the time runs until the last reply was read
//! (for Postfix until its queue is empty: it answers before virtual(8) has stored anything). Then
//! the messages in the mailboxes are counted: all of them must be there.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::{maildir, mbox};
use mailstow_tests::mailstow::NOBODY;
use mailstow_tests::scratch::needs_root;
use mailstow_tests::volume::Volume;
use mailstow_tests::{Address, Client, Mailstow, Postfix, Scratch, eventually};

const USAGE: &str = "\
usage: benches/peers/compare [option...]
  --servers LIST    of mailstow,dovecot,postfix (all)
  --format NAME     maildir or mbox (maildir)
  --messages N      in each round (20000; Dovecot and Postfix get a tenth)
  --bytes N         of each message (4096)
  --sessions N      at once (64)
  --mailboxes N     that the messages are spread over (16)
  --rounds N        of which the median is taken (3)
MAILSTOW=PATH names the binary to measure.";

/// MiB of the file system.
const VOLUME_MIB: u64 = 8192;
/// Set for the process that runs on the volume.
const INSIDE: &str = "MAILSTOW_COMPARE_INSIDE";

#[derive(Clone, Debug)]
struct Options {
    servers: Vec<String>,
    is_mbox: bool,
    messages: usize,
    bytes: usize,
    sessions: usize,
    mailboxes: usize,
    rounds: usize,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        servers: ["mailstow", "dovecot", "postfix"]
            .map(str::to_owned)
            .to_vec(),
        is_mbox: false,
        messages: 20_000,
        bytes: 4096,
        sessions: 64,
        mailboxes: 16,
        rounds: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            return Err(USAGE.to_owned());
        }
        let value = arguments.next();
        let value = value.ok_or_else(|| format!("{argument} wants a value"))?;
        let number = || match value.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{argument} {value}: use a number above 0")),
        };
        match argument.as_str() {
            "--servers" => options.servers = value.split(',').map(str::to_owned).collect(),
            "--format" if value == "maildir" || value == "mbox" => {
                options.is_mbox = value == "mbox";
            }
            "--messages" => options.messages = number()?,
            "--bytes" => options.bytes = number()?,
            "--sessions" => options.sessions = number()?,
            "--mailboxes" => options.mailboxes = number()?,
            "--rounds" => options.rounds = number()?,
            _ => return Err(format!("{argument} {value}: not known\n{USAGE}")),
        }
    }
    let known = ["mailstow", "dovecot", "postfix"];
    match options
        .servers
        .iter()
        .find(|s| !known.contains(&s.as_str()))
    {
        Some(other) => Err(format!("--servers {other}: use {}", known.join(", "))),
        None => Ok(options),
    }
}

/// A server that is ready for mail.
enum Server {
    Mailstow(Box<Mailstow>),
    /// Held so that it runs.
    Dovecot(
        #[expect(dead_code, reason = "ends when dropped")] Daemon,
        Scratch,
    ),
    Postfix(Box<Postfix>),
}

impl Server {
    fn start(name: &str, options: &Options) -> Self {
        match name {
            "mailstow" => Self::Mailstow(Box::new(mailstow(options))),
            "dovecot" => dovecot(options),
            _ => Self::Postfix(Box::new(postfix(options))),
        }
    }

    /// Takes the messages; the seconds it took.
    fn take(&self, options: &Options, messages: usize) -> f64 {
        let start = Instant::now();
        match self {
            Self::Mailstow(server) => load(options, messages, &server.unix(), true),
            Self::Dovecot(_, scratch) => {
                load(
                    options,
                    messages,
                    &Address::Unix(scratch.join("lmtp")),
                    true,
                );
            }
            Self::Postfix(server) => {
                load(options, messages, &server.smtp(), false);
                server.drain();
            }
        }
        start.elapsed().as_secs_f64()
    }

    fn stored(&self, options: &Options) -> usize {
        let base = match self {
            Self::Mailstow(server) => server.scratch().join("mail"),
            Self::Dovecot(_, scratch) => scratch.join("mail"),
            Self::Postfix(server) => server.scratch().join("mail"),
        };
        let count = |path: &Path| match options.is_mbox {
            true => mbox(path).len(),
            false => maildir(path).len(),
        };
        let names = (0..options.mailboxes).map(user);
        names.map(|name| count(&base.join(name))).sum()
    }
}

fn user(number: usize) -> String {
    format!("u{number}")
}

fn table(options: &Options) -> String {
    let slash = if options.is_mbox { "" } else { "/" };
    let line = |n| format!("{0}@bench.example {0}{slash}\n", user(n));
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

/// Dovecot as its manual sets up an LMTP server, with its default `mail_fsync = optimized`.
fn dovecot(options: &Options) -> Server {
    let scratch = Scratch::new("peer-dovecot");
    scratch.mkdir_owned("mail", NOBODY, NOBODY);
    scratch.mkdir_owned("home", NOBODY, NOBODY);
    let root = scratch.path().display();
    let sessions = options.sessions + 8;
    // An mbox wants a process for each client; for Maildir 16 processes share them evenly.
    let (processes, clients) = match options.is_mbox {
        true => (sessions, 1),
        false => (16, sessions.div_ceil(16)),
    };
    let location = match options.is_mbox {
        true => format!("mbox:{root}/home/%n:INBOX={root}/mail/%n"),
        false => format!("maildir:{root}/mail/%n"),
    };
    let text = format!(
        "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\nssl = no\n\
         protocols = lmtp\nmail_location = {location}\nfirst_valid_uid = 1\n\
         passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
         userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={root}/home/%n \
         allow_all_users=yes\n}}\n\
         service lmtp {{\n  unix_listener {root}/lmtp {{\n    mode = 0666\n  }}\n  \
         client_limit = {clients}\n  process_limit = {processes}\n  \
         process_min_avail = 16\n  service_count = 0\n}}\n"
    );
    let configuration = scratch.write("dovecot.conf", text);
    let mut command = tied("/usr/sbin/dovecot");
    command.arg("-F").arg("-c").arg(configuration);
    let daemon = Daemon::start(&mut command, &scratch.join("console"));
    let socket = Address::Unix(scratch.join("lmtp"));
    eventually(
        "Dovecot to greet",
        std::time::Duration::from_secs(30),
        || {
            let mut client = Client::dial(&socket).ok()?;
            client.read_reply().ok().filter(|reply| reply.code == 220)
        },
    );
    Server::Dovecot(daemon, scratch)
}

/// One smtp-source(1) for each mailbox, all at once.
fn load(options: &Options, messages: usize, to: &Address, is_lmtp: bool) {
    let share = |total: usize, n: usize| {
        let (each, rest) = (total / options.mailboxes, total % options.mailboxes);
        each + usize::from(n < rest)
    };
    let spelled = to.spelled();
    let target = spelled.strip_prefix("inet:").unwrap_or(&spelled);
    let sources: Vec<_> = (0..options.mailboxes)
        .filter(|n| share(messages, *n) > 0)
        .map(|n| {
            let mut command = Command::new("/usr/sbin/smtp-source");
            if is_lmtp {
                command.arg("-L");
            }
            let sessions = share(options.sessions, n).clamp(1, share(messages, n));
            command
                .args(["-d", "-f", "source@client.example", "-t"])
                .arg(format!("{}@bench.example", user(n)))
                .args(["-s", &sessions.to_string()])
                .args(["-m", &share(messages, n).to_string()])
                .args(["-l", &options.bytes.to_string()])
                .arg(target);
            command
                .spawn()
                .expect("smtp-source(1): install the package postfix")
        })
        .collect();
    for mut source in sources {
        let status = source.wait().expect("our own child");
        assert!(status.success(), "smtp-source saw a refusal");
    }
}

fn measure(name: &str, options: &Options) -> f64 {
    let server = Server::start(name, options);
    let warm = options.mailboxes;
    server.take(options, warm);
    let messages = match name {
        "mailstow" => options.messages,
        _ => options.messages.div_ceil(10),
    };
    let seconds = server.take(options, messages);
    let stored = server.stored(options);
    assert_eq!(stored, warm + messages, "{name} answered for all of them");
    messages as f64 / seconds
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn compare(options: &Options) {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); options.servers.len()];
    for _ in 0..options.rounds {
        for (name, rates) in options.servers.iter().zip(&mut rates) {
            rates.push(measure(name, options));
        }
    }
    let format = if options.is_mbox { "mbox" } else { "Maildir" };
    println!(
        "{format}, messages of {} bytes, {} sessions, {} mailboxes, median of {}:\n",
        options.bytes, options.sessions, options.mailboxes, options.rounds
    );
    println!("| server | messages/s | lowest | highest |\n|---|---|---|---|");
    for (name, rates) in options.servers.iter().zip(rates) {
        let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {:.0} | {low:.0} | {high:.0} |", median(rates));
    }
}

/// Runs this program again, with its temporary files on a journalled file system.
fn on_a_volume() -> ExitCode {
    needs_root("a file system is mounted");
    let scratch = Scratch::new("compare");
    let volume = Volume::mount(&scratch, VOLUME_MIB);
    let program = std::env::current_exe().expect("the path of this program");
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env("TMPDIR", volume.path())
        .env(INSIDE, "1")
        .status()
        .expect("this program can be run again");
    drop(volume);
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if std::env::var_os(INSIDE).is_none() {
        return on_a_volume();
    }
    compare(&options);
    ExitCode::SUCCESS
}

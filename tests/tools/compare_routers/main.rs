//! `benches/peers/route`: how fast mail goes through a router to two stores, and at what cost.
//!
//! Method: mailstow and Dovecot's LMTP proxy take turns before the same two stores, both over TCP;
//! smtp-source(1) sends messages to recipients of both stores, and the time runs until the last
//! reply is read. The processor time is that of the router's processes alone. By default the stores
//! are smtp-sink(1), which keep nothing, so that the router is what limits; with
//! `--stores mailstow` they store durably, and every message must be there.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::mailboxes::list;
use mailstow_tests::mailstow::NOBODY;
use mailstow_tests::scratch::{loopback_host, needs_root};
use mailstow_tests::{Address, Client, Mailstow, Scratch, eventually};

const USAGE: &str = "\
usage: benches/peers/route [option...]
  --stores NAME     sink (smtp-sink(1)) or mailstow (sink)
  --durability NAME of mailstow: logged, or direct, which remembers nothing of what was handed over
                    (logged)
  --messages N      of each window (20000)
  --bytes N         of each message (4096)
  --sessions N      at once (16)
  --rounds N        of which the median is taken (3)";

/// Mailboxes; every second one is in the second store.
const USERS: usize = 16;
const START_LIMIT: Duration = Duration::from_secs(30);
/// Ports of the stores.
const STORE_PORTS: [u16; 2] = [10124, 10125];

struct Options {
    stores_mail: bool,
    remembers: bool,
    messages: usize,
    bytes: usize,
    sessions: usize,
    rounds: usize,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        stores_mail: false,
        remembers: true,
        messages: 20_000,
        bytes: 4096,
        sessions: 16,
        rounds: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| USAGE.to_owned())?;
        let number = || match value.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{argument} {value}: use a number above 0")),
        };
        match (argument.as_str(), value.as_str()) {
            ("--stores", "sink") => options.stores_mail = false,
            ("--stores", "mailstow") => options.stores_mail = true,
            ("--durability", "logged") => options.remembers = true,
            ("--durability", "direct") => options.remembers = false,
            ("--messages", _) => options.messages = number()?,
            ("--bytes", _) => options.bytes = number()?,
            ("--sessions", _) => options.sessions = number()?,
            ("--rounds", _) => options.rounds = number()?,
            _ => return Err(format!("{argument} {value}: not known\n{USAGE}")),
        }
    }
    Ok(options)
}

fn ready(what: &str, address: &Address) {
    eventually(what, START_LIMIT, || {
        let mut client = Client::dial(address).ok()?;
        client.read_reply().ok().filter(|reply| reply.code == 220)
    });
}

/// The store that a router sends mail to.
enum Store {
    Sink(
        #[expect(dead_code, reason = "ends when dropped")] Daemon,
        #[expect(dead_code, reason = "removed when dropped")] Scratch,
        Address,
    ),
    Mailstow(Box<Mailstow>, Address),
}

impl Store {
    fn start(options: &Options, port: u16) -> Self {
        let host = loopback_host();
        let address = Address::Inet(host.clone(), port);
        let store = match options.stores_mail {
            false => {
                let scratch = Scratch::new("sink");
                let mut command = tied("/usr/sbin/smtp-sink");
                command.args(["-u", "nobody", "-L", &format!("{host}:{port}"), "1000"]);
                let daemon = Daemon::start(&mut command, &scratch.join("log"));
                Self::Sink(daemon, scratch, address)
            }
            true => {
                let builder = Mailstow::build("store")
                    .arguments(&["--domain", "bench.example", "--base", "@ROOT@/mail"])
                    .arguments(&["--listen", &address.spelled()])
                    .as_user(NOBODY);
                builder.scratch().mkdir_owned("mail", NOBODY, NOBODY);
                Self::Mailstow(Box::new(builder.start()), address)
            }
        };
        ready("a store to greet", store.address());
        store
    }

    fn address(&self) -> &Address {
        match self {
            Self::Sink(_, _, address) | Self::Mailstow(_, address) => address,
        }
    }

    /// Messages in it; `None` when it keeps none.
    fn stored(&self) -> Option<usize> {
        let Self::Mailstow(store, _) = self else {
            return None;
        };
        let base = store.scratch().join("mail/bench.example");
        let count = |path: &Path| list(&path.join("new")).len();
        Some(list(&base).iter().map(|path| count(path)).sum())
    }
}

fn host_and_port(address: &Address) -> (&str, u16) {
    match address {
        Address::Inet(host, port) => (host, *port),
        Address::Unix(_) => panic!("stores are reached over TCP"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mailstow,
    Dovecot,
}

/// A router before two stores.
enum Router {
    Mailstow(Box<Mailstow>),
    Dovecot(Daemon, Scratch),
}

impl Router {
    fn start(kind: Kind, options: &Options, stores: &[Store]) -> Self {
        let of = |user: usize| host_and_port(stores[user % stores.len()].address());
        match kind {
            Kind::Mailstow => {
                let line = |user| {
                    let (host, port) = of(user);
                    format!("u{user}@bench.example lmtp:inet:{host}:{port}\n")
                };
                let table: String = (0..USERS).map(line).collect();
                let durability = match options.remembers {
                    true => "logged",
                    false => "direct",
                };
                let builder = Mailstow::build("router")
                    .main_cf(&format!(
                        "virtual_mailbox_domains = bench.example\n\
                         virtual_mailbox_base = @ROOT@/mail\n\
                         virtual_mailbox_maps = static:u/\n\
                         virtual_uid_maps = static:{NOBODY}\n\
                         virtual_gid_maps = static:{NOBODY}\n\
                         transport_maps = texthash:@DIR@/transport\n"
                    ))
                    .table("transport", &table)
                    .toml("[transport]\nenabled = true")
                    .toml(&format!("[store]\ndurability = \"{durability}\""));
                builder.scratch().mkdir_owned("mail", NOBODY, NOBODY);
                Self::Mailstow(Box::new(builder.start()))
            }
            Kind::Dovecot => {
                let scratch = Scratch::new("proxy");
                let line = |user| {
                    let (host, port) = of(user);
                    format!("u{user}:::::::proxy=y nopassword=y host={host} port={port}\n")
                };
                let users: String = (0..USERS).map(line).collect();
                scratch.write("users", users);
                let root = scratch.path().display();
                let clients = options.sessions.div_ceil(8) + 1;
                let configuration = format!(
                    "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\n\
                     info_log_path = /dev/null\nssl = no\nprotocols = lmtp\nlmtp_proxy = yes\n\
                     passdb {{\n  driver = passwd-file\n  \
                     args = username_format=%n {root}/users\n}}\n\
                     service lmtp {{\n  unix_listener {root}/lmtp {{\n    mode = 0666\n  }}\n  \
                     client_limit = {clients}\n  process_limit = 8\n  process_min_avail = 8\n  \
                     service_count = 0\n}}\n"
                );
                let file = scratch.write("dovecot.conf", configuration);
                let mut command = tied("/usr/sbin/dovecot");
                command.arg("-F").arg("-c").arg(file);
                let daemon = Daemon::start(&mut command, &scratch.join("console"));
                ready("Dovecot to greet", &Address::Unix(scratch.join("lmtp")));
                Self::Dovecot(daemon, scratch)
            }
        }
    }

    fn address(&self) -> Address {
        match self {
            Self::Mailstow(router) => router.unix(),
            Self::Dovecot(_, scratch) => Address::Unix(scratch.join("lmtp")),
        }
    }

    /// Seconds of processor time of all its processes so far.
    fn processor_seconds(&self) -> f64 {
        let leader = match self {
            Self::Mailstow(router) => router.daemon.pid(),
            Self::Dovecot(daemon, _) => daemon.pid(),
        };
        let processes = list(Path::new("/proc"));
        let of = |path: &std::path::PathBuf| ticks(path, leader);
        let ticks: u64 = processes.iter().filter_map(of).sum();
        // USER_HZ is 100 on every Linux that people run.
        ticks as f64 / 100.0
    }
}

/// Ticks of a process of the group of `leader`, with those of its children that ended.
fn ticks(process: &Path, leader: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The name may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    (number(2)? == u64::from(leader)).then_some(())?;
    // utime, stime, cutime, cstime (proc(5)).
    Some((11..15).filter_map(number).sum())
}

/// Sends messages with one smtp-source(1) for each user.
fn send(options: &Options, messages: usize, to: &Address) {
    let share = |total: usize, user: usize| total / USERS + usize::from(user < total % USERS);
    let sources: Vec<_> = (0..USERS)
        .filter(|user| share(messages, *user) > 0)
        .map(|user| {
            let sessions = share(options.sessions, user).clamp(1, share(messages, user));
            Command::new("/usr/sbin/smtp-source")
                .args(["-L", "-d", "-f", "source@client.example", "-t"])
                .arg(format!("u{user}@bench.example"))
                .args(["-s", &sessions.to_string()])
                .args(["-m", &share(messages, user).to_string()])
                .args(["-l", &options.bytes.to_string()])
                .arg(to.spelled())
                .spawn()
                .expect("smtp-source(1): install the package postfix")
        })
        .collect();
    for mut source in sources {
        let status = source.wait().expect("our own child");
        assert!(status.success(), "smtp-source saw a refusal");
    }
}

/// Messages a second, and milliseconds of processor time of the router for a message.
fn measure(kind: Kind, options: &Options) -> (f64, f64) {
    let stores: Vec<Store> = STORE_PORTS.map(|port| Store::start(options, port)).into();
    let router = Router::start(kind, options, &stores);
    let warm_up = options.messages / 20 + USERS;
    send(options, warm_up, &router.address());
    let (before, start) = (router.processor_seconds(), Instant::now());
    send(options, options.messages, &router.address());
    let seconds = start.elapsed().as_secs_f64();
    let spent = router.processor_seconds() - before;
    let stored: Option<usize> = stores.iter().map(Store::stored).sum();
    if let Some(stored) = stored {
        assert_eq!(stored, warm_up + options.messages, "{kind:?}");
    }
    let messages = options.messages as f64;
    (messages / seconds, spent * 1000.0 / messages)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    needs_root("Dovecot and the stores run as other users");
    let kinds = [Kind::Mailstow, Kind::Dovecot];
    let mut rates = [Vec::new(), Vec::new()];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (at, kind) in kinds.into_iter().enumerate() {
            let (rate, cost) = measure(kind, &options);
            rates[at].push(rate);
            costs[at].push(cost);
        }
    }
    println!(
        "{} messages of {} bytes, {} sessions, median of {}:\n\n\
         | router | messages/s | processor time for a message |\n|---|---|---|",
        options.messages, options.bytes, options.sessions, options.rounds
    );
    for (kind, (rates, costs)) in kinds.iter().zip(rates.into_iter().zip(costs)) {
        println!(
            "| {kind:?} | {:.0} | {:.3} ms |",
            median(rates),
            median(costs)
        );
    }
    ExitCode::SUCCESS
}

//! The command `mailstow`: built once for the tests, run as a server or for one answer.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::accounts::{Account, with_accounts};
use crate::client::{Address, Client};
use crate::daemon::{Daemon, tied};
use crate::eventually;
use crate::scratch::{Scratch, loopback_host};

/// A user without any rights.
pub const NOBODY: u32 = 65534;
/// Port of the TCP listener on the server's own loopback host.
pub const LMTP_PORT: u16 = 10024;
/// How long a command that is not a server may run.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long the server may take until it greets, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The binary: `$MAILSTOW` if set, else built by cargo in the profile of the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("MAILSTOW") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    // With the libraries, as tests/run builds: without them cargo makes some dependencies for build
    // scripts alone, in another way, and compiles all that depends on them again.
    let messages = cargo_build(&["--lib", "--bin", "mailstow"]);
    messages
        .iter()
        .find(|m| m["target"]["name"] == "mailstow" && m["executable"].is_string())
        .and_then(|m| m["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable it built")
}

/// Builds parts of the workspace in the profile of the tests. Returns cargo's messages.
pub(crate) fn cargo_build(parts: &[&str]) -> Vec<serde_json::Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All packages are selected, so that their features are those of the tests' own build.
    cargo
        .args(["build", "--workspace"])
        .args(parts)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // Variables that cargo sets for the package of this test: build scripts that look at it (ring's
    // does) would be run again, and all that depends on them compiled again.
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().expect("cargo builds parts of the workspace");
    assert!(output.status.success(), "{parts:?} does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// A command line `mailstow ...` to be run by the test.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A copy of the binary that every user may run: the checkout may be closed to them.
pub fn executable_for_all(scratch: &Scratch) -> PathBuf {
    let path = scratch.mkdir("bin").join("mailstow");
    if !path.exists() {
        // By another process: a file that this one had open for writing could be busy in a child
        // that another test starts meanwhile.
        let status = Command::new("cp").arg(binary()).arg(&path).status();
        assert!(status.expect("cp").success(), "the binary can be copied");
    }
    path
}

/// Runs `mailstow ...` to its end with nothing on its standard input.
pub fn run(arguments: &[&str]) -> Output {
    run_with_input(command(arguments), b"")
}

/// Runs a command to its end with `input` on its standard input.
///
/// # Panics
/// When it has not ended after `COMMAND_LIMIT`.
pub fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that needs no input may end before it has read any.
            let _ = stdin.write_all(input);
        });
        let read = |stream: &mut dyn Read| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        };
        let stdout = scope.spawn(move || read(&mut stdout));
        let stderr = scope.spawn(move || read(&mut stderr));
        let until = Instant::now() + COMMAND_LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break Some(status);
            }
            if Instant::now() > until {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let output = Output {
            status: status.unwrap_or_default(),
            stdout: stdout.join().expect("read"),
            stderr: stderr.join().expect("read"),
        };
        assert!(status.is_some(), "{command:?} does not end: {output:?}");
        output
    })
}

/// Standard output of a command that must succeed.
pub fn answer(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "mailstow {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whom the mailboxes of [`Mailstow::example`] belong to: a user of no name when the tests run as
/// root, else the user who runs them.
pub fn owner() -> u32 {
    match nix::unistd::geteuid().as_raw() {
        0 => 5000,
        other => other,
    }
}

/// What is to be set up before the server starts.
pub struct Builder {
    scratch: Scratch,
    host: String,
    arguments: Vec<String>,
    uid: Option<u32>,
    limits: Vec<String>,
    main_cf: String,
    master_cf: String,
    toml: String,
    users: Vec<Account>,
}

/// A running server; killed when dropped.
pub struct Mailstow {
    /// The process.
    pub daemon: Daemon,
    builder: Builder,
}

impl Builder {
    /// Reads this Postfix configuration directory.
    pub fn postfix(mut self, directory: &Path) -> Self {
        self.arguments.extend([
            "--postfix".into(),
            directory.to_str().expect("UTF-8").to_owned(),
        ]);
        self
    }

    /// Lines of a separate `main.cf` of the server; `@ROOT@` is replaced by the scratch directory
    /// and `@DIR@` by the configuration directory.
    pub fn main_cf(mut self, lines: &str) -> Self {
        self.main_cf += &self.filled(lines);
        self.main_cf += "\n";
        self
    }

    /// Lines of a `master.cf` of the server's own, filled in as those of `main.cf`.
    pub fn master_cf(mut self, lines: &str) -> Self {
        self.master_cf += &self.filled(lines);
        self.master_cf += "\n";
        self
    }

    /// Lets the server, and nothing else on the machine, know a user and a group of that name.
    pub fn user(mut self, name: &str, id: u32, home: &str) -> Self {
        self.users.push(Account {
            name: name.to_owned(),
            id,
            home: self.filled(home),
        });
        self
    }

    /// A table source in the configuration directory.
    pub fn table(self, name: &str, content: &str) -> Self {
        let content = self.filled(content);
        self.scratch.write(&format!("conf/{name}"), content);
        self
    }

    /// Lines of `mailstow.toml`.
    pub fn toml(mut self, lines: &str) -> Self {
        self.toml += &self.filled(lines);
        self.toml += "\n";
        self
    }

    /// Further arguments of `mailstow serve`.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        let filled: Vec<_> = arguments.iter().map(|a| self.filled(a)).collect();
        self.arguments.extend(filled);
        self
    }

    /// Runs the server as this user and group, without root's rights.
    pub fn as_user(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Runs the server with a limit of the system, as prlimit(1) spells it: `--nofile=256`.
    pub fn limit(mut self, limit: &str) -> Self {
        self.limits.push(limit.to_owned());
        self
    }

    /// The scratch directory, for what must be there before the start.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Where the UNIX-domain listener will be.
    pub fn unix(&self) -> Address {
        Address::Unix(self.scratch.join("run/lmtp"))
    }

    /// Where the TCP listener will be.
    pub fn inet(&self) -> Address {
        Address::Inet(self.host.clone(), LMTP_PORT)
    }

    fn filled(&self, text: &str) -> String {
        let root = self.scratch.path().display().to_string();
        text.replace("@DIR@", &format!("{root}/conf"))
            .replace("@ROOT@", &root)
    }

    /// The arguments common to all subcommands: where the configuration is. Writes its files.
    pub fn configuration(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if !self.main_cf.is_empty() {
            self.scratch.write("conf/main.cf", &self.main_cf);
            self.scratch.write("conf/master.cf", &self.master_cf);
            let directory = self.scratch.join("conf").display().to_string();
            arguments.extend(["--postfix".to_owned(), directory]);
        }
        if !self.toml.is_empty() {
            let path = self.scratch.write("mailstow.toml", &self.toml);
            arguments.extend(["--config".to_owned(), path.display().to_string()]);
        }
        arguments
    }

    /// The command that starts the server; it ends with the test.
    pub fn serve(&self) -> Command {
        let program = match self.uid {
            Some(_) => executable_for_all(&self.scratch),
            None => binary().to_owned(),
        };
        let mut command = match self.limits.as_slice() {
            [] => with_accounts(&program, &self.scratch, &self.users),
            limits => {
                let mut command = tied("prlimit");
                command.args(limits).arg("--").arg(program);
                command
            }
        };
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid).env_remove("HOME");
        }
        command.env_remove("RUST_LOG").arg("serve");
        command.args(self.configuration()).args(&self.arguments);
        command
            .arg("--listen")
            .arg(self.unix().spelled())
            .arg("--listen")
            .arg(self.inet().spelled())
            .arg("--state-directory")
            .arg(self.scratch.join("state"))
            .current_dir(self.scratch.path());
        command
    }

    /// Makes the directories that the server finds.
    pub fn make_directories(&self) {
        for name in ["run", "state"] {
            let path = self.scratch.mkdir(name);
            if self.uid.is_some() {
                std::os::unix::fs::chown(&path, self.uid, self.uid).expect("chown needs root");
            }
        }
    }

    /// Starts the server and waits until it greets on both of its listeners.
    pub fn start(self) -> Mailstow {
        self.make_directories();
        let log = self.scratch.join("mailstow.log");
        let daemon = Daemon::start(&mut self.serve(), &log);
        let mut server = Mailstow {
            daemon,
            builder: self,
        };
        server.wait_until_ready();
        server
    }
}

impl Mailstow {
    /// A new server to be set up; `name` shows in its paths.
    pub fn build(name: &str) -> Builder {
        Builder {
            scratch: Scratch::new(name),
            host: loopback_host(),
            arguments: Vec::new(),
            uid: None,
            limits: Vec::new(),
            main_cf: String::new(),
            master_cf: String::new(),
            users: Vec::new(),
            toml: String::new(),
        }
    }

    /// A server for all of `example.com` in Maildirs below [`Mailstow::vhosts`], without root
    /// and without a configuration file.
    pub fn domain(name: &str) -> Builder {
        let builder =
            Self::build(name).arguments(&["--domain", "example.com", "--base", "@ROOT@/vhosts"]);
        if !nix::unistd::geteuid().is_root() {
            return builder;
        }
        builder.scratch.mkdir_owned("vhosts", NOBODY, NOBODY);
        builder.as_user(NOBODY)
    }

    /// A server with `info@example.com` (mbox), `sales@example.com` (Maildir) and a table
    /// `vmailbox` to change; mailboxes belong to [`owner`].
    pub fn example(name: &str) -> Builder {
        let builder = Self::build(name);
        let owner = owner();
        for directory in ["vhosts", "vhosts/example.com"] {
            let path = builder.scratch.mkdir(directory);
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("chown");
        }
        builder
            .main_cf(&format!(
                "virtual_mailbox_domains = example.com\n\
                 virtual_mailbox_base = @ROOT@/vhosts\n\
                 virtual_mailbox_maps = texthash:@DIR@/vmailbox\n\
                 virtual_uid_maps = static:{owner}\n\
                 virtual_gid_maps = static:{owner}\n\
                 recipient_delimiter = +\n"
            ))
            .table(
                "vmailbox",
                "info@example.com example.com/info\nsales@example.com example.com/sales/\n",
            )
    }

    /// A path below `virtual_mailbox_base`.
    pub fn mailbox(&self, name: &str) -> PathBuf {
        self.vhosts().join(name)
    }

    /// The directory of [`Mailstow::domain`] and [`Mailstow::example`].
    pub fn vhosts(&self) -> PathBuf {
        self.builder.scratch.join("vhosts")
    }

    /// The UNIX-domain listener.
    pub fn unix(&self) -> Address {
        self.builder.unix()
    }

    /// The TCP listener.
    pub fn inet(&self) -> Address {
        self.builder.inet()
    }

    /// An LMTP session over the UNIX-domain socket.
    pub fn client(&self) -> Client {
        Client::lmtp(&self.unix())
    }

    /// Asks for `recipient` until `RCPT` is answered with the reply code `wanted`.
    pub fn wait_for_rcpt(&self, recipient: &str, wanted: u16, limit: Duration) {
        let mut client = self.client();
        eventually(&format!("{wanted} for {recipient}"), limit, || {
            (client.rcpt_code(recipient) == wanted).then_some(())
        });
    }

    /// The scratch directory the server lives in.
    pub fn scratch(&self) -> &Scratch {
        &self.builder.scratch
    }

    /// The arguments by which another subcommand sees the same configuration.
    pub fn configuration(&self) -> Vec<String> {
        self.builder.configuration()
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits for a log line that contains `words`; the line.
    pub fn log_line(&self, words: &str) -> String {
        self.log_line_after(0, words)
    }

    /// As [`Mailstow::log_line`], without what stood in the first `bytes` bytes of the log.
    pub fn log_line_after(&self, bytes: usize, words: &str) -> String {
        eventually(&format!("{words:?} in the log"), START_LIMIT, || {
            let log = self.log();
            let new = log.get(bytes..).unwrap_or_default();
            new.lines().find(|l| l.contains(words)).map(str::to_owned)
        })
    }

    /// What the server says of its health, and the exit status of the question.
    pub fn health(&self) -> (i32, serde_json::Value) {
        let state = self.scratch().join("state");
        let state = state.to_str().expect("UTF-8");
        let output = run(&["health", "--json", "--state-directory", state]);
        let answer = serde_json::from_slice(&output.stdout).expect("JSON on one line");
        (output.status.code().expect("it exits"), answer)
    }

    /// Kills the server without warning (SIGKILL).
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, with the same configuration, directories and addresses.
    pub fn restart(&mut self) {
        self.restart_only();
        self.wait_until_ready();
    }

    /// Starts it again and waits for nothing.
    pub fn restart_only(&mut self) {
        self.daemon.kill();
        let log = self.builder.scratch.join("mailstow.log");
        self.daemon = Daemon::start(&mut self.builder.serve(), &log);
    }

    fn wait_until_ready(&mut self) {
        for address in [self.unix(), self.inet()] {
            eventually("mailstow to greet", START_LIMIT, || {
                assert!(
                    self.daemon.status().is_none(),
                    "mailstow did not start:\n{}",
                    self.daemon.log()
                );
                let mut client = Client::dial(&address).ok()?;
                client.read_reply().ok().filter(|r| r.code == 220)
            });
        }
    }
}

//! A private Postfix: its own configuration, queue and data directories, ports and log.
//!
//! Started with the `main.cf` lines a test gives, behind the lines every private instance needs
//! (a test may give these other values). It runs as root, as Postfix must.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::accounts::{Account, with_accounts};
use crate::client::{Address, Client, Reply};
use crate::daemon::Daemon;
use crate::scratch::{Scratch, loopback_host, needs_root, write_whole};
use crate::{content, eventually};

/// Port of smtpd on the instance's own loopback host.
const SMTP_PORT: u16 = 10025;
/// How long Postfix may take to come up, or to deliver a mail.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be set up before Postfix starts.
pub struct Builder {
    scratch: Scratch,
    host: String,
    main_cf: String,
    services: String,
    tables: Vec<PathBuf>,
    aliases: Vec<(PathBuf, u32)>,
    users: Vec<Account>,
}

/// A running Postfix; ended when dropped.
pub struct Postfix {
    daemon: Daemon,
    scratch: Scratch,
    host: String,
}

/// What Postfix logged about the delivery to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `sent`, `deferred` or `bounced`; a refusal by smtpd is not logged as an outcome.
    pub status: String,
    /// Enhanced status code.
    pub dsn: String,
    /// Which agent took it: `virtual`, `local`, or the server of `lmtp`.
    pub relay: String,
    /// The text in parentheses.
    pub text: String,
}

impl Builder {
    /// Adds lines to `main.cf`. `@DIR@` is replaced by the configuration directory and `@ROOT@` by
    /// the scratch directory.
    pub fn main_cf(mut self, lines: &str) -> Self {
        self.main_cf += &self.filled(lines);
        self.main_cf += "\n";
        self
    }

    /// Adds lines to `master.cf`, filled in as those of `main.cf`.
    pub fn master_cf(mut self, lines: &str) -> Self {
        self.services += &self.filled(lines);
        self.services += "\n";
        self
    }

    /// Writes a table source into the configuration directory; indexed by postmap(1) before the
    /// start as Postfix's `hash:`.
    pub fn table(mut self, name: &str, content: &str) -> Self {
        let content = self.filled(content);
        let path = self.scratch.write(&format!("conf/{name}"), content);
        self.tables.push(path);
        self
    }

    /// Lets this Postfix, and nothing else on the machine, know a user and a group of that name, as
    /// `user=` of pipe(8) wants: `/etc/passwd` and `/etc/group` are covered by copies in a separate
    /// mount namespace.
    pub fn user(self, name: &str, id: u32) -> Self {
        self.user_at(name, id, "/nonexistent")
    }

    /// As [`Builder::user`], with a home directory; `@ROOT@` is replaced by the scratch directory.
    pub fn user_at(mut self, name: &str, id: u32, home: &str) -> Self {
        self.users.push(Account {
            name: name.to_owned(),
            id,
            home: self.filled(home),
        });
        self
    }

    /// The scratch directory, for what must be there before the start.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Writes `aliases` for local(8) into the configuration directory, indexed by postalias(1).
    pub fn aliases(self, content: &str) -> Self {
        self.alias_table("aliases", content, 0)
    }

    /// Writes a table for local(8), indexed by postalias(1), that belongs to this user.
    pub fn alias_table(mut self, name: &str, content: &str, owner: u32) -> Self {
        let content = self.filled(content);
        let path = self.scratch.write(&format!("conf/{name}"), content);
        self.aliases.push((path, owner));
        self
    }

    /// The configuration directory.
    pub fn directory(&self) -> PathBuf {
        self.scratch.join("conf")
    }

    fn filled(&self, text: &str) -> String {
        let root = self.scratch.path().display().to_string();
        text.replace("@DIR@", &format!("{root}/conf"))
            .replace("@ROOT@", &root)
    }

    /// Writes `main.cf` and `master.cf` and makes the tables and directories, without a start.
    pub fn write(&self) {
        let host = &self.host;
        let root = self.scratch.path();
        self.scratch.mkdir("conf");
        make_queue(root);
        let main = format!("{}{}", base_main_cf(root), self.main_cf);
        fs::write(root.join("conf/main.cf"), each_parameter_once(&main)).expect("main.cf");
        let master = format!("{}{}", base_master_cf(host), self.services);
        fs::write(root.join("conf/master.cf"), master).expect("master.cf");
        for table in &self.tables {
            index("postmap", &root.join("conf"), table);
        }
        for (path, owner) in &self.aliases {
            index("postalias", &root.join("conf"), path);
            let indexed = PathBuf::from(format!("{}.db", path.display()));
            for file in [path, &indexed] {
                chown(file, Some(*owner), None).expect("chown needs root");
            }
        }
    }

    fn master(&self) -> Command {
        const MASTER: &str = "/usr/lib/postfix/sbin/master";
        let conf = self.directory();
        let mut command = with_accounts(Path::new(MASTER), &self.scratch, &self.users);
        command.arg("-c").arg(conf).arg("-d");
        command
    }

    /// Starts Postfix and waits until smtpd greets.
    pub fn start(self) -> Postfix {
        self.write();
        let mut command = self.master();
        let console = self.scratch.join("console");
        let mut daemon = Daemon::start(&mut command, &console);
        let address = Address::Inet(self.host.clone(), SMTP_PORT);
        let log = self.scratch.join("maillog");
        eventually("Postfix's smtpd to greet", TIMEOUT, || {
            assert!(
                daemon.status().is_none(),
                "Postfix did not start: {}{}",
                daemon.log(),
                fs::read_to_string(&log).unwrap_or_default()
            );
            let mut client = Client::dial(&address).ok()?;
            client.read_reply().ok().filter(|r| r.code == 220)
        });
        Postfix {
            daemon,
            scratch: self.scratch,
            host: self.host,
        }
    }
}

impl Postfix {
    /// A new instance to be set up; `name` shows in its paths.
    pub fn build(name: &str) -> Builder {
        needs_root("Postfix starts as root only");
        Builder {
            scratch: Scratch::new(name),
            host: loopback_host(),
            main_cf: String::new(),
            services: String::new(),
            tables: Vec::new(),
            aliases: Vec::new(),
            users: Vec::new(),
        }
    }

    /// Where smtpd listens.
    pub fn smtp(&self) -> Address {
        Address::Inet(self.host.clone(), SMTP_PORT)
    }

    /// The directory of `main.cf` and `master.cf`.
    pub fn directory(&self) -> PathBuf {
        self.scratch.join("conf")
    }

    /// The scratch directory the instance lives in.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Everything Postfix has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.scratch.join("maillog")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a table source anew and has it indexed, as an operator changes it.
    pub fn change_table(&self, name: &str, content: &str) {
        let path = self.directory().join(name);
        write_whole(&path, content);
        index("postmap", &self.directory(), &path);
    }

    /// Sends one mail by SMTP; the final reply, or the first refusal.
    pub fn submit(&self, sender: &str, recipients: &[&str], content: &[u8]) -> Reply {
        let recipients: Vec<_> = recipients.iter().map(|r| format!("<{r}>")).collect();
        let mail = format!("<{sender}>{}", content::mail_parameters(sender, content));
        Client::smtp(&self.smtp()).submit(&mail, &recipients, content)
    }

    /// Hands one mail to sendmail(1), which asks no smtpd whether the recipient is known.
    pub fn sendmail(&self, sender: &str, recipients: &[&str], content: &[u8]) {
        let mut child = Command::new("/usr/sbin/sendmail")
            .arg("-C")
            .arg(self.directory())
            .args(["-i", "-f", sender, "--"])
            .args(recipients)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sendmail(1): install the package postfix");
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, content).expect("sendmail reads the mail");
        drop(stdin);
        let status = child.wait().expect("our own child");
        assert!(status.success(), "sendmail: {status}");
    }

    /// Every outcome logged for a recipient so far (final address, any case).
    pub fn outcomes(&self, recipient: &str) -> Vec<Outcome> {
        let wanted = format!("to=<{}>,", recipient.to_lowercase());
        self.log()
            .lines()
            .filter(|line| line.to_lowercase().contains(&wanted))
            .filter_map(parse_outcome)
            .collect()
    }

    /// Waits for the first outcome of a recipient.
    pub fn outcome(&self, recipient: &str) -> Outcome {
        eventually(&format!("an outcome for {recipient}"), TIMEOUT, || {
            self.outcomes(recipient).into_iter().next()
        })
    }

    /// Number of messages in the queue, deferred ones included.
    pub fn queued(&self) -> usize {
        ["maildrop", "incoming", "active", "deferred"]
            .iter()
            .map(|name| files_below(&self.scratch.join("queue").join(name)))
            .sum()
    }

    /// Waits until the queue is empty.
    pub fn drain(&self) {
        eventually("an empty Postfix queue", TIMEOUT, || {
            (self.queued() == 0).then_some(())
        });
    }

    /// Asks Postfix to try every deferred mail now (`postqueue -f`).
    pub fn flush(&self) {
        let status = Command::new("/usr/sbin/postqueue")
            .arg("-c")
            .arg(self.directory())
            .arg("-f")
            .status()
            .expect("postqueue(1): install the package postfix");
        assert!(status.success(), "postqueue -f: {status}");
    }

    /// Stops Postfix, whatever is in its queue. Its files stay.
    pub fn stop(&mut self) {
        if self.daemon.status().is_none() {
            self.daemon.stop();
        }
    }

    /// Process id of master(8).
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // master(8) ends its children when it gets a signal to stop; only then is the group killed.
        match std::thread::panicking() {
            false => self.stop(),
            true => eprintln!("--- Postfix's log ---\n{}", self.log()),
        }
    }
}

/// postmap(1) or postalias(1): makes the indexed file beside a table source.
fn index(program: &str, conf: &Path, table: &Path) {
    let status = Command::new(Path::new("/usr/sbin").join(program))
        .arg("-c")
        .arg(conf)
        .arg(format!("hash:{}", table.display()))
        .status()
        .unwrap_or_else(|e| panic!("{program}: {e}; install the package postfix"));
    assert!(status.success(), "{program} {}", table.display());
}

fn parse_outcome(line: &str) -> Option<Outcome> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        Some(rest.split([',', ' ']).next()?.to_owned())
    };
    let (_, text) = line.split_once(" (")?;
    Some(Outcome {
        status: field("status=")?,
        dsn: field("dsn=")?,
        relay: field("relay=")?,
        text: text.trim_end_matches(')').to_owned(),
    })
}

fn files_below(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(_) => 1,
            Err(_) => 0,
        })
        .sum()
}

/// The last setting of each parameter. Postfix would warn about every earlier one, in every
/// daemon, and postlogd(8) can lock up over more warnings at its start than its socket holds.
fn each_parameter_once(main_cf: &str) -> String {
    let mut settings: Vec<(&str, String)> = Vec::new();
    for line in main_cf.lines().filter(|line| !line.trim().is_empty()) {
        match settings.last_mut() {
            Some((_, text)) if line.starts_with([' ', '\t']) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {
                let name = line.split('=').next().unwrap_or_default().trim();
                settings.retain(|(known, _)| *known != name);
                settings.push((name, format!("{line}\n")));
            }
        }
    }
    settings.into_iter().map(|(_, text)| text).collect()
}

/// The queue and data directories with the owners and modes of `postfix-files`.
fn make_queue(root: &Path) {
    let id = |user: &str| {
        let user = nix::unistd::User::from_name(user).expect("getpwnam");
        user.expect("user postfix: install the package postfix").uid
    };
    let group = nix::unistd::Group::from_name("postdrop").expect("getgrnam");
    let postdrop = group.expect("group postdrop: install the package postfix");
    let postfix = id("postfix").as_raw();
    let make = |name: &str, owner: u32, group: Option<u32>, mode: u32| {
        let path = root.join(name);
        fs::create_dir_all(&path).expect("mkdir");
        chown(&path, Some(owner), group).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    make("queue", 0, None, 0o755);
    make("queue/pid", 0, None, 0o755);
    make("data", postfix, None, 0o700);
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        make(&format!("queue/{name}"), postfix, None, 0o700);
    }
    let drop = Some(postdrop.gid.as_raw());
    make("queue/maildrop", postfix, drop, 0o1730);
    make("queue/public", postfix, drop, 0o2710);
}

/// What every private instance needs, whatever it is for.
fn base_main_cf(root: &Path) -> String {
    let root = root.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {root}/queue\n\
         data_directory = {root}/data\n\
         command_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         maillog_file = {root}/maillog\n\
         maillog_file_prefixes = {root}\n\
         myhostname = mx.origin.example\n\
         mydomain = origin.example\n\
         myorigin = origin.example\n\
         mydestination = origin.example\n\
         inet_interfaces = loopback-only\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n\
         alias_maps =\n\
         alias_database =\n\
         local_recipient_maps =\n\
         default_transport = discard\n\
         relay_transport = discard\n\
         notify_classes =\n\
         minimal_backoff_time = 1000s\n"
    )
}

fn base_master_cf(host: &str) -> String {
    let mut text = format!("{host}:{SMTP_PORT} inet n - n - 100 smtpd\n");
    for line in [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "local unix - n n - - local",
        "virtual unix - n n - - virtual",
        "lmtp unix - - n - - lmtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ] {
        let _ = writeln!(text, "{line}");
    }
    text
}

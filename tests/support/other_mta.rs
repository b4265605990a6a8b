//! MTAs that cannot be installed beside Postfix: unpacked below cargo's target directory, and
//! installed only in a mount namespace of the test.
//!
//! In the namespace their files lie where their package puts them, and users of theirs exist; what
//! they write below `/etc` and `/var` goes to the scratch directory of the test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::c_interface;
use crate::c_library::{C11, installed, shared_object, succeed};
use crate::client::{Address, Client};
use crate::daemon::{Daemon, tied};
use crate::mailstow::{self, Mailstow};
use crate::scratch::{Scratch, needs_root};
use crate::{eventually, mailboxes, site};

/// Mounts, then the program.
const ENTER: &str = r#"
set -e
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
for name in etc var; do
    mount -t overlay overlay -o "lowerdir=/$name,upperdir=$2/$name,workdir=$2/work-$name" "/$name"
done
mount --bind "$2/run" /run
shift 2
exec "$@"
"#;

/// An MTA that is installed for one test.
pub struct OtherMta {
    unpacked: PathBuf,
    machine: PathBuf,
}

impl OtherMta {
    /// Unpacks an MTA that `tests/other-mtas` knows. In its namespace there are these users, each
    /// with a separate group.
    pub fn new(name: &str, scratch: &Scratch, users: &[(&str, u32)]) -> Self {
        needs_root("other MTAs are mounted over /usr");
        let script = c_interface::directory().with_file_name("tests/other-mtas");
        let output = Command::new(script)
            .arg(name)
            .stderr(Stdio::inherit())
            .output()
            .expect("tests/other-mtas");
        assert!(output.status.success(), "tests/other-mtas {name} failed");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        for directory in ["etc", "var", "run", "work-etc", "work-var"] {
            scratch.mkdir(&format!("machine/{directory}"));
        }
        let mut passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let mut group = fs::read_to_string("/etc/group").expect("/etc/group");
        for (name, id) in users {
            let _ = writeln!(passwd, "{name}:x:{id}:{id}::/nonexistent:/bin/sh");
            let _ = writeln!(group, "{name}:x:{id}:");
        }
        scratch.write("machine/etc/passwd", passwd);
        scratch.write("machine/etc/group", group);
        Self {
            unpacked: PathBuf::from(text.trim()),
            machine: scratch.join("machine"),
        }
    }

    /// A command that runs in the namespace, as the process that is started, and ends with the
    /// test.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tied("unshare");
        command.args(["--mount", "--", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.unpacked).arg(&self.machine).arg(program);
        command
    }

    /// Where the MTA's file of that path, as `/etc/mail/aliases`, is to be written.
    pub fn file(&self, path: &str) -> PathBuf {
        self.machine.join(path.trim_start_matches('/'))
    }
}

/// Compiles a program of `ffi/`. A copy of the library is put beside it, where it finds it and
/// every user may read it.
pub fn c_program(source: &str, libraries: &[&str], program: &Path) {
    compiled(source, &[], libraries, program);
}

/// Compiles a source of `ffi/` to an object that programs load, with the library beside it.
pub fn c_plugin(source: &str, plugin: &Path) {
    compiled(source, &["-shared", "-fPIC"], &[], plugin);
}

fn compiled(source: &str, options: &[&str], libraries: &[&str], output: &Path) {
    let library = installed().join("lib");
    let mut cc = Command::new("cc");
    cc.args(C11).args(options);
    cc.arg(c_interface::directory().join(source));
    cc.arg("-I").arg(installed().join("include"));
    cc.arg("-L").arg(&library).arg("-lmailstow").args(libraries);
    cc.arg("-Wl,-rpath,$ORIGIN").arg("-o").arg(output);
    succeed(&mut cc);
    let soname = fs::read_link(shared_object()).expect("a link with the name of the SONAME");
    let beside = output.with_file_name(&soname);
    if !beside.exists() {
        succeed(Command::new("cp").arg(library.join(soname)).arg(beside));
    }
}

/// A server to be started for info@ and sales@ (Maildirs) and box@ (an mbox) of example.com and
/// for info@ of example.net, with a socketmap. Messages have at most 100,000 bytes, and besides
/// root only `users` may connect.
pub fn store(name: &str, users: &[u32]) -> mailstow::Builder {
    let builder = Mailstow::build(name);
    let owner = site::OWNER;
    for domain in ["vhosts", "vhosts/example.com", "vhosts/example.net"] {
        builder.scratch().mkdir_owned(domain, owner, owner);
    }
    let users: Vec<String> = users.iter().map(u32::to_string).collect();
    builder.toml(&format!(
        r#"[routing]
virtual_mailbox_base = "@ROOT@/vhosts"
virtual_mailbox_domains = "example.com example.net"
virtual_mailbox_maps = """inline:{{
  {{info@example.com = example.com/info/}}, {{sales@example.com = example.com/sales/}},
  {{box@example.com = example.com/box}}, {{info@example.net = example.net/info/}}}}"""
virtual_uid_maps = "static:{owner}"
virtual_gid_maps = "static:{owner}"
message_size_limit = 100000
recipient_delimiter = "+"
[lmtp]
listen = ["unix:@ROOT@/run/lmtp"]
socket_users = "{}"
[socketmap]
listen = "unix:@ROOT@/run/map"
"#,
        users.join(" ")
    ))
}

/// The reply to `RCPT` for a message of `size` bytes, as code and enhanced code.
pub fn rcpt(server: &Address, size: u64, recipient: &str) -> String {
    let mut client = Client::smtp(server);
    let mail = client.command(format!("MAIL FROM:<s@client.example> SIZE={size}"));
    assert_eq!(mail.code, 250, "{mail}");
    client.command(format!("RCPT TO:<{recipient}>")).codes()
}

/// Waits until an SMTP server greets.
pub fn wait_for_greeting(daemon: &mut Daemon, server: &Address) {
    eventually("the MTA to greet", Duration::from_secs(60), || {
        let ended = daemon.status();
        assert!(ended.is_none(), "the MTA did not start: {}", daemon.log());
        let mut client = Client::dial(server).ok()?;
        client.read_reply().ok().filter(|reply| reply.code == 220)
    });
}

/// Waits for the one message of a Maildir.
pub fn arrived(maildir: &Path) -> Vec<u8> {
    let what = format!("a message in {}", maildir.display());
    eventually(&what, Duration::from_secs(60), || {
        (!mailboxes::maildir(maildir).is_empty()).then_some(())
    });
    mailboxes::only(maildir)
}

/// A configuration of `ffi/mta/README.md`: the block of that name, with these texts replaced.
///
/// # Panics
/// When there is no such block, or it has none of a text that is to be replaced.
pub fn recipe(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = c_interface::directory().join("mta/README.md");
    let text = fs::read_to_string(path).expect("the recipes");
    let (_, block) = text
        .split_once(&format!("\n```{name}\n"))
        .unwrap_or_else(|| panic!("there is no recipe {name}"));
    let (block, _) = block.split_once("\n```").expect("the end of the block");
    let mut block = format!("{block}\n");
    for (from, to) in replaced {
        assert!(block.contains(from), "{from} is not in the recipe {name}");
        block = block.replace(from, to);
    }
    block
}

/// The configuration of the recipes.
pub const CONFIGURATION: &str = "/etc/mailstow/mailstow.toml";
/// The LMTP socket of the recipes.
pub const LMTP: &str = "/run/mailstow/lmtp";
/// The C LDA of the recipes.
pub const LDA: &str = "/usr/local/bin/mailstow-deliver";

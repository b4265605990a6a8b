//! Dovecot as a store: its LMTP server, which delivers into Maildirs of any user of any domain.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Address, Client};
use crate::daemon::{Daemon, tied};
use crate::eventually;
use crate::mailstow::NOBODY;
use crate::scratch::{Scratch, needs_root};

/// How long it may take until it greets, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running Dovecot; killed when dropped.
pub struct DovecotStore {
    /// The process.
    pub daemon: Daemon,
    scratch: Scratch,
}

impl DovecotStore {
    /// Starts a Dovecot with further lines of dovecot.conf, in which `@ROOT@` is replaced by its
    /// directory.
    ///
    /// # Panics
    /// When it is not installed, or the tests do not run as root.
    pub fn start(more: &str) -> Self {
        needs_root("Dovecot delivers as another user");
        let scratch = Scratch::new("dovecot-store");
        for directory in ["mail", "home"] {
            scratch.mkdir_owned(directory, NOBODY, NOBODY);
        }
        let root = scratch.path().display().to_string();
        let configuration = format!(
            "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\n\
             protocols = lmtp\nmail_location = maildir:{root}/mail/%n\nfirst_valid_uid = 1\n\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} \
             home={root}/home/%n allow_all_users=yes\n}}\n\
             service lmtp {{\n  unix_listener {root}/lmtp {{\n    mode = 0666\n  }}\n}}\n{}\n",
            more.replace("@ROOT@", &root)
        );
        let file = scratch.write("dovecot.conf", configuration);
        let mut command = tied("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(file);
        let daemon = Daemon::start(&mut command, &scratch.join("console"));
        let store = Self { daemon, scratch };
        eventually("Dovecot to greet", START_LIMIT, || {
            let mut client = Client::dial(&store.unix()).ok()?;
            client.read_reply().ok().filter(|reply| reply.code == 220)
        });
        store
    }

    /// Its socket.
    pub fn unix(&self) -> Address {
        Address::Unix(self.scratch.join("lmtp"))
    }

    /// The Maildir of a user.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.scratch.join("mail").join(user)
    }

    /// The directory it lives in.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

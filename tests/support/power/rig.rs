//! A machine whose power can be cut: recorder, loop device, file system, mailstow.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::image::Image;
use super::loss::SECTOR;
use super::recorder::Recorder;
use crate::daemon::{Daemon, tied};
use crate::mailstow::binary;
use crate::scratch::{Scratch, needs_root};
use crate::{Address, Client, eventually};

/// How long the server may take to recover and greet, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a device may stay busy.
const BUSY_LIMIT: Duration = Duration::from_secs(60);
/// Whom the mailboxes belong to.
const OWNER: u32 = 5000;

/// A file system to lose power on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// With its journal, as mkfs.ext4 makes it.
    Ext4,
    /// As mkfs.xfs makes it.
    Xfs,
    /// As mkfs.btrfs makes it.
    Btrfs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Its name, as mount(8) knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Large enough for the load, and at least what its mkfs wants.
    fn disk_bytes(self) -> usize {
        512 << 20
    }

    fn make(self, device: &str) {
        let mut command = Command::new(format!("/usr/sbin/mkfs.{}", self.name()));
        command.arg("-q");
        if self == Self::Ext4 {
            // What is made later in the background would be noted as load.
            command.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        }
        done(command.arg(device));
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why power cannot be cut on this machine: it lacks FUSE or loop devices.
pub fn unavailable() -> Option<String> {
    needs_root("file systems are mounted");
    let fuse = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    if let Err(error) = fuse {
        return Some(format!("/dev/fuse cannot be opened: {error}"));
    }
    let output = Command::new("losetup").arg("--find").output();
    let output = output.expect("losetup(8): install the package mount");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then(|| format!("no loop device: {said}"))
}

/// Says on standard error, whatever is captured, that a test was skipped.
pub fn skipped(test: &str, why: &str) {
    let line = format!("\n*** SKIPPED: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A file system mounted from a recorded disk; unmounted when dropped.
pub struct Rig {
    mounted: Option<Mounted>,
    recorder: Recorder,
}

/// Where things are; the paths of mailboxes and state are the same on every rig of a scratch
/// directory.
#[derive(Clone)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Below `scratch`.
    pub fn new(scratch: &Scratch) -> Self {
        for name in ["fuse", "volume", "run"] {
            scratch.mkdir(name);
        }
        Self {
            root: scratch.path().to_owned(),
        }
    }

    /// Where the file system is mounted.
    pub fn volume(&self) -> PathBuf {
        self.root.join("volume")
    }

    /// `virtual_mailbox_base`.
    pub fn base(&self) -> PathBuf {
        self.volume().join("vhosts")
    }

    /// The state directory of the server.
    pub fn state(&self) -> PathBuf {
        self.volume().join("state")
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.root.join("mailstow.toml")
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Unix(self.root.join("run/lmtp"))
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.root.join("mailstow.log")
    }

    /// Makes the directories of the server, those of mailboxes for their owner.
    pub fn make_directories(&self) {
        for path in [self.base(), self.base().join("example.com"), self.state()] {
            std::fs::create_dir_all(&path).expect("mkdir for the server");
            if path != self.state() {
                std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).expect("chown");
            }
        }
    }

    /// Writes the configuration: `mailboxes` below `example.com`, a Maildir with a slash behind
    /// its name; and the lines of `[store]` and `[delivery_log]`.
    pub fn configure(&self, mailboxes: &[&str], settings: &str) {
        let table: String = mailboxes
            .iter()
            .map(|m| format!("{}@example.com example.com/{m}\n", m.trim_end_matches('/')))
            .collect();
        let vmailbox = self.root.join("vmailbox");
        std::fs::write(&vmailbox, table).expect("a table");
        let Address::Unix(socket) = self.address() else {
            unreachable!("the address above")
        };
        let toml = format!(
            "state_directory = \"{state}\"\n\
             [routing]\n\
             myhostname = \"mail.example.com\"\n\
             virtual_mailbox_domains = \"example.com\"\n\
             virtual_mailbox_base = \"{base}\"\n\
             virtual_mailbox_maps = \"texthash:{vmailbox}\"\n\
             virtual_mailbox_lock = \"fcntl\"\n\
             virtual_mailbox_limit = \"0\"\n\
             virtual_uid_maps = \"static:{OWNER}\"\n\
             virtual_gid_maps = \"static:{OWNER}\"\n\
             [lmtp]\n\
             listen = \"unix:{socket}\"\n\
             {settings}\n",
            state = self.state().display(),
            base = self.base().display(),
            vmailbox = vmailbox.display(),
            socket = socket.display(),
        );
        std::fs::write(self.configuration(), toml).expect("a configuration file");
    }

    /// Starts the server and waits until it greets; recovery is over then. `Err` when it ends
    /// instead, with the end of its log. The log begins anew.
    pub fn serve(&self) -> Result<Daemon, String> {
        // There is none before the first start.
        let _ = std::fs::remove_file(self.log());
        let mut command = tied(binary());
        command.env_remove("RUST_LOG").args(["serve", "--config"]);
        command.arg(self.configuration()).current_dir(&self.root);
        let mut daemon = Daemon::start(&mut command, &self.log());
        let greeted = eventually("mailstow to recover and greet", START_LIMIT, || {
            if daemon.status().is_some() {
                return Some(false);
            }
            let mut client = Client::dial(&self.address()).ok()?;
            let greeting = client.read_reply().ok()?;
            (greeting.code == 220).then_some(true)
        });
        match greeted {
            true => Ok(daemon),
            false => {
                let log = daemon.log();
                let last = log.lines().last().unwrap_or("it said nothing");
                Err(last.to_owned())
            }
        }
    }
}

impl Rig {
    /// A new file system with the directories of the server; recorded from here on.
    pub fn make(file_system: FileSystem, places: &Places) -> Self {
        let disk = Image::new(file_system.disk_bytes());
        let recorder = record(disk, places);
        let device = attach(&recorder.disk());
        file_system.make(&device);
        let mounted = Mounted::mount(file_system, &device, &places.volume());
        let rig = Self {
            mounted: Some(mounted.expect("a new file system can be mounted")),
            recorder,
        };
        places.make_directories();
        done(Command::new("sync").arg("-f").arg(places.volume()));
        rig.recorder.begin();
        rig
    }

    /// Switches the machine on again with what its disk holds; `Err` when the file system cannot
    /// be mounted, with what mount(8) said.
    pub fn again(file_system: FileSystem, disk: Image, places: &Places) -> Result<Self, String> {
        let recorder = record(disk, places);
        let device = attach(&recorder.disk());
        let mounted = Mounted::mount(file_system, &device, &places.volume())?;
        Ok(Self {
            mounted: Some(mounted),
            recorder,
        })
    }

    /// The requests to its disk.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Before the disk below it.
        self.mounted.take();
    }
}

fn record(disk: Image, places: &Places) -> Recorder {
    Recorder::mount(disk, &places.root.join("fuse")).expect("FUSE can be mounted")
}

fn attach(file: &Path) -> String {
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--sector-size", &SECTOR.to_string()]);
    // Others may take the device that was free a moment ago.
    let output = eventually("a loop device", BUSY_LIMIT, || {
        let output = command.arg(file).output().expect("losetup(8)");
        output.status.success().then_some(output)
    });
    let name = String::from_utf8(output.stdout).expect("ASCII");
    name.trim().to_owned()
}

struct Mounted {
    mount_point: PathBuf,
}

impl Mounted {
    fn mount(fs: FileSystem, device: &str, mount_point: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        command.args(["-t", fs.name(), device]).arg(mount_point);
        let output = command.output().expect("mount(8)");
        // From now on the device goes with the mount, however that ends.
        done(Command::new("losetup").args(["--detach", device]));
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self {
            mount_point: mount_point.to_owned(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmount = || {
            let mut command = Command::new("umount");
            let output = command.arg(&self.mount_point).output();
            matches!(output, Ok(o) if o.status.success()).then_some(())
        };
        let what = format!("{} to be unmounted", self.mount_point.display());
        if std::thread::panicking() {
            unmount();
        } else {
            eventually(&what, BUSY_LIMIT, unmount);
        }
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| {
        panic!("{command:?}: {e}: install e2fsprogs, xfsprogs, btrfs-progs, mount and util-linux")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

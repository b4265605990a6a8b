//! Scratch directories, unused loopback addresses, and the demand for root.
//!
//! A directory is removed when its value is dropped, unless the test is failing: then it stays
//! and its path is printed, so that logs and mailboxes can be looked at.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// A private directory, readable and searchable by every user of the machine.
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new empty directory; `name` shows in its path.
    pub fn new(name: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("mailstow-{name}-"))
            .tempdir()
            .expect("a scratch directory under TMPDIR (else /tmp) can be made");
        let path = directory.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of our own");
        Self {
            directory: Some(directory),
            path,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file below it, making parents as needed; returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("a path below has a parent")).expect("mkdir");
        fs::write(&path, content).expect("write of a scratch file");
        path
    }

    /// Makes a directory below it; returns its path.
    pub fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).expect("mkdir in a scratch directory");
        path
    }

    /// Makes a directory that belongs to the given user and group, mode 0755.
    pub fn mkdir_owned(&self, name: &str, uid: u32, gid: u32) -> PathBuf {
        let path = self.mkdir(name);
        chown(&path, Some(uid), Some(gid)).expect("chown needs root");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            let kept = directory.keep();
            eprintln!("kept for a look: {}", kept.display());
        }
    }
}

/// Stops a test that cannot do its work without root.
///
/// # Panics
/// When not root: a test that was skipped in silence proves nothing.
pub fn needs_root(why: &str) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root ({why}); run it as root, for example `sudo tests/run`"
    );
}

/// A separate loopback host (127.x.y.z) for each call, so that fixed ports never clash.
pub fn loopback_host() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 250, "one test process uses fewer than 250 hosts");
    let process = std::process::id();
    // 127.0.x.y is left to everybody else.
    let (high, low) = (1 + (process / 256) % 254, process % 256);
    format!("127.{high}.{low}.{number}")
}

/// Held by a test that loads the whole machine, so that such tests run one at a time.
pub fn machine_alone() -> impl Drop {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

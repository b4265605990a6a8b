//! Scratch directories, unused loopback addresses, and the demand for root.
//!
//! A directory is removed when its value is dropped, unless the test is failing: then it stays
//! and its path is printed, so that logs and mailboxes can be looked at.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::eventually;

/// How long a child may take to run its program, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

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
        write_whole(&path, content);
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

/// Writes a file; when this returns, no process has it open for writing.
pub fn write_whole(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    wait_for_started_children();
}

/// Closes a file that was written; when this returns, no process has it open.
pub fn close(file: fs::File) {
    drop(file);
    wait_for_started_children();
}

/// Waits until no child of this process is on its way to another program. Until then it has all
/// files open that other threads had open when it was made, and mailstow sees that a table is open
/// for writing.
fn wait_for_started_children() {
    let Ok(program) = fs::read_link("/proc/self/exe") else {
        return;
    };
    let parent = format!("PPid:\t{}", std::process::id());
    // One that is made later has none of the files that are closed now.
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = process.path();
        let runs_our_program =
            || fs::read_link(process.join("exe")).is_ok_and(|other| other == program);
        let is_child = || {
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            status.lines().any(|line| line == parent)
        };
        eventually("a child to run its own program", START_LIMIT, || {
            (!runs_our_program() || !is_child()).then_some(())
        });
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

//! A file system that never answers, as that of a dead file server.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::scratch::needs_root;

/// A mount whose requests wait until this is dropped; then they fail.
pub struct HungMount {
    /// The kernel's requests, which no process reads.
    requests: Option<File>,
    mount_point: PathBuf,
}

impl HungMount {
    /// Mounts it on a directory.
    pub fn on(mount_point: &Path) -> Self {
        needs_root("a file system is mounted");
        let requests = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let requests = requests.expect("/dev/fuse");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            requests.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).expect("no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            "mailstow-hung",
            mount_point,
            "fuse",
            flags,
            Some(options.as_c_str()),
        )
        .expect("mount(2) of a FUSE file system");
        Self {
            requests: Some(requests),
            mount_point: mount_point.to_owned(),
        }
    }

    /// Returns true while a thread of this process waits for an answer.
    pub fn is_waited_for(&self, pid: u32) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        let waits_in = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stack"));
        tasks
            .filter_map(|task| waits_in(task.ok()?).ok())
            .any(|stack| stack.contains("fuse_"))
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        // Requests in progress fail with that.
        drop(self.requests.take());
        if let Err(error) = unmount(&self.mount_point, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.mount_point.display());
        }
    }
}

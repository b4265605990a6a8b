//! A small file system, so that a disk can be full.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scratch::{Scratch, needs_root};

/// A mounted image; unmounted when dropped.
pub struct Volume {
    mount_point: PathBuf,
}

impl Volume {
    /// Makes and mounts an ext4 of `mebibytes` below `scratch`.
    pub fn mount(scratch: &Scratch, mebibytes: u64) -> Self {
        let mount_point = scratch.mkdir("volume");
        let mkfs = ["mkfs.ext4", "-q", "-m", "0"];
        Self::mount_at(&mount_point, &mkfs, &scratch.join("image"), mebibytes)
    }

    /// Makes a file system in the file `image` and mounts it on a directory.
    pub fn mount_at(mount_point: &Path, mkfs: &[&str], image: &Path, mebibytes: u64) -> Self {
        needs_root("a file system is mounted");
        let file = std::fs::File::create(image).expect("an image file");
        file.set_len(mebibytes << 20).expect("a sparse file");
        let (program, options) = mkfs.split_first().expect("a command");
        run(Command::new(format!("/usr/sbin/{program}"))
            .args(options)
            .arg(image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(mount_point));
        Self {
            mount_point: mount_point.to_owned(),
        }
    }

    /// Changes its mount options; false when the kernel refuses.
    pub fn remount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{options}")]);
        let output = command.arg(&self.mount_point).output().expect("mount(8)");
        output.status.success()
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Fills it until no block is left; the path of the filling file.
    pub fn fill(&self) -> PathBuf {
        let path = self.mount_point.join("filling");
        let mut file = std::fs::File::create(&path).expect("a file on the new volume");
        for size in [1 << 16, 1 << 10, 1] {
            let block = vec![0_u8; size];
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
        }
        file.sync_all().ok();
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let status = Command::new("umount")
            .arg("--lazy")
            .arg(&self.mount_point)
            .status();
        if !matches!(status, Ok(s) if s.success()) {
            eprintln!("{} stays mounted", self.mount_point.display());
        }
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("mkfs and mount");
    assert!(status.success(), "{command:?}: {status}");
}

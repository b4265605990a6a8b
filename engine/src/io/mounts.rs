//! Which mount a file is on, and what is mounted where. Sources: statx(2), proc_pid_mountinfo(5).
//!
//! Invariant: nothing here asks a file system, which may hang; only the kernel's own tables.

use super::disk::Mount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self as sys, AtFlags, CWD, Statx, StatxFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The table of mounts that this process sees.
const TABLE: &str = "/proc/self/mountinfo";
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8), which rustix does not name.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// `AT_STATX_DONT_SYNC`: what the kernel knows is enough.
const DONT_SYNC: AtFlags = AtFlags::STATX_DONT_SYNC;
/// `STATX_ATTR_MOUNT_ROOT` (Linux 5.8).
const MOUNT_ROOT: u64 = 0x2000;

/// Tells whether the table of mounts was changed.
#[derive(Debug)]
pub(crate) struct MountWatch(File);

impl MountWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// The table cannot be opened.
    pub(crate) fn new() -> io::Result<Self> {
        File::open(TABLE).map(Self)
    }

    /// Returns true if it was changed since this was called the last time.
    pub(crate) fn is_changed(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::PRI)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Where the kernel does not tell, what was mounted at the start counts.
        matches!(poll(&mut polled, Some(&now)), Ok(1..))
    }
}

/// Returns the mount that an open file is on.
pub(super) fn mount_of(handle: &OwnedFd) -> io::Result<Mount> {
    let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
    let (id, _) = unique_id(handle, Path::new(""), flags)?;
    let listed = sys::statx(handle, "", flags, StatxFlags::MNT_ID)?;
    let point = mount_point(listed.stx_mnt_id)?;
    Ok(Mount { id, point })
}

/// Returns the id of what is mounted on a directory; `None` when nothing is.
pub(super) fn mounted_on(point: &Path) -> io::Result<Option<u64>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | DONT_SYNC;
    let (id, answer) = unique_id(CWD, point, flags)?;
    let attributes = answer.stx_attributes.bits();
    Ok((attributes & MOUNT_ROOT != 0).then_some(id))
}

fn unique_id(dir: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<(u64, Statx)> {
    let wanted = MNT_ID_UNIQUE | StatxFlags::MNT_ID;
    let answer = sys::statx(dir, path, flags, wanted)?;
    Ok((answer.stx_mnt_id, answer))
}

/// Returns every directory that something is mounted on.
pub(super) fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read(TABLE)?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(parse_line)
        .map(|(_, point)| point)
        .collect())
}

/// Returns the directory of a mount by the number that the mount table has.
fn mount_point(listed: u64) -> io::Result<PathBuf> {
    let table = std::fs::read(TABLE)?;
    let lines = table.split(|byte| *byte == b'\n');
    let found = lines.filter_map(parse_line).find(|(id, _)| *id == listed);
    let found = found.map(|(_, point)| point);
    found.ok_or_else(|| io::Error::other("the mount is not in /proc/self/mountinfo"))
}

/// Returns number and directory of a line.
fn parse_line(line: &[u8]) -> Option<(u64, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = fields.nth(3)?;
    Some((id, PathBuf::from(OsString::from_vec(unescape(point)))))
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) => {
                plain.push(code);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let line = b"36 35 98:0 /root /mnt/with\\040blank rw,noatime master:1 - ext3 /dev/root rw";
        let expected = (36, PathBuf::from("/mnt/with blank"));
        assert_eq!(parse_line(line), Some(expected));
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"x 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn the_root_is_a_mount_and_a_new_directory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mounted_on(dir.path()).unwrap(), None);
        let root = mounted_on(Path::new("/")).unwrap();
        let handle = OwnedFd::from(std::fs::File::open("/").unwrap());
        let mount = mount_of(&handle).unwrap();
        assert_eq!(root, Some(mount.id));
        assert_eq!(mount.point, Path::new("/"));
        assert!(mounted_on(&dir.path().join("missing")).is_err());
    }
}

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

/// What is mounted where.
#[derive(Debug, Default)]
pub(crate) struct Mounts(Vec<Mounted>);

#[derive(Debug)]
struct Mounted {
    point: PathBuf,
    kind: String,
    source: String,
}

impl Mounts {
    /// Reads the table of mounts.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read() -> io::Result<Self> {
        std::fs::read(TABLE).map(|table| Self::parse(&table))
    }

    fn parse(table: &[u8]) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        let mounted = |line: &[u8]| {
            let (_, point) = parse_line(line)?;
            // Optional fields end with a hyphen.
            let mut fields = line.split(|byte| *byte == b' ');
            fields.find(|field| *field == b"-")?;
            let mut text = || Some(String::from_utf8_lossy(&unescape(fields.next()?)).into_owned());
            Some(Mounted {
                point,
                kind: text()?,
                source: text().unwrap_or_default(),
            })
        };
        Self(lines.filter_map(mounted).collect())
    }

    /// Returns what has to answer when a file is looked at, in words: its file server, or the
    /// directory that its file system is mounted on. What is not mounted there yet, and the root,
    /// are divided by the next directory. A path that a symbolic link leads elsewhere counts for
    /// where it begins.
    pub(crate) fn place_of(&self, path: &Path) -> String {
        let through = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        // Of two on one directory, the later is seen.
        let mount = through.max_by_key(|mount| mount.point.as_os_str().len());
        let root = Path::new("/");
        let point = mount.map_or(root, |mount| mount.point.as_path());
        if let Some(server) = mount.and_then(Mounted::server) {
            return format!("file server {server}");
        }
        let is_parted = point == root || mount.is_some_and(|mount| mount.kind == "autofs");
        let below = path.strip_prefix(point).ok();
        let next = below.and_then(|below| below.components().next());
        let place = match next.filter(|_| is_parted) {
            Some(next) => point.join(next),
            None => point.to_owned(),
        };
        place.display().to_string()
    }
}

impl Mounted {
    /// The server of `server:/directory` or `//server/share`.
    fn server(&self) -> Option<&str> {
        // Users choose the source of a file system that they mount.
        if self.kind.starts_with("fuse") {
            return None;
        }
        let server = match self.source.strip_prefix("//") {
            Some(share) => share.split('/').next(),
            None => self.source.split_once(":/").map(|(server, _)| server),
        };
        server.filter(|server| !server.is_empty())
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
    fn a_file_is_at_its_server_or_where_its_file_system_is_mounted() {
        let mounts = Mounts::parse(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
              2 1 0:5 / /home rw shared:1 - autofs auto.home rw\n\
              3 2 0:6 /a /home/ann rw shared:1 master:2 - nfs4 nas1:/export/ann rw\n\
              4 2 0:6 /b /home/bob rw - nfs4 nas1:/export/bob rw\n\
              5 1 0:7 / /srv rw - cifs //nas2/share rw\n\
              6 1 0:8 / /data rw - xfs /dev/sdb rw\n\
              7 6 0:9 / /data/far rw - nfs [fd00::1]:/far rw\n\
              8 1 0:9 / /data rw - xfs /dev/sdc rw\n",
        );
        for (path, place) in [
            ("/home/ann/.forward", "file server nas1"),
            ("/home/bob/.forward", "file server nas1"),
            ("/home/cid/.forward", "/home/cid"),
            ("/srv/x/.forward", "file server nas2"),
            ("/data/far/x", "file server [fd00::1]"),
            ("/data/farther", "/data"),
            ("/data", "/data"),
            ("/var/mail/ann", "/var"),
            ("/", "/"),
            ("relative", "/"),
        ] {
            assert_eq!(mounts.place_of(Path::new(path)), place, "{path}");
        }
        assert_eq!(Mounts::default().place_of(Path::new("/a/b")), "/a");
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

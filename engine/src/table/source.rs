//! Files behind tables: read whole, or not at all.
//!
//! Imports `clock`, `limits`. The only file of this room that touches the file system. A file is
//! known by its [`Stamp`]; a file whose stamp moves while it is read, or shortly after, is read
//! again.

use std::fs::{File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::limits::TABLE_BYTES_MAX;

/// How often a file that keeps changing is read before we give up.
const READS_MAX: u32 = 10;
/// Pause between two such reads.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// A file changed this recently may change again without a new time stamp: file systems keep
/// time in steps of 4 to 10 ms, old ones of a second.
const COOLING: Duration = Duration::from_secs(1);
/// How long a file must have been left alone before its content counts: whoever writes it in
/// place has a moment in which it is empty, and everybody would be an unknown user.
const QUIET: Duration = Duration::from_millis(100);

/// What identifies one state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    is_device: bool,
}

impl Stamp {
    /// The stamp of the file at `path` now, links followed.
    ///
    /// # Errors
    /// stat(2) fails.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }

    /// Waits until the file has been left alone for [`QUIET`], from its last change on; false when
    /// another file is there then, or this one was changed.
    fn stays(self, path: &Path) -> bool {
        let age = self.modified().and_then(|modified| {
            // The kernel empties a file before it sets the time.
            let is_true = self.bytes > 0 || self.is_device;
            clock::since_epoch()
                .checked_sub(modified)
                .filter(|_| is_true)
        });
        let Some(left) = QUIET.checked_sub(age.unwrap_or_default()) else {
            return true;
        };
        std::thread::sleep(left);
        Self::of(path).is_ok_and(|now| now == self)
    }

    /// When the content was changed, as time since the epoch.
    fn modified(self) -> Option<Duration> {
        let (seconds, nanoseconds) = self.modified;
        Some(Duration::new(
            u64::try_from(seconds).ok()?,
            u32::try_from(nanoseconds).ok()?,
        ))
    }

    /// When the file is too old to change without a new stamp, as time since the epoch; `None`
    /// when it is already (or comes from the future, where nothing can be said).
    fn cool_at(self) -> Option<Duration> {
        let modified = self.modified()?;
        let now = clock::since_epoch();
        let cool = modified.checked_add(COOLING)?;
        (modified <= now.saturating_add(COOLING) && now < cool).then_some(cool)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            is_device: metadata.file_type().is_char_device(),
        }
    }
}

/// A file's content.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) bytes: Vec<u8>,
    pub(super) stamp: Stamp,
    /// Equal digests mean equal contents.
    pub(super) digest: u64,
    /// When the file is to be read once more, as time since the epoch, because it could have
    /// changed since without a new stamp.
    pub(super) look_again_at: Option<Duration>,
}

/// Reads the file at `path`, links followed.
///
/// # Errors
/// It cannot be read, is no regular file (`/dev/null` is allowed), is larger than
/// [`TABLE_BYTES_MAX`], or keeps changing.
pub(super) fn read(path: &Path) -> io::Result<Source> {
    for attempt in 0..READS_MAX {
        if attempt > 0 {
            std::thread::sleep(READ_PAUSE);
        }
        // Without O_NONBLOCK a FIFO would stop us until somebody opens its other end.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let before = check(&file)?;
        let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or(0));
        (&mut file)
            .take(TABLE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        let after = check(&file)?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if before == after && len == after.bytes && after.stays(path) {
            let mut digest = DefaultHasher::new();
            digest.write(&bytes);
            return Ok(Source {
                bytes,
                stamp: after,
                digest: digest.finish(),
                look_again_at: after.cool_at(),
            });
        }
    }
    Err(io::Error::other("the file changes while it is read"))
}

/// The stamp of an open file that we are willing to read.
fn check(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let is_null = kind.is_char_device() && metadata.rdev() == libc::makedev(1, 3);
    if !kind.is_file() && !is_null {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.size() > TABLE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "larger than {TABLE_BYTES_MAX} bytes"
        )));
    }
    Ok(Stamp::from(&metadata))
}

/// The bytes of a file that a domain list names.
///
/// # Errors
/// As for a table's file.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read(path).map(|source| source.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "k v\n").unwrap();
        let source = read(&path).unwrap();
        assert_eq!(source.bytes, b"k v\n");
        assert_eq!(source.stamp, Stamp::of(&path).unwrap());
        assert!(source.look_again_at.is_some());
        std::fs::write(&path, "k v2\n").unwrap();
        let changed = read(&path).unwrap();
        assert_ne!(source.stamp, changed.stamp);
        assert_ne!(source.digest, changed.digest);
    }

    #[test]
    fn a_file_counts_only_after_it_was_left_alone_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let mut writer = File::create(&path).unwrap();
        let reading = std::thread::spawn({
            let path = path.clone();
            move || read(&path).map(|source| (source, clock::since_epoch()))
        });
        std::io::Write::write_all(&mut writer, b"k v\n").unwrap();
        let (source, now) = reading.join().unwrap().unwrap();
        let age = now.saturating_sub(source.stamp.modified().unwrap());
        assert!(age >= QUIET, "{age:?}");
    }

    #[test]
    fn an_empty_file_is_believed_only_when_it_stays_empty_whatever_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let file = File::create(&path).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        file.set_modified(old).unwrap();
        let start = clock::now();
        assert_eq!(read(&path).unwrap().bytes, b"");
        assert!(start.elapsed() >= QUIET);
    }

    #[test]
    fn an_old_file_needs_no_second_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let file = File::create(&path).unwrap();
        for (modified, again) in [(-5_i64, false), (0, true), (3600, false)] {
            let now = std::time::SystemTime::now();
            let time = if modified < 0 {
                now - Duration::from_secs(modified.unsigned_abs())
            } else {
                now + Duration::from_secs(modified.unsigned_abs())
            };
            file.set_modified(time).unwrap();
            let source = read(&path).unwrap();
            assert_eq!(source.look_again_at.is_some(), again, "{modified}");
        }
    }

    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&fifo).is_err());
        assert!(read(&dir.path().join("missing")).is_err());
        assert_eq!(read(Path::new("/dev/null")).unwrap().bytes, b"");
    }
}

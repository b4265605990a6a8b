//! Files behind tables: read whole, or not at all.
//!
//! Nothing else of this room reads tables. A file is known by its [`Stamp`]; a file whose stamp
//! moves while it is read, or shortly after, is read again.

use std::fs::{File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::guard::Reason;
use super::published;
use super::writers;
use super::writers::Writer;
use crate::clock;
use crate::limits::TABLE_BYTES_MAX;

/// How often a file that keeps changing is read before we give up.
const READS_MAX: u32 = 10;
/// Pause between two such reads.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// A file changed this recently may change again without a new time stamp: file systems keep
/// time in steps of 4 to 10 ms, old ones of a second.
const COOLING: Duration = Duration::from_secs(1);
/// How long a file must have been left alone before its content counts: a writer that
/// rewrites it in place leaves it empty for a moment, and every user would be unknown.
const QUIET: Duration = Duration::from_millis(100);

/// What identifies one state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// When the kernel last saw it change: a program may set the other time back.
    changed: (i64, i64),
    is_device: bool,
}

/// An empty file that is this much younger than its last change was emptied.
const EMPTIED: Duration = Duration::from_secs(2);

impl Stamp {
    /// The stamp of the file at `path` now, links followed.
    ///
    /// # Errors
    /// stat(2) fails.
    pub(in crate::table) fn of(path: &Path) -> io::Result<Self> {
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

    /// Time since the content was changed; none when that lies in the future.
    pub(in crate::table) fn quiet(self) -> Duration {
        let modified = self.modified().unwrap_or_default();
        clock::since_epoch().saturating_sub(modified)
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
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_device: metadata.file_type().is_char_device(),
        }
    }
}

/// What can be said of a file without reading it.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Probe {
    pub(in crate::table) stamp: Stamp,
    pub(in crate::table) writer: Writer,
    /// It is empty, and was not when it was made.
    was_emptied: bool,
    /// It does not end with the end of a line.
    ends_in_line: bool,
}

impl Probe {
    fn of(file: &File) -> io::Result<Self> {
        // Who writes the file is looked for before the stamp is taken: a writer who ends in between
        // has left a stamp that differs from the last one.
        let is_regular = !Stamp::from(&check(file)?).is_device;
        let writer = match is_regular {
            true => writers::writer_of(file),
            false => Writer::None,
        };
        let metadata = check(file)?;
        let stamp = Stamp::from(&metadata);
        let mut last = [b'\n'];
        if is_regular && stamp.bytes > 0 {
            // A file that was cut since is seen to have changed.
            file.read_at(&mut last, stamp.bytes - 1)?;
        }
        let born = metadata.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let emptied_after = |born| stamp.modified() > Some(born + EMPTIED);
        Ok(Self {
            stamp,
            writer,
            was_emptied: is_regular && stamp.bytes == 0 && born.is_some_and(emptied_after),
            ends_in_line: last != *b"\n",
        })
    }

    /// Why the file may be a part of what it is about to be, though nothing is known of what it
    /// was. `is_text`: it consists of lines.
    pub(in crate::table) fn suspicion(&self, is_text: bool, hold_time: Duration) -> Option<Reason> {
        if self.stamp.quiet() >= hold_time {
            None
        } else if self.writer == Writer::There {
            Some(Reason::Open)
        } else if self.was_emptied {
            Some(Reason::Empty)
        } else if is_text && self.ends_in_line && self.writer == Writer::Unknown {
            Some(Reason::Cut)
        } else {
            None
        }
    }
}

/// Looks at the file at `path`, links followed.
///
/// # Errors
/// It cannot be opened, or is nothing that [`read`] reads.
pub(in crate::table) fn probe(path: &Path) -> io::Result<Probe> {
    Probe::of(&open(path)?)
}

/// A file's content.
#[derive(Debug)]
pub(in crate::table) struct Source {
    pub(in crate::table) bytes: Vec<u8>,
    pub(in crate::table) probe: Probe,
    /// Equal digests mean equal contents.
    pub(in crate::table) digest: u64,
    /// When the file is to be read once more, as time since the epoch, because it could have
    /// changed since without a new stamp.
    pub(in crate::table) look_again_at: Option<Duration>,
    /// It kept changing while it was read.
    pub(in crate::table) is_moving: bool,
    /// It says of itself that it is whole.
    pub(in crate::table) is_published: bool,
}

impl Source {
    fn new(bytes: Vec<u8>, probe: Probe) -> Self {
        Self {
            digest: digest(&bytes),
            look_again_at: probe.stamp.cool_at(),
            bytes,
            probe,
            is_moving: false,
            is_published: false,
        }
    }

    /// Its last line has no end.
    pub(in crate::table) fn is_cut(&self) -> bool {
        self.bytes.last().is_some_and(|last| *last != b'\n')
    }

    /// As [`Probe::suspicion`].
    pub(in crate::table) fn suspicion(&self, is_text: bool, hold_time: Duration) -> Option<Reason> {
        if self.is_moving && !hold_time.is_zero() {
            return Some(Reason::Changing);
        }
        self.probe.suspicion(is_text, hold_time)
    }

    /// Leaves a line without an end out: half a path is another path.
    pub(in crate::table) fn drop_cut_line(&mut self) {
        let end = memchr::memrchr(b'\n', &self.bytes).map_or(0, |at| at + 1);
        self.bytes.truncate(end);
        self.digest = digest(&self.bytes);
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut digest = DefaultHasher::new();
    digest.write(bytes);
    digest.finish()
}

/// Reads the file at `path`, links followed. Waits for a file that keeps changing, though not for
/// long.
///
/// # Errors
/// It cannot be read, is no regular file (`/dev/null` is allowed), or is larger than
/// [`TABLE_BYTES_MAX`].
pub(in crate::table) fn read(path: &Path) -> io::Result<Source> {
    for attempt in 1.. {
        let file = open(path)?;
        let before = Stamp::from(&check(&file)?);
        let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or(0));
        (&file).take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        let probe = Probe::of(&file)?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let is_still = before == probe.stamp && len == before.bytes && before.stays(path);
        if is_still || attempt == READS_MAX {
            let mut source = Source::new(bytes, probe);
            source.is_moving = !is_still;
            source.is_published = is_still && published::is_marked(&file, &source.bytes);
            return Ok(source);
        }
        std::thread::sleep(READ_PAUSE);
    }
    Err(io::Error::other("the file changes while it is read"))
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK a FIFO would stop us until its other end is opened.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// The metadata of an open file that we are willing to read.
fn check(file: &File) -> io::Result<Metadata> {
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
    Ok(metadata)
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
        assert_eq!(source.probe.stamp, Stamp::of(&path).unwrap());
        assert!(source.look_again_at.is_some());
        std::fs::write(&path, "k v2\n").unwrap();
        let changed = read(&path).unwrap();
        assert_ne!(source.probe.stamp, changed.probe.stamp);
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
        let age = now.saturating_sub(source.probe.stamp.modified().unwrap());
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

//! Directories that are found by their path, where other users own parts of that path.
//!
//! The path is walked one component at a time on descriptors, so that what was checked is what is
//! used afterwards, whatever is renamed meanwhile. Invariants: a symbolic link is followed only
//! when it belongs to root or to the user of this process; nothing is created behind any other
//! link. Sources: openat(2), `O_PATH`, symlink(7).

use rustix::fs::{self as sys, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on one path, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    System {
        /// The part of the path that was reached.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another user's symbolic link stands on the path.
    #[error(
        "{} is a symbolic link of uid {owner}, who can make it lead anywhere; name the directory \
         itself, or run: chown -h {} {}",
        link.display(), own_uid(), link.display()
    )]
    ForeignLink {
        /// The link.
        link: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// A symbolic link stands where only a directory is accepted.
    #[error(
        "{} is a symbolic link; put the directory itself in its place, or name it where it is",
        link.display()
    )]
    Link {
        /// The link.
        link: PathBuf,
    },
    /// The directory belongs to another user.
    #[error(
        "{} belongs to uid {owner}, who can replace files in it; run: chown {} {}",
        path.display(), own_uid(), path.display()
    )]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Other users may write there.
    #[error(
        "{} may be written by other users (mode {mode:04o}), who can replace files in it; run: \
         chmod go-w {}",
        path.display(), path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl PathError {
    fn system(path: &Path, errno: impl Into<io::Error>) -> Self {
        Self::System {
            path: path.to_owned(),
            source: errno.into(),
        }
    }
}

/// The user of this process.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// True for root and for the user of this process: they can do everything here anyway.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

/// A directory, open for acting in by descriptor.
#[derive(Debug)]
pub struct SafeDirectory {
    handle: OwnedFd,
    path: PathBuf,
    /// The directories that were passed, the nearest last.
    above: Vec<OwnedFd>,
    /// How many directories at the end of the path were missing and have been made.
    made: usize,
}

impl SafeDirectory {
    /// Opens the directory at `path`; an empty path is the current directory.
    ///
    /// # Errors
    /// It cannot be reached, or another user's symbolic link is on the way.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        Walk::from(path)?.to(path, None)
    }

    /// As [`SafeDirectory::open`]; what is missing of the path is made with these permission
    /// bits.
    ///
    /// # Errors
    /// As there, or a directory cannot be made.
    pub fn make(path: &Path, mode: u32) -> Result<Self, PathError> {
        Walk::from(path)?.to(path, Some(Mode::from_raw_mode(mode)))
    }

    /// As [`SafeDirectory::make`], with no symbolic link as the last component, even one of a
    /// trusted user.
    ///
    /// # Errors
    /// As there; [`PathError::Link`].
    pub fn make_unlinked(path: &Path, mode: u32) -> Result<Self, PathError> {
        let mut walk = Walk::from(path)?;
        walk.unlinked = path.file_name().map(OsStr::to_owned);
        walk.to(path, Some(Mode::from_raw_mode(mode)))
    }

    /// Opens the directory that holds `file`; also returns the name of `file` in it.
    ///
    /// # Errors
    /// As [`SafeDirectory::open`]; the path names no file.
    pub fn of(file: &Path) -> Result<(Self, OsString), PathError> {
        let name = file
            .file_name()
            .ok_or_else(|| PathError::system(file, Errno::ISDIR))?;
        let parent = file.parent().unwrap_or(Path::new(""));
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// The descriptor: for names in it, not for reading it.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a directory whose contents others than root and the user of this process can
    /// replace.
    ///
    /// # Errors
    /// It belongs to another user, or its group or everyone may write there.
    pub fn check_private(&self) -> Result<(), PathError> {
        let stat = sys::fstat(&self.handle).map_err(|e| PathError::system(&self.path, e))?;
        let path = self.path.clone();
        if !is_trusted(stat.st_uid) {
            let owner = stat.st_uid;
            return Err(PathError::ForeignOwner { path, owner });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(PathError::Writable { path, mode });
        }
        Ok(())
    }

    /// Refuses a directory in which others can replace files of the user of this process. They may
    /// make files where the sticky bit is set, as in /tmp.
    ///
    /// # Errors
    /// It belongs to another user than root, or others may write there without the sticky bit.
    pub fn check_shared(&self) -> Result<(), PathError> {
        match self.check_private() {
            Err(PathError::Writable { mode, .. }) if mode & 0o1000 != 0 => Ok(()),
            checked => checked,
        }
    }

    /// The same directory for reading and flushing.
    ///
    /// # Errors
    /// It may not be read.
    pub fn readable(&self) -> Result<OwnedFd, PathError> {
        readable(&self.handle).map_err(|errno| PathError::system(&self.path, errno))
    }

    /// Flushes the directories above, as far as they hold the names of directories that were
    /// made; that of the last component always, because a process that died may have made it.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn flush_above(&self) -> io::Result<()> {
        for above in self.above.iter().rev().take(self.made.max(1)) {
            sys::fsync(readable(above)?)?;
        }
        Ok(())
    }
}

fn readable(handle: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::openat(handle, ".", flags, Mode::empty())
}

/// The way to a directory, one component after the other.
struct Walk {
    at: OwnedFd,
    reached: PathBuf,
    above: Vec<OwnedFd>,
    /// Components that are still to come, the next one last.
    pending: Vec<OsString>,
    links: usize,
    made: usize,
    /// The component that must not be a link, when it is the last one.
    unlinked: Option<OsString>,
}

/// What a name is.
pub(super) enum Step {
    Directory(OwnedFd),
    Link(OwnedFd, Stat),
}

impl Walk {
    fn from(path: &Path) -> Result<Self, PathError> {
        let start = Path::new(if path.is_absolute() { "/" } else { "." });
        let at = sys::openat(CWD, start, path_flags() | OFlags::DIRECTORY, Mode::empty());
        let mut walk = Self {
            at: at.map_err(|errno| PathError::system(start, errno))?,
            reached: PathBuf::from(if path.is_absolute() { "/" } else { "" }),
            above: Vec::new(),
            pending: Vec::new(),
            links: 0,
            made: 0,
            unlinked: None,
        };
        walk.push(path);
        Ok(walk)
    }

    /// Puts the components of `path` before those that are still to come.
    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.pending.push(name.to_owned()),
                Component::ParentDir => self.pending.push("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// Walks to the end, making what is missing when there is a mode for it.
    fn to(mut self, path: &Path, mode: Option<Mode>) -> Result<SafeDirectory, PathError> {
        while let Some(name) = self.pending.pop() {
            if name == ".." {
                self.up()?;
                continue;
            }
            let next = self.reached.join(&name);
            let failed = |errno: Errno| PathError::system(&next, errno);
            let mut found = step(&self.at, &name);
            if let (Err(Errno::NOENT), Some(mode)) = (&found, mode) {
                match sys::mkdirat(&self.at, &name, mode) {
                    Ok(()) => self.made += 1,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                found = step(&self.at, &name);
            }
            match found.map_err(failed)? {
                Step::Directory(handle) => {
                    self.above.push(std::mem::replace(&mut self.at, handle));
                    self.reached = next;
                }
                Step::Link(link, stat) => {
                    if self.pending.is_empty() && self.unlinked.as_ref() == Some(&name) {
                        return Err(PathError::Link { link: next });
                    }
                    self.follow(&next, &link, &stat)?;
                }
            }
        }
        let shown = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(SafeDirectory {
            handle: self.at,
            path: shown.to_owned(),
            above: self.above,
            made: self.made,
        })
    }

    fn up(&mut self) -> Result<(), PathError> {
        match self.above.pop() {
            Some(above) => self.at = above,
            // Above the current directory; or the root, which is above itself.
            None => {
                let flags = path_flags() | OFlags::DIRECTORY;
                self.at = sys::openat(&self.at, "..", flags, Mode::empty())
                    .map_err(|errno| PathError::system(&self.reached.join(".."), errno))?;
            }
        }
        if !self.reached.pop() {
            self.reached.push("..");
        }
        Ok(())
    }

    fn follow(&mut self, name: &Path, link: &OwnedFd, stat: &Stat) -> Result<(), PathError> {
        if !is_trusted(stat.st_uid) {
            return Err(PathError::ForeignLink {
                link: name.to_owned(),
                owner: stat.st_uid,
            });
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(PathError::system(name, Errno::LOOP));
        }
        let target = sys::readlinkat(link, "", Vec::new())
            .map_err(|errno| PathError::system(name, errno))?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
        if target.is_absolute() {
            let flags = path_flags() | OFlags::DIRECTORY;
            self.at = sys::openat(CWD, "/", flags, Mode::empty())
                .map_err(|errno| PathError::system(Path::new("/"), errno))?;
            self.reached = PathBuf::from("/");
            self.above.clear();
        }
        self.push(target);
        Ok(())
    }
}

fn path_flags() -> OFlags {
    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens a name without following it.
pub(super) fn step(at: &OwnedFd, name: &OsStr) -> Result<Step, Errno> {
    // Only an open of a directory mounts what an automounter has for it.
    match sys::openat(at, name, path_flags() | OFlags::DIRECTORY, Mode::empty()) {
        Ok(handle) => return Ok(Step::Directory(handle)),
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Err(errno),
    }
    let other = sys::openat(at, name, path_flags(), Mode::empty())?;
    let stat = sys::fstat(&other)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Ok(Step::Link(other, stat)),
        _ => Err(Errno::NOTDIR),
    }
}

/// What is in place of one of our files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignFile {
    /// A symbolic link.
    #[error("a symbolic link")]
    Link,
    /// A directory, device, pipe or socket.
    #[error("no regular file")]
    Kind,
    /// A file with other names, perhaps in the directory of another user.
    #[error("a file with {0} names")]
    Names(u64),
    /// Another user's file.
    #[error("a file of uid {0}")]
    Owner(u32),
}

impl ForeignFile {
    /// What `error` says stands there, if it comes from `open_own` or `check_own`.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

impl From<ForeignFile> for io::Error {
    fn from(foreign: ForeignFile) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, foreign)
    }
}

/// Opens one of our files in a directory, with these flags besides those that keep other users'
/// files from being opened in its place.
///
/// # Errors
/// As openat(2); [`ForeignFile`] for a file that another user may have put there.
pub(crate) fn open_own(
    directory: &OwnedFd,
    name: impl rustix::path::Arg,
    flags: OFlags,
    mode: u32,
) -> io::Result<File> {
    // Without O_NONBLOCK a FIFO would block until another process opens its other end.
    let guards = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match sys::openat(directory, name, flags | guards, Mode::from_raw_mode(mode)) {
        Err(Errno::LOOP) => return Err(ForeignFile::Link.into()),
        opened => opened?,
    };
    check_own(&file)?;
    Ok(file.into())
}

/// Refuses a file that another user may have put there.
///
/// # Errors
/// [`ForeignFile`]; as fstat(2).
pub(super) fn check_own(file: &OwnedFd) -> io::Result<()> {
    let stat = sys::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ForeignFile::Kind.into());
    }
    if stat.st_nlink > 1 {
        return Err(ForeignFile::Names(names(&stat)).into());
    }
    if !is_trusted(stat.st_uid) {
        return Err(ForeignFile::Owner(stat.st_uid).into());
    }
    Ok(())
}

/// Removes a name if it is still that of the file with these attributes.
///
/// # Errors
/// As unlinkat(2).
pub fn remove_if_same(
    directory: &OwnedFd,
    name: &OsStr,
    (device, inode): (u64, u64),
) -> io::Result<bool> {
    match sys::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if identity(&found) == (device, inode) => {
            sys::unlinkat(directory, name, AtFlags::empty())?;
            Ok(true)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    reason = "the fields of struct stat differ in type between architectures"
)]
fn names(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Device and inode.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    reason = "the fields of struct stat differ in type between architectures"
)]
pub fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    const STRANGER: u32 = 6666;

    fn is_root() -> bool {
        own_uid() == 0
    }

    #[test]
    fn missing_directories_are_made_and_links_of_our_own_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let made = SafeDirectory::make(&dir.path().join("a/b"), 0o700).unwrap();
        assert_eq!(made.made, 2);
        made.flush_above().unwrap();
        made.check_private().unwrap();
        symlink("a", dir.path().join("relative")).unwrap();
        symlink(dir.path().join("relative"), dir.path().join("absolute")).unwrap();
        for name in ["a/b", "relative/b", "absolute/b", "absolute/../a/./b"] {
            let found = SafeDirectory::open(&dir.path().join(name)).unwrap();
            let [found, made] = [&found, &made].map(|d| sys::fstat(d.handle()).unwrap());
            assert_eq!(identity(&found), identity(&made), "{name}");
        }
        let link = SafeDirectory::make_unlinked(&dir.path().join("relative"), 0o700);
        assert!(matches!(link, Err(PathError::Link { .. })), "{link:?}");
        symlink("circle", dir.path().join("circle")).unwrap();
        let circle = SafeDirectory::open(&dir.path().join("circle")).unwrap_err();
        let PathError::System { source, .. } = circle else {
            panic!("{circle}");
        };
        assert_eq!(source.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_link_of_another_user_is_not_followed_and_nothing_is_made_behind_it() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        symlink("there", dir.path().join("link")).unwrap();
        lchown(dir.path().join("link"), Some(STRANGER), Some(STRANGER)).unwrap();
        for path in ["link", "link/new", "there/../link/new"] {
            let path = dir.path().join(path);
            let error = SafeDirectory::make(&path, 0o700).unwrap_err().to_string();
            assert!(error.contains("symbolic link of uid 6666"), "{error}");
            assert!(error.contains("chown -h 0 "), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path().join("there")).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_others_can_change_is_not_private() {
        let dir = tempfile::tempdir().unwrap();
        let check = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let opened = SafeDirectory::open(dir.path()).unwrap();
            opened.check_private().map_err(|error| error.to_string())
        };
        for mode in [0o700, 0o755, 0o1700] {
            assert_eq!(check(mode), Ok(()), "{mode:o}");
        }
        for mode in [0o777, 0o1777, 0o770, 0o702] {
            let error = check(mode).unwrap_err();
            assert!(error.contains("run: chmod go-w"), "{error}");
        }
        if is_root() {
            chown(dir.path(), Some(STRANGER), None).unwrap();
            let error = check(0o700).unwrap_err();
            assert!(error.contains("belongs to uid 6666"), "{error}");
            assert!(error.contains("run: chown 0 "), "{error}");
        }
    }

    #[test]
    fn a_file_that_another_user_may_have_put_there_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let directory = SafeDirectory::open(dir.path()).unwrap();
        fs::write(dir.path().join("victim"), "precious").unwrap();
        symlink("victim", dir.path().join("link")).unwrap();
        fs::hard_link(dir.path().join("victim"), dir.path().join("hard")).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        sys::mknodat(directory.handle(), "fifo", fifo, Mode::RUSR, 0).unwrap();
        let open = |name| {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            let opened = open_own(directory.handle(), name, flags, 0o600);
            opened.map_err(|error| ForeignFile::of(&error))
        };
        assert!(open("new").is_ok() && open("new").is_ok());
        assert_eq!(open("link").unwrap_err(), Some(ForeignFile::Link));
        assert_eq!(open("hard").unwrap_err(), Some(ForeignFile::Names(2)));
        assert_eq!(open("directory").unwrap_err(), None);
        let error = open("fifo").map(drop);
        assert!(error.is_err(), "a FIFO has no reader");
        if is_root() {
            chown(dir.path().join("new"), Some(STRANGER), None).unwrap();
            assert_eq!(open("new").unwrap_err(), Some(ForeignFile::Owner(STRANGER)));
        }
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
    }

    #[test]
    fn only_the_file_that_was_meant_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let directory = SafeDirectory::open(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        let stat = sys::statat(directory.handle(), "a", AtFlags::empty()).unwrap();
        let remove = |name: &str| {
            remove_if_same(directory.handle(), name.as_ref(), identity(&stat)).unwrap()
        };
        assert!(!remove("b") && !remove("missing"));
        assert!(remove("a"));
        assert!(dir.path().join("b").exists());
    }
}

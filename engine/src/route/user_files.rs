//! Files that local delivery looks at: `.forward` and `:include:` files, the places of mailboxes.
//!
//! Home directories may be on a file server that does not answer: what is looked at there is asked
//! as a table is, and holds up only those whose files are there. Files of a user are read with that
//! user's rights. Source: local(8), aliases(5).

use crate::io::as_user;
use crate::octets;
use crate::sync::Arc;
use crate::table::{FileAsker, Places, TableError, TextFiles};
use rustix::fs::{self as sys, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "files of local users";

/// Bytes that are read of a file of a user.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files.
#[derive(Debug)]
pub(crate) struct UserFiles {
    files: Arc<Files>,
    asker: FileAsker,
}

/// The first of several `.forward` files that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardFile {
    /// Which one.
    pub(crate) number: usize,
    /// Its text, or why it is passed over.
    pub(crate) text: Result<String, String>,
}

/// Where a mailbox lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its path without symbolic links, as far as it is there.
    pub(crate) path: PathBuf,
    /// Permission bits and group of the directory that holds it, if that is there.
    pub(crate) above: Option<(u32, u32)>,
}

impl UserFiles {
    /// `texts` reads the `:include:` files of root's aliases.
    pub(crate) fn new(texts: &Arc<TextFiles>, places: &Arc<Places>) -> Self {
        let texts = Arc::clone(texts);
        Self {
            files: Arc::new(Files { texts }),
            asker: FileAsker::new(NAME, places),
        }
    }

    /// Asks the file system of `path` for a user.
    fn look(&self, key: &str, path: &Path, uid: u32) -> Result<Option<String>, TableError> {
        let (files, asked) = (Arc::clone(&self.files), key.to_owned());
        self.asker
            .answer(key, (path, uid), move || files.lookup(&asked))
    }

    /// Returns the first of these files that is there, read as this user.
    ///
    /// # Errors
    /// The system cannot tell now.
    pub(crate) fn forward(
        &self,
        (uid, gid): (u32, u32),
        paths: &[String],
    ) -> Result<Option<ForwardFile>, TableError> {
        // One after the other, for each may be on another file system.
        for (number, path) in paths.iter().enumerate() {
            let key = format!("forward\0{uid}\0{gid}\0{path}");
            if let Some(found) = self.look(&key, octets::path(path).as_ref(), uid)? {
                let text = split_text(&found);
                return Ok(Some(ForwardFile { number, text }));
            }
        }
        Ok(None)
    }

    /// Returns the text of an `:include:` file and who owns it, read as this user, for root's
    /// aliases as the server; or why it cannot be used.
    ///
    /// # Errors
    /// The system cannot tell now.
    pub(crate) fn include(
        &self,
        reader: Option<(u32, u32)>,
        path: &str,
    ) -> Result<Result<(String, u32), String>, TableError> {
        let (uid, gid) = reader.unwrap_or_default();
        let key = format!("include\0{uid}\0{gid}\0{path}");
        let found = self.look(&key, octets::path(path).as_ref(), uid)?;
        let found = found.unwrap_or_default();
        let (owner, text) = found.split_once('\0').unwrap_or_default();
        Ok(split_text(text).map(|text| (text, owner.parse().unwrap_or_default())))
    }

    /// Returns where a mailbox of a user with this path lies.
    ///
    /// # Errors
    /// The system cannot tell now.
    pub(crate) fn place(&self, path: &Path, uid: u32) -> Result<Place, TableError> {
        let shown = octets::text(path.as_os_str().as_bytes());
        let found = self.look(&format!("place\0{shown}"), path, uid)?;
        let found = found.unwrap_or_default();
        let mut fields = found.split('\0');
        let path = octets::path(fields.next().unwrap_or_default()).into_owned();
        let mut number = || fields.next().and_then(|number| number.parse().ok());
        let above = number().zip(number());
        Ok(Place { path, above })
    }

    /// Returns whether a user can see a home directory.
    ///
    /// # Errors
    /// The system cannot tell now.
    pub(crate) fn has_home(&self, (uid, gid): (u32, u32), home: &Path) -> Result<bool, TableError> {
        let shown = octets::text(home.as_os_str().as_bytes());
        let found = self.look(&format!("home\0{uid}\0{gid}\0{shown}"), home, uid)?;
        Ok(found.is_some())
    }
}

/// `=text`, or why there is none.
fn split_text(text: &str) -> Result<String, String> {
    text.strip_prefix('=')
        .map_or_else(|| Err(text.to_owned()), |text| Ok(text.to_owned()))
}

/// What is looked at, by keys whose fields are separated by NUL.
#[derive(Debug)]
struct Files {
    texts: Arc<TextFiles>,
}

impl Files {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let mut fields = key.split('\0');
        let what = fields.next().unwrap_or_default();
        if what == "place" {
            return Ok(Some(place(
                octets::path(fields.next().unwrap_or_default()).as_ref(),
            )));
        }
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
        let (Some(uid), Some(gid)) = (number(), number()) else {
            return Ok(None);
        };
        let found = match (what, uid) {
            ("include", 0) => {
                let path = fields.next().unwrap_or_default();
                return Ok(Some(match read_include(&self.texts, Path::new(path)) {
                    Ok((text, owner)) => format!("{owner}\0={text}"),
                    Err(cause) => format!("0\0{cause}"),
                }));
            }
            ("include", _) => {
                let path = fields.next().unwrap_or_default();
                as_user(uid, gid, || include_of_user(path))
            }
            ("home", _) => {
                let path = octets::path(fields.next().unwrap_or_default());
                as_user(uid, gid, || home(&path))
            }
            _ => {
                let path = fields.next().unwrap_or_default();
                as_user(uid, gid, || forward(uid, path))
            }
        };
        found
            .and_then(|found| found)
            .map_err(|error| TableError::Unavailable {
                name: NAME.to_owned(),
                cause: error.to_string(),
            })
    }
}

/// What says that there is no such file, whatever is done about it.
fn is_absent(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::INVAL
    )
}

fn forward(uid: u32, path: &str) -> io::Result<Option<String>> {
    let stat = match sys::statat(CWD, octets::path(path).as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(error) if is_absent(error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = match unusable(&stat, Some(uid)) {
        Some(cause) => Err(cause),
        None => read_file(path, |stat| unusable(stat, Some(uid))),
    };
    Ok(Some(match text {
        Ok(text) => format!("={text}"),
        Err(cause) => cause,
    }))
}

/// Why a file has no effect on mail.
fn unusable(stat: &Stat, owner: Option<u32>) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Some("it is not a regular file".to_owned());
    }
    if owner.is_some_and(|owner| stat.st_uid != 0 && stat.st_uid != owner) {
        return Some(format!("it belongs to user id {}", stat.st_uid));
    }
    (stat.st_mode & 0o002 != 0).then(|| "everyone may write the file; run chmod o-w on it".into())
}

fn read_file(path: &str, refuse: impl Fn(&Stat) -> Option<String>) -> Result<String, String> {
    let cause = |error: Errno| format!("{}; allow its user to read it", io::Error::from(error));
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = octets::path(path);
    let file = sys::openat(CWD, path.as_ref(), flags, Mode::empty()).map_err(cause)?;
    let stat = sys::fstat(&file).map_err(cause)?;
    if let Some(refused) = refuse(&stat) {
        return Err(refused);
    }
    let mut bytes = Vec::new();
    let read = File::from(file)
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(octets::text(&bytes).into_owned())
}

fn include_of_user(path: &str) -> io::Result<Option<String>> {
    if !path.starts_with('/') {
        return Ok(Some(
            "0\0the path is relative; write the whole path".to_owned(),
        ));
    }
    // Links are followed, as far as the user may.
    let real = match std::fs::canonicalize(octets::path(path)) {
        Ok(real) => octets::text(real.as_os_str().as_bytes()).into_owned(),
        Err(error) => return Ok(Some(format!("0\0{error}; create the file"))),
    };
    let mut owner = 0;
    let text = read_file(&real, |stat| unusable(stat, None));
    if let Ok(stat) = sys::stat(octets::path(&real).as_ref()) {
        owner = stat.st_uid;
    }
    Ok(Some(match text {
        Ok(text) => format!("{owner}\0={text}"),
        Err(cause) => format!("0\0{cause}"),
    }))
}

fn home(path: &Path) -> io::Result<Option<String>> {
    match sys::stat(path) {
        Ok(_) => Ok(Some(String::new())),
        Err(error) if is_absent(error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The path without symbolic links, mode and group of what is above it.
fn place(path: &Path) -> String {
    let name = path.file_name();
    let above = path.parent().unwrap_or(Path::new("/"));
    let real = above.ancestors().find_map(|at| {
        let real = std::fs::canonicalize(at).ok()?;
        Some(real.join(above.strip_prefix(at).unwrap_or(Path::new(""))))
    });
    let real = real.unwrap_or_else(|| above.to_owned());
    let stat = sys::stat(&real).ok();
    let whole = name.map_or_else(|| real.clone(), |name| real.join(name));
    let whole = octets::text(whole.as_os_str().as_bytes()).into_owned();
    match stat {
        Some(stat) => format!("{whole}\0{}\0{}", stat.st_mode & 0o7777, stat.st_gid),
        None => whole,
    }
}

/// The text of an `:include:` file and who owns it.
fn read_include(texts: &TextFiles, path: &Path) -> Result<(Arc<str>, u32), String> {
    if !path.is_absolute() {
        return Err("the path is relative; write the whole path".into());
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("{error}; create the file"))?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    if metadata.mode() & 0o002 != 0 {
        return Err("everyone may write the file; run chmod o-w on it".into());
    }
    let text = texts.whole_text(path);
    let text = text.map_err(|error| format!("{error}; allow mailstow to read the file"))?;
    Ok((text, metadata.uid()))
}

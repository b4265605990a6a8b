//! Tables that are put in place whole, and say so.
//!
//! A table that `mailstow table publish` puts in place carries the digest of its bytes in an
//! extended attribute: it counts at once, whatever it lost, for what is there is all there is to
//! be. Bytes that were changed since do not match. On file systems without extended attributes a
//! table that shrinks is held back like any other.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::XattrFlags;

/// The attribute's name.
const MARK: &str = "user.mailstow.published";

/// The value of the mark on a file with these bytes.
fn mark(bytes: &[u8]) -> String {
    let digest = xxhash_rust::xxh3::xxh3_128(bytes);
    format!("{} {digest:032x}", bytes.len())
}

/// Whether `file` says that it is whole with these bytes.
pub(in crate::table) fn is_marked(file: &File, bytes: &[u8]) -> bool {
    let mut value = [0; 64];
    match rustix::fs::fgetxattr(file, MARK, &mut value) {
        Ok(len) => value.get(..len) == Some(mark(bytes).as_bytes()),
        Err(_) => false,
    }
}

/// Puts `bytes` in the place of the file at `path`, whole and durably: when this returns, a crash
/// leaves the new file, and at any moment before either the old one or the new one. The new file
/// has the owner, the permissions and the attributes of the old one. A symbolic link stays, and
/// what it leads to is replaced.
///
/// # Errors
/// A system call failed, named in the error; after a failed flush of the directory the new file is
/// in place, otherwise the old one.
pub fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        target => target.map_err(during("find", path))?,
    };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    };
    let old = match File::open(&target) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(during("open", &target)(error)),
    };
    let mut file = tempfile_in(&directory, &target)?;
    let temporary = file.1.clone();
    let written = fill(&mut file.0, old.as_ref(), bytes)
        .map_err(during("write", &temporary))
        .and_then(|()| fs::rename(&temporary, &target).map_err(during("rename", &temporary)));
    if let Err(error) = written {
        // What cannot be removed only takes up space.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(during("flush", &directory))
}

fn during(action: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("cannot {action} {path}: {error}"))
}

/// A new file beside `target`.
fn tempfile_in(directory: &Path, target: &Path) -> io::Result<(File, std::path::PathBuf)> {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    let mut name = OsStr::new(".").to_owned();
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{random:016x}.tmp"));
    let path = directory.join(name);
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(during("create", &path))?;
    Ok((file, path))
}

/// Makes `file` what `old` was, with other bytes, and flushes it.
fn fill(file: &mut File, old: Option<&File>, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    let mode = match old {
        Some(old) => {
            let metadata = old.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            let (owner, group) = (Some(metadata.uid()), Some(metadata.gid()));
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                std::os::unix::fs::fchown(&*file, owner, group)?;
            }
            copy_attributes(old, file)?;
            metadata.mode() & 0o7777
        }
        None => 0o644,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    match rustix::fs::fsetxattr(&*file, MARK, mark(bytes).as_bytes(), XattrFlags::empty()) {
        // Then the table is as any other that was renamed into its place.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
        set => set?,
    }
    file.sync_all()
}

/// Copies extended attributes: access control lists, labels, and what users put there.
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0; 64 * 1024];
    let len = match rustix::fs::flistxattr(from, &mut names) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        len => len?,
    };
    let names = names.get(..len).unwrap_or_default();
    let mut value = vec![0; 64 * 1024];
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name == MARK.as_bytes() {
            continue;
        }
        let len = rustix::fs::fgetxattr(from, OsStr::from_bytes(name), &mut value)?;
        let value = value.get(..len).unwrap_or_default();
        let set = rustix::fs::fsetxattr(to, OsStr::from_bytes(name), value, XattrFlags::empty());
        // Labels are not every user's to set, and the system gives the file one.
        let is_label = name.starts_with(b"security.") || name.starts_with(b"trusted.");
        match set {
            Err(_) if is_label => {}
            set => set?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_is_whole_marked_and_like_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("t"), directory.path().join("link"));
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let attribute = "user.test";
        let set = rustix::fs::setxattr(&path, attribute, b"x", XattrFlags::empty());
        std::os::unix::fs::symlink("t", &link).unwrap();
        // Open, so that the system cannot use its number again.
        let old = File::open(&path).unwrap();
        let inode = old.metadata().unwrap().ino();
        for name in [&path, &link] {
            publish(name, b"new\n").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new\n");
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.mode() & 0o7777, 0o640);
            assert_ne!(metadata.ino(), inode);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            if set.is_ok() {
                let mut value = [0; 8];
                assert_eq!(rustix::fs::getxattr(&path, attribute, &mut value), Ok(1));
                assert!(is_marked(&File::open(&path).unwrap(), b"new\n"));
            }
        }
        fs::write(&path, "other\n").unwrap();
        assert!(!is_marked(&File::open(&path).unwrap(), b"other\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_made_and_one_in_no_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        publish(&path, b"new\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        let error = publish(&path.join("x"), b"new\n").unwrap_err().to_string();
        assert!(error.contains("/t/x"), "{error}");
        assert!(publish(directory.path(), b"new\n").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

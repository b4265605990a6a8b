//! UNIX sockets: bound where only we can reach them, then renamed into place.
//!
//! The directory may belong to another user, as Postfix's `private/` does, who can put anything in
//! place of our socket at any time. So the socket gets its mode and owner in a private directory
//! inside, and only then its name; no path is used twice. Invariants: a socket file is never more
//! accessible than its configured mode; it is listened on before it has its name; that of a living
//! server is never taken away; at the end only the file that we made is removed. Sources: unix(7),
//! proc(5) `/proc/self/fd`.

use crate::listen_error::ListenError;
use mailstow_engine::system::{self, PathError, SafeDirectory};
use rustix::fs::{self as sys, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// What to do when the directory does not take the socket.
const WRITABLE: &str = "check that its directory exists and that the server may write there";

/// How often a name for the directory is drawn.
const NAME_ATTEMPTS: usize = 8;

/// Who may connect, as far as the socket file decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permissions {
    pub(crate) mode: u32,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// A socket file of ours; removed when dropped, unless another file took its place.
#[derive(Debug)]
pub struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    /// Device and inode.
    identity: (u64, u64),
    path: PathBuf,
}

impl SocketFile {
    /// The path, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) -> io::Result<()> {
        let remove = || system::remove_if_same(&self.directory, &self.name, self.identity);
        match remove() {
            // The right to write in directories of others was given up after the start.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let owner = sys::fstat(&self.directory)?.st_uid;
                system::with_user(owner, remove).map(drop)
            }
            done => done.map(drop),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!("{}: cannot remove the socket: {error}", self.path.display());
        }
    }
}

/// Listens on a new socket at `path`.
///
/// # Errors
/// The socket cannot be made, or something stands there that is no socket of a dead server.
pub(crate) fn bind(
    path: &Path,
    permissions: Permissions,
) -> Result<(OwnedFd, SocketFile), ListenError> {
    let refused = |action, source, remedy| ListenError::unix(path, action, source, remedy);
    // The clients use the path.
    SocketAddrUnix::new(path).map_err(|e| {
        refused(
            "name the socket",
            e.into(),
            "use a path shorter than 108 bytes",
        )
    })?;
    let (directory, name) = SafeDirectory::of(path).map_err(|error| match error {
        PathError::System { source, .. } => ListenError::unix(path, "bind", source, WRITABLE),
        error => ListenError::Path { error },
    })?;
    bind_in(directory.handle(), &name, path, permissions)
}

/// Listens on a new socket with this name in a directory; `path` is for people.
///
/// # Errors
/// As [`bind`].
pub(crate) fn bind_in(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    permissions: Permissions,
) -> Result<(OwnedFd, SocketFile), ListenError> {
    let refused =
        |action, source: Errno, remedy| ListenError::unix(path, action, source.into(), remedy);
    let kept = directory.try_clone().map_err(|source| {
        ListenError::unix(
            path,
            "keep its directory open",
            source,
            "see the system's limits",
        )
    })?;
    remove_stale(directory, name, path)?;
    let workshop = Workshop::make(directory, name).map_err(|e| refused("bind", e, WRITABLE))?;
    let address =
        by_descriptor(&workshop.handle, name).map_err(|e| refused("bind", e, "mount /proc"))?;
    let mode = Mode::from_raw_mode(permissions.mode & 0o777);
    let socket =
        stream_socket().map_err(|e| refused("create the socket", e, "see the system's limits"))?;
    // unix(7): the file takes the mode of the socket, less the umask.
    sys::fchmod(&socket, mode).map_err(|e| refused("set the mode", e, WRITABLE))?;
    net::bind(&socket, &address).map_err(|e| refused("bind", e, WRITABLE))?;
    sys::chmodat(&workshop.handle, name, mode, AtFlags::empty())
        .map_err(|e| refused("set the mode", e, WRITABLE))?;
    if permissions.owner.is_some() || permissions.group.is_some() {
        let owner = permissions.owner.map(Uid::from_raw);
        let group = permissions.group.map(Gid::from_raw);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        sys::chownat(&workshop.handle, name, owner, group, flags).map_err(|e| {
            let remedy = "start as root, or set socket_users instead of socket_owner";
            refused("set owner and group", e, remedy)
        })?;
    }
    net::listen(&socket, BACKLOG).map_err(|e| refused("listen", e, WRITABLE))?;
    let made = sys::statat(&workshop.handle, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| refused("find the socket again", e, WRITABLE))?;
    match workshop.hand_over(directory, name) {
        Err(Errno::EXIST) => {
            return Err(ListenError::Alive {
                path: path.to_owned(),
            });
        }
        moved => moved.map_err(|e| refused("bind", e, WRITABLE))?,
    }
    let file = SocketFile {
        directory: kept,
        name: name.to_owned(),
        identity: system::identity(&made),
        path: path.to_owned(),
    };
    Ok((socket, file))
}

/// A directory that only we can enter; removed when dropped.
struct Workshop<'a> {
    parent: &'a OwnedFd,
    own_name: String,
    file: &'a OsStr,
    handle: OwnedFd,
}

impl<'a> Workshop<'a> {
    fn make(parent: &'a OwnedFd, file: &'a OsStr) -> Result<Self, Errno> {
        let own_name = new_name(parent)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = sys::openat(parent, &own_name, flags, Mode::empty())?;
        let made = Self {
            parent,
            own_name,
            file,
            handle,
        };
        let stat = sys::fstat(&made.handle)?;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        // The owner of the directory may have put another in its place meanwhile.
        match is_ours && stat.st_mode & 0o077 == 0 {
            true => Ok(made),
            false => Err(Errno::ACCESS),
        }
    }

    /// Gives the socket its name in the directory above, taking no other file's place.
    fn hand_over(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let flags = RenameFlags::NOREPLACE;
        match sys::renameat_with(&self.handle, self.file, parent, name, flags) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                sys::renameat(&self.handle, self.file, parent, name)
            }
            done => done,
        }
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        // What the owner of the directory did with it meanwhile stays his.
        let _ = sys::unlinkat(&self.handle, self.file, AtFlags::empty());
        let _ = sys::unlinkat(self.parent, &self.own_name, AtFlags::REMOVEDIR);
    }
}

/// Makes a directory with a name that cannot be guessed.
fn new_name(parent: &OwnedFd) -> Result<String, Errno> {
    for _ in 0..NAME_ATTEMPTS {
        // The standard library's hashers are keyed from the system's random numbers.
        let random = RandomState::new().hash_one(std::process::id());
        let name = format!(".mailstow.{random:016x}");
        match sys::mkdirat(parent, &name, Mode::RWXU) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// The address of a file in an open directory.
fn by_descriptor(directory: &OwnedFd, name: &OsStr) -> Result<SocketAddrUnix, Errno> {
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    SocketAddrUnix::new(path.join(name))
}

/// Removes the socket file of a server that is gone; one of a living server stays.
fn remove_stale(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), ListenError> {
    let refused =
        |action, source: Errno, remedy| ListenError::unix(path, action, source.into(), remedy);
    let tell = "tell whether another server listens there";
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match sys::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(|e| refused(tell, e, "remove the file if none does"))?,
    };
    let stat = sys::fstat(&found).map_err(|e| refused(tell, e, "remove the file if none does"))?;
    let path = path.to_owned();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ListenError::NotASocket { path });
    }
    let by_number = format!("/proc/self/fd/{}", found.as_raw_fd());
    let answer = SocketAddrUnix::new(by_number)
        .and_then(|address| net::connect(&stream_socket()?, &address));
    match answer {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::PROTOTYPE) => return Err(ListenError::NotASocket { path }),
        Ok(()) | Err(Errno::AGAIN) => return Err(ListenError::Alive { path }),
        Err(error) => return Err(refused(tell, error, "remove the file if none does")),
    }
    system::remove_if_same(directory, name, system::identity(&stat))
        .map(drop)
        .map_err(|source| {
            let action = "remove the socket of a server that has ended";
            ListenError::unix(&path, action, source, "remove it by hand")
        })
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

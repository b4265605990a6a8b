//! mbox: all messages in one file.
//!
//! Opening takes every lock of `virtual_mailbox_lock` without waiting: the lock file first, then,
//! on the open file, the kernel's locks; then the file is checked to be the mailbox still, and one
//! that we may append to. Messages are appended, flushed by the caller, and only then is the lock
//! given back. Sources: Postfix mbox_open, safe_open, virtual(8).

mod append;
mod dotlock;
mod entry;
mod form;
mod mbox_cache;
mod quote;

pub use entry::{MboxEntry, render};
pub use mbox_cache::MboxCache;

use super::directory::{self, Unflushed};
use super::durable_dirs::TornEnds;
use super::owner_check::walk;
use super::{
    DurableDirs, Flush, MailboxError, MailboxName, MailboxSettings, OwnerCheck, Unfit, place,
};
use crate::config::MboxLock;
use crate::io::{Disk, FileKind, FileStat, LockKind};
use crate::target::{Format, Owner};
use dotlock::{DotLock, StalePolicy};
use std::io;
use std::sync::Arc;

/// Permission bits of a new mbox.
const FILE_MODE: u32 = 0o600;
/// How often a file that is being replaced by another program is opened again.
const OPEN_ATTEMPTS: usize = 8;

/// An open mbox, all locks held. To be closed with [`Mbox::close`]; dropped without, its lock
/// file stays until it is stale.
#[derive(Debug)]
pub struct Mbox<H> {
    path: MailboxName,
    owner: OwnerCheck,
    parent: Arc<H>,
    file: H,
    stat: FileStat,
    dotlock: Option<DotLock<H>>,
    /// Bytes of whole messages that are to stay.
    end: u64,
    /// Length before anything of ours.
    old_length: u64,
    /// What the old content lacks before a message can follow.
    tail: &'static str,
    /// Something incomplete follows `end` and could not be cut off.
    is_torn: bool,
    torn_ends: TornEnds,
    /// The directories above, when they must be flushed too.
    chain: Vec<Unflushed<H>>,
}

/// The answer to an attempt to open an mbox.
#[derive(Debug)]
pub enum Opened<H> {
    /// It is ours until closed.
    Ready(Box<Mbox<H>>),
    /// Another program holds this lock; try again later.
    Busy(&'static str),
}

impl<H> Mbox<H> {
    /// Opens and locks an mbox of `owner`, which is the calling thread's identity,
    /// creating the file but never its directory. `cache` is of this thread and base.
    ///
    /// # Errors
    /// It cannot be opened, locked or trusted; nothing is locked then.
    pub fn open<D: Disk<Handle = H>>(
        disk: &D,
        base: &H,
        path: &MailboxName,
        owner: Owner,
        settings: &MailboxSettings,
        dirs: (&DurableDirs, Flush),
        cache: &mut MboxCache<H>,
    ) -> Result<Opened<H>, MailboxError> {
        let uid = owner.uid;
        let whose = settings.owner_check(owner);
        place::check(disk, base, path, Format::Mbox)?;
        let open_parent = || open_parent(disk, base, path, whose, dirs.0);
        let parent = cache.parent(path.parent(), owner, open_parent)?;
        let mut dotlock = None;
        if settings.locks.contains(&MboxLock::Dotlock) {
            let judge = StalePolicy {
                host: &settings.host,
                stale_age: settings.stale_lock_age,
            };
            let files = &mut cache.lock_files;
            let taken = DotLock::try_take(disk, &*parent, (path.name(), uid), judge, files);
            match taken.map_err(|e| failed(path, "unable to create lock file", e))? {
                Some(lock) => dotlock = Some(lock),
                None => return Ok(Opened::Busy(super::error::LOCK_FILE)),
            }
        }
        let opened = match open_file(disk, &parent, path, uid, settings) {
            Ok(Ok((file, stat, is_new))) => {
                let prepared = repair(disk, path, &file, stat, dirs.0).and_then(|stat| {
                    let prepared = prepare(disk, base, (path, whose), (&file, &stat), dirs, is_new);
                    prepared.map(|(tail, chain)| (stat, tail, chain))
                });
                match prepared {
                    Ok((stat, tail, chain)) => Ok(Ok((file, stat, tail, chain))),
                    Err(error) => {
                        disk.unlock(&file);
                        Err(error)
                    }
                }
            }
            Ok(Err(busy)) => Ok(Err(busy)),
            Err(error) => Err(error),
        };
        match opened {
            Ok(Ok((file, stat, tail, chain))) => Ok(Opened::Ready(Box::new(Self {
                path: path.clone(),
                owner: whose,
                parent,
                file,
                stat,
                dotlock,
                end: stat.size,
                old_length: stat.size,
                tail,
                is_torn: false,
                torn_ends: dirs.0.torn_ends().clone(),
                chain,
            }))),
            not_ours => {
                if let Some(lock) = dotlock {
                    lock.release(disk, &parent);
                }
                match not_ours {
                    Ok(Err(busy)) => Ok(Opened::Busy(busy)),
                    Err(error) => Err(error),
                    Ok(Ok(_)) => Ok(Opened::Busy("file")),
                }
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &MailboxName {
        &self.path
    }

    /// The open file, to be flushed after appending.
    pub fn file(&self) -> &H {
        &self.file
    }

    /// The open directory it is in.
    pub fn parent(&self) -> &H {
        &self.parent
    }

    /// The file system it is on.
    pub fn device(&self) -> u64 {
        self.stat.device
    }

    /// The directories above it that must be flushed before the first message counts as stored.
    pub fn chain(&self) -> &[Unflushed<H>] {
        &self.chain
    }

    /// The directories above were flushed.
    pub fn chain_is_durable(&self, dirs: &DurableDirs) {
        if !self.chain.is_empty() {
            dirs.remember(self.path.as_str(), &self.stat, self.owner);
        }
    }

    /// The directories above will be flushed by the next checkpoint.
    pub fn is_seen(&self, dirs: &DurableDirs) {
        if !self.chain.is_empty() {
            dirs.note(self.path.as_str(), &self.stat, self.owner);
        }
    }

    /// Bytes of whole messages in it.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Cuts off what follows `length`: it is ours, and incomplete or refused.
    ///
    /// # Errors
    /// It cannot be cut; nothing must be appended then.
    pub fn cut_to<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        length: u64,
    ) -> Result<(), MailboxError> {
        let path = &self.path;
        disk.truncate(&self.file, length)
            .and_then(|()| missing_tail(disk, &self.file, length))
            .map(|tail| {
                self.end = length;
                self.old_length = length;
                self.tail = tail;
            })
            .map_err(|error| failed(path, "cutting off an incomplete message", error))
    }

    /// Looks at its end again, after something there was written in place.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look_at_end<D: Disk<Handle = H>>(&mut self, disk: &D) -> io::Result<()> {
        self.tail = missing_tail(disk, &self.file, self.end)?;
        Ok(())
    }

    /// Takes everything appended since it was opened back, as well as can be: what was flushed
    /// with an error is not in the mailbox.
    pub fn take_back<D: Disk<Handle = H>>(&mut self, disk: &D) {
        self.end = self.old_length;
        self.cut(disk);
    }

    /// Gives the locks back.
    pub fn close<D: Disk<Handle = H>>(self, disk: &D) {
        // The kernel's lock goes first, in the reverse order of taking.
        disk.unlock(&self.file);
        drop(self.file);
        if let Some(lock) = self.dotlock {
            lock.release(disk, &self.parent);
        }
    }

    /// Cuts the file behind the messages that are to stay; false when that fails, and nothing
    /// more must be appended.
    fn cut<D: Disk<Handle = H>>(&mut self, disk: &D) -> bool {
        let cut = disk.truncate(&self.file, self.end);
        if let Err(error) = &cut {
            tracing::error!(
                mailbox = self.path.display(),
                length = self.end,
                %error,
                "cannot cut an incomplete message off the mailbox; cut it to this length"
            );
            self.is_torn = true;
            // The next open cuts it first.
            if let Ok(stat) = disk.stat(&self.file) {
                self.torn_ends.remember(self.path.as_str(), &stat, self.end);
            }
        }
        cut.is_ok()
    }
}

fn failed(path: &MailboxName, doing: &'static str, error: io::Error) -> MailboxError {
    MailboxError::from_io(path.display(), doing, error)
}

fn unfit(path: &MailboxName, unfit: Unfit) -> MailboxError {
    MailboxError::Unfit {
        mailbox: path.display().to_owned(),
        unfit,
    }
}

fn open_parent<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    owner: OwnerCheck,
    dirs: &DurableDirs,
) -> Result<D::Handle, MailboxError> {
    let parent = match disk.open_directory(base, path.parent()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MailboxError::NoParent {
                mailbox: path.display().to_owned(),
                directory: directory::display(path, path.parent()),
            });
        }
        answer => answer.map_err(|e| failed(path, "opening its directory", e))?,
    };
    let stat = disk
        .stat(&parent)
        .map_err(|e| failed(path, "opening its directory", e))?;
    if path.parent().is_empty() {
        directory::check_closed(path, "", &stat)?;
        return Ok(parent);
    }
    owner.check_above(path, path.parent(), &stat)?;
    if !dirs.is_safe(path.parent(), &stat, owner) {
        let found = walk(disk, base, (path, path.parent()), owner, None)?;
        if !found.is_some_and(|found| found.is_same_file(&stat)) {
            let error = io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(failed(path, "opening its directory", error));
        }
        dirs.found_safe(path.parent(), &stat, owner);
    }
    Ok(parent)
}

/// Cuts off what could not be cut off when it was appended; the attributes of now.
fn repair<D: Disk>(
    disk: &D,
    path: &MailboxName,
    file: &D::Handle,
    stat: FileStat,
    dirs: &DurableDirs,
) -> Result<FileStat, MailboxError> {
    let torn_ends = dirs.torn_ends();
    let Some(end) = torn_ends.find(path.as_str(), &stat) else {
        return Ok(stat);
    };
    let cut = disk.truncate(file, end).and_then(|()| disk.stat(file));
    let stat = cut.map_err(|error| {
        // A cut that fails may shorten the file all the same.
        if let Ok(stat) = disk.stat(file) {
            torn_ends.remember(path.as_str(), &stat, end);
        }
        failed(path, "cutting off an incomplete message", error)
    })?;
    torn_ends.forget(path.as_str());
    tracing::info!(
        mailbox = path.display(),
        length = end,
        "cut an incomplete message off the mailbox"
    );
    Ok(stat)
}

/// What the file needs before a message can follow its old content, and the directories to
/// flush with it.
type Prepared<H> = (&'static str, Vec<Unflushed<H>>);

fn prepare<D: Disk>(
    disk: &D,
    base: &D::Handle,
    (path, owner): (&MailboxName, OwnerCheck),
    (file, stat): (&D::Handle, &FileStat),
    (dirs, flush): (&DurableDirs, Flush),
    is_new: bool,
) -> Result<Prepared<D::Handle>, MailboxError> {
    let tail = missing_tail(disk, file, stat.size)
        .map_err(|e| failed(path, "reading the end of the file", e))?;
    let chain = if !is_new && dirs.look(path.as_str(), stat, owner).is_enough(flush) {
        Vec::new()
    } else {
        directory::open_chain(disk, base, path, path.parent())?
    };
    Ok((tail, chain))
}

/// An open file, its attributes and whether it was made just now; or which lock is busy.
type OpenedFile<H> = Result<(H, FileStat, bool), &'static str>;

/// Opens or creates the file and takes the kernel's locks on it.
fn open_file<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    path: &MailboxName,
    uid: u32,
    settings: &MailboxSettings,
) -> Result<OpenedFile<D::Handle>, MailboxError> {
    for _ in 0..OPEN_ATTEMPTS {
        let Some((file, is_new)) = open_or_create(disk, parent, path)? else {
            continue;
        };
        let stat = disk
            .stat(&file)
            .map_err(|e| failed(path, "opening the file", e))?;
        // A lock on a device or pipe could mean anything, so this comes before locking.
        match stat.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(unfit(path, Unfit::Directory)),
            FileKind::Symlink | FileKind::Other => return Err(unfit(path, Unfit::NotRegular)),
        }
        let locked = lock_file(disk, &file, path, settings).and_then(|busy| match busy {
            Some(busy) => Ok(Some(Err(busy))),
            None => {
                let stat = look_at_locked(disk, (parent, path), (&file, is_new), uid, settings)?;
                Ok(stat.map(Ok))
            }
        });
        match locked {
            Ok(Some(Ok(stat))) => return Ok(Ok((file, stat, is_new))),
            not_ours => {
                disk.unlock(&file);
                if let Some(Err(busy)) = not_ours? {
                    return Ok(Err(busy));
                }
            }
        }
    }
    Err(unfit(path, Unfit::Restless))
}

/// Returns the attributes of a locked file; `None` when another one is in its place.
fn look_at_locked<D: Disk>(
    disk: &D,
    (parent, path): (&D::Handle, &MailboxName),
    (file, is_new): (&D::Handle, bool),
    uid: u32,
    settings: &MailboxSettings,
) -> Result<Option<FileStat>, MailboxError> {
    // While we waited for nothing but the kernel, another program may have put a new file in its
    // place (most mail readers do so when they delete messages), or appended.
    let stat = disk
        .stat(file)
        .map_err(|e| failed(path, "opening the file", e))?;
    let named = match disk.stat_at(parent, path.name()) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "opening the file", error)),
    };
    if !named.is_same_file(&stat) {
        return Ok(None);
    }
    if stat.links != 1 {
        return Err(unfit(path, Unfit::HardLinks(stat.links)));
    }
    if (settings.strict_ownership || is_new) && stat.uid != uid {
        let owner = stat.uid;
        if is_new {
            // The process changed its user just now.
            let _ = disk.remove(parent, path.name());
        }
        return Err(unfit(path, Unfit::NotOwned { owner, uid }));
    }
    Ok(Some(stat))
}

/// `None` when it appeared or vanished between two looks.
fn open_or_create<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    path: &MailboxName,
) -> Result<Option<(D::Handle, bool)>, MailboxError> {
    match disk.open_append(parent, path.name()) {
        Ok(file) => return Ok(Some((file, false))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(match error.raw_os_error() {
                Some(libc::ELOOP) => unfit(path, Unfit::Symlink),
                Some(libc::EISDIR) => unfit(path, Unfit::Directory),
                Some(libc::ENXIO) => unfit(path, Unfit::NotRegular),
                _ => failed(path, "opening the file", error),
            });
        }
    }
    match disk.create_new(parent, path.name(), FILE_MODE) {
        Ok(file) => Ok(Some((file, true))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed(path, "creating the file", error)),
    }
}

/// Takes the kernel's locks; which one is busy, if one is.
fn lock_file<D: Disk>(
    disk: &D,
    file: &D::Handle,
    path: &MailboxName,
    settings: &MailboxSettings,
) -> Result<Option<&'static str>, MailboxError> {
    for lock in &settings.locks {
        let (kind, name) = match lock {
            MboxLock::Dotlock => continue,
            MboxLock::Fcntl => (LockKind::Fcntl, "fcntl lock"),
            MboxLock::Flock => (LockKind::Flock, "flock lock"),
        };
        let locked = disk.try_lock(file, kind);
        if !locked.map_err(|e| failed(path, "locking the file", e))? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Line ends the old content lacks: a message begins behind a blank line. A crashed writer, or
/// an editor, may have left none.
fn missing_tail<D: Disk>(disk: &D, file: &D::Handle, size: u64) -> io::Result<&'static str> {
    if size == 0 {
        return Ok("");
    }
    let mut last = [0; 2];
    let wanted = if size == 1 { 1 } else { 2 };
    let (part, _) = last.split_at_mut(wanted);
    let read = disk.read_at(file, part, size - wanted as u64)?;
    Ok(match part.get(..read) {
        Some(b"\n\n") => "",
        Some([b'\n'] | [_, b'\n']) => "\n",
        _ => "\n\n",
    })
}

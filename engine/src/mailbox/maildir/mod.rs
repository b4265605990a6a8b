//! Maildir: one file per message.
//!
//! A message is written to a file that no reader sees, flushed by the caller, then published into
//! `new/` under a name that is unique; then the caller flushes `new/`. The file has no name before
//! that where the file system can do this (no trace in `tmp/`, and a quarter faster on a
//! journalling file system), else it stands in `tmp/` as maildir(5) says.

mod form;
mod name;
mod sweep;

pub use form::{Frame, frame_of, look_into_frame};
pub use name::NameMaker;
pub use sweep::sweep;

use super::directory::{self, Unflushed};
use super::owner_check::walk;
use super::{DurableDirs, Flush, MailboxError, MailboxName, OwnerCheck, place};
use crate::config::Compress;
use crate::io::{Disk, FileKind, FileStat};
use crate::message::{Message, bare_newlines};
use crate::target::Format;
use form::Filler;
use std::io;

/// Permission bits of message files.
const FILE_MODE: u32 = 0o600;
/// How many names are tried before we believe that no name is free.
const NAME_ATTEMPTS: usize = 8;

/// An open Maildir.
#[derive(Debug)]
pub struct Maildir<H> {
    path: MailboxName,
    owner: OwnerCheck,
    new: H,
    new_stat: FileStat,
    /// Opened when files without a name cannot be made.
    tmp: Option<H>,
    /// The directories above, to be flushed together with the first message.
    chain: Vec<Unflushed<H>>,
    sweep_due: bool,
}

/// A message that is written and not visible yet.
#[derive(Debug)]
pub struct Unpublished<H> {
    file: H,
    /// Its name in `tmp/`, if it has one.
    name: Option<String>,
    size: u64,
    wire_size: u64,
    is_adopted: bool,
}

impl<H> Unpublished<H> {
    /// Returns a message that was written to this file before the Maildir was opened for its
    /// delivery, by [`create_unseen`] in that Maildir.
    pub fn adopted(file: H, header: &[u8], message: &Message) -> Self {
        let (size, wire_size) = sizes(header, message.size(), message.bare_newlines());
        Self {
            file,
            name: None,
            size,
            wire_size,
            is_adopted: true,
        }
    }

    /// The open file, to be flushed.
    pub fn file(&self) -> &H {
        &self.file
    }

    /// Returns true when the message was written to this file before the Maildir was opened for its
    /// delivery.
    pub fn is_adopted(&self) -> bool {
        self.is_adopted
    }
}

impl<H> Maildir<H> {
    /// Opens a Maildir as the calling thread's identity, making what is missing of it.
    ///
    /// # Errors
    /// It cannot be opened or made, leads out of the base, or is not safe from others.
    pub fn open<D: Disk<Handle = H>>(
        disk: &D,
        base: &H,
        path: &MailboxName,
        owner: OwnerCheck,
        (dirs, flush): (&DurableDirs, Flush),
    ) -> Result<Self, MailboxError> {
        let failed = |error| MailboxError::from_io(path.display(), "opening it", error);
        place::check(disk, base, path, Format::Maildir)?;
        let new_path = path.below("new");
        let (new, is_made) = match disk.open_directory(base, &new_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Nothing is made where it would not be used.
                walk(disk, base, (path, &new_path), owner, Some(path.as_str()))?;
                make(disk, base, path, owner.owner.gid)?;
                let new = disk.open_directory(base, &new_path).map_err(failed)?;
                (new, true)
            }
            answer => (answer.map_err(failed)?, false),
        };
        let new_stat = disk.stat(&new).map_err(failed)?;
        owner.check_maildir(path, &new_path, &new_stat)?;
        let state = dirs.look(path.as_str(), &new_stat, owner);
        // Made just now, it may have got the inode number of one that was removed.
        let chain = if state.is_enough(flush) && !is_made {
            Vec::new()
        } else {
            let found = walk(disk, base, (path, &new_path), owner, Some(path.as_str()))?;
            if !found.is_some_and(|found| found.is_same_file(&new_stat)) {
                return Err(failed(io::Error::from_raw_os_error(libc::EAGAIN)));
            }
            make_rest(disk, base, path, owner)?;
            directory::open_chain(disk, base, path, path.as_str())?
        };
        Ok(Self {
            path: path.clone(),
            owner,
            new,
            new_stat,
            tmp: None,
            chain,
            sweep_due: state.sweep_due,
        })
    }

    /// Its path.
    pub fn path(&self) -> &MailboxName {
        &self.path
    }

    /// The open `new/`, to be flushed after publishing.
    pub fn new_directory(&self) -> &H {
        &self.new
    }

    /// The file system it is on.
    pub fn device(&self) -> u64 {
        self.new_stat.device
    }

    /// The directories above it that must be flushed before the first message counts as stored.
    pub fn chain(&self) -> &[Unflushed<H>] {
        &self.chain
    }

    /// True when leftovers in `tmp/` should be looked for.
    pub fn is_sweep_due(&self) -> bool {
        self.sweep_due
    }

    /// The directories above were flushed.
    pub fn chain_is_durable(&self, dirs: &DurableDirs) {
        if !self.chain.is_empty() || self.sweep_due {
            dirs.remember(self.path.as_str(), &self.new_stat, self.owner);
        }
    }

    /// The directories above will be flushed by the next checkpoint.
    pub fn is_seen(&self, dirs: &DurableDirs) {
        if !self.chain.is_empty() || self.sweep_due {
            dirs.note(self.path.as_str(), &self.new_stat, self.owner);
        }
    }

    /// Writes a message that is not visible yet: `header`, then the content.
    ///
    /// # Errors
    /// The file cannot be made or written; nothing of it is left.
    pub fn write<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        base: &H,
        (names, compress): (&NameMaker, Compress),
        header: &[u8],
        message: &Message,
    ) -> Result<Unpublished<H>, MailboxError> {
        let sizes = sizes(header, message.size(), message.bare_newlines());
        self.write_with(disk, (base, names), sizes, |file| {
            let mut filler = Filler::new(disk, file, compress, sizes.0)?;
            let mut header = header;
            message.for_each_chunk(|chunk| {
                let first = std::mem::take(&mut header);
                filler.put([first, chunk])
            })?;
            filler.finish()
        })
    }

    /// Returns the attributes of `new/`.
    pub fn new_stat(&self) -> &FileStat {
        &self.new_stat
    }

    /// As [`Maildir::write`], for a message that is in memory with its header.
    ///
    /// # Errors
    /// As there.
    pub fn write_bytes<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        base: &H,
        (names, compress): (&NameMaker, Compress),
        message: &[u8],
    ) -> Result<Unpublished<H>, MailboxError> {
        let sizes = sizes(b"", message.len() as u64, bare_newlines(None, message));
        self.write_with(disk, (base, names), sizes, |file| {
            let mut filler = Filler::new(disk, file, compress, sizes.0)?;
            filler.put([message, &[]])?;
            filler.finish()
        })
    }

    fn write_with<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        (base, names): (&H, &NameMaker),
        (size, wire_size): (u64, u64),
        write: impl FnOnce(&H) -> io::Result<()>,
    ) -> Result<Unpublished<H>, MailboxError> {
        let (file, name) = match disk.create_unnamed(&self.new, FILE_MODE) {
            Ok(file) => (file, None),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let (file, name) = self.create_in_tmp(disk, base, names, size, wire_size)?;
                (file, Some(name))
            }
            Err(error) => return Err(self.failed("creating a file", error)),
        };
        let unpublished = Unpublished {
            file,
            name,
            size,
            wire_size,
            is_adopted: false,
        };
        match write(&unpublished.file) {
            Ok(()) => Ok(unpublished),
            Err(error) => {
                self.discard(disk, &unpublished);
                Err(self.failed("writing the message", error))
            }
        }
    }

    /// Makes a written message visible under a new name in `new/`, never replacing a file.
    /// Returns the name.
    ///
    /// # Errors
    /// It has no name then, and is to be discarded.
    pub fn publish<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        names: &NameMaker,
        unpublished: &Unpublished<H>,
    ) -> Result<String, MailboxError> {
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..NAME_ATTEMPTS {
            let name = names.next(unpublished.size, unpublished.wire_size);
            let result = match &unpublished.name {
                None => disk.name_unnamed(&unpublished.file, &self.new, &name),
                Some(tmp_name) => self.move_to_new(disk, tmp_name, &name),
            };
            match result {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(self.failed("publishing the message in new/", error)),
            }
        }
        Err(self.failed("finding a free name in new/", taken))
    }

    /// Makes a written message visible in `new/` under a name chosen before.
    ///
    /// # Errors
    /// It has no name then, and is to be discarded. The name may be taken.
    pub fn publish_as<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        unpublished: &Unpublished<H>,
        name: &str,
    ) -> Result<(), MailboxError> {
        let result = match &unpublished.name {
            None => disk.name_unnamed(&unpublished.file, &self.new, name),
            Some(tmp_name) => self.move_to_new(disk, tmp_name, name),
        };
        result.map_err(|error| self.failed("publishing the message in new/", error))
    }

    /// Gives up a message that was not published.
    pub fn discard<D: Disk<Handle = H>>(&self, disk: &D, unpublished: &Unpublished<H>) {
        if let (Some(tmp), Some(name)) = (&self.tmp, &unpublished.name) {
            // What stays is swept later.
            let _ = disk.remove(tmp, name);
        }
    }

    /// Takes a published message back, as well as can be.
    pub fn withdraw<D: Disk<Handle = H>>(&self, disk: &D, name: &str) {
        if let Err(error) = disk.remove(&self.new, name) {
            tracing::warn!(
                mailbox = self.path.display(),
                name,
                %error,
                "a message that was answered with an error could not be removed from new/"
            );
        }
    }

    fn create_in_tmp<D: Disk<Handle = H>>(
        &mut self,
        disk: &D,
        base: &H,
        names: &NameMaker,
        size: u64,
        wire_size: u64,
    ) -> Result<(H, String), MailboxError> {
        let path = self.path.display().to_owned();
        let failed = |error| MailboxError::from_io(&path, "creating a file in tmp/", error);
        let tmp = match self.tmp.take() {
            Some(tmp) => tmp,
            None => disk
                .open_directory(base, &self.path.below("tmp"))
                .map_err(failed)?,
        };
        let tmp = self.tmp.insert(tmp);
        let name = names.next(size, wire_size);
        let file = disk.create_new(tmp, &name, FILE_MODE).map_err(failed)?;
        Ok((file, name))
    }

    fn move_to_new<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        tmp_name: &str,
        name: &str,
    ) -> io::Result<()> {
        let Some(tmp) = &self.tmp else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match disk.rename_new((tmp, tmp_name), (&self.new, name)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            answer => return answer,
        }
        disk.link((tmp, tmp_name), (&self.new, name))?;
        // What stays is swept later.
        let _ = disk.remove(tmp, tmp_name);
        Ok(())
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> MailboxError {
        MailboxError::from_io(self.path.display(), doing, error)
    }
}

/// Creates a file without a name in a Maildir that exists, and returns it with the attributes of
/// the directory it would get its name in. Must be called as the mailbox's owner.
///
/// # Errors
/// The Maildir cannot be opened, is not safe from others, or takes no such files.
pub fn create_unseen<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    owner: OwnerCheck,
) -> Result<(D::Handle, FileStat), MailboxError> {
    let failed = |error| MailboxError::from_io(path.display(), "opening it", error);
    place::check(disk, base, path, Format::Maildir)?;
    let new_path = path.below("new");
    let new = disk.open_directory(base, &new_path).map_err(failed)?;
    let stat = disk.stat(&new).map_err(failed)?;
    owner.check_maildir(path, &new_path, &stat)?;
    let file = disk.create_unnamed(&new, FILE_MODE).map_err(failed)?;
    Ok((file, stat))
}

/// Returns the bytes of a message with its trace header: in the file (`S=`), and as an IMAP server
/// shows it (`W=`). `bare_newlines_of_content` are those of the content.
pub fn sizes(header: &[u8], content: u64, bare_newlines_of_content: u64) -> (u64, u64) {
    let size = header.len() as u64 + content;
    let of_header = bare_newlines(None, header);
    (size, size + of_header + bare_newlines_of_content)
}

/// Makes the Maildir and what is missing above it.
fn make<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    gid: u32,
) -> Result<(), MailboxError> {
    // Readers take it for a Maildir once `new/` is there, so that is made last.
    for name in ["tmp", "cur", "new"] {
        directory::make_all(disk, base, path, &path.below(name), gid)?;
    }
    Ok(())
}

/// Readers want all three directories. A user who may not make them here may still deliver.
fn make_rest<D: Disk>(
    disk: &D,
    base: &D::Handle,
    path: &MailboxName,
    owner: OwnerCheck,
) -> Result<(), MailboxError> {
    let failed = |error| MailboxError::from_io(path.display(), "opening it", error);
    let directory = match disk.open_directory(base, path.as_str()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        answer => answer.map_err(failed)?,
    };
    for name in ["tmp", "cur"] {
        if let Err(error) = directory::make(disk, &directory, name) {
            tracing::debug!(mailbox = path.display(), name, %error, "cannot complete the Maildir");
        }
        if let Ok(stat) = disk.stat_at(&directory, name)
            && stat.kind == FileKind::Directory
        {
            owner.check_maildir(path, &path.below(name), &stat)?;
        }
    }
    Ok(())
}

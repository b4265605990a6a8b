//! The site of the checks of sequences of calls: a directory with mailboxes and handles.
//!
//! A sequence either has a separate directory, or uses the handles that earlier sequences on the
//! same thread left open.

use crate::api::config::{mailstow_config_free, mailstow_config_new, mailstow_config_set_file};
use crate::api::handle::{mailstow_close, mailstow_open};
use crate::boundary::mailstow;
use crate::mode::MAILSTOW_MODE_DIRECT;
use crate::result::MAILSTOW_OK;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::ptr;

/// Most bytes of content that is taken.
pub(super) const MESSAGE_BYTES_MAX: usize = 2000;

/// Bytes after a struct that a later version may know.
pub(super) const GROWN_BYTES: u32 = 64;

/// Their content, which must not change.
const GROWN: [u8; GROWN_BYTES as usize] = [0xa5; GROWN_BYTES as usize];

/// A struct, and the bytes after it that a later version knows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Grown<T> {
    pub(super) known: T,
    later: [u8; GROWN_BYTES as usize],
}

impl<T> Grown<T> {
    pub(super) fn new(known: T) -> Self {
        let later = GROWN;
        Self { known, later }
    }

    /// # Panics
    /// Bytes after the struct were written.
    pub(super) fn check(&self) {
        assert_eq!(self.later, GROWN, "a call writes past a struct");
    }
}

/// Fewest sequences between two with a separate site.
const OTHERS_MIN: u32 = 64;

thread_local! {
    static SINCE_OWN: Cell<u32> = const { Cell::new(OTHERS_MIN) };
    static KEPT: RefCell<Option<Site>> = const { RefCell::new(None) };
}

/// Mailboxes and their configuration; removed when dropped.
#[derive(Debug)]
pub(super) struct Site {
    directory: tempfile::TempDir,
    /// The handles stay open, for the next sequence.
    pub(super) is_kept: bool,
    handles: Vec<*mut mailstow>,
}

impl Site {
    /// Takes the site that sequences of this thread share. A sequence that fails does not give it
    /// back.
    pub(super) fn take_kept() -> Self {
        SINCE_OWN.set(SINCE_OWN.get().saturating_add(1));
        let kept = KEPT.with_borrow_mut(Option::take);
        kept.unwrap_or_else(|| {
            let mut site = Self::new();
            site.is_kept = true;
            site
        })
    }

    /// Makes a site for one sequence, or takes the shared one if another sequence had a separate
    /// one recently, because a fuzzer keeps asking for them. The first sequence of a thread gets
    /// what it asks for, so that a finding can be replayed.
    pub(super) fn own() -> Self {
        let others = SINCE_OWN.get();
        if others < OTHERS_MIN {
            return Self::take_kept();
        }
        SINCE_OWN.set(0);
        Self::new()
    }

    /// Gives a shared site back, its mailboxes empty.
    pub(super) fn put_back(self) {
        if !self.is_kept {
            return;
        }
        let base = self.directory.path().join("mail");
        for name in ["a/new", "b/new"] {
            let messages = std::fs::read_dir(base.join(name)).into_iter().flatten();
            for message in messages {
                std::fs::remove_file(message.expect("an entry").path()).expect("a message");
            }
        }
        // Other mailboxes than these are not in the tables.
        let _ = std::fs::remove_file(base.join("box"));
        KEPT.set(Some(self));
    }

    pub(super) fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let directory = match shm.is_dir() {
            true => tempfile::tempdir_in(shm),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory");
        let base = directory.path().join("mail");
        std::fs::create_dir(&base).expect("the base");
        let (uid, gid) = match nix::unistd::geteuid().is_root() {
            true => (5000, 5000),
            false => (
                nix::unistd::geteuid().as_raw(),
                nix::unistd::getegid().as_raw(),
            ),
        };
        if nix::unistd::geteuid().is_root() {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(directory.path(), mode).expect("a mode");
            chown(&base, Some(uid), Some(gid)).expect("an owner");
        }
        let base = base.display();
        let toml = format!(
            r#"[routing]
virtual_mailbox_base = "{base}"
virtual_mailbox_domains = "vm.example"
virtual_mailbox_maps = "inline:{{a@vm.example=a/, b@vm.example=b/, box@vm.example=box}}"
virtual_alias_maps = "inline:{{all@vm.example=a@vm.example}}"
virtual_uid_maps = "static:{uid}"
virtual_gid_maps = "static:{gid}"
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
message_size_limit = {MESSAGE_BYTES_MAX}
"#
        );
        std::fs::write(directory.path().join("mailstow.toml"), toml).expect("the settings");
        Self {
            directory,
            is_kept: false,
            handles: Vec::new(),
        }
    }

    /// Opens a handle, if this sequence or one before it has not opened that many.
    pub(super) fn open(&mut self, number: usize) -> *mut mailstow {
        if let Some(handle) = self.handles.get(number) {
            return *handle;
        }
        let file = self.directory.path().join("mailstow.toml");
        let file = CString::new(file.as_os_str().as_bytes()).expect("no NUL");
        let (mut config, mut handle) = (ptr::null_mut(), ptr::null_mut());
        assert_eq!(mailstow_config_new(&raw mut config), MAILSTOW_OK);
        assert_eq!(mailstow_config_set_file(config, file.as_ptr()), MAILSTOW_OK);
        let opened = mailstow_open(
            config,
            MAILSTOW_MODE_DIRECT,
            &raw mut handle,
            ptr::null_mut(),
        );
        assert_eq!(opened, MAILSTOW_OK, "the library opens");
        mailstow_config_free(config);
        self.handles.push(handle);
        handle
    }
}

impl Drop for Site {
    /// Closes the handles that the sequences left open.
    fn drop(&mut self) {
        for handle in &self.handles {
            let _ = mailstow_close(*handle);
        }
    }
}

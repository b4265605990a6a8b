//! Where the checks of sequences of calls deliver to: a directory of its own for each sequence.

use crate::api::config::{mailstow_config_free, mailstow_config_new, mailstow_config_set_file};
use crate::api::handle::mailstow_open;
use crate::boundary::mailstow;
use crate::mode::MAILSTOW_MODE_DIRECT;
use crate::result::MAILSTOW_OK;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::ptr;

/// Most bytes of content that is taken.
pub(super) const MESSAGE_BYTES_MAX: usize = 2000;

/// Bytes behind a struct that a later version may know.
pub(super) const GROWN_BYTES: u32 = 64;

/// What is in them, and has to stay.
const GROWN: [u8; GROWN_BYTES as usize] = [0xa5; GROWN_BYTES as usize];

/// A struct, and what a later version knows behind it.
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
    /// Something was written behind the struct.
    pub(super) fn check(&self) {
        assert_eq!(self.later, GROWN, "a call writes past a struct");
    }
}

/// Mailboxes and their configuration; removed when dropped.
#[derive(Debug)]
pub(super) struct Site(tempfile::TempDir);

impl Site {
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
        Self(directory)
    }

    /// Opens a handle.
    pub(super) fn open(&self) -> *mut mailstow {
        let file = self.0.path().join("mailstow.toml");
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
        handle
    }
}

//! Directories: the base of all mailboxes and the state directory.
//!
//! What `serve` would create is not created here; it is checked that it could be.

use super::findings::Findings;
use mailstow_engine::config::{Configuration, Settings};
use mailstow_engine::route::Owners;
use mailstow_engine::system::SafeDirectory;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `virtual_mailbox_base`: there (or asked to be made), safe, and open to the owner of the mail.
pub(super) fn base(settings: &Settings, owners: &Owners, findings: &mut Findings) {
    let base = &settings.routing.virtual_mailbox_base;
    if base.as_os_str().is_empty() {
        return;
    }
    let name = format!("virtual_mailbox_base {}", base.display());
    match directory(base) {
        Ok(metadata) => existing_base(&name, base, &metadata, owners, findings),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !settings.store.make_base => {
            findings.error(format_args!(
                "{name} does not exist; mount what belongs there, or create it for the owner of \
                 the mail"
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match base.parent().map(|parent| (parent, may_write(parent))) {
                Some((_, Ok(()))) => findings.warning(format_args!(
                    "{name} does not exist; mailstow serve creates it"
                )),
                Some((parent, Err(error))) => findings.error(format_args!(
                    "{name} does not exist and cannot be created in {}: {error}; create it for \
                     the owner of the mail",
                    parent.display()
                )),
                None => findings.error(format_args!("{name} is no directory; name one")),
            }
        }
        Err(error) => findings.error(format_args!("{name}: {error}; name a directory")),
    }
}

fn existing_base(
    name: &str,
    base: &Path,
    metadata: &Metadata,
    owners: &Owners,
    findings: &mut Findings,
) {
    if is_open_to_everyone(metadata) {
        findings.error(format_args!(
            "{name} may be written by everyone: no mail is stored there; run chmod o-w {}",
            base.display()
        ));
    }
    let euid = rustix::process::geteuid().as_raw();
    let Some(uid) = owners.uid.or((euid != 0).then_some(euid)) else {
        return;
    };
    let rights = rights(metadata, uid, owners.gid);
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if rights & 0o1 == 0 {
        findings.error(format_args!(
            "{name} (owner {owner}, mode {mode:04o}) cannot be entered by user id {uid}, who \
             owns the mail; run chown {uid} {} or chmod it",
            base.display()
        ));
    } else if rights & 0o2 == 0 {
        findings.warning(format_args!(
            "{name} (owner {owner}, mode {mode:04o}) cannot be written by user id {uid}, who \
             owns the mail: mailboxes in new directories cannot be made; run chown {uid} {}, or \
             create the directory of each domain for that user",
            base.display()
        ));
    }
}

/// The state directory: there or can be made, and ours to write.
pub(super) fn state(configuration: &Configuration, findings: &mut Findings) {
    let path = match configuration.state_directory() {
        Ok(path) => path,
        Err(error) => {
            findings.unset(error);
            return;
        }
    };
    let name = format!("state directory {}", path.display());
    let remedy = "name another one with --state-directory";
    match directory(path) {
        Ok(_) => {
            let opened = SafeDirectory::open(path);
            if let Err(error) = opened.and_then(|directory| directory.check_private()) {
                findings.error(format_args!("{name}: {error}; or {remedy}"));
            } else if let Err(error) = may_write(path) {
                findings.error(format_args!("{name} cannot be written: {error}; {remedy}"));
            } else {
                log(&path.join("delivery-log"), findings);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path
                .ancestors()
                .skip(1)
                .find(|above| fs::symlink_metadata(above).is_ok());
            if let Some((above, Err(error))) = above.map(|above| (above, may_write(above))) {
                findings.error(format_args!(
                    "{name} does not exist and cannot be created in {}: {error}; {remedy}",
                    above.display()
                ));
            }
        }
        Err(error) => findings.error(format_args!("{name}: {error}; {remedy}")),
    }
}

/// The directory of the delivery log, when it is there: ours alone.
fn log(path: &Path, findings: &mut Findings) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => findings.error(format_args!(
            "delivery log: {} is a symbolic link; put the directory itself in its place",
            path.display()
        )),
        Ok(_) => {
            let opened = SafeDirectory::open(path);
            if let Err(error) = opened.and_then(|directory| directory.check_private()) {
                findings.error(format_args!("delivery log: {error}"));
            }
        }
        Err(_) => {}
    }
}

/// The attributes of a directory.
pub(super) fn directory(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        Ok(metadata)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Whether this process may make files in a directory.
pub(super) fn may_write(path: &Path) -> io::Result<()> {
    directory(path)?;
    let access = Access::WRITE_OK | Access::EXEC_OK;
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// Every user may remove or replace the files of others there.
pub(super) fn is_open_to_everyone(metadata: &Metadata) -> bool {
    metadata.mode() & 0o1002 == 0o002
}

/// The rwx bits that apply to a user with that group and no other.
pub(super) fn rights(metadata: &Metadata, uid: u32, gid: Option<u32>) -> u32 {
    let shift = if metadata.uid() == uid {
        6
    } else if gid == Some(metadata.gid()) {
        3
    } else {
        0
    };
    metadata.mode() >> shift & 0o7
}

//! A note beside the delivery log: the kernel may return data that the disk of a mailbox does not
//! have.
//!
//! That is so after a failed flush, until the file system is flushed again or the machine restarts.
//! A process that starts meanwhile must not trust what it reads there. The note is a file that
//! holds the id of the boot in which it was written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

const NAME: &str = "suspect-file-systems";
const TEMPORARY: &str = "suspect-file-systems.new";

/// The path of the kernel's id of this boot.
fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// Writes the note durably, or removes it.
pub(in crate::delivery) fn note_suspects(directory: &Path, has_suspects: bool) -> io::Result<()> {
    if has_suspects {
        let temporary = directory.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(boot()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, directory.join(NAME))?;
        return File::open(directory)?.sync_all();
    }
    match fs::remove_file(directory.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns true if the note was written in this boot, or cannot be read.
pub(in crate::delivery) fn has_suspects(directory: &Path) -> bool {
    match fs::read_to_string(directory.join(NAME)) {
        Ok(noted) => boot().is_ok_and(|boot| boot == noted),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_until_it_is_removed_or_the_machine_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_suspects(dir.path()));
        note_suspects(dir.path(), true).unwrap();
        assert!(has_suspects(dir.path()));
        fs::write(dir.path().join(NAME), "of another boot\n").unwrap();
        assert!(!has_suspects(dir.path()));
        note_suspects(dir.path(), true).unwrap();
        note_suspects(dir.path(), false).unwrap();
        note_suspects(dir.path(), false).unwrap();
        assert!(!has_suspects(dir.path()));
    }
}

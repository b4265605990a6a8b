//! Looking at mailboxes on the disk byte by byte, without any reader's help.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One message in a mailbox.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The file it was read from.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The messages of a Maildir (`new` and `cur`), in the order of their names; empty when the
/// Maildir does not exist.
pub fn maildir(path: &Path) -> Vec<Stored> {
    let mut found = Vec::new();
    for part in ["new", "cur"] {
        for path in list(&path.join(part)) {
            let bytes = fs::read(&path).expect("a message file is readable");
            found.push(Stored { path, bytes });
        }
    }
    found.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    found
}

/// The paths in a directory, sorted; empty when it does not exist.
pub fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|e| e.expect("readdir").path()).collect();
    paths.sort();
    paths
}

/// The one message of a Maildir.
///
/// # Panics
/// When there is not exactly one.
pub fn only(maildir_path: &Path) -> Vec<u8> {
    let mut found = maildir(maildir_path);
    assert_eq!(found.len(), 1, "messages in {}", maildir_path.display());
    found.remove(0).bytes
}

/// The messages of an mbox, each with its `From ` line and its blank last line.
///
/// # Panics
/// When the file does not start with `From ` or a message does not end with a blank line.
pub fn mbox(path: &Path) -> Vec<Vec<u8>> {
    let parts = mbox_parts(path);
    for part in &parts {
        assert!(
            part.ends_with(b"\n\n"),
            "a message in {} lacks its blank line: {}",
            path.display(),
            part.escape_ascii()
        );
    }
    parts
}

/// Counts the messages of an mbox without holding it in memory; 0 when it does not exist.
///
/// # Panics
/// When the file cannot be read.
pub fn mbox_count(path: &Path) -> usize {
    let Ok(file) = fs::File::open(path) else {
        return 0;
    };
    let lines = std::io::BufRead::split(std::io::BufReader::new(file), b'\n');
    let begins = |line: std::io::Result<Vec<u8>>| line.expect("an mbox").starts_with(b"From ");
    lines.map(begins).filter(|begins| *begins).count()
}

/// Splits an mbox at its `From ` lines; the last part may be torn.
///
/// # Panics
/// When the file does not start with `From `.
pub fn mbox_parts(path: &Path) -> Vec<Vec<u8>> {
    let Ok(bytes) = fs::read(path) else {
        return Vec::new();
    };
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b"From ") {
            parts.push(Vec::new());
        }
        parts
            .last_mut()
            .unwrap_or_else(|| panic!("{} does not start with From", path.display()))
            .extend_from_slice(line);
    }
    parts
}

/// Owner, group and permission bits of a path, as `5000:5000 0700`.
pub fn owner_and_mode(path: &Path) -> String {
    let data = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    format!("{}:{} {:04o}", data.uid(), data.gid(), data.mode() & 0o7777)
}

/// Header fields of that name, unfolded, without the name.
pub fn header(message: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(message).into_owned();
    let head = text.split("\n\n").next().unwrap_or_default();
    let head = head.replace("\n\t", " ").replace("\n ", " ");
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// Everything after the first empty line.
pub fn body(message: &[u8]) -> &[u8] {
    let end = message.windows(2).position(|w| w == b"\n\n");
    end.map_or(&[], |at| &message[at + 2..])
}

/// The message with what differs between two runs of the same mail made equal: the `Received:`
/// fields (queue id, time) and the time in the `From ` line.
pub fn normalised(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut in_header = true;
    let mut in_received = false;
    for (number, line) in message.split_inclusive(|&b| b == b'\n').enumerate() {
        if number == 0 && line.starts_with(b"From ") {
            out.extend_from_slice(&from_line_without_time(line));
            continue;
        }
        in_header = in_header && line != b"\n";
        let folded = line.starts_with(b" ") || line.starts_with(b"\t");
        in_received = in_header && (line.starts_with(b"Received:") || (in_received && folded));
        if !in_received {
            out.extend_from_slice(line);
        } else if !folded {
            out.extend_from_slice(b"Received: (normalised)\n");
        }
    }
    out
}

/// `From sender  Sun Nov 22 06:51:19 2026` keeps its sender, both blanks and the form of the time.
fn from_line_without_time(line: &[u8]) -> Vec<u8> {
    let time_bytes = "Sun Nov 22 06:51:19 2026\n".len();
    let Some(at) = line.len().checked_sub(time_bytes) else {
        return line.to_vec();
    };
    let form = line[at..].iter().map(|b| match b {
        b'0'..=b'9' => b'0',
        b'a'..=b'z' | b'A'..=b'Z' => b'a',
        other => *other,
    });
    // The day of the month is padded with a blank.
    let mut out: Vec<u8> = line[..at].iter().copied().chain(form).collect();
    if out.get(at + 8) == Some(&b' ') {
        out[at + 8] = b'0';
    }
    out
}

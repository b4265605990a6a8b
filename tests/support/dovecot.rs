//! Dovecot as a reader: its `imap` process, pre-authenticated, over a copy of a mailbox.
//!
//! A copy, because IMAP moves messages and leaves index files behind.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::mailboxes::list;
use crate::scratch::{Scratch, needs_root};

/// The user the copy is given to.
const READER: u32 = 65534;

/// Fetches every message of a Maildir (a directory) or an mbox (a file), in mailbox order, with
/// LF line ends.
pub fn messages(mailbox: &Path) -> Vec<Vec<u8>> {
    let output = fetch(mailbox, &str::to_owned);
    literals(&output)
        .iter()
        .map(|(_, literal)| lf(literal))
        .collect()
}

/// The flags of every message, in mailbox order, but for `\\Recent`.
pub fn flags(mailbox: &Path) -> Vec<Vec<String>> {
    let literals = literals(&fetch(mailbox, &str::to_owned)).into_iter();
    let flags = |(flags, _): (String, _)| {
        let set = flags
            .split(' ')
            .filter(|flag| !["", "\\Recent"].contains(flag));
        set.map(str::to_owned).collect()
    };
    literals.map(flags).collect()
}

/// Bytes of every message of a Maildir as FETCH transfers them, by file name. Dovecot is shown
/// names without sizes, so that it counts for itself.
pub fn counted_bytes(maildir: &Path) -> BTreeMap<String, u64> {
    let paths = ["new", "cur"]
        .map(|part| list(&maildir.join(part)))
        .concat();
    let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
    // Numbers in front keep the order.
    let numbered = |name: &str| {
        let at = names.iter().position(|known| known == name);
        format!("{}.without-sizes", 1_000_000 + at.expect("a copy of it"))
    };
    let found = literals(&fetch(maildir, &numbered));
    assert_eq!(found.len(), names.len(), "Dovecot shows every message");
    let counted = found.iter().map(|(_, literal)| literal.len() as u64);
    names.iter().cloned().zip(counted).collect()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().expect("a path of a file");
    name.to_string_lossy().into_owned()
}

/// What Dovecot's `imap` shows of a copy of a mailbox; `rename` names the copies of a Maildir's
/// files.
fn fetch(mailbox: &Path, rename: &dyn Fn(&str) -> String) -> Vec<u8> {
    needs_root("Dovecot reads as another user");
    let scratch = Scratch::new("dovecot");
    let copy = scratch.join("box");
    let home = scratch.mkdir("home");
    std::fs::write(scratch.join("dovecot.conf"), configuration(&scratch)).expect("dovecot.conf");
    run(Command::new("cp").arg("-a").arg(mailbox).arg(&copy));
    for path in ["new", "cur"].map(|part| list(&copy.join(part))).concat() {
        let renamed = path.with_file_name(rename(&file_name(&path)));
        std::fs::rename(&path, renamed).expect("rename");
    }
    for path in [&copy, &home] {
        let owner = format!("{READER}:{READER}");
        run(Command::new("chown").arg("-R").arg(owner).arg(path));
    }
    let location = if copy.is_dir() {
        format!("maildir:{}", copy.display())
    } else {
        format!("mbox:{}:INBOX={}", home.display(), copy.display())
    };
    imap(&scratch, &home, &location)
}

fn configuration(scratch: &Scratch) -> String {
    let root = scratch.path().display();
    format!(
        "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = /dev/stderr\n\
         protocols = imap\nssl = no\nfirst_valid_uid = 1\nmbox_write_locks = fcntl\n\
         mail_plugins = zlib\n"
    )
}

fn run(command: &mut Command) {
    let status = command.status().expect("coreutils");
    assert!(status.success(), "{command:?}: {status}");
}

fn imap(scratch: &Scratch, home: &Path, location: &str) -> Vec<u8> {
    let mut child = Command::new("/usr/lib/dovecot/imap")
        .arg("-c")
        .arg(scratch.join("dovecot.conf"))
        .arg("-o")
        .arg(format!("mail_location={location}"))
        .env_clear()
        .env("HOME", home)
        .env("USER", "reader")
        .uid(READER)
        .gid(READER)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Dovecot's imap: install the package dovecot-imapd");
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(b"a SELECT INBOX\r\nb FETCH 1:* (FLAGS BODY.PEEK[])\r\nc LOGOUT\r\n")
        .expect("imap reads commands");
    let output = child.wait_with_output().expect("our own child");
    let text = String::from_utf8_lossy(&output.stdout);
    let read = output.status.success() && text.contains("a OK ") && text.contains("c OK ");
    // FETCH 1:* of an empty mailbox is answered BAD.
    let fetched = text.contains("b OK ") || text.contains("* 0 EXISTS");
    assert!(
        read && fetched,
        "Dovecot cannot read {location}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Flags and literals of the FETCH answers (RFC 3501 section 4.3).
fn literals(mut output: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(end) = output.iter().position(|&b| b == b'\n') {
        let line = String::from_utf8_lossy(&output[..end]).trim().to_owned();
        output = &output[end + 1..];
        let Some((before, size)) = line.split_once("BODY[] {") else {
            continue;
        };
        let flags = before.split_once("FLAGS (").map(|(_, flags)| flags);
        let flags = flags.and_then(|flags| flags.split(')').next());
        let size: usize = size.trim_end_matches('}').parse().expect("literal size");
        let (literal, rest) = output.split_at(size);
        found.push((flags.unwrap_or_default().to_owned(), literal.to_vec()));
        output = rest;
    }
    found
}

fn lf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        if !(byte == b'\r' && bytes.get(at + 1) == Some(&b'\n')) {
            out.push(byte);
        }
    }
    out
}

//! What mailstow wrote is read by Dovecot and by Python's `mailbox` module as it was sent.
//!
//! Method: every sample goes by LMTP into a Maildir and into an mbox; both readers must show the
//! same messages, each ending with the content that was sent. In an mbox, lines that start with
//! `From ` come back with `>` before them (mbox(5), the mboxo form that virtual(8) writes).

use std::path::Path;

use mailstow_tests::content::{Sample, samples};
use mailstow_tests::mailboxes::{maildir, mbox};
use mailstow_tests::{Mailstow, dovecot, python};

/// The content as a mailbox holds it: without its Return-Path, with a last line end, and with an
/// empty line after a header that has none.
fn kept(sample: &Sample) -> Vec<u8> {
    let text = sample.content.split_inclusive(|&b| b == b'\n');
    let mut kept = text
        .filter(|line| !line.starts_with(b"Return-Path:"))
        .collect::<Vec<_>>()
        .concat();
    if !kept.ends_with(b"\n") {
        kept.push(b'\n');
    }
    kept
}

fn from_quoted(content: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    for line in content.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b"From ") {
            quoted.push(b'>');
        }
        quoted.extend_from_slice(line);
    }
    quoted
}

fn deliver_all(server: &Mailstow, recipient: &str) {
    let mut client = server.client();
    for sample in samples() {
        let replies = client.deliver(sample.sender, &[recipient], &sample.content);
        assert_eq!(replies[0].code, 250, "{}: {}", sample.name, replies[0]);
    }
}

fn sorted(mut messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    messages.sort();
    messages
}

fn assert_same(reader: &str, path: &Path, read: &[Vec<u8>], written: &[Vec<u8>]) {
    assert_eq!(read.len(), written.len(), "{reader} in {}", path.display());
    for (read, written) in read.iter().zip(written) {
        assert_eq!(
            read.escape_ascii().to_string(),
            written.escape_ascii().to_string(),
            "{reader} in {}",
            path.display()
        );
    }
}

#[test]
fn dovecot_and_python_read_a_maildir_as_it_was_sent() {
    let server = Mailstow::example("readers-maildir").start();
    deliver_all(&server, "sales@example.com");
    let path = server.mailbox("example.com/sales");
    let written = sorted(maildir(&path).into_iter().map(|m| m.bytes).collect());
    assert_eq!(written.len(), samples().len());
    for sample in samples() {
        let kept = kept(&sample);
        let found = written.iter().filter(|m| m.ends_with(&kept)).count();
        assert_eq!(found, 1, "{}", sample.name);
    }
    assert_same(
        "Dovecot",
        &path,
        &sorted(dovecot::messages(&path)),
        &written,
    );
    assert_same("Python", &path, &sorted(python::messages(&path)), &written);
}

#[test]
fn dovecot_reads_a_compressed_maildir_as_it_was_sent() {
    let server = Mailstow::example("readers-zstd")
        .toml("[store]\ncompress = \"zstd\"\n")
        .start();
    deliver_all(&server, "sales@example.com");
    let path = server.mailbox("example.com/sales");
    let written = maildir(&path);
    assert_eq!(written.len(), samples().len());
    for file in &written {
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        assert!(file.bytes.starts_with(&magic), "{:?} is a frame", file.path);
    }
    let read = dovecot::messages(&path);
    assert_eq!(read.len(), written.len());
    for sample in samples() {
        let kept = kept(&sample);
        let found = read.iter().filter(|m| m.ends_with(&kept)).count();
        assert_eq!(found, 1, "{}", sample.name);
    }
    // Quota counts what the names say, which is the size of the message itself.
    let mut sizes: Vec<usize> = read.iter().map(Vec::len).collect();
    let mut named: Vec<usize> = written.iter().map(|file| size_in(&file.path)).collect();
    sizes.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, sizes);
}

fn size_in(path: &Path) -> usize {
    let name = path.to_string_lossy();
    let size = name.split(',').find_map(|part| part.strip_prefix("S="));
    size.expect("S= in the name").parse().expect("a number")
}

#[test]
fn dovecot_and_python_read_an_mbox_as_it_was_sent() {
    let server = Mailstow::example("readers-mbox").start();
    deliver_all(&server, "info@example.com");
    let path = server.mailbox("example.com/info");
    // Without the `From ` line before and the blank line after, which are not the message.
    let written: Vec<_> = mbox(&path)
        .iter()
        .map(|part| {
            let start = part.iter().position(|&b| b == b'\n').expect("From_ line") + 1;
            part[start..part.len() - 1].to_vec()
        })
        .collect();
    assert_eq!(written.len(), samples().len());
    for (sample, message) in samples().iter().zip(&written) {
        let kept = from_quoted(&kept(sample));
        assert!(
            message.ends_with(&kept),
            "{}: {}",
            sample.name,
            message.escape_ascii()
        );
    }
    assert_same("Python", &path, &python::messages(&path), &written);
    assert_same("Dovecot", &path, &dovecot::messages(&path), &written);
}

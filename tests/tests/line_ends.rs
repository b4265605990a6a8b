//! Line ends of any kind: stored by one rule whichever way they come in, and counted in the names
//! of Maildir files as Dovecot counts them.
//!
//! Method: generated contents, mixes of CR, LF, CRLF, CR CR LF, NUL, dots and text with and without
//! a last line end, go in by `DATA`, by `BDAT` in small chunks and by `mailstow deliver`. They are
//! so short that they stay in memory or so long that they go to a file, and go through the delivery
//! log, are flushed in their mailbox, or are received in it; plain or compressed. A failing test
//! prints the seed that repeats it (`LINE_ENDS_SEED`).

use std::path::Path;

use fastrand::Rng;
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::mailstow::{command, run_with_input};
use mailstow_tests::{Mailstow, dovecot};

const RECIPIENT: &str = "sales@example.com";
/// Messages of a server.
const MESSAGES: usize = 60;

fn generator() -> Rng {
    let seed = std::env::var("LINE_ENDS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("LINE_ENDS_SEED={seed}");
    Rng::with_seed(seed)
}

/// A content of up to about `bytes` bytes.
fn content(random: &mut Rng, bytes: usize) -> Vec<u8> {
    let pieces: [&[u8]; 10] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\r\n",
        b"\n\r",
        b"\0",
        b".",
        b"\r\n.",
        b"text",
        b"\xff\xe4",
    ];
    let mut content = match random.bool() {
        true => b"Subject: x\r\n\r\n".to_vec(),
        false => Vec::new(),
    };
    let wanted = random.usize(..=bytes);
    while content.len() < wanted {
        content.extend_from_slice(pieces[random.usize(..pieces.len())]);
        if random.u8(..) == 0 {
            content.resize(content.len() + random.usize(..bytes), b'x');
        }
    }
    content
}

fn deliver_by_command(server: &Mailstow, content: &[u8]) {
    let mut arguments = vec!["deliver".to_owned()];
    arguments.extend(server.configuration());
    arguments.extend(["-f", "s@client.example", "--", RECIPIENT].map(str::to_owned));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = run_with_input(command(&arguments), content);
    assert!(output.status.success(), "{output:?}");
}

/// The number behind `W=` or `S=` in a file name.
fn size_in(name: &str, letter: &str) -> u64 {
    let size = name.split(',').find_map(|part| part.strip_prefix(letter));
    let size = size.unwrap_or_else(|| panic!("{letter} in {name}"));
    size.parse().expect("a number")
}

fn assert_counted(path: &Path, expected: usize, what: &str) {
    let counted = dovecot::counted_bytes(path);
    assert_eq!(counted.len(), expected, "{what}");
    for (name, bytes) in counted {
        assert_eq!(size_in(&name, "W="), bytes, "{what}: {name}");
    }
    // Dovecot disconnects where the names are wrong.
    assert_eq!(dovecot::messages(path).len(), expected, "{what}");
}

#[test]
fn the_sizes_in_names_are_what_dovecot_counts_for_any_bytes() {
    let mut random = generator();
    // Held in memory; in a file, through the log; in a file, past the log; in the mailbox.
    let settings = [
        ("memory", ""),
        ("file", "[limits]\nmessage_memory_bytes = 4096\n"),
        (
            "direct",
            "[store]\ndurability = \"direct\"\n[limits]\nmemory_bytes = 4096\n",
        ),
        (
            "in-place",
            "[delivery_log]\nmessage_bytes_max = 1000\n[limits]\nmessage_memory_bytes = 4096\n",
        ),
        (
            "zstd",
            "[store]\ncompress = \"zstd\"\n[limits]\nmessage_memory_bytes = 4096\n",
        ),
    ];
    for (name, toml) in settings {
        let server = Mailstow::example(&format!("sizes-{name}"))
            .toml(toml)
            .start();
        let mut client = server.client();
        for number in 0..MESSAGES {
            let bytes = [50, 3000, 40_000][number % 3];
            let content = content(&mut random, bytes);
            let to = [RECIPIENT];
            let replies = match random.u8(..5) {
                0 | 1 => client.deliver_by_data(&to, &content),
                2 => client.deliver_by_chunks("", &to, &content, random.usize(1..=10_000)),
                3 => {
                    let binary = " BODY=BINARYMIME";
                    client.deliver_by_chunks(binary, &to, &content, random.usize(1..=10_000))
                }
                _ => {
                    deliver_by_command(&server, &content);
                    continue;
                }
            };
            assert_eq!(replies[0].code, 250, "{name}: {}", replies[0]);
        }
        let path = server.mailbox("example.com/sales");
        if name != "zstd" {
            for file in maildir(&path) {
                let file_name = file.path.display().to_string();
                assert_eq!(size_in(&file_name, "S="), file.bytes.len() as u64, "{name}");
            }
        }
        assert_counted(&path, MESSAGES, name);
    }
}

/// What all entrances store of a content: CRLF becomes LF, and the last line ends.
fn stored_form(content: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    for (at, &byte) in content.iter().enumerate() {
        if byte != b'\r' || content.get(at + 1) != Some(&b'\n') {
            stored.push(byte);
        }
    }
    if !stored.ends_with(b"\n") {
        stored.push(b'\n');
    }
    stored
}

#[test]
fn every_entrance_stores_the_same_bytes() {
    let mut random = generator();
    for (name, toml) in [
        ("memory", ""),
        ("file", "[limits]\nmessage_memory_bytes = 4096\n"),
    ] {
        let server = Mailstow::example(&format!("entrances-{name}"))
            .toml(toml)
            .start();
        let mut client = server.client();
        let path = server.mailbox("example.com/sales");
        for number in 0..MESSAGES {
            let mut content = content(&mut random, [40, 400, 20_000][number % 3]);
            // Each is another message.
            content.splice(0..0, format!("Subject: {number}\r\n\r\n").into_bytes());
            if random.bool() {
                content.extend_from_slice(b"\r\n");
            }
            let to = [RECIPIENT];
            let mut expected = 2;
            // DATA ends with CRLF: what does not cannot come that way.
            if content.ends_with(b"\r\n") {
                let replies = client.deliver_by_data(&to, &content);
                assert_eq!(replies[0].code, 250, "{}", replies[0]);
                expected += 1;
            }
            let replies = client.deliver_by_chunks("", &to, &content, random.usize(1..=5000));
            assert_eq!(replies[0].code, 250, "{}", replies[0]);
            deliver_by_command(&server, &content);
            let stored = maildir(&path);
            assert_eq!(stored.len(), expected, "{name}");
            for file in stored {
                let kept = stored_form(&content);
                let (message, kept) = (file.bytes.escape_ascii(), kept.escape_ascii());
                let (message, kept) = (message.to_string(), kept.to_string());
                assert!(message.ends_with(&kept), "{name}: {message}\nnot {kept}");
                std::fs::remove_file(file.path).expect("a message can be removed");
            }
        }
    }
}

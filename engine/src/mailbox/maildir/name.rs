//! Unique names for messages in a Maildir.
//!
//! Form: `SECONDS.MmicrosecondsPpidQsequence.HOST,S=size,W=wire size`; `S` and `W` spare readers a
//! look into each file (Dovecot, Courier). Source: maildir(5), D. J. Bernstein's "Using maildir
//! format".

use crate::clock;
// Not the seam: the model checker's atomics cannot be statics.
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts deliveries of this process. It stands beside the process id, so it must be the
/// process's too: two engines in one process must not use a number twice.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// What a name takes besides the host, usually.
const NUMBERS_BYTES: usize = 64;

/// Makes names. Any thread may use it.
#[derive(Debug)]
pub struct NameMaker {
    pid: u32,
    host: String,
}

impl NameMaker {
    /// Names for the host `host`, which may hold anything.
    pub fn new(host: &str) -> Self {
        Self {
            pid: std::process::id(),
            host: escape(host),
        }
    }

    /// A name that no other delivery of this host has had or will have.
    pub fn next(&self, size: u64, wire_size: u64) -> String {
        let now = clock::since_epoch();
        // Relaxed: only the numbers must differ.
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let mut name = String::with_capacity(NUMBERS_BYTES + self.host.len());
        // Writing into a String cannot fail.
        let _ = write!(
            name,
            "{}.M{}P{}Q{sequence}.{},S={size},W={wire_size}",
            now.as_secs(),
            now.subsec_micros(),
            self.pid,
            self.host
        );
        name
    }
}

/// `/` and `:` cannot stand in a name, `,` begins what readers add; white space and control
/// characters trouble those who handle files by script. An escape is a backslash and three octal
/// digits, as qmail does it.
fn escape(host: &str) -> String {
    let mut escaped = String::with_capacity(host.len());
    for byte in host.bytes() {
        if byte.is_ascii_graphic() && !b"/:,\\".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(escaped, "\\{byte:03o}");
        }
    }
    if escaped.is_empty() {
        "localhost".into()
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_carry_sizes_and_an_escaped_host() {
        let name = NameMaker::new("mail/a:b,c d").next(10, 12);
        let host = "mail\\057a\\072b\\054c\\040d";
        assert!(name.ends_with(&format!(".{host},S=10,W=12")), "{name}");
        let pid = std::process::id();
        assert!(name.contains(&format!("P{pid}Q")), "{name}");
        assert!(!name.contains(['/', ':', ' ']));
    }

    #[test]
    fn names_never_repeat_in_one_process() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let names = NameMaker::new("host");
                    (0..1000).map(|_| names.next(1, 1)).collect::<Vec<_>>()
                })
            })
            .collect();
        let names = threads.into_iter().flat_map(|t| t.join().unwrap());
        assert_eq!(names.collect::<HashSet<_>>().len(), 4000);
    }
}

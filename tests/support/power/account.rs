//! The reckoning: every acknowledged message, and everything a reader would see.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::path::Path;

use super::load::{Acknowledged, MAILBOXES, SENDER, content};
use crate::mailboxes::{header, maildir};

/// How it came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Deliveries acknowledged before the power went.
    pub acknowledged: usize,
    /// Of these, how many are not there, or not whole.
    pub lost: usize,
    /// Deliveries, acknowledged or not, that are there more than once.
    pub doubled: usize,
    /// Content that a reader sees and no client sent.
    pub partial: usize,
    /// Torn messages at the end of an mbox that were not acknowledged, down to mere zeros: what
    /// direct delivery may leave (`manual::durability`).
    pub torn_tails: usize,
    /// Complete deliveries that were not acknowledged: the crash came between.
    pub unannounced: usize,
}

impl Account {
    /// Nothing acknowledged is lost, nothing is there twice, nothing is half.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.partial == 0
    }

    /// Compares the mailboxes below `base` with what was acknowledged.
    pub fn of<'a>(
        base: &Path,
        told: impl Iterator<Item = &'a Acknowledged>,
        may_tear: bool,
        complaints: &mut Vec<String>,
    ) -> Self {
        let mut told_of: HashMap<&str, Vec<&str>> = HashMap::new();
        for ack in told {
            told_of.entry(ack.mailbox).or_default().push(&ack.identity);
        }
        let mut account = Self::default();
        for mailbox in MAILBOXES {
            let path = base.join("example.com").join(mailbox);
            let mut seen = Seen::in_mailbox(mailbox, &path, may_tear);
            let told = told_of.remove(mailbox).unwrap_or_default();
            let tail = (may_tear && seen.last_is_torn)
                .then(|| seen.torn.pop())
                .flatten();
            account.torn_tails += usize::from(tail.is_some() || seen.zeros_behind);
            account.acknowledged += told.len();
            for identity in &told {
                if !seen.whole.contains_key(*identity) {
                    account.lost += 1;
                    let tail = tail.as_deref().unwrap_or("whole");
                    complaints.push(format!("{identity} is not in {mailbox} (its end: {tail})"));
                }
            }
            for (identity, count) in &seen.whole {
                if *count > 1 {
                    account.doubled += 1;
                    complaints.push(format!("{identity} is in {mailbox} {count} times"));
                }
            }
            account.partial += seen.torn.len();
            complaints.extend(seen.torn.iter().map(|what| format!("{mailbox}: {what}")));
            let told: std::collections::HashSet<_> = told.into_iter().collect();
            let whole = seen.whole.keys();
            account.unannounced += whole.filter(|i| !told.contains(i.as_str())).count();
        }
        account
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.partial += other.partial;
        self.torn_tails += other.torn_tails;
        self.unannounced += other.unannounced;
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged / lost / doubled / partial = {} / {} / {} / {}",
            self.acknowledged, self.lost, self.doubled, self.partial
        )
    }
}

#[derive(Default)]
struct Seen {
    whole: HashMap<String, usize>,
    /// What is not whole, in words.
    torn: Vec<String>,
    /// The last message of an mbox is one of them.
    last_is_torn: bool,
    /// Of one that was being appended the file has its length, and nothing else.
    zeros_behind: bool,
}

impl Seen {
    fn in_mailbox(mailbox: &str, path: &Path, may_tear: bool) -> Self {
        let mut seen = Self::default();
        let name = mailbox.trim_end_matches('/');
        if mailbox.ends_with('/') {
            for message in maildir(path) {
                let what = || message.path.display().to_string();
                seen.add(name, &message.bytes, what);
            }
            return seen;
        }
        let mut bytes = std::fs::read(path).unwrap_or_default();
        let length = bytes.len();
        while may_tear && bytes.last() == Some(&0) {
            bytes.pop();
        }
        seen.zeros_behind = bytes.len() < length;
        let messages = messages_of(&bytes);
        for (number, message) in messages.iter().enumerate() {
            let before = seen.torn.len();
            let from = format!("From {SENDER}  ");
            let line_end = message.iter().position(|&b| b == b'\n');
            let rest = line_end
                .filter(|_| message.starts_with(from.as_bytes()))
                .and_then(|at| message[at + 1..].strip_suffix(b"\n"));
            let what = || format!("message {number} of {}", messages.len());
            seen.add(name, rest.unwrap_or_default(), what);
            seen.last_is_torn = seen.torn.len() > before;
        }
        seen
    }

    fn add(&mut self, name: &str, message: &[u8], what: impl Fn() -> String) {
        match whole(name, message) {
            Some(identity) => *self.whole.entry(identity).or_insert(0) += 1,
            None => {
                let begin = message.get(..160).unwrap_or(message).escape_ascii();
                let text = format!("{}, {} bytes: {begin}", what(), message.len());
                self.torn.push(text);
            }
        }
    }
}

/// Splits at the `From ` lines; what stands before the first is a message, too.
fn messages_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        match messages.last_mut() {
            Some(message) if !line.starts_with(b"From ") => message.extend_from_slice(line),
            _ => messages.push(line.to_vec()),
        }
    }
    messages
}

/// The identity of a message that is exactly what was sent, below the header lines of ours.
fn whole(name: &str, message: &[u8]) -> Option<String> {
    let identity = header(message, "Subject").first()?.clone();
    let mut expected =
        format!("Return-Path: <{SENDER}>\nDelivered-To: {name}@example.com\n").into_bytes();
    expected.extend_from_slice(&content(&identity)?);
    (message == expected).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbox(identities: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for identity in identities {
            bytes.extend(format!("From {SENDER}  Sun Nov 22 06:51:19 2026\n").bytes());
            bytes.extend(format!("Return-Path: <{SENDER}>\n").bytes());
            bytes.extend(b"Delivered-To: f1@example.com\n");
            bytes.extend(content(identity).unwrap());
            bytes.push(b'\n');
        }
        bytes
    }

    fn account(bytes: &[u8], told: &[&str], may_tear: bool) -> Account {
        let scratch = crate::Scratch::new("account");
        scratch.write("example.com/f1", bytes);
        let told: Vec<_> = told
            .iter()
            .map(|identity| Acknowledged {
                at: 0,
                mailbox: "f1",
                identity: (*identity).into(),
            })
            .collect();
        Account::of(scratch.path(), told.iter(), may_tear, &mut Vec::new())
    }

    #[test]
    fn an_mbox_with_all_that_was_acknowledged_is_clean() {
        let account = account(&mbox(&["300-a", "5000-b"]), &["300-a"], false);
        assert!(account.is_clean());
        assert_eq!((account.acknowledged, account.unannounced), (1, 1));
    }

    #[test]
    fn losses_doubles_and_halves_are_counted() {
        let mut bytes = mbox(&["300-a", "300-a", "300-b"]);
        bytes.truncate(bytes.len() - 10);
        let found = account(&bytes, &["300-a", "300-b"], false);
        assert_eq!((found.lost, found.doubled, found.partial), (1, 1, 1));
        let direct = account(&bytes, &["300-a"], true);
        assert_eq!((direct.partial, direct.torn_tails), (0, 1));
        bytes.extend([0; 100]);
        let direct = account(&bytes, &["300-a"], true);
        assert_eq!((direct.partial, direct.torn_tails), (0, 1));
        // Only what comes last may be in part.
        let first = bytes.windows(9).position(|text| text == b"Delivered");
        bytes[first.unwrap()] = 0;
        assert_eq!(account(&bytes, &[], true).partial, 1);
    }
}

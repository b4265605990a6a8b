//! Reads the mailboxes of a simulated machine.

use super::super::copies;
use super::content::BROUGHT;
use super::world::{MAILBOXES, To, USERS, World, recipient, sender};
use crate::config::{Compress, Copies};
use crate::io::sim::SimRandom;
use crate::mailbox::mbox::render;
use crate::target::{Format, MailboxTarget};
use std::collections::BTreeMap;

/// How many copies of each message name each recipient.
type Found = BTreeMap<(usize, To), u32>;

impl World {
    /// Checks every mailbox: each copy must be complete, and name as many recipients of its message
    /// as its clients know.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut found = Found::new();
        for (mailbox, name) in MAILBOXES.iter().enumerate() {
            match name.strip_suffix('/') {
                Some(name) => self.maildir(mailbox, name, &mut found)?,
                None => self.mbox(mailbox, name, &mut found)?,
            }
        }
        for (index, sent) in self.sent.iter().enumerate() {
            for (to, known) in &sent.to {
                let copies = found.remove(&(index, *to)).unwrap_or(0);
                if copies < known.least || copies > known.most {
                    return Err(format!(
                        "message {index} ({} bytes) is in {} for user {} {copies} times, not {} \
                         to {}",
                        sent.content.len(),
                        MAILBOXES[to.0],
                        to.1,
                        known.least,
                        known.most
                    ));
                }
            }
        }
        match found.first_key_value() {
            None => Ok(()),
            Some(((index, to), _)) => {
                Err(format!("message {index} is for {to:?}, who never got it"))
            }
        }
    }

    fn number(text: &[u8]) -> Result<usize, String> {
        let text = String::from_utf8_lossy(text);
        let number = text.lines().find_map(|line| {
            let number = line.strip_prefix("Message-Id: <")?.strip_suffix('>')?;
            number.parse().ok()
        });
        number.ok_or_else(|| format!("a message without its number: {:?}", text.get(..60)))
    }

    /// Returns the trace header that names these users, and counts them.
    fn header(&self, copy: &[u8], mailbox: usize, index: usize, found: &mut Found) -> Vec<u8> {
        let text = String::from_utf8_lossy(copy);
        let head = text.split("Message-Id: ").next().unwrap_or_default();
        let named = head.lines().filter_map(|line| {
            let user = line.strip_prefix("Delivered-To: user")?;
            user.split('@').next()?.parse().ok()
        });
        let named: Vec<usize> = named.filter(|user| (*user as u64) < USERS).collect();
        let target = MailboxTarget::new("", Format::Maildir, 0, 0).unwrap();
        let to = named
            .iter()
            .map(|user| (recipient((mailbox, *user)), target.clone()));
        let copies = copies::copies(to.collect(), Copies::Mailbox);
        for user in named {
            *found.entry((index, (mailbox, user))).or_default() += 1;
        }
        let names = copies
            .first()
            .map(|copy| copy.names.maildir_header(&sender()));
        names.unwrap_or_default()
    }

    fn maildir(&self, mailbox: usize, name: &str, found: &mut Found) -> Result<(), String> {
        for directory in ["new", "cur"] {
            for file in self.disk.names(&format!("base/{name}/{directory}")) {
                let path = format!("base/{name}/{directory}/{file}");
                self.file(mailbox, &path, found)?;
            }
        }
        Ok(())
    }

    /// Checks one file of a Maildir.
    fn file(&self, mailbox: usize, path: &str, found: &mut Found) -> Result<(), String> {
        let mut bytes = self.disk.content(path).unwrap_or_default();
        if self.settings.store.compress == Compress::Zstd {
            let torn = |error| format!("{path} is no whole frame: {error}");
            bytes = zstd::decode_all(bytes.as_slice()).map_err(torn)?;
        }
        let index = Self::number(&bytes)?;
        let header = self.header(&bytes, mailbox, index, found);
        let whole = [&header[..], &self.sent[index].content].concat();
        match bytes == whole {
            true => Ok(()),
            false => Err(format!("message {index} is not whole: {path}")),
        }
    }

    /// Removes some messages, and marks others as seen. Skips locked mboxes.
    pub(super) fn read_some(&mut self, random: &mut SimRandom) -> Result<(), String> {
        let mut removed = Found::new();
        for (mailbox, name) in MAILBOXES.iter().enumerate() {
            let Some(name) = name.strip_suffix('/') else {
                let path = format!("base/{name}");
                let is_locked = self.disk.is_locked(&path)
                    || self.disk.content(&format!("{path}.lock")).is_some();
                if random.below(8) == 0 && !is_locked {
                    self.mbox(mailbox, name, &mut removed)?;
                    self.disk.remove_by_reader(&path);
                }
                continue;
            };
            for file in self.disk.names(&format!("base/{name}/new")) {
                let path = format!("base/{name}/new/{file}");
                match random.below(8) {
                    0 => {
                        self.file(mailbox, &path, &mut removed)?;
                        self.disk.remove_by_reader(&path);
                    }
                    1 => {
                        let seen = format!("base/{name}/cur/{file}:2,S");
                        self.disk.rename_by_reader(&path, &seen);
                    }
                    _ => {}
                }
            }
        }
        for ((index, to), copies) in removed {
            if let Some(known) = self.sent[index].to.get_mut(&to) {
                known.least = known.least.saturating_sub(copies);
                known.most = known.most.saturating_sub(copies);
                known.removed += copies;
            }
        }
        Ok(())
    }

    fn mbox(&self, mailbox: usize, name: &str, found: &mut Found) -> Result<(), String> {
        let bytes = self
            .disk
            .content(&format!("base/{name}"))
            .unwrap_or_default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if !rest.starts_with(b"From ") {
                return Err(format!(
                    "{name} does not parse {} bytes before its end",
                    rest.len()
                ));
            }
            let index = Self::number(rest)?;
            let line = memchr::memchr(b'\n', rest).map_or(0, |at| at + 1);
            let header = self.header(rest, mailbox, index, found);
            let content = String::from_utf8(self.sent[index].content.clone()).unwrap();
            // The setting may have changed since.
            let forms = [content.replacen(BROUGHT, "", 1), content];
            let wholes = forms.map(|content| {
                let mut whole = rest[..line].to_vec();
                render((&header, false), &mut whole, |take| {
                    take(content.as_bytes());
                    Ok::<(), ()>(())
                })
                .unwrap();
                whole
            });
            let behind = |whole: &Vec<u8>| rest.strip_prefix(whole.as_slice());
            rest = wholes
                .iter()
                .find_map(behind)
                .ok_or_else(|| format!("message {index} is not whole in {name}"))?;
        }
        Ok(())
    }
}

//! The keys that identify repeated deliveries.
//!
//! They are SHA-256 digests, because a message with the same key as another would be lost. A key
//! begins with a prefix that covers only a part of the content: while deliveries are in doubt, only
//! messages for the same recipient with the same size and the same beginning are read completely. A
//! key ends with a bit that is set when the client named the message by a queue id.

use super::queue_id::received_names_id;
use crate::message::Message;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Bytes at the beginning of a message that go into its prefix: they contain the `Received:` line
/// of the client, with its queue id.
const HEAD_BYTES: usize = 1024;

/// The digest of a message's content in its stored form.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct Digest {
    sketch: ContentSketch,
    /// Its first `Received:` field names a queue id.
    has_id: bool,
    sha256: [u8; 32],
}

/// The size and the beginning of a message, as a digest.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct ContentSketch([u8; 32]);

impl ContentSketch {
    /// Returns the sketch of a message.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(in crate::delivery) fn of(message: &Message) -> io::Result<Self> {
        let mut sketch = Self::new(message.size(), &[]);
        let stopped = message.for_each_chunk(|chunk| {
            sketch = Self::new(message.size(), chunk);
            // A chunk holds more than the beginning.
            Err(Stop(None))
        });
        match stopped {
            Err(Stop(Some(error))) => Err(error),
            Err(Stop(None)) | Ok(()) => Ok(sketch),
        }
    }

    fn new(size: u64, content: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(size.to_le_bytes());
        hasher.update(head_of(content));
        Self(hasher.finalize().into())
    }
}

/// Returns the beginning of a message; `content` holds at least as much.
fn head_of(content: &[u8]) -> &[u8] {
    content.get(..HEAD_BYTES).unwrap_or(content)
}

/// The beginning of a key.
pub(in crate::delivery) type KeyPrefix = [u8; 8];

/// Why the rest of a message is not read.
struct Stop(Option<io::Error>);

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self(Some(error))
    }
}

/// Returns the digest of a message.
///
/// # Errors
/// The message cannot be read.
pub(in crate::delivery) fn content_digest(message: &Message) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut has_id = None;
    message.for_each_chunk(|chunk| {
        has_id.get_or_insert_with(|| received_names_id(head_of(chunk)));
        hasher.update(chunk);
        io::Result::Ok(())
    })?;
    Ok(Digest {
        sketch: ContentSketch::of(message)?,
        has_id: has_id.unwrap_or(false),
        sha256: hasher.finalize().into(),
    })
}

/// Returns the digest of content that is in memory.
pub(in crate::delivery) fn digest_of(content: &[u8]) -> Digest {
    Digest {
        sketch: ContentSketch::new(content.len() as u64, content),
        has_id: received_names_id(head_of(content)),
        sha256: Sha256::digest(content).into(),
    }
}

/// The digest of the path of the directory that mailboxes are in.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct BaseDigest([u8; 32]);

impl BaseDigest {
    /// Returns the digest of a path; repeated slashes do not change it.
    pub(in crate::delivery) fn of(base: &Path) -> Self {
        let plain: PathBuf = base.components().collect();
        Self(Sha256::digest(plain.as_os_str().as_bytes()).into())
    }
}

/// The part of the key that a delivery to one recipient shares with its repetition, beside the
/// content. It does not include the other recipients of the copy: a repetition may have fewer of
/// them, or others.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct DuplicateKey<'a> {
    pub(in crate::delivery) base: BaseDigest,
    pub(in crate::delivery) reverse_path: &'a str,
    /// The client's queue id as XFORWARD gave it, or empty.
    pub(in crate::delivery) queue_id: &'a str,
    pub(in crate::delivery) original: &'a str,
    pub(in crate::delivery) address: &'a str,
    pub(in crate::delivery) mailbox: &'a str,
}

impl DuplicateKey<'_> {
    /// Returns the beginning of the key of a message with that sketch.
    pub(in crate::delivery) fn prefix(&self, sketch: &ContentSketch) -> KeyPrefix {
        let hash = self.hash(&sketch.0);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Returns the key of a message.
    pub(in crate::delivery) fn of_content(&self, content: &Digest) -> [u8; 32] {
        let mut hasher = self.hasher(&content.sha256);
        add_text(&mut hasher, self.address);
        add_text(&mut hasher, self.queue_id);
        let mut key = self.key_of(hasher, content);
        if let Some(last) = key.last_mut() {
            let has_id = content.has_id || !self.queue_id.is_empty();
            *last = *last & !HAS_ID | if has_id { HAS_ID } else { 0 };
        }
        key
    }

    /// Returns the key of a message in a delivery log of version 1, which identifies a recipient by
    /// its original address alone.
    pub(in crate::delivery) fn key_of_version_1(&self, content: &Digest) -> [u8; 32] {
        self.key_of(self.hasher(&content.sha256), content)
    }

    fn key_of(&self, hasher: Sha256, content: &Digest) -> [u8; 32] {
        let mut key: [u8; 32] = hasher.finalize().into();
        let prefix = self.prefix(&content.sketch);
        key.iter_mut().zip(prefix).for_each(|(to, from)| *to = from);
        key
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        self.hasher(content).finalize().into()
    }

    fn hasher(&self, content: &[u8]) -> Sha256 {
        let mut hasher = Sha256::new();
        hasher.update(content);
        hasher.update(self.base.0);
        for text in [self.reverse_path, self.original, self.mailbox] {
            add_text(&mut hasher, text);
        }
        hasher
    }
}

/// Set in the last byte of the key of a message that a queue id names.
const HAS_ID: u8 = 1;

/// Returns true when a queue id names the message with this key: its client sends it again until it
/// has read the reply, and sends no equal one on purpose.
pub(in crate::delivery) fn has_queue_id(key: &[u8; 32]) -> bool {
    key.last().is_some_and(|last| last & HAS_ID != 0)
}

fn add_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duplicate_key() -> DuplicateKey<'static> {
        DuplicateKey {
            base: BaseDigest::of(Path::new("/var/mail")),
            reverse_path: "a@b.example",
            queue_id: "",
            original: "info@vm.example",
            address: "box@vm.example",
            mailbox: "vm.example/info/",
        }
    }

    #[test]
    fn a_key_begins_with_its_prefix_and_differs_by_content() {
        let key = duplicate_key();
        let head = [b'x'; HEAD_BYTES];
        let [one, two] = ["one", "two"].map(|end| digest_of(&[&head, end.as_bytes()].concat()));
        let prefix = key.prefix(&one.sketch);
        assert_eq!(
            prefix,
            key.prefix(&two.sketch),
            "they differ behind their beginning"
        );
        let keys = [key.of_content(&one), key.of_content(&two)];
        assert!(keys.iter().all(|key| key.starts_with(&prefix)));
        assert_ne!(keys[0], keys[1]);
        for other in [&b"one"[..], b"other", &head] {
            assert_ne!(prefix, key.prefix(&digest_of(other).sketch));
        }
        let other = DuplicateKey {
            mailbox: "vm.example/sales/",
            ..key
        };
        assert_ne!(prefix, other.prefix(&one.sketch), "mailboxes differ");
        let [elsewhere, same] = ["/srv/mail", "/var//mail/"].map(|base| DuplicateKey {
            base: BaseDigest::of(Path::new(base)),
            ..key
        });
        assert_ne!(prefix, elsewhere.prefix(&one.sketch), "bases differ");
        assert_ne!(keys[0], elsewhere.of_content(&one));
        assert_eq!(keys[0], same.of_content(&one));
        let neighbour = DuplicateKey {
            address: "other@vm.example",
            ..key
        };
        assert_ne!(keys[0], neighbour.of_content(&one), "recipients differ");
        assert_eq!(prefix, neighbour.prefix(&one.sketch));
        let of_version_1 = [key, neighbour].map(|key| key.key_of_version_1(&one));
        assert_eq!(of_version_1[0], of_version_1[1]);
        assert!(of_version_1[0].starts_with(&prefix));
        assert_ne!(keys[0], of_version_1[0]);
    }

    #[test]
    fn keys_in_logs_of_version_1_are_known_again() {
        let key = duplicate_key();
        // Computed by another program from the description of the key.
        let expected = "b88c2aa73df6dba43bb9d7befd6ac52eec00ffcfb82401012a07da3a4394147a";
        let key = key.key_of_version_1(&digest_of(b"Subject: x\n\nfixed\n"));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_key_tells_whether_a_queue_id_names_the_message() {
        let duplicate_key = |queue_id| DuplicateKey {
            base: BaseDigest::of(Path::new("/var/mail")),
            reverse_path: "a@b.example",
            queue_id,
            original: "",
            address: "",
            mailbox: "vm.example/info/",
        };
        let [plain, named] = ["Subject: x\n\n", "Received: by mx id 4F\n\n"]
            .map(|content| digest_of(content.as_bytes()));
        let key = |id, content| duplicate_key(id).of_content(content);
        for (id, content, expected) in [
            ("", &plain, false),
            ("4F", &plain, true),
            ("", &named, true),
            ("4F", &named, true),
        ] {
            assert_eq!(has_queue_id(&key(id, content)), expected, "{id}");
        }
        assert_ne!(key("4F", &plain), key("50", &plain), "queue ids differ");
    }
}

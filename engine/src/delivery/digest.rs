//! What a repeated message is recognised by.
//!
//! Imports `message`, `queue_id`. SHA-256, because two messages with one digest would make one of
//! them vanish. A key begins with a shape, for which little of the content is read: while
//! deliveries are in doubt, only messages for the same recipient with the same size and the same
//! beginning are read as a whole. A key ends with a bit that is set when the client named the
//! message by a queue id.

use super::queue_id::received_names_id;
use crate::message::Message;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Bytes at the beginning of a message that go into its shape: the client's own `Received:` line
/// is there, with its queue id.
const HEAD_BYTES: usize = 1024;

/// Of a message's content in its stored form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digest {
    outline: Outline,
    /// Its first `Received:` field names a queue id.
    has_id: bool,
    sha256: [u8; 32],
}

/// What a message is told by at a glance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline([u8; 32]);

impl Outline {
    /// Of a message.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(super) fn of(message: &Message) -> io::Result<Self> {
        let mut outline = Self::new(message.size(), &[]);
        let stopped = message.for_each_chunk(|chunk| {
            outline = Self::new(message.size(), chunk);
            // A chunk holds more than the beginning.
            Err(Stop(None))
        });
        match stopped {
            Err(Stop(Some(error))) => Err(error),
            Err(Stop(None)) | Ok(()) => Ok(outline),
        }
    }

    fn new(size: u64, content: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(size.to_le_bytes());
        hasher.update(head_of(content));
        Self(hasher.finalize().into())
    }
}

/// The beginning of a message of which `content` holds at least as much.
fn head_of(content: &[u8]) -> &[u8] {
    content.get(..HEAD_BYTES).unwrap_or(content)
}

/// The beginning of a key.
pub(super) type Shape = [u8; 8];

/// Why a message is not read any further.
struct Stop(Option<io::Error>);

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self(Some(error))
    }
}

/// The digest of a message.
///
/// # Errors
/// The message cannot be read.
pub(super) fn content_digest(message: &Message) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut has_id = None;
    message.for_each_chunk(|chunk| {
        has_id.get_or_insert_with(|| received_names_id(head_of(chunk)));
        hasher.update(chunk);
        io::Result::Ok(())
    })?;
    Ok(Digest {
        outline: Outline::of(message)?,
        has_id: has_id.unwrap_or(false),
        sha256: hasher.finalize().into(),
    })
}

/// The digest of content that is at hand.
pub(super) fn digest_of(content: &[u8]) -> Digest {
    Digest {
        outline: Outline::new(content.len() as u64, content),
        has_id: received_names_id(head_of(content)),
        sha256: Sha256::digest(content).into(),
    }
}

/// The directory that mailboxes are in, as far as keys tell it from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseDigest([u8; 32]);

impl BaseDigest {
    /// Of a path, however many slashes it is written with.
    pub(super) fn of(base: &Path) -> Self {
        let plain: PathBuf = base.components().collect();
        Self(Sha256::digest(plain.as_os_str().as_bytes()).into())
    }
}

/// The delivery to one recipient, as far as a repetition has it in common. Which other recipients
/// share the copy is no part of it: a repetition may bring fewer of them, or others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) base: BaseDigest,
    pub(super) reverse_path: &'a str,
    /// The client's queue id as XFORWARD gave it, or empty.
    pub(super) queue_id: &'a str,
    pub(super) original: &'a str,
    pub(super) address: &'a str,
    pub(super) mailbox: &'a str,
}

impl Way<'_> {
    /// The beginning of the key of a message with that outline.
    pub(super) fn shape(&self, outline: &Outline) -> Shape {
        let hash = self.hash(&outline.0);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// The key of a message.
    pub(super) fn key(&self, content: &Digest) -> [u8; 32] {
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

    /// The key of a message in a delivery log of version 1, which knows a recipient by its
    /// original address alone.
    pub(super) fn key_of_version_1(&self, content: &Digest) -> [u8; 32] {
        self.key_of(self.hasher(&content.sha256), content)
    }

    fn key_of(&self, hasher: Sha256, content: &Digest) -> [u8; 32] {
        let mut key: [u8; 32] = hasher.finalize().into();
        let shape = self.shape(&content.outline);
        key.iter_mut().zip(shape).for_each(|(to, from)| *to = from);
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

/// Whether a queue id names the message with this key: its client sends it again until it has read
/// the reply, and no equal one on purpose.
pub(super) fn has_queue_id(key: &[u8; 32]) -> bool {
    key.last().is_some_and(|last| last & HAS_ID != 0)
}

fn add_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way<'static> {
        Way {
            base: BaseDigest::of(Path::new("/var/mail")),
            reverse_path: "a@b.example",
            queue_id: "",
            original: "info@vm.example",
            address: "box@vm.example",
            mailbox: "vm.example/info/",
        }
    }

    #[test]
    fn a_key_begins_with_its_shape_and_differs_by_content() {
        let way = way();
        let head = [b'x'; HEAD_BYTES];
        let [one, two] = ["one", "two"].map(|end| digest_of(&[&head, end.as_bytes()].concat()));
        let shape = way.shape(&one.outline);
        assert_eq!(
            shape,
            way.shape(&two.outline),
            "they differ behind their beginning"
        );
        let keys = [way.key(&one), way.key(&two)];
        assert!(keys.iter().all(|key| key.starts_with(&shape)));
        assert_ne!(keys[0], keys[1]);
        for other in [&b"one"[..], b"other", &head] {
            assert_ne!(shape, way.shape(&digest_of(other).outline));
        }
        let other = Way {
            mailbox: "vm.example/sales/",
            ..way
        };
        assert_ne!(shape, other.shape(&one.outline), "mailboxes differ");
        let [elsewhere, same] = ["/srv/mail", "/var//mail/"].map(|base| Way {
            base: BaseDigest::of(Path::new(base)),
            ..way
        });
        assert_ne!(shape, elsewhere.shape(&one.outline), "bases differ");
        assert_ne!(keys[0], elsewhere.key(&one));
        assert_eq!(keys[0], same.key(&one));
        let neighbour = Way {
            address: "other@vm.example",
            ..way
        };
        assert_ne!(keys[0], neighbour.key(&one), "recipients differ");
        assert_eq!(shape, neighbour.shape(&one.outline));
        let of_version_1 = [way, neighbour].map(|way| way.key_of_version_1(&one));
        assert_eq!(of_version_1[0], of_version_1[1]);
        assert!(of_version_1[0].starts_with(&shape));
        assert_ne!(keys[0], of_version_1[0]);
    }

    #[test]
    fn keys_in_logs_of_version_1_are_known_again() {
        let way = way();
        // Computed by another program from the description of the key.
        let expected = "b88c2aa73df6dba43bb9d7befd6ac52eec00ffcfb82401012a07da3a4394147a";
        let key = way.key_of_version_1(&digest_of(b"Subject: x\n\nfixed\n"));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_key_tells_whether_a_queue_id_names_the_message() {
        let way = |queue_id| Way {
            base: BaseDigest::of(Path::new("/var/mail")),
            reverse_path: "a@b.example",
            queue_id,
            original: "",
            address: "",
            mailbox: "vm.example/info/",
        };
        let [plain, named] = ["Subject: x\n\n", "Received: by mx id 4F\n\n"]
            .map(|content| digest_of(content.as_bytes()));
        let key = |id, content| way(id).key(content);
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

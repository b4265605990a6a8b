//! What a repeated message is recognised by.
//!
//! Imports `message`, `envelope`. SHA-256, because whoever can make two messages with one digest
//! could make one of them vanish. A key begins with a shape, for which little of the content is
//! read: while deliveries are in doubt, only messages for the same recipient with the same size
//! and the same beginning are read as a whole.

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
        let head = content.get(..HEAD_BYTES).unwrap_or(content);
        let mut hasher = Sha256::new();
        hasher.update(size.to_le_bytes());
        hasher.update(head);
        Self(hasher.finalize().into())
    }
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
    message.for_each_chunk(|chunk| {
        hasher.update(chunk);
        io::Result::Ok(())
    })?;
    Ok(Digest {
        outline: Outline::of(message)?,
        sha256: hasher.finalize().into(),
    })
}

/// The digest of content that is at hand.
pub(super) fn digest_of(content: &[u8]) -> Digest {
    Digest {
        outline: Outline::new(content.len() as u64, content),
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

/// One delivery, as far as a repetition has it in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) base: BaseDigest,
    pub(super) reverse_path: &'a str,
    pub(super) original: &'a str,
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
        let mut key = self.hash(&content.sha256);
        let shape = self.shape(&content.outline);
        key.iter_mut().zip(shape).for_each(|(to, from)| *to = from);
        key
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(content);
        hasher.update(self.base.0);
        for text in [self.reverse_path, self.original, self.mailbox] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_begins_with_its_shape_and_differs_by_content() {
        let way = Way {
            base: BaseDigest::of(Path::new("/var/mail")),
            reverse_path: "a@b.example",
            original: "info@vm.example",
            mailbox: "vm.example/info/",
        };
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
    }
}

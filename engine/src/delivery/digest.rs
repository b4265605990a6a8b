//! What a repeated message is recognised by.
//!
//! Imports `message`, `envelope`. SHA-256, because whoever can make two messages with one digest
//! could make one of them vanish. A key begins with a shape, which is known without reading the
//! content: while deliveries are in doubt, only messages of the same size for the same recipient
//! are read for their digest.

use crate::message::Message;
use sha2::{Digest as _, Sha256};
use std::io;

/// Of a message's content in its stored form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digest {
    bytes: u64,
    sha256: [u8; 32],
}

/// The beginning of a key.
pub(super) type Shape = [u8; 8];

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
        bytes: message.size(),
        sha256: hasher.finalize().into(),
    })
}

/// The digest of content that is at hand.
pub(super) fn digest_of(content: &[u8]) -> Digest {
    Digest {
        bytes: content.len() as u64,
        sha256: Sha256::digest(content).into(),
    }
}

/// One delivery, as far as a repetition has it in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) reverse_path: &'a str,
    pub(super) original: &'a str,
    pub(super) mailbox: &'a str,
}

impl Way<'_> {
    /// The beginning of the key of a message of that size.
    pub(super) fn shape(&self, bytes: u64) -> Shape {
        let hash = self.hash(&bytes.to_le_bytes());
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// The key of a message.
    pub(super) fn key(&self, content: &Digest) -> [u8; 32] {
        let mut key = self.hash(&content.sha256);
        let shape = self.shape(content.bytes);
        key.iter_mut().zip(shape).for_each(|(to, from)| *to = from);
        key
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(content);
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
            reverse_path: "a@b.example",
            original: "info@vm.example",
            mailbox: "vm.example/info/",
        };
        let (one, two) = (way.key(&digest_of(b"one")), way.key(&digest_of(b"two")));
        assert!(one.starts_with(&way.shape(3)) && two.starts_with(&way.shape(3)));
        assert_ne!(one, two);
        assert_ne!(way.shape(3), way.shape(4), "sizes differ");
        let other = Way {
            mailbox: "vm.example/sales/",
            ..way
        };
        assert_ne!(way.shape(3), other.shape(3), "mailboxes differ");
    }
}

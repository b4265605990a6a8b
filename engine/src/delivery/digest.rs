//! What a repeated message is recognised by.
//!
//! Imports `message`. SHA-256, because whoever can make two messages with one digest could make
//! one of them vanish.

use crate::message::Message;
use sha2::{Digest as _, Sha256};
use std::io;

/// Of a message's content in its stored form.
pub(super) type Digest = [u8; 32];

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
    Ok(hasher.finalize().into())
}

/// The digest of content that is at hand.
pub(super) fn digest_of(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

/// The key of one delivery.
pub(super) fn doubt_key(
    content: &Digest,
    reverse_path: &str,
    original: &str,
    mailbox: &str,
) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(content);
    for text in [reverse_path, original, mailbox] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.finalize().into()
}

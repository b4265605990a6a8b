//! What must hold for any content of a message.

use super::Spool;
use crate::choices::Choices;
use crate::config::Limits;
use std::io;

/// Takes a message in pieces as the input says, and once more as a whole.
///
/// # Panics
/// The two differ, or size, line ends and last byte are not those of the content.
pub fn check_message_content(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pieces: Vec<&[u8]> = Vec::new();
    for _ in 0..choices.byte() % 16 {
        pieces.push(choices.piece(64));
    }
    pieces.push(choices.rest());
    let whole = pieces.concat();
    let in_pieces = stored(&pieces);
    assert_eq!(
        in_pieces.escape_ascii().to_string(),
        stored(&[&whole]).escape_ascii().to_string()
    );
}

/// The stored form of the content.
#[allow(clippy::expect_used, reason = "memory does not fail here")]
fn stored(pieces: &[&[u8]]) -> Vec<u8> {
    let scratch = || Err(io::Error::other("there are no scratch files here"));
    let spool = Spool::with_scratch(std::sync::Arc::new(scratch), &Limits::default());
    let mut builder = spool.message();
    for piece in pieces {
        builder.write(piece).expect("memory");
    }
    let message = builder.finish().expect("memory");
    let mut content = Vec::new();
    message.copy_to(&mut content).expect("memory");
    assert_eq!(message.size(), content.len() as u64);
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let bare = lines.filter(|line| line.ends_with(b"\n") && !line.ends_with(b"\r\n"));
    assert_eq!(message.bare_newlines(), bare.count() as u64);
    assert_eq!(message.ends_with_newline(), content.ends_with(b"\n"));
    content
}

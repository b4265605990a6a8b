//! What must hold for any content that is appended to an mbox.

use super::mbox::render;
use crate::choices::Choices;
use std::convert::Infallible;

const HEADER: &[u8] = b"From sender@example.com  Sun Nov 22 06:51:19 2026\n\
                      Return-Path: <sender@example.com>\nDelivered-To: ann@example.org\n";

/// Renders a message for an mbox, its content in pieces as the input says, and reads it back.
///
/// # Panics
/// Pieces and whole content differ, a reader sees more than one message, or a line other than
/// those that begin with `From ` has changed.
pub fn check_mbox_quoting(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pieces: Vec<&[u8]> = Vec::new();
    for _ in 0..choices.byte() % 8 {
        pieces.push(choices.piece(64));
    }
    pieces.push(choices.rest());
    let content = pieces.concat();

    let mut found = Vec::new();
    let rendered = render((HEADER, false), &mut found, |take| {
        pieces.iter().for_each(|piece| take(piece));
        Ok::<(), Infallible>(())
    });
    assert!(rendered.is_ok());

    let mut expected = HEADER.to_vec();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"From ") {
            expected.push(b'>');
        }
        expected.extend_from_slice(line);
    }
    if !content.is_empty() && !content.ends_with(b"\n") {
        expected.push(b'\n');
    }
    expected.push(b'\n');
    assert_eq!(
        found.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );

    let lines = found.split_inclusive(|byte| *byte == b'\n');
    let beginnings = lines.filter(|line| line.starts_with(b"From ")).count();
    assert_eq!(beginnings, 1, "a reader sees one message");
}

//! Finds the addresses to which a message was delivered before, in its header.
//!
//! Source: Postfix local(8) and pipe(8), `Delivered-To:`.

use crate::address::{fold_case, parse_mailbox};
use crate::message::Message;
use crate::octets;
use std::collections::HashSet;
use std::io;

/// Most `Delivered-To:` fields that are read.
const DELIVERED_TO_MAX: usize = 1000;

/// Most bytes of one line that are read.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Why reading stops: enough was read, or the message cannot be read.
struct Stop;

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Returns the addresses of the `Delivered-To:` fields of a message, in internal form, folded.
pub(crate) fn delivered_to(message: &Message) -> HashSet<String> {
    let mut line = Vec::new();
    let mut found = HashSet::new();
    let mut fields = 0;
    // What cannot be read fails when it is delivered.
    let _ = message.for_each_chunk(|chunk| {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if line.len() < LINE_BYTES_MAX {
                line.extend_from_slice(piece);
            }
            if piece.last() != Some(&b'\n') {
                continue;
            }
            if line.as_slice() == b"\n" {
                return Err(Stop);
            }
            if let Some(address) = address(&line) {
                found.insert(address);
                fields += 1;
            }
            if fields >= DELIVERED_TO_MAX {
                return Err(Stop);
            }
            line.clear();
        }
        Ok(())
    });
    found
}

/// Returns the address of a `Delivered-To:` line.
fn address(line: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"delivered-to:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let value = octets::text(value.trim_ascii());
    let address = parse_mailbox(&value).map(|address| address.internal());
    let address = address.unwrap_or_else(|_| value.into_owned());
    Some(fold_case(&address).into_owned())
}

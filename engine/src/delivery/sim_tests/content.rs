//! What the messages of a simulated machine hold.

use crate::io::sim::SimRandom;

/// Longer messages do not go through the log.
pub(super) const LOGGED_BYTES_MAX: u64 = 9000;
/// What mbox readers trust, and mboxes may not get.
pub(super) const BROUGHT: &str = "Status: RO\n";

pub(super) fn content(number: usize, random: &mut SimRandom) -> Vec<u8> {
    let bytes = match random.below(8) {
        // Past the log.
        0 => LOGGED_BYTES_MAX + random.below(LOGGED_BYTES_MAX),
        1 | 2 => 4000,
        _ => random.below(1500),
    };
    let brought = match random.below(3) {
        0 => BROUGHT,
        _ => "",
    };
    let text = format!("Message-Id: <{number}>\n{brought}\nFrom the beginning\n");
    let mut text = text.into_bytes();
    let mut line = 0_u64;
    while (text.len() as u64) < bytes {
        line += 1;
        text.extend_from_slice(format!("line {line} of {number}\n").as_bytes());
    }
    if random.below(6) == 0 {
        text.extend_from_slice(b"no line end");
    }
    text
}

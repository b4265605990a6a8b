//! Searches an mbox for messages that a reader has moved.

use super::compare::for_each_piece;
use super::mbox_plan::MboxPlan;
use super::mbox_work::MboxEntry;
use crate::io::Disk;
use crate::mailbox::mbox::Mbox;
use std::io;

/// Most bytes of header lines that readers add to a message.
const ADDED_BYTES_MAX: usize = 64 * 1024;
/// The beginning of the first line of a message.
const FROM: &[u8] = b"From ";

/// Returns the offset from which on moved messages are searched for. Unless the file was rewritten,
/// everything before the first logged place was there before: it may include an equal message that
/// was sent on purpose, and must not be taken for the missing copy.
pub(super) fn search_from<D: Disk>(
    disk: &D,
    mbox: &Mbox<D::Handle>,
    entries: &[MboxEntry],
) -> io::Result<u64> {
    let places = entries.iter().flat_map(|entry| &entry.places);
    let first = places.min().copied().unwrap_or(0);
    if mbox.length() < first {
        return Ok(0);
    }
    let mut begin = [0; FROM.len()];
    let read = disk.read_at(mbox.file(), &mut begin, first)?;
    let begins = begin.iter().zip(FROM).take(read);
    let is_message = |(have, want): (&u8, &u8)| have == want || *have == 0;
    Ok(if begins.into_iter().all(is_message) {
        first
    } else {
        0
    })
}

/// Searches the file, from the beginning of a line on, for messages that a reader moved, perhaps
/// with header lines added.
pub(super) fn search<D: Disk>(
    disk: &D,
    mbox: &Mbox<D::Handle>,
    from: u64,
    plan: &mut MboxPlan<'_>,
) -> io::Result<()> {
    let kept = plan.standing_places();
    let bytes_max = plan.longest() + ADDED_BYTES_MAX;
    for_each_message(disk, mbox.file(), from, bytes_max, |offset, message| {
        if !kept.contains(&offset) {
            plan.is_found(|entry| is_same_message(message, &entry.rendered));
        }
    })
}

/// Passes every message of at most `bytes_max` bytes, with its offset. A last line that a crash cut
/// off ends the message before it if all of `From ` is left. With less of it, the next append of
/// recovery would make it a line of that message, which the next recovery would not find any more.
fn for_each_message<D: Disk>(
    disk: &D,
    file: &D::Handle,
    from: u64,
    bytes_max: usize,
    mut show: impl FnMut(u64, &[u8]),
) -> io::Result<()> {
    let mut message: Vec<u8> = Vec::new();
    let (mut begins, mut is_long) = (from, false);
    let mut at = from;
    let mut is_line_start = true;
    // A whole line, or part of a long one.
    let mut take = |line: &[u8]| {
        if is_line_start && line.starts_with(FROM) {
            if !is_long {
                show(begins, &message);
            }
            message.clear();
            (begins, is_long) = (at, false);
        }
        is_line_start = line.ends_with(b"\n");
        at += line.len() as u64;
        is_long |= message.len() + line.len() > bytes_max;
        if !is_long {
            message.extend_from_slice(line);
        }
    };
    let mut line: Vec<u8> = Vec::new();
    for_each_piece(disk, file, from, |_, piece| {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") || line.len() >= bytes_max {
                take(&line);
                line.clear();
            }
        }
        true
    })?;
    take(&line);
    if !is_long {
        show(begins, &message);
    }
    Ok(())
}

/// Returns true for equal lines in equal order; the header may have more.
fn is_same_message(found: &[u8], ours: &[u8]) -> bool {
    let mut ours = ours.split_inclusive(|byte| *byte == b'\n').peekable();
    let mut in_header = true;
    for line in found.split_inclusive(|byte| *byte == b'\n') {
        match ours.peek() {
            Some(expected) if *expected == line => {
                in_header &= line != b"\n";
                ours.next();
            }
            _ if in_header => {}
            _ => return false,
        }
    }
    ours.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::compare::READ_BYTES;
    use super::*;
    use crate::io::sim::SimDisk;
    use std::path::Path;

    /// The messages of at most so many bytes in an mbox, and their offsets.
    fn shown(mbox: &[u8], bytes_max: usize) -> Vec<(u64, Vec<u8>)> {
        let disk = SimDisk::new("base", 5000, 5000);
        let base = disk.open_root(Path::new("base")).unwrap();
        let file = disk.create_new(&base, "box", 0o600).unwrap();
        disk.write_all(&file, [mbox, b""]).unwrap();
        let mut shown = Vec::new();
        for_each_message(&disk, &file, 0, bytes_max, |offset, message| {
            if !message.is_empty() {
                shown.push((offset, message.to_vec()));
            }
        })
        .unwrap();
        shown
    }

    #[test]
    fn a_message_ends_where_the_next_begins_even_if_a_crash_cut_off_that_line() {
        let first = b"From a  date\n\nbody\n\n".to_vec();
        for next in [&b"From b  date\n"[..], b"From b  da", b"From "] {
            let mbox = [&first, next].concat();
            let messages = [(0, first.clone()), (first.len() as u64, next.to_vec())];
            assert_eq!(shown(&mbox, 1000), messages);
        }
    }

    #[test]
    fn no_message_begins_within_a_long_line() {
        // The file is read in pieces.
        let mut mbox = b"From a  date\n\n".to_vec();
        mbox.resize(READ_BYTES, b'x');
        mbox.extend_from_slice(b"From b  date\n\nbody\n\n");
        assert_eq!(shown(&mbox, 60), []);
    }

    #[test]
    fn readers_may_add_header_lines_but_change_no_body() {
        let ours = b"From a  date\nReturn-Path: <a>\nSubject: x\n\nbody\n\n";
        let read = b"From a  date\nReturn-Path: <a>\nSubject: x\nStatus: RO\nX-UID: 7\n\nbody\n\n";
        assert!(is_same_message(ours, ours));
        assert!(is_same_message(read, ours));
        for other in [
            &b"From a  date\nReturn-Path: <a>\nSubject: x\n\nbod"[..],
            b"From a  date\nReturn-Path: <a>\nSubject: x\n\nbody\nmore\n\n",
            b"From a  date\nSubject: x\n\nbody\n\n",
            b"",
        ] {
            assert!(!is_same_message(other, ours), "{other:?}");
        }
    }
}

//! Finds bytes in an mbox that other programs wrote.

use super::compare::for_each_piece;
use super::extent::Torn;
use super::mbox_work::MboxEntry;
use crate::io::Disk;
use std::collections::VecDeque;
use std::io;

/// Returns the end of the last byte from `from` on that is neither zero nor the byte of our message
/// at that offset; `from` when there is none.
pub(super) fn foreign_up_to<D: Disk>(
    disk: &D,
    file: &D::Handle,
    from: u64,
    (entries, torn): (&[MboxEntry], &Torn),
) -> io::Result<u64> {
    let mut covers: Vec<(u64, &[u8])> = entries
        .iter()
        .flat_map(|entry| {
            let rendered = entry.rendered.as_slice();
            entry.places.iter().map(move |place| (*place, rendered))
        })
        .collect();
    covers.sort_unstable_by_key(|(place, _)| *place);
    let mut foreign_up_to = from;
    for_each_piece(disk, file, from, |offset, piece| {
        let end = offset + piece.len() as u64;
        let mut here: VecDeque<&(u64, &[u8])> = covers
            .iter()
            .filter(|(place, ours)| *place < end && place + ours.len() as u64 > offset)
            .collect();
        for (at, byte) in (offset..).zip(piece) {
            while let Some((place, ours)) = here.front()
                && place + ours.len() as u64 <= at
            {
                here.pop_front();
            }
            if !is_ours(at, *byte, &here) && !torn.has(at) {
                foreign_up_to = at + 1;
            }
        }
        true
    })?;
    Ok(foreign_up_to)
}

/// Returns true for a zero, for a byte that one of these messages has at that offset, and for a
/// line end between messages that completes an older one.
fn is_ours(at: u64, byte: u8, covers: &VecDeque<&(u64, &[u8])>) -> bool {
    let mut is_covered = false;
    for (place, ours) in covers.iter().take_while(|(place, _)| *place <= at) {
        let within = at.checked_sub(*place).and_then(|n| usize::try_from(n).ok());
        if let Some(ours) = within.and_then(|within| ours.get(within)) {
            is_covered = true;
            if *ours == byte {
                return true;
            }
        }
    }
    byte == 0 || (byte == b'\n' && !is_covered)
}

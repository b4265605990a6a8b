//! Finds messages in an mbox of which the log has only the sums.

use super::super::ledger::sector_sums::{SECTOR_BYTES, SectorSums};
use super::compare::for_each_piece;
use crate::io::Disk;
use crate::log::Extent;
use std::io;
use std::ops::Range;

/// Messages that are torn; none of them was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Torn {
    /// Where the first of them begins.
    pub(super) first: Option<u64>,
    /// The ranges of bytes that are theirs, in order.
    ours: Vec<Range<u64>>,
    /// The file was flushed up to here: the end of the last complete message. Everything before
    /// that message was flushed before it was written; and the message itself was flushed, or it
    /// would have been cut off.
    pub(super) flushed_to: u64,
}

impl Torn {
    /// Compares each of them with its sums. A message is gone if a later complete message begins at
    /// its place (`is_taken`).
    pub(super) fn look<'e, D: Disk>(
        disk: &D,
        file: &D::Handle,
        length: u64,
        extents: impl Iterator<Item = &'e Extent>,
        is_taken: impl Fn(u64) -> bool,
    ) -> io::Result<Self> {
        let mut torn = Self::default();
        let mut whole: Vec<Range<u64>> = Vec::new();
        let mut parts: Vec<(u64, Vec<Range<u64>>)> = Vec::new();
        for extent in extents.filter(|extent| extent.offset < length) {
            let (is_whole, found) = standing(disk, file, extent)?;
            match is_whole {
                true => whole.push(extent.offset..extent.offset + extent.length),
                false => parts.push((extent.offset, found)),
            }
        }
        torn.flushed_to = whole.iter().map(|range| range.end).max().unwrap_or(0);
        parts.retain(|(at, _)| !is_taken(*at) && !whole.iter().any(|range| range.contains(at)));
        torn.first = parts.iter().map(|(at, _)| *at).min();
        torn.ours = parts.into_iter().flat_map(|(_, found)| found).collect();
        torn.ours.sort_unstable_by_key(|range| range.start);
        Ok(torn)
    }

    /// Returns true for a byte of a torn message.
    pub(super) fn has(&self, at: u64) -> bool {
        let behind = self.ours.partition_point(|range| range.start <= at);
        // Ranges of different messages may overlap, if one was tried twice.
        let before = self.ours.iter().take(behind).rev();
        before.take(4).any(|range| range.contains(&at))
    }
}

/// Returns whether a message is there completely, and which of its bytes are.
fn standing<D: Disk>(
    disk: &D,
    file: &D::Handle,
    extent: &Extent,
) -> io::Result<(bool, Vec<Range<u64>>)> {
    let end = extent.offset.saturating_add(extent.length);
    let mut sums = SectorSums::from(extent.offset);
    for_each_piece(disk, file, extent.offset, |at, piece| {
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        sums.feed(piece.get(..left).unwrap_or(piece));
        left > piece.len()
    })?;
    let (stands_to, sums) = sums.finish();
    let mut ours: Vec<Range<u64>> = Vec::new();
    let mut at = extent.offset;
    for (found, expected) in sums.iter().zip(&extent.sums) {
        let next = (at / SECTOR_BYTES + 1)
            .saturating_mul(SECTOR_BYTES)
            .min(end);
        // The file may end within its last sector.
        if found == expected && next <= stands_to {
            match ours.last_mut() {
                Some(last) if last.end == at => last.end = next,
                _ => ours.push(at..next),
            }
        }
        at = next;
    }
    debug_assert!(
        ours.is_sorted_by(|a, b| a.end < b.start),
        "pieces that touch are one"
    );
    debug_assert!(
        ours.iter()
            .all(|r| extent.offset <= r.start && r.end <= end),
        "the message owns only the bytes that it covers"
    );
    let is_whole = stands_to == end && sums == extent.sums;
    Ok((is_whole, ours))
}

//! Which segments there are, and which log they belong to.
//!
//! A running writer may free, name and begin segments between any two of these questions.

use super::error::LogError;
use super::medium::{Access, LogFile, LogMedium};
use super::segment::{BLOCK_BYTES, FileRole, SegmentHeader, live_name, role};
use super::walk::SegmentWalk;
use std::collections::BTreeMap;
use std::io;

/// Live segment numbers and spare names, in order.
pub(super) fn list<M: LogMedium>(medium: &M) -> Result<(Vec<u64>, Vec<String>), LogError> {
    let names = medium
        .list()
        .map_err(|error| LogError::io("list", "the log directory", error))?;
    let (mut live, mut spares) = (Vec::new(), Vec::new());
    for name in names {
        match role(&name) {
            FileRole::Live(number) => live.push(number),
            FileRole::Spare(_) => spares.push(name),
            FileRole::Other => {}
        }
    }
    live.sort_unstable();
    spares.sort_unstable();
    Ok((live, spares))
}

/// A running writer has freed it.
pub(super) fn is_gone<M: LogMedium>(medium: &M, number: u64) -> bool {
    let opened = medium.open(&live_name(number), Access::Read);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether it is known which frames a spare may hold: none, or those of the number in its header.
/// Frames of an unknown number could be read again once that number is given to a segment.
pub(super) fn is_known_spare<F: LogFile>(spare: &F) -> io::Result<bool> {
    // A segment takes frames from its second block on.
    let mut begin = vec![0; 2 * BLOCK_BYTES];
    spare.read_at(&mut begin, 0)?;
    let is_unused = begin.iter().all(|byte| *byte == 0);
    Ok(is_unused || SegmentHeader::decode(&begin).is_ok())
}

/// One of these segments has been begun.
pub(super) fn has_begun<M: LogMedium>(medium: &M, live: &[u64]) -> bool {
    live.iter().any(|number| {
        let file = medium.open(&live_name(*number), Access::Read).ok();
        matches!(file.map(SegmentWalk::open), Some(Ok(Ok(walk))) if !walk.header.reserved)
    })
}

/// Of the log that most segments belong to, and the newest of them if as many belong to another:
/// a stray one must not make strangers of the others.
pub(super) fn identity<M: LogMedium>(medium: &M, live: &[u64]) -> Option<u64> {
    let mut counts: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for number in live {
        // What cannot be read is reported when its turn comes.
        let file = medium.open(&live_name(*number), Access::Read).ok();
        if let Some(Ok(Ok(walk))) = file.map(SegmentWalk::open) {
            let (count, newest) = counts.entry(walk.header.identity).or_default();
            *count += 1;
            *newest = *number;
        }
    }
    let most = counts.into_iter().max_by_key(|(_, rank)| *rank);
    most.map(|(identity, _)| identity)
}

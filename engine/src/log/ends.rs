//! Whether segments are missing before the oldest or behind the newest that was found.
//!
//! In the middle, each segment tells where the one before it ended; at the ends something else has
//! to tell. Segments are freed only below a durable checkpoint, and the last checkpoint is never
//! freed, so the log begins at or below it. The segment named ahead tells which was the newest when
//! it was named. Invariant: a log that only its own writer touched is never reported, whenever that
//! was stopped.

use super::record::Sequence;
use super::segment::{SegmentHeader, live_name};

/// What a scan came across that tells where the log must begin and end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Of the checkpoints: records before it are needed no more.
    below: Option<Sequence>,
    /// The segment named ahead.
    reserved: Option<SegmentHeader>,
    /// A segment that was freed, so there must be newer ones.
    freed: Option<SegmentHeader>,
}

/// Acknowledged records that are gone with their segments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The segment beside them.
    pub(super) file: String,
    /// The first record that must be there.
    pub(super) expected: Sequence,
    pub(super) found: String,
}

impl Ends {
    pub(super) fn checkpoint(&mut self, below: Sequence) {
        self.below = self.below.max(Some(below));
    }

    pub(super) fn reserved(&mut self, header: SegmentHeader) {
        self.reserved = Some(header);
    }

    pub(super) fn spare(&mut self, header: SegmentHeader) {
        if !header.reserved {
            self.freed = Some(header);
        }
    }

    /// What is missing beside the oldest and the newest segment.
    pub(super) fn missing(&self, around: Option<(&SegmentHeader, &SegmentHeader)>) -> Vec<Missing> {
        let Some((oldest, newest)) = around else {
            return self.missing_all().into_iter().collect();
        };
        let before = self.missing_before(oldest);
        before
            .into_iter()
            .chain(self.missing_behind(newest))
            .collect()
    }

    fn missing_all(&self) -> Option<Missing> {
        // Only where no segment was ever begun does the one named ahead know of no record.
        let knew = self.reserved.filter(|reserved| reserved.first_sequence > 0);
        let known = knew.or(self.freed)?;
        Some(Missing {
            file: live_name(known.number),
            expected: Sequence(known.first_sequence),
            found: "no segment that was begun is there".to_owned(),
        })
    }

    fn missing_before(&self, oldest: &SegmentHeader) -> Option<Missing> {
        let first = Sequence(oldest.first_sequence);
        let is_inside = oldest.first_fragment > 0;
        let needed = self.below.max(Some(Sequence(1))).unwrap_or_default();
        // A record that began in a freed segment has to be below the checkpoint as a whole.
        let is_covered = needed > first || needed == first && !is_inside;
        (!is_covered).then(|| Missing {
            file: live_name(oldest.number),
            expected: needed,
            found: format!(
                "the oldest segment begins {} record {first}",
                if is_inside { "inside" } else { "with" }
            ),
        })
    }

    fn missing_behind(&self, newest: &SegmentHeader) -> Option<Missing> {
        let reserved = self.reserved.as_ref()?;
        let begins = |header: &SegmentHeader| (header.first_sequence, header.first_fragment);
        let is_gone = reserved.identity == newest.identity && begins(reserved) > begins(newest);
        is_gone.then(|| Missing {
            file: live_name(reserved.number),
            expected: Sequence(reserved.first_sequence),
            found: format!("the newest segment is {}", live_name(newest.number)),
        })
    }
}

//! Decides how recovery changes an mbox, from the records of the log and the content of the file.
//!
//! The log has the place of each message before the first byte is written there. So a message
//! without a place was never written, and the bytes after the last complete message are ours
//! exactly if each is zero or the byte of a message that was placed there. Invariant: recovery cuts
//! off or overwrites only such bytes.

use super::mbox_work::MboxEntry;

/// The decision on one mbox. Its steps are taken in this order: write torn messages again within
/// the file, cut off our bytes after the last message that stays, append missing messages.
#[derive(Debug)]
pub(super) struct MboxPlan<'w> {
    entries: &'w [MboxEntry],
    /// For each entry, whether the message is in the mbox.
    stands: Vec<bool>,
    /// Messages may have been appended at places that are not in the log.
    has_unknown_places: bool,
}

/// Messages that are not in the log and are torn in the mbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TornExtents {
    /// Where the first of them begins.
    pub(super) first: Option<u64>,
    /// The file was flushed up to here.
    pub(super) flushed_to: u64,
}

/// Where messages begin that are to be cut off, with all our bytes after them.
#[derive(Debug)]
pub(super) struct Cut {
    begins: Vec<u64>,
    /// The first of these.
    pub(super) first: u64,
    length: u64,
}

impl Cut {
    /// Returns where the file is cut off, when bytes of others reach up to `foreign`: our bytes
    /// after them are cut off. `None` when nothing is cut off.
    pub(super) fn behind(self, foreign: u64) -> Option<u64> {
        let behind = self.begins.into_iter().filter(|at| *at >= foreign).min();
        behind.filter(|at| *at < self.length)
    }
}

impl<'w> MboxPlan<'w> {
    /// `stands` has for each message whether it is at its newest place.
    pub(super) fn new(
        entries: &'w [MboxEntry],
        stands: Vec<bool>,
        has_unknown_places: bool,
    ) -> Self {
        debug_assert_eq!(stands.len(), entries.len(), "one answer for each message");
        Self {
            entries,
            stands,
            has_unknown_places,
        }
    }

    fn all(&self) -> impl Iterator<Item = (&'w MboxEntry, bool)> {
        self.entries.iter().zip(self.stands.iter().copied())
    }

    fn placed(&self) -> impl Iterator<Item = Placed> {
        self.all().filter_map(|(entry, stands)| {
            let (begin, ours) = entry.newest_place()?;
            Some(Placed {
                begin,
                end: begin + ours.len() as u64,
                is_pending: entry.is_pending,
                stands,
            })
        })
    }

    /// Returns the messages that are written again at their places if they are torn there, because
    /// bytes that must stay may follow them. When the page cache is suspect, complete messages are
    /// written again too. Where the places of two messages overlap, the owner of the bytes is
    /// unknown, and nothing is written.
    pub(super) fn rewritable(&self, length: u64, is_cache_suspect: bool) -> Vec<usize> {
        let is_shared = |entry: &MboxEntry, place: u64, end: u64| {
            self.entries.iter().any(|other| {
                !std::ptr::eq(other, entry)
                    && other.newest_place().is_some_and(|(begin, bytes)| {
                        begin < end && place < begin + bytes.len() as u64
                    })
            })
        };
        let is_meant = |(_, (entry, stands)): &(usize, (&MboxEntry, bool))| {
            let Some((place, ours)) = entry.newest_place() else {
                return false;
            };
            let end = place + ours.len() as u64;
            let is_wanted = !stands || is_cache_suspect;
            entry.is_pending && is_wanted && end <= length && !is_shared(entry, place, end)
        };
        let meant = self.all().enumerate().filter(is_meant);
        meant.map(|(index, _)| index).collect()
    }

    /// Notes that a message was written again, and is complete.
    pub(super) fn is_rewritten(&mut self, index: usize) {
        if let Some(stands) = self.stands.get_mut(index) {
            *stands = true;
        }
    }

    /// Returns true for an offset within a message that is complete at its place.
    pub(super) fn is_taken(&self, at: u64) -> bool {
        let mut standing = self.placed().filter(|placed| placed.stands);
        standing.any(|placed| placed.begin <= at && at < placed.end)
    }

    /// Returns what is cut off from a file of this length: torn messages, refused ones, and
    /// complete ones after them, which are appended again.
    pub(super) fn cut(&self, length: u64, torn: TornExtents) -> Option<Cut> {
        // If a later message is at that place now, a reader has moved the earlier one.
        let is_bad =
            |placed: &Placed| placed.is_pending && !placed.stands && !self.is_taken(placed.begin);
        let bad = self.placed().filter(is_bad).map(|placed| placed.begin);
        let mut begins: Vec<u64> = bad.chain(torn.first).collect();
        if begins.is_empty() {
            let standing = self.placed().filter(|placed| placed.stands);
            let last_good = standing.map(|placed| placed.end).max();
            let stays_to = last_good.unwrap_or(0).max(torn.flushed_to);
            let refused = self
                .placed()
                .filter(|placed| !placed.stands && placed.begin >= stays_to);
            let first_refused = refused.map(|placed| placed.begin).min();
            begins.extend(first_refused.or(last_good));
        }
        let first = begins.iter().min().copied().filter(|at| *at < length)?;
        Some(Cut {
            begins,
            first,
            length,
        })
    }

    /// Notes that the file was cut off there.
    pub(super) fn is_cut_to(&mut self, at: u64) {
        for (entry, stands) in self.entries.iter().zip(&mut self.stands) {
            let end = |(place, ours): (u64, &[u8])| place + ours.len() as u64;
            *stands &= entry.newest_place().is_some_and(|place| end(place) <= at);
        }
    }

    /// Returns true when a missing message may be elsewhere in the file.
    pub(super) fn may_be_elsewhere(&self) -> bool {
        let mut missing = self.missing().into_iter();
        missing.any(|entry| self.may_be_appended(entry))
    }

    /// Returns true for a message that has a place, or whose place may be missing from the log.
    fn may_be_appended(&self, entry: &MboxEntry) -> bool {
        self.has_unknown_places || !entry.places.is_empty()
    }

    /// Returns the newest places of the messages that are complete.
    pub(super) fn standing_places(&self) -> Vec<u64> {
        let standing = self.placed().filter(|placed| placed.stands);
        standing.map(|placed| placed.begin).collect()
    }

    /// Returns the length of the longest message, in bytes.
    pub(super) fn longest(&self) -> usize {
        let lengths = self.entries.iter().map(|entry| entry.rendered.len());
        lengths.max().unwrap_or(0)
    }

    /// Notes that one of the missing messages was found elsewhere: the first for which `is_it`
    /// returns true.
    pub(super) fn is_found(&mut self, is_it: impl Fn(&MboxEntry) -> bool) {
        let found = self.all().position(|(entry, stands)| {
            entry.is_pending && !stands && self.may_be_appended(entry) && is_it(entry)
        });
        if let Some(stands) = found.and_then(|found| self.stands.get_mut(found)) {
            *stands = true;
        }
    }

    /// Returns the messages that are appended, in the order of the log.
    pub(super) fn missing(&self) -> Vec<&'w MboxEntry> {
        let missing = self
            .all()
            .filter(|(entry, stands)| entry.is_pending && !stands);
        missing.map(|(entry, _)| entry).collect()
    }
}

/// A message at its newest place.
#[derive(Clone, Copy, Debug)]
struct Placed {
    begin: u64,
    end: u64,
    is_pending: bool,
    stands: bool,
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::deferred_mail::Held;
    use super::*;
    use crate::log::{Accepted, DeliveryId, Sequence};

    /// A message of ten bytes.
    fn entry(id: u128, places: &[u64], is_pending: bool) -> MboxEntry {
        MboxEntry {
            at: Sequence(1),
            envelope: Accepted {
                id: DeliveryId(id),
                accepted_at: std::time::Duration::ZERO,
                reverse_path: String::new(),
                queue_id: String::new(),
                recipients: Vec::new(),
            },
            recipient: 0,
            content: Vec::new(),
            is_pending,
            rendered: vec![b'x'; 10],
            places: places.to_vec(),
            held: Held::Undelivered,
        }
    }

    /// Returns where an mbox of `length` bytes is cut off that no other program wrote to.
    fn cut_at(entries: &[MboxEntry], stands: &[bool], length: u64) -> Option<u64> {
        let plan = MboxPlan::new(entries, stands.to_vec(), false);
        plan.cut(length, TornExtents::default())?.behind(0)
    }

    fn missing(plan: &MboxPlan<'_>) -> Vec<u128> {
        plan.missing().iter().map(|e| e.envelope.id.0).collect()
    }

    #[test]
    fn a_message_that_stands_is_neither_cut_off_nor_appended() {
        let entries = [entry(1, &[100], true)];
        assert_eq!(cut_at(&entries, &[true], 110), None);
        assert!(missing(&MboxPlan::new(&entries, vec![true], false)).is_empty());
    }

    #[test]
    fn a_torn_message_is_cut_off_with_whole_ones_behind_it() {
        let entries = [entry(1, &[100], true), entry(2, &[110], true)];
        assert_eq!(cut_at(&entries, &[false, true], 120), Some(100));
        let mut plan = MboxPlan::new(&entries, vec![false, true], false);
        plan.is_cut_to(100);
        assert_eq!(missing(&plan), [1, 2], "both are appended again");
    }

    #[test]
    fn a_refused_message_is_cut_off_only_behind_what_stays() {
        let refused = |place| entry(2, &[place], false);
        let entries = [entry(1, &[100], true), refused(110)];
        assert_eq!(cut_at(&entries, &[true, false], 120), Some(110));
        let entries = [refused(100), entry(1, &[110], true)];
        assert_eq!(cut_at(&entries, &[false, true], 120), None);
    }

    #[test]
    fn nothing_is_cut_off_before_bytes_of_others() {
        let entries = [entry(1, &[100], true), entry(2, &[130], true)];
        let plan = MboxPlan::new(&entries, vec![false, false], false);
        let cut = |foreign| {
            let cut = plan.cut(140, TornExtents::default()).unwrap();
            assert_eq!(cut.first, 100);
            cut.behind(foreign)
        };
        assert_eq!(cut(100), Some(100));
        assert_eq!(cut(120), Some(130), "what is ours behind them goes");
        assert_eq!(cut(140), None);
    }

    #[test]
    fn a_place_that_a_later_message_has_taken_is_not_cut_off() {
        let entries = [entry(1, &[100], true), entry(2, &[95], true)];
        assert_eq!(cut_at(&entries, &[false, true], 105), None);
    }

    #[test]
    fn torn_messages_that_are_not_in_the_log_are_cut_off() {
        let plan = MboxPlan::new(&[], Vec::new(), false);
        let torn = |first| TornExtents {
            first,
            flushed_to: 0,
        };
        let at = |first| plan.cut(200, torn(first)).and_then(|cut| cut.behind(0));
        assert_eq!(at(Some(150)), Some(150));
        assert_eq!(at(None), None);
        assert_eq!(at(Some(200)), None, "nothing of it is in the file");
    }

    #[test]
    fn messages_are_written_again_only_within_the_file_and_where_no_other_was_to_go() {
        let rewritable = |entries: &[MboxEntry], is_cache_suspect| {
            let stands = vec![false; entries.len()];
            MboxPlan::new(entries, stands, false).rewritable(115, is_cache_suspect)
        };
        assert_eq!(rewritable(&[entry(1, &[100], true)], false), [0]);
        assert!(rewritable(&[entry(1, &[106], true)], false).is_empty());
        assert!(rewritable(&[entry(1, &[], true)], false).is_empty());
        assert!(rewritable(&[entry(1, &[100], false)], false).is_empty());
        let both = [entry(1, &[100], true), entry(2, &[105], true)];
        assert!(rewritable(&both, false).is_empty());
    }

    #[test]
    fn whole_messages_are_written_again_when_the_page_cache_is_suspect() {
        let entries = [entry(1, &[100], true)];
        let plan = MboxPlan::new(&entries, vec![true], false);
        assert!(plan.rewritable(110, false).is_empty());
        assert_eq!(plan.rewritable(110, true), [0]);
    }

    #[test]
    fn each_copy_found_elsewhere_stands_for_one_message() {
        let entries = [entry(1, &[100], true), entry(2, &[110], true)];
        let mut plan = MboxPlan::new(&entries, vec![false, false], false);
        plan.is_found(|_| true);
        assert_eq!(missing(&plan), [2]);
        plan.is_found(|_| false);
        assert_eq!(missing(&plan), [2]);
        plan.is_found(|_| true);
        assert!(missing(&plan).is_empty());
    }

    #[test]
    fn a_message_is_looked_for_if_it_was_appended_or_may_have_been() {
        let may_be = |places: &[u64], is_pending, has_unknown_places| {
            let entries = [entry(1, places, is_pending)];
            MboxPlan::new(&entries, vec![false], has_unknown_places).may_be_elsewhere()
        };
        assert!(may_be(&[100], true, false));
        assert!(!may_be(&[], true, false));
        assert!(may_be(&[], true, true));
        assert!(!may_be(&[100], false, true));
    }

    #[test]
    fn a_message_whose_place_the_log_may_not_have_is_found_as_well() {
        let entries = [entry(1, &[], true)];
        for (has_unknown_places, expected) in [(false, vec![1]), (true, vec![])] {
            let mut plan = MboxPlan::new(&entries, vec![false], has_unknown_places);
            plan.is_found(|_| true);
            assert_eq!(missing(&plan), expected);
        }
    }
}

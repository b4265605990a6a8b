//! Recovery of an mbox in cases that the checks found, or do not compose.

use super::*;

#[test]
fn a_refused_message_behind_a_whole_one_that_is_not_in_the_log_is_cut_off() {
    for kinds in [
        &[Kind::Pending, Kind::Extent, Kind::Refused][..],
        &[Kind::Extent, Kind::Refused],
    ] {
        let mut case = Case::default();
        let mut kept = 0;
        for (id, kind) in (1..).zip(kinds) {
            kept = case.found.len();
            let message = case.promise(id, *kind, b"text\n", Some(kept));
            case.found.extend_from_slice(&message.rendered);
            case.messages.push(message);
        }
        let disk = case.disk();
        case.recover(&disk, PageCache::Trusted);
        let after = disk.content(PATH).unwrap_or_default();
        same(&after, case.found.get(..kept).unwrap_or_default(), "kept");
    }
}

#[test]
fn a_message_that_stands_where_one_stood_that_a_reader_moved_stays_whole() {
    let mut case = Case::default();
    // The reader removed what stood before the first; then the second was appended.
    let moved = case.promise(1, Kind::Pending, b"text\n", Some(300));
    let place = moved.rendered.len();
    let next = case.promise(2, Kind::Pending, &b"line\n".repeat(50), Some(place));
    assert!(place < 300 && 300 < place + next.rendered.len());
    case.found = [moved.rendered, next.rendered].concat();
    let disk = case.disk();
    case.recover(&disk, PageCache::Trusted);
    let after = disk.content(PATH).unwrap_or_default();
    same(
        after.get(..case.found.len()).unwrap_or(&after),
        &case.found,
        "kept",
    );
}

//! What must hold for any bytes in a recipient map and in the changes beside it.

use super::changes::{Change, ChangeLog, FRAMES_AT, encode_frame, encode_head, encode_mark};
use super::{MapReader, reseal};
use crate::choices::Choices;
use std::path::Path;

const KEYS: [&str; 5] = [
    "anna@example.com",
    "all@example.com",
    "@example.org",
    "postmaster",
    "nobody@nowhere.example",
];

/// Reads `bytes` as a map, as they are and with all checksums made right, so that a fuzzer gets
/// past them. They may be refused.
///
/// # Panics
/// A key that the map shows is not found in it.
pub fn check_map(bytes: &[u8]) {
    read(bytes);
    let mut sealed = bytes.to_vec();
    if reseal(&mut sealed) {
        read(&sealed);
    }
}

fn read(bytes: &[u8]) {
    let Ok(reader) = MapReader::new(bytes) else {
        return;
    };
    for key in KEYS {
        if let Ok(Some(record)) = reader.find(key) {
            for value in record.values() {
                let _ = value.map(|(_, value)| value.text().map(|text| text.len()));
            }
        }
    }
    let sound = reader.verify(|_, _| {}).is_ok();
    let _ = reader.for_each(|key, record| {
        let found = reader.find(key)?;
        assert!(
            !sound || found.is_some(),
            "{key} is in the map and not found"
        );
        for value in record.values() {
            value?.1.text()?;
        }
        Ok(())
    });
}

/// Writes changes in frames as the input says, damages or cuts the file, and reads it.
///
/// # Panics
/// What is read is no prefix of the changes, or less than was flushed, without an error.
pub fn check_map_changes(bytes: &[u8]) {
    const MAP_ID: [u8; 16] = [7; 16];
    let mut choices = Choices::new(bytes);
    let mut file = encode_head(MAP_ID);
    let mut ends = vec![(file.len(), Vec::new())];
    let mut changes = Vec::new();
    let mut flushed = file.len();
    for _ in 0..choices.byte() % 6 {
        for _ in 0..1 + choices.byte() % 4 {
            changes.push(change(&mut choices));
        }
        let (_, before) = ends.last().cloned().unwrap_or_default();
        let frame = encode_frame(
            MAP_ID,
            file.len(),
            changes.get(before.len()..).unwrap_or(&[]),
        );
        file.extend_from_slice(&frame);
        ends.push((file.len(), changes.clone()));
        if choices.byte().is_multiple_of(2) {
            flushed = file.len();
        }
    }
    let mark = encode_mark(MAP_ID, flushed);
    if let Some(place) = file.get_mut(64..76) {
        place.copy_from_slice(&mark);
    }
    let bits = choices.byte() % 3;
    for _ in 0..bits {
        let at = usize::from(choices.number()) % file.len();
        if let Some(byte) = file.get_mut(at) {
            *byte ^= 1 << (choices.byte() % 8);
        }
    }
    file.truncate(file.len() - usize::from(choices.number()) % file.len());
    let Ok(log) = ChangeLog::decode(&file, Path::new("m.changes")) else {
        return;
    };
    assert!(log.end >= FRAMES_AT && log.end <= file.len());
    if bits > 0 {
        // A checksum of 32 bits finds every single and double flip of a short frame, not all
        // of those in a long file.
        return;
    }
    assert!(log.end >= flushed, "what was flushed is read");
    let whole = ends.iter().find(|(end, _)| *end == log.end);
    assert_eq!(whole.map(|(_, changes)| changes), Some(&log.changes));
}

fn change(choices: &mut Choices<'_>) -> Change {
    let text = |bytes: &[u8]| format!("k{}", String::from_utf8_lossy(bytes));
    let (table, key) = (text(choices.piece(8)), text(choices.piece(40)));
    match choices.byte() % 3 {
        0 => Change::Unset { table, key },
        _ => Change::Set {
            table,
            key,
            value: text(choices.piece(300)),
        },
    }
}

//! The change log beside a map: keys set and removed since the map was built.
//!
//! Invariants: a frame is one append and one fsync, and all its changes come into force together; a
//! change that was acknowledged is either read again or reported as damaged, never dropped. What a
//! crash left unfinished at the end is recognised and cut by the next writer. The bytes are
//! described in [`crate::manual::map_format`].

use std::path::Path;

use super::cursor::{Cursor, put_varint};
use super::error::MapError;
use super::format::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"\x89MSCHG\r\n";
const VERSION: u32 = 1;
/// Where the frames begin.
pub(super) const FRAMES_AT: usize = 80;
/// Where the mark of what was flushed stands.
pub(super) const MARK_AT: u64 = 64;
const FRAME_HEAD_BYTES: usize = 8;

const SET: u8 = 1;
const UNSET: u8 = 2;

/// One change of one key in one table.
///
/// ```
/// use mailstow_engine::{MapView, map::Change, map::change};
/// # use mailstow_engine::{MapBuilder, map::BuildOptions};
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("recipients.map");
/// # MapBuilder::new(&path, BuildOptions::default())?.finish()?;
/// change(&path, &[Change::Set {
///     table: "virtual_mailbox_maps".into(),
///     key: "anna@example.com".into(),
///     value: "example.com/anna/".into(),
/// }])?;
/// let view = MapView::open(&path)?;
/// assert!(view.get("virtual_mailbox_maps", "anna@example.com")?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Set {
        /// The table's name.
        table: String,
        /// The key, folded as lookups fold it.
        key: String,
        /// The value.
        value: String,
    },
    /// The key is in the table no more.
    Unset {
        /// The table's name.
        table: String,
        /// The key, folded as lookups fold it.
        key: String,
    },
}

impl Change {
    pub(super) fn parts(&self) -> (&str, &str, Option<&str>) {
        match self {
            Self::Set { table, key, value } => (table, key, Some(value)),
            Self::Unset { table, key } => (table, key, None),
        }
    }
}

/// A change log as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChangeLog {
    /// The map these changes belong to.
    pub(super) map_id: [u8; 16],
    pub(super) changes: Vec<Change>,
    /// End of the last whole frame, in bytes.
    pub(super) end: usize,
}

/// Checks that the format can hold a change.
pub(super) fn check_entry(table: &str, key: &str, value: &str) -> Result<(), MapError> {
    let cause = if table.is_empty() || table.len() > 255 {
        "a table's name has 1 to 255 bytes"
    } else if key.is_empty() {
        "the key is empty"
    } else if key.len() > KEY_BYTES_MAX {
        "the key is longer than 64 KiB"
    } else if value.len() > VALUE_BYTES_MAX {
        "the value is longer than 16 MiB"
    } else {
        return Ok(());
    };
    Err(MapError::Entry {
        table: table.chars().take(60).collect(),
        key: key.chars().take(60).collect(),
        cause,
    })
}

/// The first bytes of a new change log.
pub(super) fn encode_head(map_id: [u8; 16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAMES_AT);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes()); // features a reader must know
    out.extend_from_slice(&map_id);
    out.resize(60, 0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    debug_assert_eq!(out.len() as u64, MARK_AT, "the mark has its place");
    out.extend_from_slice(&encode_mark(map_id, FRAMES_AT));
    debug_assert!(out.len() <= FRAMES_AT, "frames begin after the mark");
    out.resize(FRAMES_AT, 0);
    out
}

/// The mark that everything before `flushed` is durable.
pub(super) fn encode_mark(map_id: [u8; 16], flushed: usize) -> [u8; 12] {
    let mut mark = [0; 12];
    let bytes = (flushed as u64).to_le_bytes();
    let crc = crc_of(&[&map_id, &bytes]).to_le_bytes();
    for (to, from) in mark.iter_mut().zip(bytes.into_iter().chain(crc)) {
        *to = from;
    }
    mark
}

/// One frame with `changes`, to stand at `offset`.
pub(super) fn encode_frame(map_id: [u8; 16], offset: usize, changes: &[Change]) -> Vec<u8> {
    debug_assert!(offset >= FRAMES_AT, "frames follow the head");
    debug_assert!(!changes.is_empty(), "a frame has changes");
    let mut body = Vec::new();
    for change in changes {
        let (table, key, value) = change.parts();
        body.push(if value.is_some() { SET } else { UNSET });
        for text in [Some(table), Some(key), value].into_iter().flatten() {
            put_varint(&mut body, text.len() as u64);
            body.extend_from_slice(text.as_bytes());
        }
    }
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let crc = frame_crc(map_id, offset, len, &body);
    debug_assert_ne!(len, u32::MAX, "the length of a frame has four bytes");
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The place and the map are part of the checksum: a frame that a file system gives back in
/// another place or from another file does not count.
fn frame_crc(map_id: [u8; 16], offset: usize, len: u32, body: &[u8]) -> u32 {
    crc_of(&[
        &map_id,
        &(offset as u64).to_le_bytes(),
        &len.to_le_bytes(),
        body,
    ])
}

fn crc_of(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

impl ChangeLog {
    /// Reads a whole change log.
    ///
    /// # Errors
    /// [`MapError::ChangesCorrupt`] if something that was acknowledged cannot be read.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, MapError> {
        let corrupt = |offset: usize| MapError::ChangesCorrupt {
            path: path.to_owned(),
            offset: offset as u64,
        };
        let map_id = Self::decode_head(bytes)?.ok_or_else(|| corrupt(0))?;
        let flushed = Self::decode_mark(bytes, map_id)
            .filter(|flushed| (FRAMES_AT..=bytes.len()).contains(flushed))
            .ok_or_else(|| corrupt(64))?;
        let mut log = Self {
            map_id,
            changes: Vec::new(),
            end: FRAMES_AT,
        };
        while let Some((body, end)) = frame_at(bytes, map_id, log.end) {
            debug_assert!(
                end > log.end && end <= bytes.len(),
                "frames are consecutive"
            );
            decode_changes(body, &mut log.changes).ok_or_else(|| corrupt(log.end))?;
            log.end = end;
        }
        // Past the mark, and with no whole frame behind it, this is an append that a crash
        // interrupted before it was acknowledged.
        let torn = log.end >= flushed
            && (log.end + 1..bytes.len()).all(|at| frame_at(bytes, map_id, at).is_none());
        if log.end < bytes.len() && !torn {
            return Err(corrupt(log.end));
        }
        Ok(log)
    }

    fn decode_head(bytes: &[u8]) -> Result<Option<[u8; 16]>, MapError> {
        let Some((covered, crc)) = bytes
            .get(..64)
            .and_then(|head| head.split_last_chunk::<4>())
        else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(covered);
        if cursor.array() != Some(MAGIC) || crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Ok(None);
        }
        let (version, features) = (cursor.u32().unwrap_or(0), cursor.u32().unwrap_or(0));
        if version != VERSION || features != 0 {
            return Err(MapError::TooNew { version, features });
        }
        Ok(cursor.array())
    }

    fn decode_mark(bytes: &[u8], map_id: [u8; 16]) -> Option<usize> {
        let mark: &[u8; 12] = bytes.get(64..)?.first_chunk()?;
        let flushed = usize::try_from(u64::from_le_bytes(*mark.first_chunk()?)).ok()?;
        (encode_mark(map_id, flushed) == *mark).then_some(flushed)
    }
}

/// The body of a whole frame at `at`, and where it ends.
fn frame_at(bytes: &[u8], map_id: [u8; 16], at: usize) -> Option<(&[u8], usize)> {
    let mut cursor = Cursor::new(bytes.get(at..)?);
    let (len, crc) = (cursor.u32()?, cursor.u32()?);
    if len == 0 {
        return None;
    }
    let body = cursor.take(usize::try_from(len).ok()?)?;
    (frame_crc(map_id, at, len, body) == crc).then_some((body, at + FRAME_HEAD_BYTES + body.len()))
}

fn decode_changes(body: &[u8], out: &mut Vec<Change>) -> Option<()> {
    let mut cursor = Cursor::new(body);
    while !cursor.is_empty() {
        let kind = cursor.u8()?;
        let mut text = || {
            let len = cursor.length()?;
            Some(std::str::from_utf8(cursor.take(len)?).ok()?.to_owned())
        };
        let (table, key) = (text()?, text()?);
        out.push(match kind {
            SET => Change::Set {
                table,
                key,
                value: text()?,
            },
            UNSET => Change::Unset { table, key },
            _ => return None,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];

    fn set(key: &str, value: &str) -> Change {
        Change::Set {
            table: "virtual_alias_maps".into(),
            key: key.into(),
            value: value.into(),
        }
    }

    fn log(flushed_frames: usize, frames: &[Vec<Change>]) -> Vec<u8> {
        let mut bytes = encode_head(ID);
        for (i, changes) in frames.iter().enumerate() {
            let frame = encode_frame(ID, bytes.len(), changes);
            bytes.extend_from_slice(&frame);
            if i < flushed_frames {
                let mark = encode_mark(ID, bytes.len());
                bytes[64..76].copy_from_slice(&mark);
            }
        }
        bytes
    }

    fn frames() -> Vec<Vec<Change>> {
        vec![
            vec![set("a@x", "b@x"), set("c@x", "")],
            vec![Change::Unset {
                table: "t".into(),
                key: "a@x".into(),
            }],
            vec![set("last@x", &"v".repeat(100))],
        ]
    }

    fn read(bytes: &[u8]) -> Result<ChangeLog, MapError> {
        ChangeLog::decode(bytes, Path::new("m.changes"))
    }

    #[test]
    fn a_log_returns_its_changes_in_order() {
        let bytes = log(3, &frames());
        let read = read(&bytes).unwrap();
        assert_eq!(read.changes, frames().concat());
        assert_eq!(read.end, bytes.len());
        assert_eq!(read.map_id, ID);
    }

    #[test]
    fn a_torn_last_frame_is_cut_and_a_flushed_one_is_missed() {
        let whole = log(2, &frames());
        let kept = log(2, &frames()[..2]);
        for len in 0..whole.len() {
            match read(&whole[..len]) {
                Ok(log) if len >= kept.len() => {
                    assert_eq!(log.changes, frames()[..2].concat());
                    assert_eq!(log.end, kept.len());
                }
                Err(MapError::ChangesCorrupt { .. }) => assert!(len < kept.len()),
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_damaged_byte_in_what_was_flushed_is_always_reported() {
        let whole = log(3, &frames());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                match read(&bytes) {
                    Err(MapError::ChangesCorrupt { .. }) => {}
                    // The four bytes behind the mark mean nothing.
                    Ok(log) => {
                        assert!((76..80).contains(&at), "{at}");
                        assert_eq!(log.changes, frames().concat());
                    }
                    other => panic!("{at}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_damaged_frame_before_a_whole_one_is_reported_even_past_the_mark() {
        let whole = log(0, &frames());
        let mut bytes = whole.clone();
        bytes[90] ^= 1;
        assert!(matches!(
            read(&bytes),
            Err(MapError::ChangesCorrupt { offset: 80, .. })
        ));
        bytes.truncate(whole.len() - 200);
        assert!(read(&bytes).is_ok_and(|log| log.end == FRAMES_AT));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(tail: Vec<u8>) {
            let _ = read(&tail);
            let mut bytes = encode_head(ID);
            bytes.extend_from_slice(&tail);
            let _ = read(&bytes);
        }
    }
}

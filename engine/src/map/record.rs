//! One key and all it has in the map's tables.
//!
//! Imports `cursor`, `value`. Invariants: a record that does not fit in 255 bytes leaves a stub
//! where it would stand; a key is compared in full, so that a fingerprint alone never answers.
//!
//! Bytes: one head byte (bit 0: the values are a reference, bit 1: stub, bits 2-7: length of the
//! key, 63 for "63 + varint follows"), the key, then the reference to the values or the values
//! themselves, each a table number and a value.

use super::cursor::{Cursor, put_varint};
use super::value::Form;

const PAYLOAD_REFERENCE: u8 = 1;
const STUB: u8 = 2;
const KEY_LEN_LONG: usize = 63;

/// Longest record between the others, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 255;

/// A record as its bytes tell, with the reference not yet followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRecord<'a> {
    pub(super) key: &'a [u8],
    pub(super) payload: Payload<'a>,
}

/// The values of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Here(&'a [u8]),
    /// Offset in the payload section.
    Reference(u64),
}

/// What stands between the other records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    Record(RawRecord<'a>),
    /// The record is long and lies in a section of its own.
    Stub {
        offset: u64,
        len: usize,
    },
}

/// The record's values if its key is `key`: the usual case of a search, where the record is not
/// long. `None` says nothing; ask [`decode`] then.
///
/// The lengths that matter come from `key` and not from the record: the processor then need not
/// wait for the record, which is far away in memory, to go on with what follows.
#[inline]
pub(super) fn payload_of<'a>(bytes: &'a [u8], key: &[u8]) -> Option<Payload<'a>> {
    let (head, rest) = bytes.split_first()?;
    if key.len() >= KEY_LEN_LONG || usize::from(*head & !PAYLOAD_REFERENCE) != key.len() << 2 {
        return None;
    }
    let (stored, payload) = rest.split_at_checked(key.len())?;
    if stored != key {
        return None;
    }
    if *head & PAYLOAD_REFERENCE == 0 {
        return Some(Payload::Here(payload));
    }
    reference(payload)
}

fn reference(bytes: &[u8]) -> Option<Payload<'_>> {
    let mut cursor = Cursor::new(bytes);
    let reference = cursor.varint()?;
    cursor.is_empty().then_some(Payload::Reference(reference))
}

/// Reads a record.
pub(super) fn decode(bytes: &[u8]) -> Option<Entry<'_>> {
    let mut cursor = Cursor::new(bytes);
    let head = cursor.u8()?;
    if head & STUB != 0 {
        let (offset, len) = (cursor.varint()?, cursor.length()?);
        return (head == STUB && cursor.is_empty()).then_some(Entry::Stub { offset, len });
    }
    let mut key_len = usize::from(head >> 2);
    if key_len == KEY_LEN_LONG {
        key_len = key_len.checked_add(cursor.length()?)?;
    }
    let key = cursor.take(key_len)?;
    let payload = if head & PAYLOAD_REFERENCE == 0 {
        Payload::Here(cursor.rest())
    } else {
        reference(cursor.rest())?
    };
    Some(Entry::Record(RawRecord { key, payload }))
}

/// Appends a record.
pub(super) fn encode(key: &[u8], payload: Payload<'_>, out: &mut Vec<u8>) {
    let (short, rest) = match key.len().checked_sub(KEY_LEN_LONG) {
        Some(rest) => (KEY_LEN_LONG, Some(rest as u64)),
        None => (key.len(), None),
    };
    let reference = u8::from(matches!(payload, Payload::Reference(_)));
    out.push(short.to_le_bytes()[0] << 2 | reference);
    if let Some(rest) = rest {
        put_varint(out, rest);
    }
    out.extend_from_slice(key);
    match payload {
        Payload::Here(bytes) => out.extend_from_slice(bytes),
        Payload::Reference(reference) => put_varint(out, reference),
    }
}

/// Appends what stands in for a long record.
pub(super) fn encode_stub(offset: u64, len: usize, out: &mut Vec<u8>) {
    out.push(STUB);
    put_varint(out, offset);
    put_varint(out, len as u64);
}

/// One value of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    /// The table's number.
    pub(super) table: u32,
    pub(super) form: Form<'a>,
    /// The bytes that store the value.
    pub(super) bytes: &'a [u8],
}

/// A value whose bytes cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damaged;

/// The values of one record, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Values<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(payload),
        }
    }

    /// The next value; `Err` if the bytes are damaged.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Stored<'a>>, Damaged> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        self.decode_one().map(Some).ok_or(Damaged)
    }

    #[inline]
    fn decode_one(&mut self) -> Option<Stored<'a>> {
        let table = u32::try_from(self.cursor.varint()?).ok()?;
        let before = self.cursor.rest();
        let form = Form::decode(&mut self.cursor)?;
        let len = before.len() - self.cursor.rest().len();
        Some(Stored {
            table,
            form,
            bytes: before.get(..len)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_return_what_was_written() {
        for len in [0, 1, 61, 62, 63, 64, 200, 5000] {
            let key = "k".repeat(len);
            for payload in [Payload::Here(b"\x01\x02"), Payload::Reference(1 << 30)] {
                let mut bytes = Vec::new();
                encode(key.as_bytes(), payload, &mut bytes);
                let Some(Entry::Record(record)) = decode(&bytes) else {
                    panic!("{bytes:?}");
                };
                assert_eq!(record.key, key.as_bytes());
                assert_eq!(record.payload, payload);
                let direct = payload_of(&bytes, key.as_bytes());
                assert_eq!(direct, (len < 63).then_some(payload));
                assert_eq!(payload_of(&bytes, b"other"), None);
            }
        }
        let mut stub = Vec::new();
        encode_stub(1 << 39, 300, &mut stub);
        assert!(matches!(
            decode(&stub),
            Some(Entry::Stub { offset, len: 300 }) if offset == 1 << 39
        ));
    }

    proptest::proptest! {
        #[test]
        fn damaged_records_are_refused_without_panic(bytes: Vec<u8>) {
            if let Some(Entry::Record(RawRecord { payload: Payload::Here(p), .. })) = decode(&bytes)
            {
                let mut values = Values::new(p);
                while let Ok(Some(_)) = values.next() {}
            }
        }
    }
}

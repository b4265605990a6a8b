//! One key and all it has in the map's tables.
//!
//! Invariants: a record that does not fit in 255 bytes leaves a stub where it would stand; a key is
//! compared in full, so that a fingerprint alone never answers.
//!
//! Bytes: one head byte (bit 0: the values are a reference, bit 1: stub, bit 2: the domain is a
//! reference, bits 3-7: length of the text, 31 for "31 + varint follows"), that varint, the number
//! of the domain (3 bytes), the text, which is the key or what precedes the domain and its `@`,
//! then the reference to the values or the values themselves, each a table number and a value.

use super::cursor::{Cursor, put_varint};
use super::domains;
use super::value::Form;

const PAYLOAD_REFERENCE: u8 = 1;
const STUB: u8 = 2;
const DOMAIN_REFERENCE: u8 = 4;
const TEXT_LEN_LONG: usize = 31;
/// Longest text whose length takes two bytes at most.
const TEXT_LEN_USUAL: usize = TEXT_LEN_LONG + 0x7f;

/// Longest record between the others, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 255;

/// A record as its bytes tell, with the reference not yet followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRecord<'a> {
    pub(super) key: StoredKey<'a>,
    pub(super) payload: Payload<'a>,
}

/// A key as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredKey<'a> {
    /// The domain's number, and the text ends before the `@`; or the text is the key.
    pub(super) domain: Option<u32>,
    pub(super) text: &'a [u8],
}

impl<'a> StoredKey<'a> {
    /// How `key` is stored if its domain has this number.
    #[inline]
    pub(super) fn new(key: &'a [u8], domain: Option<u32>) -> Self {
        match domains::split(key) {
            Some((text, _)) if domain.is_some() => Self { domain, text },
            _ => Self {
                domain: None,
                text: key,
            },
        }
    }
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
    /// The record is long and lies in the section of long records.
    Stub {
        offset: u64,
        len: usize,
    },
}

/// What a record of one key begins with: its first bytes but for the head's lowest bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    key: StoredKey<'a>,
    /// The bytes before the text, and which of them there are.
    prefix: u64,
    mask: u64,
    prefix_len: usize,
}

impl<'a> Wanted<'a> {
    #[inline]
    pub(super) fn new(key: StoredKey<'a>) -> Self {
        let len = key.text.len();
        let short = len.min(TEXT_LEN_LONG) as u64;
        let (mut prefix, mut bytes) = (short << 3, 1);
        if len >= TEXT_LEN_LONG {
            // Too long a text is compared by decoding the record.
            prefix |= ((len - TEXT_LEN_LONG) as u64 & 0x7f) << 8;
            bytes = 2;
        }
        if let Some(domain) = key.domain {
            prefix |= u64::from(DOMAIN_REFERENCE) | u64::from(domain) << (8 * bytes);
            bytes += 3;
        }
        Self {
            key,
            prefix,
            mask: ((1 << (8 * bytes)) - 1) & !u64::from(PAYLOAD_REFERENCE),
            prefix_len: bytes,
        }
    }

    pub(super) fn key(&self) -> StoredKey<'a> {
        self.key
    }
}

/// The record's values if its key is the wanted one: the usual case of a search, where the record
/// is not long. `None` says nothing; ask [`decode`] then.
///
/// The lengths that matter come from the question and not from the record: the processor then
/// need not wait for the record, which is far away in memory, to go on with what follows.
#[inline]
pub(super) fn payload_of<'a>(bytes: &'a [u8], wanted: &Wanted<'_>) -> Option<Payload<'a>> {
    let first = match bytes.first_chunk::<8>() {
        Some(first) => u64::from_le_bytes(*first),
        None => padded(bytes),
    };
    let text = wanted.key.text;
    if first & wanted.mask != wanted.prefix || text.len() > TEXT_LEN_USUAL {
        return None;
    }
    let (_, rest) = bytes.split_at_checked(wanted.prefix_len)?;
    let (stored, payload) = rest.split_at_checked(text.len())?;
    if stored != text {
        return None;
    }
    if first & u64::from(PAYLOAD_REFERENCE) == 0 {
        return Some(Payload::Here(payload));
    }
    reference(payload)
}

/// The first eight bytes of a record that has fewer; the others are zero.
#[cold]
fn padded(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
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
    let mut len = usize::from(head >> 3);
    if len == TEXT_LEN_LONG {
        len = len.checked_add(cursor.length()?)?;
    }
    let domain = if head & DOMAIN_REFERENCE == 0 {
        None
    } else {
        let [low, middle, high] = cursor.array()?;
        Some(u32::from_le_bytes([low, middle, high, 0]))
    };
    let text = cursor.take(len)?;
    let key = StoredKey { domain, text };
    let payload = if head & PAYLOAD_REFERENCE == 0 {
        Payload::Here(cursor.rest())
    } else {
        reference(cursor.rest())?
    };
    Some(Entry::Record(RawRecord { key, payload }))
}

/// Appends a record.
pub(super) fn encode(key: StoredKey<'_>, payload: Payload<'_>, out: &mut Vec<u8>) {
    let StoredKey { domain, text } = key;
    debug_assert!(
        domain.is_none_or(|number| number < 1 << 24),
        "a domain's number has three bytes"
    );
    let start = out.len();
    let (short, rest) = match text.len().checked_sub(TEXT_LEN_LONG) {
        Some(rest) => (TEXT_LEN_LONG, Some(rest as u64)),
        None => (text.len(), None),
    };
    let mut head = short.to_le_bytes()[0] << 3;
    if domain.is_some() {
        head |= DOMAIN_REFERENCE;
    }
    if matches!(payload, Payload::Reference(_)) {
        head |= PAYLOAD_REFERENCE;
    }
    out.push(head);
    if let Some(rest) = rest {
        put_varint(out, rest);
    }
    if let Some(domain) = domain {
        let [low, middle, high, _] = domain.to_le_bytes();
        out.extend_from_slice(&[low, middle, high]);
    }
    out.extend_from_slice(text);
    match payload {
        Payload::Here(bytes) => out.extend_from_slice(bytes),
        Payload::Reference(reference) => put_varint(out, reference),
    }
    debug_assert!(
        matches!(
            decode(out.get(start..).unwrap_or_default()),
            Some(Entry::Record(again)) if (again.key, again.payload) == (key, payload)
        ),
        "a record is read as it was written"
    );
}

/// Appends what stands in for a long record.
pub(super) fn encode_stub(offset: u64, len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > RECORD_BYTES_MAX, "short records are in their place");
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
        for len in [0, 1, 30, 31, 32, 157, 158, 159, 200, 5000] {
            let text = "k".repeat(len);
            for (payload, domain) in [
                (Payload::Here(b"\x01\x02"), None),
                (Payload::Reference(1 << 30), None),
                (Payload::Here(b""), Some(0)),
                (Payload::Reference(1), Some(0xab_cdef)),
            ] {
                let text = text.as_bytes();
                let key = StoredKey { domain, text };
                let mut bytes = Vec::new();
                encode(key, payload, &mut bytes);
                let Some(Entry::Record(record)) = decode(&bytes) else {
                    panic!("{bytes:?}");
                };
                assert_eq!(record.key, key);
                assert_eq!(record.payload, payload);
                let direct = payload_of(&bytes, &Wanted::new(key));
                assert_eq!(direct, (len <= TEXT_LEN_USUAL).then_some(payload), "{len}");
                let mut other = text.to_vec();
                other.push(b'k');
                for (domain, text) in [
                    (domain, &b"other"[..]),
                    (domain, &other),
                    (Some(7), text),
                    (domain.xor(Some(1)), text),
                ] {
                    let wanted = Wanted::new(StoredKey { domain, text });
                    assert_eq!(payload_of(&bytes, &wanted), None);
                }
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

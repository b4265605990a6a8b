//! Sets of values that many records repeat, stored once.
//!
//! Invariants: a text is shared from its second appearance on, so that unique texts cost nothing
//! here; memory stays under a bound, past which texts are stored in their records.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::cursor::{Cursor, put_varint};
use super::format;

/// Slots that remember texts seen once.
const SEEN_SLOTS: usize = 1 << 16;

/// The keys are hashes already.
#[derive(Default)]
pub(super) struct Ready(pub(super) u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = format::hash(self.0, bytes);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A section of shared texts being written.
pub(super) struct SharedTexts {
    section: Vec<u8>,
    places: HashMap<u64, u64, BuildHasherDefault<Ready>>,
    seen: Vec<u64>,
    bytes_max: usize,
}

impl SharedTexts {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            section: Vec::new(),
            places: HashMap::default(),
            seen: vec![0; SEEN_SLOTS],
            bytes_max,
        }
    }

    /// Where `text` is stored; `None` if it is not shared (yet).
    pub(super) fn place(&mut self, text: &[u8]) -> Option<u64> {
        let hash = format::hash(0, text);
        if let Some(&place) = self.places.get(&hash) {
            return (self.read(place) == Some(text)).then_some(place);
        }
        let [low, high, ..] = hash.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([low, high]));
        let seen = self.seen.get_mut(slot)?;
        if *seen != hash || self.section.len() + text.len() > self.bytes_max {
            *seen = hash;
            return None;
        }
        let place = self.section.len() as u64;
        put_varint(&mut self.section, text.len() as u64);
        self.section.extend_from_slice(text);
        self.places.insert(hash, place);
        debug_assert_eq!(self.read(place), Some(text), "it is found where it was put");
        Some(place)
    }

    fn read(&self, place: u64) -> Option<&[u8]> {
        let mut cursor = Cursor::new(self.section.get(usize::try_from(place).ok()?..)?);
        let len = cursor.length()?;
        cursor.take(len)
    }

    pub(super) fn section(&self) -> &[u8] {
        &self.section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shared_from_its_second_appearance_on() {
        let mut texts = SharedTexts::new(1000);
        assert_eq!(texts.place(b"example.com"), None);
        assert_eq!(texts.place(b"example.org"), None);
        assert_eq!(texts.place(b"example.org"), Some(0));
        assert_eq!(texts.place(b"example.com"), Some(12));
        assert_eq!(texts.place(b"example.org"), Some(0));
        assert_eq!(texts.section(), b"\x0bexample.org\x0bexample.com");
    }

    #[test]
    fn sharing_stops_at_its_bound() {
        let mut texts = SharedTexts::new(5);
        for _ in 0..3 {
            assert_eq!(texts.place(b"too long"), None);
        }
    }
}

//! Little-endian writing and bounded reading of the log's fields.
//!
//! Invariant: reading never passes the end of its input and never reserves memory on the word of a
//! length field.

use thiserror::Error;

/// Highest number of a record or a segment. A log that writes a million records a second comes
/// there in 146 000 years, so what is higher is no number of ours, and counting on never
/// overflows.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Why bytes with a good checksum are not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record ends inside of a field.
    #[error("the record ends inside of {field}")]
    Short {
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    Text {
        /// The field.
        field: &'static str,
    },
    /// A field has a value this version does not know.
    #[error("{field} has the unknown value {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// What was read.
        value: u64,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes follow the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A newer mailstow wrote this.
    #[error("record kind {0} is unknown; a newer mailstow wrote it")]
    Kind(u8),
}

/// Appends fields to a buffer.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }
    /// A length in four bytes, then the text. Texts are addresses, paths and names, all of which
    /// are bounded far below 4 GiB.
    fn put_text(&mut self, value: &str) {
        self.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.put(value.as_bytes());
    }
    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes fields from the front of a slice.
#[derive(Debug)]
pub(super) struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// A count of things that take at least `bytes_min` each.
    pub(super) fn count(
        &mut self,
        bytes_min: usize,
        field: &'static str,
    ) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if count.saturating_mul(bytes_min) > self.0.len() {
            return Err(DecodeError::Short { field });
        }
        Ok(count)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let length = self.count(1, field)?;
        let bytes = self.bytes(length, field)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| DecodeError::Text { field })
    }

    /// Takes everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Everything was taken.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

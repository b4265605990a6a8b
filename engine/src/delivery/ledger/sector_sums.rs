//! CRC-32 of every sector of a part of a file.
//!
//! The delivery log keeps these sums of a message that is too long for it, so that recovery can
//! distinguish a torn copy in an mbox from what other programs wrote.

/// The smallest unit that a disk writes atomically, in bytes.
pub(in crate::delivery) const SECTOR_BYTES: u64 = 512;

/// CRC-32 of the bytes in each sector of a file, from an offset on.
#[derive(Debug)]
pub(in crate::delivery) struct SectorSums {
    at: u64,
    open: Option<crc32fast::Hasher>,
    ended: Vec<u32>,
}

impl SectorSums {
    /// Begins at an offset of the file.
    pub(in crate::delivery) fn from(offset: u64) -> Self {
        Self {
            at: offset,
            open: None,
            ended: Vec::new(),
        }
    }

    /// Adds the bytes that follow.
    pub(in crate::delivery) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = SECTOR_BYTES - self.at % SECTOR_BYTES;
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.open.get_or_insert_default().update(now);
            self.at += now.len() as u64;
            if now.len() == room {
                self.end_sector();
            }
            bytes = later;
        }
    }

    fn end_sector(&mut self) {
        self.ended
            .extend(self.open.take().map(crc32fast::Hasher::finalize));
    }

    /// Returns the offset after the last byte, and the sums.
    pub(in crate::delivery) fn finish(mut self) -> (u64, Vec<u32>) {
        self.end_sector();
        (self.at, self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_the_sectors_of_the_file_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..2000_u32).map(|n| (n % 251) as u8).collect();
        let mut at_once = SectorSums::from(500);
        at_once.feed(&bytes);
        let mut by_pieces = SectorSums::from(500);
        for piece in bytes.chunks(7) {
            by_pieces.feed(piece);
        }
        let (end, sums) = at_once.finish();
        assert_eq!(end, 2500);
        assert_eq!((end, sums.clone()), by_pieces.finish());
        let expected = [0..12, 12..524, 524..1036, 1036..1548, 1548..2000];
        let expected: Vec<u32> = expected.map(|r| crc32fast::hash(&bytes[r])).into();
        assert_eq!(sums, expected);
        assert_eq!(SectorSums::from(9).finish(), (9, Vec::new()));
    }
}

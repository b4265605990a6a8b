//! cdb as it is read at its fastest: from a mapping, without a copy or an allocation.
//!
//! Source: the cdb specification (cr.yp.to/cdb/cdb.txt).

use std::path::PathBuf;

use filebuffer::FileBuffer;

use super::{Recipients, directory};

/// The cdb file, built unless it is there.
pub(crate) fn build(recipients: &Recipients) -> PathBuf {
    let path = directory(recipients.count()).join("recipients.cdb");
    if !path.exists() {
        let mut writer = cdb2::CDBWriter::create(&path).expect("cdb is begun");
        for i in 0..recipients.count() {
            writer
                .add(recipients.key(i).as_bytes(), recipients.value(i).as_bytes())
                .expect("entry is taken");
        }
        writer.finish().expect("cdb is built");
    }
    path
}

pub(crate) struct Cdb(FileBuffer);

impl Cdb {
    pub(crate) fn open(path: &PathBuf) -> Self {
        Self(FileBuffer::open(path).expect("cdb opens"))
    }

    fn pair(&self, at: usize) -> (u32, u32) {
        let word = |at: usize| {
            u32::from_le_bytes(
                self.0[at..at + 4]
                    .try_into()
                    .expect("four bytes are four bytes"),
            )
        };
        (word(at), word(at + 4))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = key.iter().fold(5381u32, |hash, byte| {
            (hash << 5).wrapping_add(hash) ^ u32::from(*byte)
        });
        let (table, slots) = self.pair((hash as usize & 0xff) * 8);
        if slots == 0 {
            return None;
        }
        let mut slot = (hash >> 8) % slots;
        for _ in 0..slots {
            let (found, at) = self.pair((table + slot * 8) as usize);
            if at == 0 {
                return None;
            }
            if found == hash {
                let at = at as usize;
                let (key_len, len) = self.pair(at);
                let value = at + 8 + key_len as usize;
                if &self.0[at + 8..value] == key {
                    return Some(&self.0[value..value + len as usize]);
                }
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        None
    }
}

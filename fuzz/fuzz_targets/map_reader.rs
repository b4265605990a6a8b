//! The map reader on bytes from anywhere: it may refuse them, and must not panic or hang.
//!
//! The input is read twice, as it is and with all checksums made right, so that the fuzzer gets
//! past them. Good seeds are the fixtures: engine/src/map/fixtures/v1.map.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::map::{MapReader, reseal};

const KEYS: [&str; 5] = [
    "anna@example.com",
    "all@example.com",
    "@example.org",
    "postmaster",
    "nobody@nowhere.example",
];

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut sealed = bytes.to_vec();
    if reseal(&mut sealed) {
        read(&sealed);
    }
});

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
    // Found keys must be found again: the reader may not contradict itself.
    let sound = reader.verify(|_, _| {}).is_ok();
    let _ = reader.for_each(|key, record| {
        let found = reader.find(key)?;
        assert!(!sound || found.is_some(), "{key} is in the map and not found");
        for value in record.values() {
            value?.1.text()?;
        }
        Ok(())
    });
}

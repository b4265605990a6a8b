//! Recovery of an mbox; see `engine/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::fuzz_checks::check_mbox_recovery;

fuzz_target!(|bytes: &[u8]| check_mbox_recovery(bytes));

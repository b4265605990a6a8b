//! Requests to the socketmap server; see `lmtp/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_lmtp::fuzz_checks::check_socketmap;

fuzz_target!(|bytes: &[u8]| check_socketmap(bytes));

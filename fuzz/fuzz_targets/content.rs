//! Contents after DATA and BDAT; see `lmtp/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_lmtp::fuzz_checks::check_content;

fuzz_target!(|bytes: &[u8]| check_content(bytes));

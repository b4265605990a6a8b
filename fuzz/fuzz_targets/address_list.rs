//! Address lists of RFC 822; see `engine/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::fuzz_checks::check_address_list;

fuzz_target!(|text: &str| check_address_list(text));

//! Addresses of commands; see `engine/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::fuzz_checks::check_address;

fuzz_target!(|text: &str| check_address(text));

//! Sequences of calls from C; see `ffi/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow::fuzz_checks::check_calls;

fuzz_target!(|bytes: &[u8]| check_calls(bytes));

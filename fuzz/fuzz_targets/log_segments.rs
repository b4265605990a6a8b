//! Log directories of any files; see `engine/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::fuzz_checks::check_log_segments;

fuzz_target!(|bytes: &[u8]| check_log_segments(bytes));

//! Postfix's master.cf; see `engine/src/fuzz_checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::fuzz_checks::check_master_cf;

fuzz_target!(|bytes: &[u8]| check_master_cf(bytes));

//! Replies of the servers that mail goes on to; see `lmtp/src/relay/fuzz_check.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_lmtp::fuzz_checks::check_relay;

fuzz_target!(|bytes: &[u8]| check_relay(bytes));

//! Addresses of commands: what is taken is the same when read again, and resolving it ends.
//!
//! What is checked stands in `engine/src/unwary.rs`, which the engine's property tests share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::unwary::read_address;

fuzz_target!(|text: &str| read_address(text));

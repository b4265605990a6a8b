//! Address lists, as aliases have them: each address is the same when it is read again.
//!
//! What is checked stands in `engine/src/unwary.rs`, which the engine's property tests share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::unwary::read_address_list;

fuzz_target!(|text: &str| read_address_list(text));

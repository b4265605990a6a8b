//! The text of every kind of table: what was read must be found again, and nothing may panic.
//!
//! What is checked stands in `engine/src/unwary.rs`, which the engine's property tests share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::unwary::read_text_table;

fuzz_target!(|bytes: &[u8]| read_text_table(bytes));

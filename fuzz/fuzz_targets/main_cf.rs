//! `main.cf`, `master.cf` and `mailstow.toml`: anything is read or refused, nothing panics.
//!
//! What is checked stands in `engine/src/unwary.rs`, which the engine's property tests share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstow_engine::unwary::read_main_cf;

fuzz_target!(|bytes: &[u8]| read_main_cf(bytes));

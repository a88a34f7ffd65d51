//! See [`tapeway_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::state::run(bytes));

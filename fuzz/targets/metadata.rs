//! See [`tapeway_fuzz::metadata`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::metadata::run(bytes));

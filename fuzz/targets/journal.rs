//! See [`tapeway_fuzz::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::journal::run(bytes));

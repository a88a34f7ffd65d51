//! See [`tapeway_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::config::run(bytes));

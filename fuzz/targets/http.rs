//! See [`tapeway_fuzz::http`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::http::run(bytes));

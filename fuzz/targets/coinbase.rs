//! A lane of coinbase under hostile input; see [`tapeway_fuzz::lane`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::lane::run("coinbase", bytes));

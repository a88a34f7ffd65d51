//! A lane of kraken, seeded with the old version of its feed, under hostile input; see [`tapeway_fuzz::lane`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapeway_fuzz::lane::run("kraken", bytes));

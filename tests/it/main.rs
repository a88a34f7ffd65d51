//! All integration tests, in one binary: each module states the rule it tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod bench;
mod book_at;
mod catch_up;
mod cluster;
mod daemon;
mod feeding;
mod handover;
mod healing;
mod journal;
mod loopback;
mod ops;
mod process;
mod proof;
mod proxy;
mod recordings;
mod store;
mod verify;
mod writer;

//! The loopback venue server, as a client sees it: the venues' handshakes, sequence rules, snapshots that fit the
//! frames after them, a truth file that says what was sent, and faults that do what they say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod binance;
mod client;
mod coinbase;
mod faults;
mod kraken;
mod recording;
mod server;

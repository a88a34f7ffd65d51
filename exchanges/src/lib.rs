//! Venue adapters of tapeway: bytes in, events out.
//!
//! Pure by rule and by test: nothing here reads a clock, a socket, a file, the environment or a random
//! number. Receive time comes with each frame. See `SEMANTICS.md` for what each field means.

pub mod adapter;
mod aligned;
mod backfill;
pub mod book;
mod book_code;
mod by_symbol;
mod chain;
pub mod checksum;
pub mod config;
pub mod conn;
pub mod decoder;
mod digits;
pub mod error;
pub mod event;
mod gaps;
pub mod guard;
mod healing;
mod holes;
pub mod ids;
mod inband;
pub mod input;
mod json;
mod lane;
mod levels;
pub mod metadata;
pub mod number;
mod open_gaps;
pub mod plan;
pub mod replica;
mod resync;
mod scan;
pub mod sequence;
pub mod subscription;
pub mod symbols;
pub mod time;
pub mod top_book;
mod trades;
mod unnumbered;
pub mod venue;

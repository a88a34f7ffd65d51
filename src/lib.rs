//! tapeway records what exchanges publish into TimescaleDB, exactly once. ARCHITECTURE.md has the whole.

pub mod api;
pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod journal;
pub mod lane;
pub mod loopback;
pub mod metrics;
pub mod queue;
pub mod recording;
pub mod replay;
pub mod seal;
pub mod session;
pub mod status;
pub mod store;
pub mod verify;
pub mod writer;

//! tapeway records what exchanges publish into TimescaleDB, exactly once. ARCHITECTURE.md has the whole.

pub mod cli;
pub mod config;
pub mod journal;
pub mod lane;
pub mod metrics;
pub mod queue;
pub mod replay;
pub mod store;
pub mod writer;

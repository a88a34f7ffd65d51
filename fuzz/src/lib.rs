//! What each fuzz target does with its bytes, and the seeds that captures give it. README.md says how to run.

pub mod captures;
pub mod config;
pub mod http;
pub mod journal;
pub mod lane;
pub mod metadata;
pub mod plan;
pub mod script;
pub mod state;

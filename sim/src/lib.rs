//! The deterministic world: tapeway's real adapters, journal, recovery, reader, queue and writer against a simulated
//! clock, disk, database and feed. A seed is a world; README.md says what is simulated and what must hold.

pub mod daemon;
pub mod database;
pub mod mutation;
pub mod oracle;
pub mod regressions;
pub mod rng;
pub mod scenario;
pub mod session;
pub mod venue;
pub mod world;

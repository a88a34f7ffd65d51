//! All integration tests of the adapters, in one binary: each module states the rule it tests.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed and says where")]

mod binance;
mod captures;
mod coinbase;
mod corpus;
mod harness;
mod healing;
mod kraken;
mod ledger;
mod metadata;
mod okx;
mod okx_chains;
mod okx_twins;
mod panics;
mod purity;
mod resume;
mod robustness;
mod scanned;
mod top_books;
mod twins;

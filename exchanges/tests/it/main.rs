//! All integration tests of the adapters, in one binary: each module states the rule it tests.

mod binance;
mod captures;
mod coinbase;
mod corpus;
mod harness;
mod kraken;
mod metadata;
mod okx;
mod purity;
mod resume;
mod robustness;

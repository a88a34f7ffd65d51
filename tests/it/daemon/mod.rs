//! The daemon as an operator meets it: the real process, loopback venues with faults, a real PostgreSQL that comes and
//! goes, signals, a full disk. Whatever happens, what is recorded is exact and what is not is named.

mod command;
mod connections;
mod database;
mod demo;
mod faults;
mod full;
mod reload;
mod rewind;
mod standby;
mod stopping;
mod subscriptions;
mod tls;
mod twins;
mod world;

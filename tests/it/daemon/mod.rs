//! The daemon as an operator meets it: the real process, loopback venues with faults, a real PostgreSQL that comes and
//! goes, signals, a full disk. Whatever happens, what is recorded is exact and what is not is named.

mod command;
mod connections;
mod database;
mod demo;
mod faults;
mod full;
mod hostile;
mod limits;
mod mounted;
mod reload;
mod rewind;
mod standby;
mod stopping;
mod subscriptions;
mod tls;
mod twins;
mod world;

/// Resident bytes of a process.
fn resident(pid: u32) -> usize {
    memory(pid, "VmRSS:")
}

/// A line of a process's status that is in KiB, in bytes.
fn memory(pid: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

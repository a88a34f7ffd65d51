//! The writer: every row once, whatever happens to the database; every column as it was; refused rows told apart.

use std::time::Duration;

use rust_decimal::Decimal;
use tapeway::{
    config::Database,
    store,
    writer::{Handle, ShardState, Undone},
};
use tapeway_exchanges::event::Events;

use crate::{
    cluster::{Cluster, block_on},
    feeding::chunk,
};

mod columns;
mod lanes;
mod once;
mod refused;

fn prepared(cluster: &Cluster, name: &str) -> Database {
    let database = cluster.database(name);
    block_on(store::prepare(&database)).unwrap();
    database
}

fn stop(handle: Handle, within: Duration) -> Vec<Undone> {
    block_on(async { handle.stop(tokio::time::Instant::now() + within).await })
}

fn states(handle: &Handle) -> Vec<ShardState> {
    handle.observer().read()
}

/// Lanes and their states on the first thread.
fn lane_states(handle: &Handle) -> Vec<String> {
    states(handle)[0].lanes.iter().map(|lane| format!("{} {}", lane.lane, lane.state)).collect()
}

/// The chunks of a lane: `count` chunks of `frames` frames.
fn chunks(nr: u64, count: u64, frames: u64) -> Vec<Events> {
    (0..count).map(|index| chunk(nr, index * frames, frames)).collect()
}

fn watermarks(cluster: &Cluster, database: &str) -> String {
    cluster.psql(
        database,
        "SELECT name, next_pos, rows_total, rejected FROM audit.watermarks JOIN audit.lanes USING (lane_id) ORDER BY 1",
    )
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

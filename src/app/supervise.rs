//! What systemd is told: ready, what is going on, still alive. Silent where there is no systemd.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::status::Board;

/// Says that start-up is over.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that a reload has begun or ended.
pub(super) fn reloading(is_begun: bool) {
    if !is_begun {
        notify(&[NotifyState::Ready]);
    } else if let Ok(since_boot) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, since_boot]);
    }
}

/// Says that the stop has begun, and how long it may take.
pub(super) fn stopping(deadline: Duration) {
    let micros = u32::try_from(deadline.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Keeps the watchdog fed and the status line current. Runs on the session runtime: if that hangs, the watchdog
/// bites.
pub(super) async fn keep_alive(board: Arc<Board>) {
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = board.read();
        let rows: u64 = status.lanes.iter().map(|lane| lane.rows_committed).sum();
        let pending: u64 = status.lanes.iter().map(|lane| lane.rows_pending).sum();
        let line = match status.not_ready.as_slice() {
            [] => format!("{} lanes, {rows} rows committed, {pending} pending", status.lanes.len()),
            [first, ..] => format!("not ready: {first}"),
        };
        notify(&[NotifyState::Watchdog, NotifyState::Status(&line)]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(failure) = sd_notify::notify(states) {
        debug!(error = %failure, "systemd was not told");
    }
}

/// How often the status line is renewed when no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(5);

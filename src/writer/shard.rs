//! A writer thread: its lanes, and its life from connection to connection.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use core_affinity::CoreId;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tracing::{error, info, warn};

use super::{
    batch::{Building, Limits, Piece},
    encode::{Encoder, Scratch},
    feed::{Claim, Feed},
    link::{Connect, Link, Server},
    retry::Backoff,
    state::{LaneState, Shared, Undone},
    transaction::Failure,
};
use crate::{
    config::Writer,
    lane::{Ahead, Lane},
    metrics::WriterMetrics,
    store::{self, instruments::InstrumentId},
};

/// What a writer thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve this lane too.
    Add(Arc<Lane>),
    /// Drain this lane and let it go.
    Remove(String),
}

/// One writer thread's state.
pub(super) struct Shard<C> {
    pub(super) index: usize,
    pub(super) limits: Limits,
    pub(super) chunk_rows_max: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: WriterMetrics,
    pub(super) feeds: Vec<Feed>,
    /// The feed that is asked first for the next chunk.
    pub(super) turn: usize,
    /// Chunks of the next batch.
    pub(super) building: Building,
    /// The batch being encoded; kept here so that a failure does not lose its chunks.
    pub(super) encoder: Option<Encoder>,
    pub(super) scratch: Scratch,
    /// Chunks of batches that failed, oldest first.
    pub(super) failed: Vec<Piece>,
    /// Numbers of instruments this connection has seen, by venue and symbol.
    pub(super) known: std::collections::HashMap<(&'static str, tapeway_exchanges::symbols::Symbol), InstrumentId>,
    pub(super) wake: Arc<Notify>,
    /// When to have stopped, once that is asked for.
    pub(super) stop: watch::Receiver<Option<Instant>>,
    pub(super) backoff: Backoff,
    pub(super) warnings_seen: u64,
    inbox: mpsc::Receiver<Command>,
    forwarders: Vec<(String, JoinHandle<()>)>,
    database: C,
}

impl<C: Connect> Shard<C> {
    /// `seed`: of the waits before the database is tried again.
    pub(super) fn new(
        index: usize,
        writer: &Writer,
        (database, seed): (C, u64),
        shared: Arc<Shared>,
        inbox: mpsc::Receiver<Command>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        shared.lock().shard = index;
        Self {
            index,
            limits: Limits {
                rows_max: writer.batch_rows_max,
                bytes_max: writer.batch_bytes_max,
                age_max: writer.batch_age_max,
            },
            chunk_rows_max: writer.chunk_rows_max,
            shared,
            metrics: WriterMetrics::new(index),
            feeds: Vec::new(),
            turn: 0,
            building: Building::default(),
            encoder: None,
            scratch: Scratch::default(),
            failed: Vec::new(),
            known: std::collections::HashMap::new(),
            wake: Arc::new(Notify::new()),
            stop,
            backoff: Backoff::new(seed),
            warnings_seen: 0,
            inbox,
            forwarders: Vec::new(),
            database,
        }
    }

    /// Serves until told to stop and everything is committed.
    async fn run(&mut self) {
        loop {
            self.take_commands();
            if self.is_done() {
                return;
            }
            let failure = match self.connect().await {
                Ok(link) => {
                    let result = self.serve(&link).await;
                    self.give_back();
                    match result {
                        Ok(()) => return,
                        Err(failure) => failure,
                    }
                }
                Err(error) => Failure::Store(error),
            };
            self.failed_with(&failure);
            let wait = self.backoff.wait();
            tokio::time::sleep(wait).await;
        }
    }

    async fn connect(&mut self) -> Result<C::Link, store::Error> {
        let (link, server) = self.database.connect().await?;
        let Server { capabilities, is_direct_compress_on } = server;
        info!(
            shard = self.index,
            postgresql = capabilities.server_version_text,
            timescaledb = capabilities.timescaledb,
            direct_compress = is_direct_compress_on,
            "writer connected"
        );
        self.warnings_seen = link.compress_warnings();
        self.metrics.database_up.set(1.0);
        self.metrics.direct_compress_on.set(f64::from(u8::from(is_direct_compress_on)));
        let mut state = self.shared.lock();
        state.is_database_up = true;
        state.is_direct_compress_on = is_direct_compress_on;
        state.capabilities = Some(capabilities);
        Ok(link)
    }

    /// Takes in what was sent since the last look; whether anything was.
    pub(super) fn take_commands(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.inbox.try_recv() {
            self.take_command(command);
            any = true;
        }
        any
    }

    pub(super) async fn next_command(&mut self) {
        match self.inbox.recv().await {
            Some(command) => self.take_command(command),
            // The handle was dropped; the thread is about to end for that.
            None => std::future::pending().await,
        }
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Add(lane) => {
                if !Arc::ptr_eq(&lane.writer, &self.wake) {
                    let forwarder = tokio::spawn(forward(lane.writer.clone(), self.wake.clone()));
                    self.forwarders.push((lane.name.clone(), forwarder));
                }
                self.feeds.push(Feed::new(lane));
            }
            Command::Remove(name) => {
                for feed in self.feeds.iter_mut().filter(|feed| feed.lane.name == name) {
                    feed.is_leaving = true;
                }
            }
        }
        self.publish();
    }

    /// Forgets a lane that has left.
    pub(super) fn drop_feed(&mut self, at: usize) {
        let mut feed = self.feeds.remove(at);
        feed.standby.forget(&feed.lane);
        if let Some(at) = self.forwarders.iter().position(|(name, _)| *name == feed.lane.name) {
            self.forwarders.remove(at).1.abort();
        }
        info!(shard = self.index, lane = feed.lane.name, "lane left its writer");
        self.publish();
    }

    /// Told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Told to stop, and nothing to wait for.
    pub(super) fn is_done(&self) -> bool {
        self.is_stopping() && self.feeds.iter().all(|feed| is_committed(&feed.lane) || feed_is_idle(feed))
    }

    /// After a connection ended: chunks of the failed batch, of the one being encoded and of the next one go back
    /// to their lanes, and nothing is believed any more.
    fn give_back(&mut self) {
        let mut pieces = std::mem::take(&mut self.failed);
        pieces.extend(self.encoder.take().map(Encoder::into_pieces).into_iter().flatten());
        pieces.extend(self.building.take());
        for feed in &mut self.feeds {
            let own: Vec<Piece>;
            (own, pieces) = pieces.into_iter().partition(|piece| Arc::ptr_eq(&piece.lane, &feed.lane));
            feed.give_back(own.into_iter());
        }
        self.known.clear();
    }

    fn failed_with(&mut self, failure: &Failure) {
        self.metrics.database_up.set(0.0);
        self.metrics.reconnect(failure.reason());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = failure.to_string();
        let mut state = self.shared.lock();
        // Said once while it stays the same.
        let is_news = state.is_database_up || state.last_error.as_ref().is_none_or(|(_, before)| *before != text);
        state.is_database_up = false;
        state.reconnects += 1;
        state.last_error = Some((now, text));
        drop(state);
        if is_news {
            warn!(shard = self.index, %failure, "database connection given up, trying again");
        }
        self.publish();
    }

    /// Makes the lanes' states visible.
    pub(super) fn publish(&self) {
        let lanes = self.feeds.iter().map(lane_state).collect();
        let standby = self.feeds.iter().filter(|feed| feed.claim == Claim::Standby).count();
        self.metrics.lanes_standby.set(f64::from(u32::try_from(standby).unwrap_or(u32::MAX)));
        for feed in &self.feeds {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 frames are not reached")]
            feed.metrics.behind_frames.set(feed.behind_frames() as f64);
            feed.metrics.standby.set(f64::from(u8::from(feed.claim == Claim::Standby)));
        }
        self.shared.lock().lanes = lanes;
    }

    fn undone(&self) -> Vec<Undone> {
        self.feeds
            .iter()
            .filter(|feed| !is_committed(&feed.lane) && feed.claim != Claim::Standby)
            .map(|feed| Undone {
                shard: self.index,
                lane: feed.lane.name.clone(),
                committed: feed.lane.progress.committed(),
                appended: feed.lane.progress.appended(),
            })
            .collect()
    }
}

/// The thread's whole life.
pub(super) fn thread(shard: Shard<impl Connect>, core: Option<CoreId>, done: oneshot::Sender<Vec<Undone>>) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        warn!(shard = shard.index, core = core.id, "writer thread could not be pinned");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(shard = shard.index, %error, "writer thread cannot run");
            return;
        }
    };
    let undone = runtime.block_on(live(shard));
    drop(done.send(undone)); // Nobody waits if the handle was dropped.
}

/// The shard's whole life, on the runtime of the caller; gives what it left at the deadline of a stop.
pub(super) async fn live(mut shard: Shard<impl Connect>) -> Vec<Undone> {
    let stop = shard.stop.clone();
    tokio::select! {
        biased;
        () = shard.run() => {}
        () = deadline(stop) => {}
    }
    shard.undone()
}

/// Returns at the deadline of a stop; at once when the handle is dropped without one: what is not committed is then
/// left to the next start.
async fn deadline(mut stop: watch::Receiver<Option<Instant>>) {
    let deadline = stop.wait_for(Option::is_some).await.map(|deadline| *deadline);
    if let Ok(Some(deadline)) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

fn lane_state(feed: &Feed) -> LaneState {
    let (state, why) = match &feed.claim {
        Claim::Unclaimed => ("waiting", None),
        Claim::Standby => ("standby", None),
        Claim::Held(_) => match feed.lane.progress.ahead() {
            None => ("claimed", None),
            Some(ahead) => ("waiting", Some(behind(&feed.lane, ahead))),
        },
    };
    LaneState { lane: feed.lane.name.clone(), state, why, behind_frames: feed.behind_frames() }
}

fn behind(lane: &Lane, ahead: Ahead) -> String {
    let (next, appended) = (ahead.next, lane.progress.appended());
    format!(
        "the database has frames before {next} committed, the journal ends at {appended}; it is to go on from there"
    )
}

pub(super) fn is_committed(lane: &Lane) -> bool {
    lane.progress.committed() >= lane.progress.appended()
}

fn feed_is_idle(feed: &Feed) -> bool {
    match feed.claim {
        Claim::Standby => true,
        Claim::Unclaimed | Claim::Held(_) => false,
    }
}

async fn forward(from: Arc<Notify>, to: Arc<Notify>) {
    loop {
        from.notified().await;
        to.notify_one();
    }
}

//! Writers: what lanes decoded, committed exactly once.
//!
//! A shard is a thread with its own runtime and its own connection; it serves several lanes. It gathers their chunks
//! into a batch, and writes each batch as one transaction: the rows, the notes, and the watermark of every lane in
//! it, moved only from where the shard believes it to be. So a batch is committed once or not at all, and after
//! any doubt (a lost connection, an answer to COMMIT that never came) the watermark tells which.
//!
//! ```text
//!           connect, claim lanes, read watermarks <-------------------------+
//!                 |                                                         | backoff
//!   pull chunks -> batch -> order, encode -> transaction -> progress        | lost, refused, fenced
//!        ^  (queue, or journal)     ^            | data error              |
//!        |                          +- bisect ---+------------------------>+
//!        +--- the next batch is gathered and encoded meanwhile
//! ```
//!
//! Invariants:
//! - a batch ends at the end of a frame, and of consecutive batches of a lane the second begins where the first ended;
//! - COMMIT is sent only once every frame of the batch is on disk;
//! - a chunk is given up only after its rows are committed; until then it waits here, or its frames in the journal.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{error, warn};

use crate::{
    config::{Database, Writer},
    lane::Lane,
    store,
};

pub mod batch;
pub mod bisect;
pub mod copy;
pub mod encode;
mod feed;
pub mod link;
pub mod notes;
pub mod numeric;
pub mod order;
mod pin;
mod retry;
pub mod row;
mod seals;
mod serve;
mod shard;
mod standby;
mod state;
mod takeover;
pub mod transaction;

pub use state::{LaneState, ShardState, Undone};

use copy::Postgres;
use link::Connect;
use shard::{Command, Shard};
use state::Shared;

/// Starts the writer threads and gives them their lanes. The database need not be up, nor migrated.
///
/// # Errors
///
/// [`store::Error::Url`] and [`store::Error::CaFile`]; no thread runs then.
pub fn start(writer: &Writer, database: &Database, lanes: Vec<Arc<Lane>>) -> Result<Handle, store::Error> {
    let threads = pin::threads(writer.threads);
    let instance = rand::random::<u32>();
    let mut connectors = Vec::new();
    for index in 0..threads {
        // The number tells this process's earlier connections from another daemon's.
        connectors.push(Postgres::new(database, &format!("writer {index} {instance:08x}"))?);
    }
    let (stop, stopped) = watch::channel(None);
    let mut handle = Handle { shards: Vec::new(), stop };
    for ((index, connector), core) in connectors.into_iter().enumerate().zip(pin::cores(&writer.pin, threads)) {
        let shared = Arc::new(Shared::default());
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (done, finished) = oneshot::channel();
        let connector = (connector, rand::random());
        let shard = Shard::new(index, writer, connector, shared.clone(), inbox, stopped.clone());
        std::thread::Builder::new()
            .name(format!("writer-{index}"))
            .spawn(move || shard::thread(shard, core, done))
            .expect("the system can start a thread");
        handle.shards.push(ShardHandle { shared, commands, finished, lanes: Vec::new() });
    }
    for lane in lanes {
        handle.add(lane);
    }
    Ok(handle)
}

/// One writer without a thread: serves the lanes on the runtime of the caller, which is of one thread, until told to
/// stop. Gives the lanes for which the deadline came first. `seed`: of the waits before the database is tried again.
pub async fn serve(
    writer: &Writer,
    (database, seed): (impl Connect, u64),
    lanes: Vec<Arc<Lane>>,
    stop: watch::Receiver<Option<Instant>>,
) -> Vec<Undone> {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    for lane in lanes {
        let is_sent = commands.try_send(Command::Add(lane)).is_ok();
        debug_assert!(is_sent, "far fewer lanes than commands that may wait");
    }
    let undone = shard::live(Shard::new(0, writer, (database, seed), Arc::default(), inbox, stop)).await;
    drop(commands); // Only now: a shard takes this for its end.
    undone
}

/// The running writer threads.
#[derive(Debug)]
pub struct Handle {
    shards: Vec<ShardHandle>,
    stop: watch::Sender<Option<Instant>>,
}

/// A view of the writer threads.
#[derive(Clone, Debug)]
pub struct Observer(Vec<Arc<Shared>>);

impl Observer {
    /// How each thread stands now.
    #[must_use]
    pub fn read(&self) -> Vec<ShardState> {
        self.0.iter().map(|shared| shared.lock().clone()).collect()
    }
}

#[derive(Debug)]
struct ShardHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    finished: oneshot::Receiver<Vec<Undone>>,
    /// Names of its lanes.
    lanes: Vec<String>,
}

impl Handle {
    /// Gives a lane to the thread that has fewest.
    pub fn add(&mut self, lane: Arc<Lane>) {
        let shard = self.shards.iter_mut().min_by_key(|shard| shard.lanes.len()).expect("there is at least one thread");
        shard.lanes.push(lane.name.clone());
        shard.send(Command::Add(lane));
    }

    /// Writes what the lane has left and gives it up. Its session must have stopped.
    pub fn remove(&mut self, lane: &str) {
        for shard in &mut self.shards {
            if let Some(at) = shard.lanes.iter().position(|name| name == lane) {
                shard.lanes.remove(at);
                shard.send(Command::Remove(lane.into()));
            }
        }
    }

    /// How each thread stands now.
    #[must_use]
    pub fn states(&self) -> Vec<ShardState> {
        self.observer().read()
    }

    /// A view of how each thread stands, for as long as one likes.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer(self.shards.iter().map(|shard| shard.shared.clone()).collect())
    }

    /// Writes everything that is appended and stops; returns the lanes for which `deadline` came first, none when
    /// all is committed. The sessions must have stopped.
    pub async fn stop(self, deadline: Instant) -> Vec<Undone> {
        self.stop.send_replace(Some(deadline));
        let mut undone = Vec::new();
        for shard in self.shards {
            // A thread stops by itself at the deadline; the rest is for one that hangs.
            match tokio::time::timeout_at(deadline + STOP_GRACE, shard.finished).await {
                Ok(Ok(left)) => undone.extend(left),
                Ok(Err(_)) | Err(_) => {
                    let state = shard.shared.lock().clone();
                    error!(shard = state.shard, lanes = ?shard.lanes, "writer thread did not stop");
                }
            }
        }
        for left in &undone {
            warn!(shard = left.shard, lane = left.lane, committed = %left.committed, appended = %left.appended,
                "stopped before everything was committed; the next start reads the rest from the journal");
        }
        undone
    }
}

impl ShardHandle {
    fn send(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            error!(lanes = ?self.lanes, "writer thread does not take commands any more");
        }
    }
}

/// Commands waiting for one thread: far more than a reload of all lanes makes.
const COMMANDS_MAX: usize = 8_192;
/// How long after the deadline a thread is waited for.
const STOP_GRACE: Duration = Duration::from_secs(2);

//! What the daemon knows of itself, as `/status` serves it and `tapeway status` prints it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tapeway_exchanges::{event::Channel, venue::VenueSpec};

use crate::lane::Lane;

/// One lane, as of the last second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LaneStatus {
    /// Name.
    pub lane: String,
    /// Venue.
    pub venue: String,
    /// Whether a session is meant to run; a lane without one is only drained.
    pub is_live: bool,
    /// What the lane's connections are doing, taken together: open when one is.
    pub connection: Connection,
    /// Each of them that is open or wanted.
    #[serde(default)]
    pub connections: Vec<ConnectionStatus>,
    /// What can be proven of each channel that the venue has: class of proof by channel.
    pub proof: BTreeMap<String, String>,
    /// Symbols planned for the lane.
    pub symbols: usize,
    /// Subscriptions by state.
    pub subscriptions: Subscriptions,
    /// Subscriptions that are refused, unanswered or stale, in words; at most [`PROBLEMS_MAX`].
    pub problems: Vec<String>,
    /// Unix time in seconds of the last frame; `None` before the first of this process.
    pub last_frame: Option<f64>,
    /// First position not yet appended, durable, committed.
    pub appended: u64,
    /// First position not yet durable.
    pub durable: u64,
    /// First position not yet committed.
    pub committed: u64,
    /// Rows since the lane's first frame: received = committed + rejected + pending.
    pub rows_received: u64,
    /// Rows committed.
    pub rows_committed: u64,
    /// Rows the database refused for their data.
    pub rows_rejected: u64,
    /// Rows neither committed nor rejected yet.
    pub rows_pending: u64,
    /// Gaps found by this process.
    pub gaps: u64,
    /// Gaps ended (resynced, healed or given up) in this process.
    pub gaps_closed: u64,
    /// Connections lost or given up by this process.
    pub reconnects: u64,
    /// Whether the writer reads this lane from the journal.
    pub is_behind: bool,
    /// Whether another daemon holds the lane. What that one is known to have written counts as committed and rejected here.
    #[serde(default)]
    pub is_standby: bool,
    /// The last thing that went wrong, with its time (Unix seconds).
    pub last_error: Option<(f64, String)>,
}

/// One connection of a lane.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ConnectionStatus {
    /// Its number in the lane.
    pub connection: u8,
    /// Whether it is open; otherwise the lane is connecting.
    pub is_open: bool,
    /// Why it is to be replaced, if it is.
    pub retiring: Option<String>,
    /// Its subscriptions by state.
    pub subscriptions: Subscriptions,
    /// Unix time in seconds of its last frame, as of the last second.
    pub last_frame: Option<f64>,
}

/// What a lane's connection is doing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Not started, or no longer planned.
    #[default]
    Idle,
    /// Connecting, or waiting to try again.
    Connecting,
    /// Open.
    Open,
    /// Not reading: the journal cannot take more.
    JournalFull,
    /// Stopped for good.
    Stopped,
}

/// Subscriptions by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Subscriptions {
    /// Acknowledged or delivering.
    pub live: u32,
    /// Asked for, not answered.
    pub requested: u32,
    /// Refused by the venue.
    pub refused: u32,
    /// Silent while siblings move.
    pub stale: u32,
}

impl Subscriptions {
    /// Adds those of another connection.
    pub fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.requested += other.requested;
        self.refused += other.refused;
        self.stale += other.stale;
    }
}

/// One writer thread.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct WriterStatus {
    /// Index of the writer.
    pub writer: usize,
    /// Whether the database answers.
    pub is_database_up: bool,
    /// Whether rows go into the columnstore directly.
    pub is_direct_compress_on: bool,
    /// Lanes held by another daemon; this one waits for them.
    pub standby: Vec<String>,
    /// Lanes the database does not match, and why.
    pub refused: Vec<String>,
    /// The last thing that went wrong, with its time (Unix seconds).
    pub last_error: Option<(f64, String)>,
}

/// The whole daemon.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Whether it is ready, and if not, why not.
    pub not_ready: Vec<String>,
    /// Bytes of all journals on disk.
    pub journal_bytes: u64,
    /// Lanes, by name.
    pub lanes: Vec<LaneStatus>,
    /// Writers.
    pub writers: Vec<WriterStatus>,
}

/// A status that its owner changes and others read.
#[derive(Debug, Default)]
pub struct Shared<T>(Mutex<T>);

impl<T: Clone> Shared<T> {
    /// Starts with `value`.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy as of now.
    pub fn read(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where every part of the daemon leaves its status and the API finds it.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    is_running: AtomicBool,
    is_stopping: AtomicBool,
    journal_bytes: AtomicU64,
    lanes: Shared<Vec<LaneEntry>>,
    writers: Shared<Vec<WriterStatus>>,
    notices: Shared<Vec<String>>,
    /// Why the database is not prepared, once that was tried.
    unprepared: Shared<Option<String>>,
}

/// A lane and what its session says of it.
#[derive(Clone, Debug)]
pub struct LaneEntry {
    /// The lane.
    pub lane: Arc<Lane>,
    /// What its session says.
    pub status: Arc<Shared<LaneStatus>>,
    /// Whether a session is meant to run; a lane without one is only drained.
    pub is_live: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            is_running: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            journal_bytes: AtomicU64::new(0),
            lanes: Shared::default(),
            writers: Shared::default(),
            notices: Shared::default(),
            unprepared: Shared::default(),
        }
    }
}

impl Board {
    /// Adds a lane, in place of an earlier one of that name.
    pub fn add_lane(&self, entry: LaneEntry) {
        self.lanes.update(|lanes| {
            lanes.retain(|other| other.lane.name != entry.lane.name);
            lanes.push(entry);
            lanes.sort_by(|a, b| a.lane.name.cmp(&b.lane.name));
        });
    }

    /// Renews what is known of the writers.
    pub fn set_writers(&self, writers: Vec<WriterStatus>) {
        self.writers.update(|own| *own = writers);
    }

    /// Replaces what else keeps the daemon from being ready (instrument lists not loaded, a reload refused).
    pub fn set_notices(&self, notices: Vec<String>) {
        self.notices.update(|own| *own = notices);
    }

    /// Bytes of all journals on disk.
    pub fn set_journal_bytes(&self, bytes: u64) {
        self.journal_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Why the schema could not be made what it should be; `None` once it is.
    pub fn set_unprepared(&self, why: Option<String>) {
        self.unprepared.update(|own| *own = why);
    }

    /// Everything is recovered and started: from now on lanes and writers say whether the daemon is ready.
    pub fn running(&self) {
        self.is_running.store(true, Ordering::Relaxed);
    }

    /// The daemon is stopping: never ready again.
    pub fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Marks a lane as drained only: its session has ended on purpose.
    pub fn retire(&self, name: &str) {
        self.lanes.update(|lanes| {
            for entry in lanes.iter_mut().filter(|entry| entry.lane.name == name) {
                entry.is_live = false;
            }
        });
    }

    /// All lanes.
    pub fn lanes(&self) -> Vec<LaneEntry> {
        self.lanes.read()
    }

    /// Everything, as of now.
    pub fn read(&self) -> Status {
        let lanes = self.lanes.read();
        let writers = self.writers.read();
        let mut not_ready = self.notices.read();
        if self.is_stopping.load(Ordering::Relaxed) {
            not_ready.push("stopping".into());
        } else if !self.is_running.load(Ordering::Relaxed) {
            not_ready.push("starting: the journal is being recovered".into());
        }
        not_ready.extend(self.unprepared.read().map(|why| format!("the database is not prepared: {why}")));
        for writer in &writers {
            if !writer.is_database_up {
                let why = writer.last_error.as_ref().map_or("not connected yet", |(_, error)| error);
                not_ready.push(format!("writer {}: database down: {why}", writer.writer));
            }
            not_ready.extend(writer.refused.iter().cloned());
            not_ready.extend(writer.standby.iter().map(|lane| format!("lane {lane}: held by another daemon")));
        }
        let lanes: Vec<LaneStatus> = lanes.iter().map(LaneEntry::read).collect();
        not_ready.extend(lanes.iter().filter_map(|lane| lane.not_ready()));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            not_ready,
            journal_bytes: self.journal_bytes.load(Ordering::Relaxed),
            lanes,
            writers,
        }
    }
}

impl LaneEntry {
    /// The lane's status as of now.
    pub fn read(&self) -> LaneStatus {
        let (rows_received, rows_committed, rows_rejected) = self.lane.rows.counts();
        let progress = &self.lane.progress;
        let (committed, durable, appended) = (progress.committed(), progress.durable(), progress.appended());
        LaneStatus {
            lane: self.lane.name.clone(),
            venue: self.lane.venue.name.into(),
            proof: proofs(self.lane.venue, self.lane.venue.channels).collect(),
            appended: appended.get(),
            durable: durable.get(),
            committed: committed.get(),
            rows_received,
            rows_committed,
            rows_rejected,
            rows_pending: rows_received.saturating_sub(rows_committed + rows_rejected),
            // On standby the queue is full for good, and nobody reads anything.
            is_behind: self.lane.is_behind.load(Ordering::SeqCst) && !progress.is_standby(),
            is_standby: progress.is_standby(),
            is_live: self.is_live,
            ..self.status.read()
        }
    }
}

impl LaneStatus {
    fn not_ready(&self) -> Option<String> {
        let name = &self.lane;
        let error = || self.last_error.as_ref().map_or("no reason known yet", |(_, error)| error);
        if !self.is_live {
            return None;
        }
        match self.connection {
            Connection::Open => None,
            Connection::Idle => Some(format!("lane {name}: not started")),
            Connection::Connecting => Some(format!("lane {name}: not connected: {}", error())),
            Connection::JournalFull => Some(format!("lane {name}: the journal is full")),
            Connection::Stopped => Some(format!("lane {name}: stopped: {}", error())),
        }
    }
}

/// Channels of a venue with the class of proof each allows, by name.
pub fn proofs(venue: &VenueSpec, channels: &[Channel]) -> impl Iterator<Item = (String, String)> {
    channels.iter().map(|channel| (channel.name().into(), (venue.proof)(*channel).name().into()))
}

/// Problems a lane's status names; more are only counted.
pub const PROBLEMS_MAX: usize = 20;

/// Unix time now, in seconds.
pub fn unix_now() -> f64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}

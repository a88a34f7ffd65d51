//! The raw-frame journal: what a venue sent, on disk before anything interprets it.
//!
//! One folder a lane, one append-only segment file at a time; docs/journal-format.md draws every byte.
//!
//! ```text
//! <journal.dir>/LOCK
//! <journal.dir>/<lane>/lane.id                        who the folder belongs to
//! <journal.dir>/<lane>/00000000000000000000.seg.zst   sealed, compressed
//! <journal.dir>/<lane>/00000000000000181242.seg       being written
//! segment = head with the adapter's state | record*
//! record  = len u32 | crc u32 | pos u32 | behind u32 | received_ns i64 | origin u8 | bytes[len]
//! ```
//!
//! Invariants, each checked in recovery and on the simulated disk:
//! - a record never spans two segments; a file is written by the process that made it and never opened for
//!   writing again (recovery cuts, and begins a new one);
//! - positions are dense: a record's is its segment's first plus its index, and the record says so itself;
//! - a segment is sealed when a later one exists, and was synced before that one was made;
//! - `committed <= durable <= appended` ([`Progress`](crate::lane::Progress)).
//!
//! A lane's session owns its [`LaneJournal`]; the syncer thread calls `fdatasync` for all lanes; the retainer
//! thread removes and compresses whole sealed segments; writers read through [`Reader`]. No other code opens
//! these files. The journal stores bytes and knows no market.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tapeway_exchanges::{
    conn::Conn,
    ids::{FramePos, Nanos},
    input::Kind,
};
use tracing::{debug, warn};

use crate::config;

mod compress;
mod cursor;
pub mod disk;
mod error;
mod identity;
mod lane_journal;
mod lock;
mod reader;
mod record;
mod recover;
mod repair;
mod retain;
mod segment;
mod space;
mod status;
mod verify;
mod worker;

pub use self::{
    error::{Damage, Disposition, Error, Hole},
    identity::Identity,
    lane_journal::{BUFFER_BYTES_MAX, LaneJournal},
    lock::Lock,
    reader::Reader,
    record::RECORD_BYTES_MAX,
    recover::{Cut, Recovered, Scan},
    repair::{Repaired, repair},
    retain::Pass,
    segment::{Head, STATE_BYTES_MAX, SegmentFile},
    space::Space,
    status::LaneStatus,
    verify::{LaneReport, verify},
};

use self::{
    disk::{Disk, RealDisk},
    retain::{Lanes, Retainer},
    worker::Worker,
};

/// One journaled input.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its position in its lane.
    pub pos: FramePos,
    /// When it was received, by the host clock.
    pub received: Nanos,
    /// What the bytes are.
    pub kind: Kind,
    /// Which of the lane's connections they came from.
    pub conn: Conn,
    /// The bytes as journaled; a copy that may be edited in place.
    pub bytes: &'a mut [u8],
}

/// The journal of all lanes of one daemon. Dropping it stops its threads after a last sync and pass; drop (or
/// seal) the lanes' journals first.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes_max: u64,
    space: Arc<Space>,
    lanes: Lanes,
    retainer: Arc<Retainer>,
    /// Before the lock, so that the threads are gone when the lock is.
    workers: Vec<Worker>,
    _lock: Option<Lock>,
}

impl Journal {
    /// Opens the journal's folder, or makes it, locks it and starts the syncer and the retainer.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another daemon has it; [`Error::Io`].
    pub fn open(config: &config::Journal) -> Result<Self, Error> {
        let mut journal = Self::on_disk(Arc::new(RealDisk), config)?;
        let dir = &journal.dir;
        journal._lock = Some(Lock::take(dir)?);
        let lanes = Arc::clone(&journal.lanes);
        let syncer = Worker::start("journal-sync", config.sync_interval, move || sync(&lanes));
        let retainer = Arc::clone(&journal.retainer);
        let retainer = Worker::start("journal-retain", RETAIN_INTERVAL, move || {
            if let Err(error) = retainer.pass(SystemTime::now()) {
                warn!(%error, "the journal could not be kept in its room; trying again");
            }
        });
        for worker in [syncer, retainer] {
            journal.workers.push(worker.map_err(Error::io("start a thread for", &journal.dir))?);
        }
        Ok(journal)
    }

    /// A journal on a given disk without lock and threads: the caller calls [`sync`](Self::sync) and
    /// [`retain`](Self::retain).
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn on_disk(disk: Arc<dyn Disk>, config: &config::Journal) -> Result<Self, Error> {
        let dir = config.dir.clone();
        disk.create_dir(&dir).map_err(Error::io("make the folder", &dir))?;
        let space = Arc::new(Space::new(config.bytes_max));
        let lanes: Lanes = Arc::new(Mutex::default());
        let retainer = Retainer::new(Arc::clone(&disk), config, Arc::clone(&space), Arc::clone(&lanes));
        let segment_bytes_max = config.segment_bytes_max;
        let retainer = Arc::new(retainer);
        Ok(Self { disk, dir, segment_bytes_max, space, lanes, retainer, workers: Vec::new(), _lock: None })
    }

    /// Recovers a lane's journal, or makes it. The session replays up to [`Recovered::end`] and then calls
    /// [`LaneJournal::begin`] with the adapter's state.
    ///
    /// Reads the newest segment from end to end, at most `segment_bytes_max` and a frame.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] when the folder holds something else; [`Error::Io`].
    ///
    /// # Panics
    ///
    /// If the lane's name is no single folder name.
    pub fn lane(&self, venue: &str, lane: &str) -> Result<(LaneJournal, Recovered), Error> {
        assert!(!lane.is_empty() && !lane.starts_with('.'), "a lane's name is a folder's");
        assert!(!lane.contains(['/', '\0']), "a lane's name is one folder's");
        let dir = self.lane_dir(lane);
        let (disk, space) = (Arc::clone(&self.disk), Arc::clone(&self.space));
        let (journal, recovered) = LaneJournal::open(disk, dir, (venue, lane), self.segment_bytes_max, space)?;
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|status| status.lane() != lane);
        lanes.push(journal.status());
        Ok((journal, recovered))
    }

    /// Makes everything handed to the operating system durable, lane by lane. A lane whose sync fails is
    /// poisoned; the others are not.
    pub fn sync(&self) {
        sync(&self.lanes);
    }

    /// Removes, compresses and looks for room.
    ///
    /// # Errors
    ///
    /// The first error; the rest was done.
    pub fn retain(&self, now: SystemTime) -> Result<Pass, Error> {
        self.retainer.pass(now)
    }

    /// The lanes whose folders exist, opened or not, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the folder cannot be listed; [`Error::Foreign`] when a lane's identity is damaged and
    /// no segment tells it.
    pub fn found(&self) -> Result<Vec<Identity>, Error> {
        let mut found = Vec::new();
        for entry in self.disk.list(&self.dir).map_err(Error::io("list", &self.dir))? {
            if !entry.is_dir {
                continue;
            }
            let told = recover::told(self.disk.as_ref(), &self.dir.join(&entry.name))?;
            found.extend(told.map(|(identity, _)| identity));
        }
        found.sort_by(|a, b| a.lane.cmp(&b.lane));
        Ok(found)
    }

    /// The folder of a lane.
    #[must_use]
    pub fn lane_dir(&self, lane: &str) -> PathBuf {
        self.dir.join(lane)
    }

    /// The folder of all lanes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lanes opened so far: their segments, bytes, and whether they are poisoned.
    #[must_use]
    pub fn lanes(&self) -> Vec<Arc<LaneStatus>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much room is taken and whether there is any left.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }
}

fn sync(lanes: &Lanes) {
    let lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for lane in lanes {
        if let Err(error) = lane.sync() {
            debug!(lane = lane.lane(), %error, "not synced"); // Logged where it was poisoned.
        }
    }
}

/// How often the retainer looks.
const RETAIN_INTERVAL: Duration = Duration::from_secs(1);

//! The lanes of this daemon: recovered, started, changed and stopped.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tapeway_exchanges::{
    adapter::LanePlan,
    config::VenueConfig,
    decoder::Decoder,
    venue::{self, VenueSpec},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    config::{Config, Venue},
    journal::{self, LaneJournal},
    lane::{Lane, Progress, Rows},
    queue::Queue,
    replay::Replay,
    session::{Ended, Session, VenueLink},
    status::{Board, Connection, LaneEntry, LaneStatus, Shared},
    writer,
};

/// A lane found in the journal folder and not (yet) running.
#[derive(Debug)]
pub(super) struct Recovered {
    lane: Arc<Lane>,
    journal: LaneJournal,
    decoder: Decoder,
}

/// A lane with a session.
#[derive(Debug)]
struct Running {
    venue: &'static str,
    plan: LanePlan,
    plans: mpsc::Sender<LanePlan>,
    stop: watch::Sender<bool>,
    session: JoinHandle<Ended>,
}

/// All lanes, and what is needed to start one.
#[derive(Debug)]
pub(super) struct Fleet {
    board: Arc<Board>,
    writers: writer::Handle,
    syncer: journal::Syncer,
    idle: BTreeMap<String, Recovered>,
    running: BTreeMap<String, Running>,
}

/// Why a lane cannot be started.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The lane's journal cannot be used.
    #[error("lane {lane}: {source}")]
    Journal {
        /// The lane.
        lane: String,
        /// Why.
        source: journal::Error,
    },
    /// The journal folder cannot be listed.
    #[error("journal.dir {dir}: {source}")]
    Folder {
        /// The folder.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
}

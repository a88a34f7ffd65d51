//! One life of the daemon: journal, lanes, sessions and one writer, without threads.

use std::{future::Future, pin::Pin, sync::Arc};

use tapeway::{
    journal::{self, Journal, disk::sim::SimDisk},
    lane::{Lane, Rows},
    queue::Queue,
    replay::Replay,
    session::intake::Intake,
    status::{LaneStatus, Shared},
    writer::{self, Undone},
};
use tapeway_exchanges::{decoder::Decoder, ids::FramePos};
use tokio::{sync::watch, time::Instant};

use crate::{
    database::link::SimConnector,
    mutation::Mutation,
    oracle::{LaneOracle, Violation},
    scenario::{LaneSetup, Scenario},
    session::Session,
};

/// A writer's whole life.
type Shard = Pin<Box<dyn Future<Output = Vec<Undone>>>>;

/// One life of the daemon.
pub struct Daemon {
    /// The journal, which the world syncs and retains.
    pub journal: Journal,
    /// Sessions, in the order of the scenario's lanes.
    pub sessions: Vec<Session>,
    /// The writer.
    pub shard: Shard,
    /// Tells the writer to write what is there and end, until when.
    pub stop: watch::Sender<Option<Instant>>,
}

/// Why a daemon did not start.
#[derive(Debug)]
pub enum NotStarted {
    /// The disk is in the way; later perhaps.
    Journal(journal::Error),
    /// What was recovered must not be.
    Wrong(Violation),
}

impl From<journal::Error> for NotStarted {
    fn from(error: journal::Error) -> Self {
        Self::Journal(error)
    }
}

impl Daemon {
    /// Recovers every lane and begins.
    ///
    /// # Errors
    ///
    /// [`NotStarted`].
    pub fn start(
        scenario: &Scenario,
        disk: &SimDisk,
        connector: SimConnector,
        oracles: &mut [LaneOracle],
        (now_ms, mutation): (u64, Option<Mutation>),
    ) -> Result<Self, NotStarted> {
        let journal = Journal::on_disk(Arc::new(disk.clone()), &scenario.journal)?;
        let mut sessions = Vec::new();
        for (setup, oracle) in scenario.lanes.iter().zip(oracles) {
            sessions.push(open(&journal, scenario, *setup, oracle, (now_ms, mutation))?);
        }
        let lanes = sessions.iter().map(|session| Arc::clone(&session.lane)).collect();
        let (stop, stopped) = watch::channel(None);
        let (config, seed) = (scenario.writer.clone(), u64::from(connector.instance));
        let shard = async move { writer::serve(&config, (connector, seed), lanes, stopped).await };
        Ok(Self { journal, sessions, shard: Box::pin(shard), stop })
    }
}

fn open(
    journal: &Journal,
    scenario: &Scenario,
    setup: LaneSetup,
    oracle: &mut LaneOracle,
    (now_ms, mutation): (u64, Option<Mutation>),
) -> Result<Session, NotStarted> {
    let spec = setup.kind.spec();
    let (lane_journal, recovered) = journal.lane(spec.name, &oracle.name)?;
    oracle.recovered(recovered.end.get(), None).map_err(NotStarted::Wrong)?;
    let lane = Arc::new(Lane {
        name: oracle.name.clone(),
        venue: spec,
        journal_id: lane_journal.identity().journal_id,
        disk: lane_journal.disk(),
        dir: lane_journal.dir().into(),
        progress: lane_journal.progress(),
        rows: Rows::default(),
        queue: Queue::new(scenario.writer.queue_chunks_max),
        is_behind: false.into(),
        writer: Arc::default(),
    });
    let decoder = if mutation == Some(Mutation::StateForgotten) && recovered.end > FramePos::FIRST {
        Decoder::new(spec, recovered.end)
    } else {
        let decoder = Replay::open(&lane, recovered.end)?.into_decoder();
        oracle.recovered(recovered.end.get(), Some(&decoder)).map_err(NotStarted::Wrong)?;
        decoder
    };
    let status = Arc::new(Shared::new(LaneStatus::default()));
    let intake = Intake::new(Arc::clone(&lane), lane_journal, decoder, status, scenario.writer.chunk_rows_max);
    Ok(Session::new(lane, setup, intake, now_ms))
}

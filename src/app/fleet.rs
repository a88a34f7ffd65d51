//! The lanes of this daemon: recovered, started, changed and stopped.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tapeway_exchanges::{adapter::LanePlan, decoder::Decoder, venue};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use super::outlook::venue_config;
use crate::{
    config::{Config, Venue},
    journal::{self, Identity, Journal, LaneJournal},
    lane::{Lane, Rows},
    queue::Queue,
    replay::Replay,
    session::{Ended, Session, VenueLink},
    status::{Board, LaneEntry, LaneStatus, Shared},
    writer,
};

/// All lanes, and what is needed to start one.
#[derive(Debug)]
pub(super) struct Fleet {
    journal: Arc<Journal>,
    writers: writer::Handle,
    board: Arc<Board>,
    queue_chunks_max: usize,
    chunk_rows_max: usize,
    lost: mpsc::Sender<String>,
    /// Lanes without a session: found on disk, or retired by a reload. Their writer drains them.
    idle: BTreeMap<String, Idle>,
    running: BTreeMap<String, Running>,
}

/// A recovered lane without a session.
#[derive(Debug)]
struct Idle {
    lane: Arc<Lane>,
    journal: LaneJournal,
    decoder: Decoder,
    status: Arc<Shared<LaneStatus>>,
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

/// Why a lane cannot be started.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The lane's journal cannot be used.
    #[error("lane {lane}: {source}")]
    Lane {
        /// The lane.
        lane: String,
        /// Why.
        source: journal::Error,
    },
    /// The journal folder cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

impl Fleet {
    /// Recovers every lane in the journal folder and gives it to the writers. `lost` is told the name of a lane whose
    /// journal is lost to this process.
    ///
    /// # Errors
    ///
    /// The folder or a lane in it cannot be used; nothing has been started.
    pub(super) fn recover(
        config: &Config,
        journal: Arc<Journal>,
        writers: writer::Handle,
        board: Arc<Board>,
        lost: mpsc::Sender<String>,
    ) -> Result<Self, FleetError> {
        let mut fleet = Self {
            queue_chunks_max: config.writer.queue_chunks_max,
            chunk_rows_max: config.writer.chunk_rows_max,
            journal,
            writers,
            board,
            lost,
            idle: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for Identity { venue, lane, .. } in fleet.journal.found()? {
            if let Some(spec) = venue::find(&venue) {
                let idle = fleet.open(spec, &lane)?;
                fleet.idle.insert(lane, idle);
            } else {
                warn!(lane, venue, "the journal holds a lane of a venue this version does not know; left alone");
            }
        }
        Ok(fleet)
    }

    /// Makes the venue's lanes what `symbols` ask for: changes the plans of those that run, starts new ones, stops
    /// those that are no longer needed. Lanes that stay as they are notice nothing.
    ///
    /// # Errors
    ///
    /// A lane's journal cannot be used; lanes before it have been started.
    pub(super) async fn arrange(
        &mut self,
        venue: &Venue,
        symbols: Vec<String>,
        link: &Arc<VenueLink>,
    ) -> Result<(), FleetError> {
        let config = venue_config(venue, symbols);
        let plans = (venue.spec.plan)(&config, &self.plans(venue.spec.name));
        let mut wanted: HashMap<String, LanePlan> = plans.into_iter().map(|plan| (plan.lane.clone(), plan)).collect();
        let names: Vec<String> = self.lanes_of(venue.spec.name);
        for name in names {
            match wanted.remove(&name) {
                Some(plan) => self.change(&name, plan).await,
                None => self.retire(&name).await,
            }
        }
        let mut new: Vec<LanePlan> = wanted.into_values().collect();
        new.sort_by(|a, b| a.lane.cmp(&b.lane));
        for plan in new {
            self.start(venue, plan, link)?;
        }
        Ok(())
    }

    /// Stops all lanes of a venue; their writers drain them.
    pub(super) async fn retire_venue(&mut self, venue: &str) {
        for name in self.lanes_of(venue) {
            self.retire(&name).await;
        }
    }

    /// Venues with running lanes.
    pub(super) fn venues(&self) -> Vec<&'static str> {
        let mut venues: Vec<_> = self.running.values().map(|running| running.venue).collect();
        venues.dedup();
        venues
    }

    /// Stops every session: each closes its connection, flushes and seals its journal. Then drains the writers
    /// until `deadline`; what is left is committed after the next start.
    pub(super) async fn stop(mut self, deadline: tokio::time::Instant) -> Vec<String> {
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        let mut late = Vec::new();
        for (name, running) in std::mem::take(&mut self.running) {
            match tokio::time::timeout_at(deadline, running.session).await {
                Ok(Ok(Ended::Stopped)) => info!(lane = name, "session ended"),
                Ok(Ok(Ended::JournalLost(failure))) => {
                    error!(lane = name, error = %failure, "session ended without sealing its journal")
                }
                Ok(Err(failure)) => error!(lane = name, error = %failure, "session ended badly"),
                Err(_) => {
                    warn!(lane = name, "session is still running at the deadline");
                    late.push(format!("session {name}"));
                }
            }
        }
        for left in self.writers.stop(deadline).await {
            let frames = left.appended.frames_since(left.committed).unwrap_or(0);
            late.push(format!("writer {}: lane {} has {frames} frames left", left.shard, left.lane));
        }
        late
    }

    fn start(&mut self, venue: &Venue, plan: LanePlan, link: &Arc<VenueLink>) -> Result<(), FleetError> {
        let Idle { lane, mut journal, decoder, status } = match self.idle.remove(&plan.lane) {
            Some(idle) => idle,
            None => self.open(venue.spec, &plan.lane)?,
        };
        journal.begin(&decoder.state()).map_err(|source| FleetError::Lane { lane: plan.lane.clone(), source })?;
        let (plans, new_plans) = mpsc::channel(PLANS_WAITING_MAX);
        let (stop, stopped) = watch::channel(false);
        status.update(|status| status.symbols = plan.symbols.len());
        self.board.add_lane(LaneEntry { lane: lane.clone(), status: status.clone(), is_live: true });
        info!(lane = plan.lane, symbols = plan.symbols.len(), from = %journal.next(), "lane starts");
        let session = Session::new(
            lane,
            journal,
            decoder,
            link.clone(),
            plan.clone(),
            new_plans,
            stopped,
            status,
            self.chunk_rows_max,
        );
        let (name, lost) = (plan.lane.clone(), self.lost.clone());
        let session = tokio::spawn(async move {
            let ended = session.run().await;
            if matches!(ended, Ended::JournalLost(_)) {
                drop(lost.send(name).await);
            }
            ended
        });
        let running = Running { venue: venue.spec.name, plan: plan.clone(), plans, stop, session };
        self.running.insert(plan.lane, running);
        Ok(())
    }

    async fn change(&mut self, name: &str, plan: LanePlan) {
        let Some(running) = self.running.get_mut(name) else { return };
        if running.plan == plan {
            return;
        }
        info!(lane = name, symbols = plan.symbols.len(), before = running.plan.symbols.len(), "lane's plan changes");
        running.plan = plan.clone();
        if running.plans.send(plan).await.is_err() {
            warn!(lane = name, "the session has ended; its new plan waits for the next start");
        }
    }

    async fn retire(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else { return };
        info!(lane = name, "lane stops: nothing is asked of it any more");
        running.stop.send_replace(true);
        if let Err(failure) = running.session.await {
            error!(lane = name, error = %failure, "session ended badly");
        }
        self.board.retire(name);
    }

    /// Recovers one lane's journal, or makes it, and hands the lane to a writer.
    fn open(&mut self, spec: &'static venue::VenueSpec, name: &str) -> Result<Idle, FleetError> {
        let failed = |source| FleetError::Lane { lane: name.into(), source };
        let (journal, recovered) = self.journal.lane(spec.name, name).map_err(failed)?;
        let status = Arc::new(Shared::new(LaneStatus::default()));
        // A lane that ran before in this process has a writer still; the new one goes on where it got to.
        self.writers.remove(name);
        let lane = Arc::new(Lane {
            name: name.into(),
            venue: spec,
            journal_id: journal.identity().journal_id,
            dir: journal.dir().into(),
            progress: journal.progress(),
            rows: Rows::default(),
            queue: Queue::new(self.queue_chunks_max),
            is_behind: false.into(),
            writer: Arc::default(),
        });
        let decoder = Replay::open(&lane, recovered.end).map_err(failed)?.into_decoder();
        lane.rows.on_receive(decoder.rows_total());
        self.writers.add(lane.clone());
        self.board.add_lane(LaneEntry { lane: lane.clone(), status: status.clone(), is_live: false });
        Ok(Idle { lane, journal, decoder, status })
    }

    /// Plans of the venue's lanes: of those that run, and of those found on disk as they last were.
    fn plans(&self, venue: &str) -> Vec<LanePlan> {
        let running = self.running.values().filter(|running| running.venue == venue).map(|running| &running.plan);
        let idle = self.idle.values().filter(|idle| idle.lane.venue.name == venue);
        running.chain(idle.filter_map(|idle| idle.decoder.plan())).cloned().collect()
    }

    fn lanes_of(&self, venue: &str) -> Vec<String> {
        self.running.iter().filter(|(_, running)| running.venue == venue).map(|(name, _)| name.clone()).collect()
    }
}

/// Plans a session may have waiting; a reload is a person's doing and cannot come faster.
const PLANS_WAITING_MAX: usize = 4;

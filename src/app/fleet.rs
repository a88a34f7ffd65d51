//! The lanes of this daemon: recovered, started, changed and stopped.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    session::{Ended, Order, Session, VenueLink},
    status::{Board, Connection, LaneEntry, LaneStatus, Shared},
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
    lane: Arc<Lane>,
    status: Arc<Shared<LaneStatus>>,
    orders: watch::Sender<Order>,
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
    /// The first lane whose journal cannot be used; the others are what they should be.
    pub(super) async fn arrange(
        &mut self,
        venue: &Venue,
        symbols: Vec<String>,
        link: &Arc<VenueLink>,
    ) -> Result<(), FleetError> {
        let config = venue_config(venue, symbols);
        let plans = (venue.spec.plan)(&config, &self.plans(venue.spec.name));
        let mut wanted: HashMap<String, LanePlan> = plans.into_iter().map(|plan| (plan.lane.clone(), plan)).collect();
        let mut ended = Vec::new();
        for name in self.lanes_of(venue.spec.name) {
            match wanted.remove(&name) {
                Some(plan) => self.change(&name, plan, link, venue.redundancy),
                None => ended.push(name),
            }
        }
        self.retire(ended).await;
        let mut new: Vec<LanePlan> = wanted.into_values().collect();
        new.sort_by(|a, b| a.lane.cmp(&b.lane));
        let mut first_error = None;
        for plan in new {
            if let Err(failure) = self.start(venue, plan, link) {
                first_error.get_or_insert(failure);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Stops all lanes of a venue; their writers drain them.
    pub(super) async fn retire_venue(&mut self, venue: &str) {
        self.retire(self.lanes_of(venue)).await;
    }

    /// Venues with running lanes.
    pub(super) fn venues(&self) -> Vec<&'static str> {
        let mut venues: Vec<_> = self.running.values().map(|running| running.lane.venue.name).collect();
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
                Ok(Ok(Ended::Stopped(_))) => info!(lane = name, "session ended"),
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
        let Idle { lane, journal, decoder, status } = match self.idle.remove(&plan.lane) {
            Some(idle) => idle,
            None => self.open(venue.spec, &plan.lane)?,
        };
        let name = plan.lane.clone();
        status.update(|status| {
            status.symbols = plan.symbols.len();
            status.connection = Connection::Connecting;
        });
        self.board.add_lane(LaneEntry { lane: lane.clone(), status: status.clone(), is_live: true });
        info!(lane = name, symbols = plan.symbols.len(), from = %journal.next(), "lane starts");
        let (orders, given) = watch::channel(Order { plan, link: link.clone(), redundancy: venue.redundancy });
        let (stop, stopped) = watch::channel(false);
        let parts = (journal, decoder);
        let session = Session::new(lane.clone(), parts, given, stopped, status.clone(), self.chunk_rows_max);
        let (told, lost) = (name.clone(), self.lost.clone());
        let session = tokio::spawn(async move {
            let ended = session.run().await;
            if matches!(ended, Ended::JournalLost(_)) {
                // Full when others have told already: one is enough.
                drop(lost.try_send(told));
            }
            ended
        });
        self.running.insert(name, Running { lane, status, orders, stop, session });
        Ok(())
    }

    fn change(&self, name: &str, plan: LanePlan, link: &Arc<VenueLink>, redundancy: u32) {
        let Some(running) = self.running.get(name) else { return };
        running.orders.send_if_modified(|order| {
            if order.plan != plan {
                let (symbols, before) = (plan.symbols.len(), order.plan.symbols.len());
                info!(lane = name, symbols, before, "lane's plan changes");
            } else if Arc::ptr_eq(&order.link, link) && order.redundancy == redundancy {
                return false;
            }
            *order = Order { plan, link: link.clone(), redundancy };
            true
        });
    }

    /// Stops these lanes, all at once, and keeps them: their writers drain them, and each can start again.
    async fn retire(&mut self, names: Vec<String>) {
        let ending: Vec<_> = names.into_iter().filter_map(|name| self.running.remove_entry(&name)).collect();
        for (name, running) in &ending {
            info!(lane = name, "lane stops: nothing is asked of it any more");
            running.stop.send_replace(true);
        }
        for (name, Running { lane, status, session, .. }) in ending {
            match session.await {
                Ok(Ended::Stopped(parts)) => {
                    let (journal, decoder) = *parts;
                    self.idle.insert(name.clone(), Idle { lane, journal, decoder, status });
                }
                Ok(Ended::JournalLost(_)) => {} // Said by the session, and about to end the process.
                Err(failure) => error!(lane = name, error = %failure, "session ended badly"),
            }
            self.board.retire(&name);
        }
    }

    /// Recovers one lane's journal, or makes it, and hands the lane to a writer.
    fn open(&mut self, spec: &'static venue::VenueSpec, name: &str) -> Result<Idle, FleetError> {
        let failed = |source| FleetError::Lane { lane: name.into(), source };
        let (journal, recovered) = self.journal.lane(spec.name, name).map_err(failed)?;
        let status = Arc::new(Shared::new(LaneStatus::default()));
        let lane = Arc::new(Lane {
            name: name.into(),
            venue: spec,
            journal_id: journal.identity().journal_id,
            disk: journal.disk(),
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

    /// Symbols that the venue's lanes ask for.
    pub(super) fn recorded(&self, venue: &str) -> HashSet<String> {
        self.plans(venue).into_iter().flat_map(|plan| plan.symbols).collect()
    }

    /// Plans of the venue's lanes: of those that run, and of those found on disk as they last were.
    fn plans(&self, venue: &str) -> Vec<LanePlan> {
        let running = self.running.values().filter(|running| running.lane.venue.name == venue);
        let running = running.map(|running| running.orders.borrow().plan.clone());
        let idle = self.idle.values().filter(|idle| idle.lane.venue.name == venue);
        running.chain(idle.filter_map(|idle| idle.decoder.plan().cloned())).collect()
    }

    fn lanes_of(&self, venue: &str) -> Vec<String> {
        let own = self.running.iter().filter(|(_, running)| running.lane.venue.name == venue);
        own.map(|(name, _)| name.clone()).collect()
    }
}

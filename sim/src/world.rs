//! A world: a seed, its circumstances, and the steps it takes; then everything that goes wrong stops, and what is left
//! must be complete.

use std::time::Duration;

use tapeway::journal::{self, disk::sim::SimDisk};
use tapeway_exchanges::{adapter::LanePlan, ids::Nanos};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use tracing::{debug, info};

use crate::{
    daemon::{Daemon, NotStarted},
    database::{Counts, SimDatabase, faults::Faults, link::SimConnector, state::State},
    mutation::Mutation,
    oracle::{LaneOracle, Violation},
    rng::Rng,
    scenario::{LaneSetup, Mix, Scenario},
    session::{Session, Surroundings},
    venue::{self, Venue, text::EPOCH_US},
};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed: everything follows from it.
    pub seed: u64,
    /// Steps before everything is left to settle.
    pub steps: u64,
    /// Which kinds of faults.
    pub mix: Mix,
    /// The venue of all lanes; `None`: as the seed has it.
    pub venue: Option<venue::Kind>,
    /// A lie that must be found.
    pub mutation: Option<Mutation>,
    /// Whether a world that finds something writes its frames to standard error.
    pub tells_frames: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// A fingerprint of everything that was journaled and stored.
    pub fingerprint: u32,
    /// Frames journaled that survived.
    pub frames: u64,
    /// Lives of the daemon.
    pub lives: u64,
    /// What the database did.
    pub database: Counts,
    /// Steps until everything had settled.
    pub settling: u64,
    /// Connections that were opened.
    pub connections: u64,
}

/// A run that found something.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The step, counted from 0; settling steps count on.
    pub step: u64,
    /// What was expected and found.
    pub what: Violation,
}

struct World {
    rng: Rng,
    scenario: Scenario,
    runtime: Runtime,
    disk: SimDisk,
    database: SimDatabase,
    venues: Vec<Venue>,
    plans: Vec<LanePlan>,
    oracles: Vec<LaneOracle>,
    daemon: Option<Daemon>,
    /// When the next life begins.
    start_ms: u64,
    lives: u32,
    now_ms: u64,
    next_second_ms: u64,
    /// By how much the host clock is off.
    skew_ms: i64,
    backup: Option<State>,
    database_up_ms: u64,
    disk_room_ms: u64,
    disk_idle_ms: u64,
    is_calm: bool,
    /// Nothing goes wrong but that connections are replaced.
    is_handover: bool,
    /// Times that all markets have moved since nothing goes wrong any more and all connections are open.
    moved: u64,
    mutation: Option<Mutation>,
}

/// Runs one world to its end.
///
/// # Errors
///
/// [`Found`]: an invariant does not hold.
///
/// # Panics
///
/// If the system refuses to make a runtime of one thread, or the code under test panics.
pub fn run(options: Options) -> Result<Summary, Found> {
    let mut world = World::new(options);
    let result = world.run(options);
    if options.tells_frames && result.is_err() {
        for oracle in &world.oracles {
            // Who reads it may have had enough.
            drop(oracle.tell(&mut std::io::stderr().lock()));
        }
    }
    result
}

impl World {
    fn run(&mut self, Options { seed, steps, .. }: Options) -> Result<Summary, Found> {
        for step in 0..steps {
            debug!(step, now_ms = self.now_ms, "step");
            self.step().map_err(|what| Found { seed, step, what })?;
        }
        self.calm_down();
        let mut settling = 0;
        while !self.is_settled() {
            let step = steps + settling;
            if settling > SETTLING_STEPS_MAX {
                let what = format!("nothing has gone wrong for {settling} steps, and still: {}", self.unsettled());
                return Err(Found { seed, step, what });
            }
            self.settle(settling).map_err(|what| Found { seed, step, what })?;
            settling += 1;
        }
        let step = steps + settling;
        self.check_all().map_err(|what| Found { seed, step, what })?;
        let frames = self.oracles.iter().map(LaneOracle::frames).sum();
        let fingerprint = crc32fast::hash(format!("{:?}", self.database.backup()).as_bytes());
        let (lives, database) = (self.lives.into(), self.database.counts());
        let connections = self.venues.iter().map(|venue| venue.opened).sum();
        Ok(Summary { fingerprint, frames, lives, database, settling, connections })
    }

    fn new(options: Options) -> Self {
        let Options { seed, mix, venue, mutation, .. } = options;
        let mut rng = Rng::new(seed, 0);
        let scenario = Scenario::new(&mut rng, mix, venue);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let disk = SimDisk::new(seed);
        if mutation == Some(Mutation::SyncLies) {
            disk.lie_about_syncs();
        }
        let faults = scenario.database;
        let database = SimDatabase::new(Rng::new(seed, 1), faults, scenario.poison_every, mutation);
        let mut venues = Vec::new();
        let mut oracles = Vec::new();
        for (index, LaneSetup { kind, symbols, .. }) in (0u64..).zip(&scenario.lanes) {
            let mut venue = Venue::new(*kind, *symbols, Rng::new(seed, 10 + index));
            venue.faults = scenario.feed;
            venue.has_own_times = matches!(mix, Mix::Restarts | Mix::Handover);
            venue.is_sound = mix == Mix::Handover;
            venue.sends_twice = scenario.feed.duplicate > 0 || scenario.feed.swap > 0;
            venues.push(venue);
            oracles.push(LaneOracle::new(&format!("{}.{index}", kind.name()), kind.spec()));
        }
        let plans = venues.iter().zip(&oracles).map(|(venue, oracle)| venue.plan(&oracle.name)).collect();
        Self {
            rng,
            scenario,
            runtime: runtime.expect("a runtime of one thread"),
            disk,
            database,
            venues,
            plans,
            oracles,
            daemon: None,
            start_ms: 0,
            lives: 0,
            now_ms: 0,
            next_second_ms: 0,
            skew_ms: 0,
            backup: None,
            database_up_ms: 0,
            disk_room_ms: 0,
            disk_idle_ms: 0,
            is_calm: false,
            is_handover: mix == Mix::Handover,
            moved: 0,
            mutation,
        }
    }

    /// One step: the markets move, something may go wrong, everyone does some of their work, time passes.
    fn step(&mut self) -> Result<(), Violation> {
        self.markets(3);
        self.trouble()?;
        self.sessions()?;
        self.threads();
        let wait = *self.rng.pick(&[1, 1, 2, 3, 5, 10, 20, 60, 200, 1_000]);
        self.pass(wait)?;
        self.check()
    }

    /// A step in which nothing goes wrong.
    fn settle(&mut self, nr: u64) -> Result<(), Violation> {
        if self.clocks() {
            self.venues.iter_mut().for_each(Venue::every_second);
        }
        let is_whole = self.daemon.as_ref().is_some_and(|daemon| daemon.sessions.iter().all(Session::is_whole));
        if !is_whole {
            self.moved = 0;
        } else if nr % 16 == 4 {
            // New trades and changes show what was missed before.
            self.venues.iter_mut().for_each(Venue::show);
            self.moved += 1;
        }
        self.sessions()?;
        if let Some(daemon) = &self.daemon {
            daemon.journal.sync();
            if nr.is_multiple_of(4) {
                let passed = daemon.journal.retain(self.disk.now());
                passed.map_err(|error| format!("retention on a sound disk: {error}"))?;
            }
        }
        let next_due =
            self.daemon.iter().flat_map(|daemon| &daemon.sessions).filter_map(|session| session.next_due_ms());
        let until_due = next_due.min().map_or(100, |due| due.saturating_sub(self.now_ms));
        self.pass(if nr.is_multiple_of(8) { until_due.clamp(50, 60_000) } else { 50 })?;
        self.check()
    }

    fn calm_down(&mut self) {
        info!("nothing goes wrong any more");
        self.is_calm = true;
        self.database.set_faults(Faults::default());
        self.database.settle_stale();
        self.database.set_up(true);
        self.disk.set_bytes_max(u64::MAX);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.venues.iter_mut().for_each(|venue| venue.faults = venue::Faults::default());
        self.venues.iter_mut().for_each(Venue::send_waiting);
        self.start_ms = self.start_ms.min(self.now_ms);
        self.disk_idle_ms = 0;
    }

    /// Tells the venues the time. Whether a second is over since they last said something of their own.
    fn clocks(&mut self) -> bool {
        let now_us = EPOCH_US + i64::try_from(self.now_ms).unwrap_or(i64::MAX) * 1_000;
        self.venues.iter_mut().for_each(|venue| venue.now_us = now_us);
        let is_second = self.now_ms >= self.next_second_ms;
        if is_second {
            self.next_second_ms = self.now_ms + 1_000;
        }
        is_second
    }

    fn markets(&mut self, most: u64) {
        let is_second = self.clocks();
        for venue in &mut self.venues {
            venue.send_waiting();
            venue.restart();
            for _ in 0..self.rng.below(most + 1) {
                let index = self.rng.index(venue.symbols.len());
                venue.step(index);
            }
            if is_second {
                venue.every_second();
            }
        }
    }

    fn trouble(&mut self) -> Result<(), Violation> {
        let events = self.scenario.events;
        if self.rng.chance(events.kill) {
            self.die(false);
        }
        if self.rng.chance(events.power_cut) {
            self.die(true);
        }
        if self.rng.chance(events.stop) {
            self.stop()?;
        }
        if self.rng.chance(events.sync_fails) {
            self.disk.fail_syncs(1);
        }
        if self.rng.chance(events.write_fails) {
            self.disk.fail_writes(1);
        }
        if self.rng.chance(events.disk_full) {
            info!("the disk is full");
            self.disk.set_bytes_max(self.disk.used() + self.rng.below(3_000));
            self.disk_room_ms = self.now_ms + self.rng.between(1, 5_000);
        } else if self.now_ms >= self.disk_room_ms {
            self.disk.set_bytes_max(u64::MAX);
        }
        if self.rng.chance(events.idle_disk) {
            self.disk_idle_ms = self.now_ms + self.rng.between(1, 12_000);
        }
        if self.rng.chance(events.database_stops) {
            info!("the database stops");
            self.database.set_up(false);
            self.database_up_ms = self.now_ms + self.rng.between(1, 8_000);
        } else if !self.database.is_up() && self.now_ms >= self.database_up_ms {
            self.database.set_up(true);
        }
        if self.rng.chance(events.backup) {
            self.backup = Some(self.database.backup());
        }
        if self.backup.is_some() && self.rng.chance(events.restore) {
            self.check()?;
            let backup = self.backup.clone().unwrap_or_default();
            info!("the database is restored");
            self.database.restore(backup);
            // Segments may have gone: for their age, or because room was needed.
            if self.scenario.journal.keep_for < Duration::from_secs(3_600) || events.disk_full > 0 {
                self.oracles.iter_mut().for_each(LaneOracle::may_lose);
            }
        }
        if self.rng.chance(events.plan) {
            self.change_plan();
        }
        if self.rng.chance(100) {
            self.database.settle_stale();
        }
        if self.rng.chance(events.clock_steps) {
            self.skew_ms = i64::try_from(self.rng.below(20_000)).unwrap_or_default() - 10_000;
        }
        Ok(())
    }

    /// An instrument is taken out of a lane's plan, or put back. At least one stays.
    fn change_plan(&mut self) {
        let lane = self.rng.index(self.plans.len());
        let (plan, venue) = (&mut self.plans[lane], &mut self.venues[lane]);
        let index = self.rng.index(venue.symbols.len());
        let name = venue.symbols[index].name;
        let at = plan.symbols.iter().position(|symbol| symbol == name);
        match at {
            Some(at) if plan.symbols.len() > 1 => {
                plan.symbols.remove(at);
                venue.left_out.insert(index);
            }
            Some(_) => {}
            None => plan.symbols.push(name.to_owned()),
        }
        info!(plan.lane, ?plan.symbols, "the plan changes");
    }

    fn sessions(&mut self) -> Result<(), Violation> {
        if self.daemon.is_none() && self.now_ms >= self.start_ms {
            self.start()?;
        }
        let received = self.received();
        let Self { rng, daemon, venues, plans, oracles, now_ms, is_calm, mutation, .. } = self;
        let Some(running) = daemon else { return Ok(()) };
        for (index, session) in running.sessions.iter_mut().enumerate() {
            if !*is_calm && rng.chance(150) {
                continue;
            }
            let mut with = Surroundings {
                venue: &mut venues[index],
                oracle: &mut oracles[index],
                rng,
                now_ms: *now_ms,
                received,
                plan: &plans[index],
                is_calm: *is_calm,
                mutation: *mutation,
            };
            if let Err(lost) = session.step(&mut with) {
                info!(%lost, "the journal is lost to the process");
                self.die(false);
                return Ok(());
            }
            let (rows, requests) = session.held();
            let chunks = session.lane.queue.len();
            let symbols = venues[index].symbols.len();
            if rows > self.scenario.writer.chunk_rows_max + ROWS_OF_A_STEP_MAX
                || requests > 4 * symbols + 4
                || chunks > self.scenario.writer.queue_chunks_max
            {
                return Err(format!(
                    "{}: {rows} rows, {requests} requests, {chunks} chunks in memory",
                    session.lane.name
                ));
            }
        }
        Ok(())
    }

    /// What the daemon's threads do: syncs and retention.
    fn threads(&mut self) {
        if self.now_ms < self.disk_idle_ms {
            return;
        }
        let Some(daemon) = &self.daemon else { return };
        if self.rng.chance(500) {
            daemon.journal.sync();
        }
        if self.rng.chance(80) {
            // What it could not do now, it does in a later pass.
            drop(daemon.journal.retain(self.disk.now()));
        }
    }

    fn start(&mut self) -> Result<(), Violation> {
        self.lives += 1;
        let connector = SimConnector { database: self.database.clone(), instance: self.lives };
        let begin = (self.now_ms, self.mutation);
        match Daemon::start(&self.scenario, &self.disk, connector, &mut self.oracles, begin) {
            Ok(daemon) => self.daemon = Some(daemon),
            Err(NotStarted::Journal(journal::Error::Foreign { path, what, found, expected })) => {
                return Err(format!("recovery: {}: {what}: expected {expected}, found {found}", path.display()));
            }
            Err(NotStarted::Journal(_)) if !self.is_calm => {
                self.disk.kill();
                self.start_ms = self.now_ms + self.rng.between(1, 2_000);
            }
            Err(NotStarted::Journal(error)) => return Err(format!("recovery on a sound disk: {error}")),
            Err(NotStarted::Wrong(what)) => return Err(what),
        }
        Ok(())
    }

    /// The process is gone, with the machine or without.
    fn die(&mut self, is_machine: bool) {
        info!(is_machine, is_running = self.daemon.is_some(), "the process is gone");
        if is_machine {
            self.disk.power_cut();
        } else {
            self.disk.kill();
        }
        self.daemon = None;
        self.venues.iter_mut().for_each(Venue::hang_up);
        self.start_ms = self.now_ms + if self.is_calm { 1 } else { self.rng.between(1, 4_000) };
    }

    /// A planned stop: sessions, then the writer until its deadline, then the journal.
    fn stop(&mut self) -> Result<(), Violation> {
        info!("the process is told to stop");
        let received = self.received();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let Self { rng, venues, plans, oracles, now_ms, is_calm, mutation, .. } = self;
        for (index, session) in daemon.sessions.iter_mut().enumerate() {
            let (now_ms, is_calm, mutation) = (*now_ms, *is_calm, *mutation);
            let (venue, oracle, plan) = (&mut venues[index], &mut oracles[index], &plans[index]);
            let mut with = Surroundings { venue, oracle, rng, now_ms, received, plan, is_calm, mutation };
            if session.stop(&mut with).is_err() {
                self.die(false);
                return Ok(());
            }
        }
        daemon.journal.sync();
        let limit = Duration::from_millis(rng.between(1, 3_000));
        let shard = &mut daemon.shard;
        let stop = &daemon.stop;
        self.runtime.block_on(async {
            stop.send_replace(Some(Instant::now() + limit));
            drop(shard.as_mut().await);
        });
        // The clock of the world is that of the runtime: at most the limit has passed.
        self.check()?;
        self.daemon = None;
        self.disk.kill();
        self.start_ms = self.now_ms + self.rng.between(1, 2_000);
        Ok(())
    }

    /// Lets time pass for the writer.
    fn pass(&mut self, ms: u64) -> Result<(), Violation> {
        let wait = Duration::from_millis(ms);
        let daemon = &mut self.daemon;
        let is_over = self.runtime.block_on(async {
            let over = tokio::time::sleep(wait);
            match daemon {
                Some(daemon) => tokio::select! {
                    biased;
                    _ = daemon.shard.as_mut() => true,
                    () = over => false,
                },
                None => {
                    over.await;
                    false
                }
            }
        });
        self.now_ms += ms;
        self.disk.advance(wait);
        if is_over { Err("the writer ended though nobody told it to".into()) } else { Ok(()) }
    }

    /// What holds after every step.
    fn check(&mut self) -> Result<(), Violation> {
        if let Some(what) = self.database.broken_rule() {
            return Err(what);
        }
        for (oracle, session) in self.oracles.iter_mut().zip(self.daemon.iter().flat_map(|daemon| &daemon.sessions)) {
            oracle.progress(&session.lane)?;
        }
        for applied in self.database.take_applied() {
            let index = self.lane_of(applied.lane)?;
            self.oracles[index].committed(applied, &self.database)?;
        }
        Ok(())
    }

    /// What holds when everything has settled.
    fn check_all(&mut self) -> Result<(), Violation> {
        let lanes: Vec<i32> = self.database.read(|state| state.lanes.values().copied().collect());
        for lane in lanes {
            let index = self.lane_of(lane)?;
            self.oracles[index].settled(lane, &self.venues[index], &self.database)?;
        }
        let gap = self.database.read(|state| state.gaps.iter().next().map(|gap| format!("{gap:?}")));
        match gap.filter(|_| self.is_handover) {
            Some(gap) => Err(format!("connections were only replaced, and still there is a gap: {gap}")),
            None => Ok(()),
        }
    }

    fn lane_of(&self, lane: i32) -> Result<usize, Violation> {
        let name = self.database.read(|state| {
            state.lanes.iter().find(|(_, number)| **number == lane).map(|((_, name, _), _)| name.clone())
        });
        let index = self.oracles.iter().position(|oracle| Some(&oracle.name) == name.as_ref());
        index.ok_or_else(|| format!("the database has a lane {lane} that is none of ours: {name:?}"))
    }

    fn is_settled(&self) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let is_committed = daemon.sessions.iter().zip(&self.oracles).all(|(session, oracle)| {
            session.is_whole()
                && session.next_due_ms().is_none()
                && session.lane.progress.committed().get() == oracle.frames()
        });
        let is_quiet = self.venues.iter().all(Venue::is_quiet);
        is_committed
            && is_quiet
            && self.moved >= MOVES_MIN
            && self.database.read(|state| state.gaps.values().all(|gap| gap.state != "open"))
    }

    fn unsettled(&self) -> String {
        let Some(daemon) = &self.daemon else { return "no daemon runs".into() };
        let lanes = daemon.sessions.iter().zip(&self.oracles).map(|(session, oracle)| {
            let (committed, durable) = (session.lane.progress.committed(), session.lane.progress.durable());
            format!(
                "{}: whole {}, next request {:?} at {}, committed {committed}, durable {durable}, journaled {}",
                oracle.name,
                session.is_whole(),
                session.next_due_ms(),
                self.now_ms,
                oracle.frames()
            )
        });
        let lanes: Vec<_> = lanes.collect();
        let open = self.database.read(|state| {
            state.gaps.iter().filter(|(_, gap)| gap.state == "open").map(|gap| format!("{gap:?}")).collect::<Vec<_>>()
        });
        format!("{}; open gaps {}", lanes.join("; "), open.join("; "))
    }

    fn received(&self) -> Nanos {
        let ms = i64::try_from(self.now_ms).unwrap_or(i64::MAX) + self.skew_ms;
        Nanos(EPOCH_US * 1_000 + ms * 1_000_000)
    }
}

/// Steps of a world where nothing else is said.
pub const STEPS: u64 = 200;
/// Rows that one step may add to a chunk before it is handed on: an answer's page, and the frames around it.
const ROWS_OF_A_STEP_MAX: usize = 3_000;
/// Steps in which everything must have settled.
const SETTLING_STEPS_MAX: u64 = 1_500;
/// Times that all markets move before the end is looked at.
const MOVES_MIN: u64 = 2;

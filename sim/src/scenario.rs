//! What a seed's world is like: how many lanes, how small everything is, and what goes wrong how often.

use std::time::Duration;

use tapeway::config::{Journal, Pin, Writer};

use crate::{database::faults::Faults, rng::Rng, venue};

/// One world's circumstances, all from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The lanes.
    pub lanes: Vec<LaneSetup>,
    /// The journal's settings.
    pub journal: Journal,
    /// The writer's settings.
    pub writer: Writer,
    /// What goes wrong with the feeds.
    pub feed: venue::Faults,
    /// What goes wrong with the database.
    pub database: Faults,
    /// Every so many rows is refused by the database; zero: none.
    pub poison_every: u64,
    /// What goes wrong with everything else, per thousand steps.
    pub events: Events,
}

/// One lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneSetup {
    /// Its venue.
    pub kind: venue::Kind,
    /// The number of its instruments.
    pub symbols: usize,
    /// How many connections it is to have: 1 or 2.
    pub redundancy: usize,
    /// Milliseconds after which a connection is replaced, at least and at most.
    pub lifetime_ms: Option<(u64, u64)>,
}

impl LaneSetup {
    /// Whether it ever has a second connection.
    #[must_use]
    pub fn has_second(&self) -> bool {
        self.redundancy > 1 || self.lifetime_ms.is_some()
    }
}

/// What goes wrong per thousand steps of the world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// `kill -9` of the process.
    pub kill: u64,
    /// Power cut.
    pub power_cut: u64,
    /// Planned stop.
    pub stop: u64,
    /// A sync fails.
    pub sync_fails: u64,
    /// A write fails.
    pub write_fails: u64,
    /// The disk fills up.
    pub disk_full: u64,
    /// The database stops for a while.
    pub database_stops: u64,
    /// A backup is taken.
    pub backup: u64,
    /// The last backup is restored.
    pub restore: u64,
    /// The host clock steps.
    pub clock_steps: u64,
    /// The syncer and the retainer are held up.
    pub idle_disk: u64,
    /// An instrument is taken out of a lane's plan, or put back.
    pub plan: u64,
}

/// Which kinds of faults a run has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mix {
    /// As the seed has it.
    Any,
    /// As the seed has it, and lanes have two connections, or a second one while the first is replaced.
    Twins,
    /// The same, and venues whose book messages have no ids batch them differently for each connection.
    Batches,
    /// As twins, and the operator changes which instruments a lane has.
    Plans,
    /// As twins, and venues announce that a connection is about to end.
    Restarts,
    /// Nothing goes wrong, but that connections are replaced: for their age, or as the venue announces. No gap may come
    /// of it.
    Handover,
    /// Nothing goes wrong.
    Calm,
    /// Only the feed.
    Feed,
    /// Only the disk and the process.
    Disk,
    /// Only the database.
    Database,
}

impl Mix {
    /// Whether lanes have two connections, or a second one while the first is replaced.
    const fn has_twins(self) -> bool {
        matches!(self, Self::Twins | Self::Batches | Self::Plans | Self::Restarts | Self::Handover)
    }

    /// The mix of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "any" => Some(Self::Any),
            "twins" => Some(Self::Twins),
            "batches" => Some(Self::Batches),
            "plans" => Some(Self::Plans),
            "restarts" => Some(Self::Restarts),
            "handover" => Some(Self::Handover),
            "calm" => Some(Self::Calm),
            "feed" => Some(Self::Feed),
            "disk" => Some(Self::Disk),
            "database" => Some(Self::Database),
            _ => None,
        }
    }
}

impl Scenario {
    /// The circumstances of a seed; all lanes of one venue if it is named.
    #[must_use]
    pub fn new(rng: &mut Rng, mix: Mix, venue: Option<venue::Kind>) -> Self {
        let lanes = 1 + rng.below(5) / 4;
        let lanes = (0..lanes)
            .map(|_| {
                let (kind, symbols) = (*rng.pick(&venue::Kind::CHOICE), 1 + rng.index(3));
                let kind = venue.unwrap_or(kind);
                let (redundancy, lifetime_ms) = if mix.has_twins() { twins(rng) } else { (1, None) };
                LaneSetup { kind, symbols, redundancy, lifetime_ms }
            })
            .collect();
        let small = rng.chance(500);
        let journal = Journal {
            dir: "/journal".into(),
            segment_bytes_max: if small { rng.between(4_000, 20_000) } else { rng.between(20_000, 400_000) },
            sync_interval: Duration::from_millis(50),
            keep_for: if rng.chance(150) {
                Duration::from_secs(rng.between(1, 20))
            } else {
                Duration::from_secs(86_400)
            },
            bytes_max: 1 << 30,
            free_bytes_min: 0,
            is_compressed: rng.chance(200),
        };
        let writer = Writer {
            threads: Some(1),
            pin: Pin::Off,
            batch_rows_max: rng.index(300) + 5,
            batch_bytes_max: 1 << 20,
            batch_age_max: Duration::from_millis(rng.between(1, 300)),
            queue_chunks_max: 1 + rng.index(12),
            chunk_rows_max: 1 + rng.index(60),
        };
        let has = |rng: &mut Rng, mixes: &[Mix]| {
            let is_of_all = mix == Mix::Any || (mix.has_twins() && mix != Mix::Handover);
            mixes.contains(&mix) || (is_of_all && rng.chance(600))
        };
        let (has_feed, has_disk, has_database) =
            (has(rng, &[Mix::Feed]), has(rng, &[Mix::Disk]), has(rng, &[Mix::Database]));
        let mut some = |is_on: bool, most: u64| if is_on && rng.chance(600) { rng.between(1, most) } else { 0 };
        let mut feed = venue::Faults {
            drop: some(has_feed, 60),
            duplicate: some(has_feed, 60),
            swap: some(has_feed, 40),
            corrupt: some(has_feed, 30),
            wrong_id: some(has_feed, 8),
            wrong_checksum: some(has_feed, 20),
            stall: some(has_feed, 4),
            cut: some(has_feed, 20),
            http: some(has_feed, 700),
            batch: 0,
            restart: 0,
            restart_ms: (0, 0),
        };
        let database = Faults {
            cut: some(has_database, 20),
            cut_in_commit: some(has_database, 150),
            hang: some(has_database, 5),
            refuse: some(has_database, 15),
            slow: some(has_database, 100),
            lose_lock: some(has_database, 500),
        };
        let poison_every = if has_database && some(true, 10) > 6 { 37 } else { 0 };
        let events = Events {
            kill: some(has_disk, 20),
            power_cut: some(has_disk, 20),
            stop: some(has_disk, 8),
            sync_fails: some(has_disk, 6),
            write_fails: some(has_disk, 4),
            disk_full: some(has_disk, 8),
            database_stops: some(has_database, 12),
            backup: some(has_database, 20),
            restore: some(has_database, 10),
            clock_steps: some(has_feed, 10),
            idle_disk: some(has_disk, 20),
            plan: some(mix == Mix::Plans, 60),
        };
        feed.batch = some(mix == Mix::Batches, 600);
        if matches!(mix, Mix::Restarts | Mix::Handover) {
            feed.restart = rng.between(1, 30);
            // A venue leaves more time than a session takes to replace a connection, or not.
            feed.restart_ms = if mix == Mix::Handover { (40_000, 120_000) } else { (1, 20_000) };
        }
        Self { lanes, journal, writer, feed, database, poison_every, events }
    }
}

/// How many connections a lane has, and how long each lives: two at times, if not always.
fn twins(rng: &mut Rng) -> (usize, Option<(u64, u64)>) {
    let lifetime = Some((2_000, rng.between(4_000, 20_000)));
    *rng.pick(&[(2, None), (2, lifetime), (1, lifetime)])
}

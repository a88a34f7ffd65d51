//! Blows: what is done to daemon, database and venues, how often, and when.

use std::time::{Duration, Instant};

use rand::{RngExt, rngs::SmallRng};
use tapeway::loopback::{self, Channel, Fault, FaultKind, Venue, When};

use super::{SYMBOLS, from_env};
use crate::{
    cluster::Cluster,
    process::{self, Daemon},
    proxy::{Cut, Proxy},
};

/// Length, speed, and how many blows of each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) length: Duration,
    pub(super) rows_per_second: u32,
    /// SIGKILLs of the daemon.
    pub(super) kills: u32,
    /// Immediate stops of the database.
    pub(super) crashes: u32,
    /// Cuts of its connection in COMMIT.
    pub(super) cuts: u32,
    /// Times a venue withholds messages and then cuts all its connections.
    pub(super) venue_cuts: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) kills: u32,
    /// Kills while the database was down.
    pub(super) kills_while_down: u32,
    pub(super) crashes: u32,
    pub(super) cuts_before: u32,
    pub(super) cuts_after: u32,
    pub(super) venue_cuts: u32,
    /// Messages that venues were told to withhold.
    pub(super) drops_wanted: u32,
}

#[derive(Clone, Copy, Debug)]
enum Blow {
    KillDaemon,
    CrashDatabase,
    CutCommit(Cut),
    CutVenue,
}

impl Plan {
    pub(super) fn from_env() -> Self {
        let number = |name: &str, usual: u32| from_env(name).unwrap_or(usual);
        Self {
            length: Duration::from_secs(number("TAPEWAY_PROOF_SECONDS", 22).into()),
            rows_per_second: number("TAPEWAY_PROOF_RATE", 20_000),
            kills: number("TAPEWAY_PROOF_KILLS", 6),
            crashes: number("TAPEWAY_PROOF_CRASHES", 3),
            cuts: number("TAPEWAY_PROOF_CUTS", 3),
            venue_cuts: number("TAPEWAY_PROOF_VENUE_CUTS", 2),
        }
    }

    /// All blows in a random order.
    fn blows(&self, rng: &mut SmallRng) -> Vec<Blow> {
        let repeated = |blow: Blow, times: u32| std::iter::repeat_n(blow, times as usize);
        let cuts = [Cut::BeforeServer, Cut::AfterServer, Cut::AfterServer].map(Blow::CutCommit);
        let mut blows: Vec<Blow> = repeated(Blow::KillDaemon, self.kills)
            .chain(repeated(Blow::CrashDatabase, self.crashes))
            .chain(cuts.into_iter().cycle().take(self.cuts as usize))
            .chain(repeated(Blow::CutVenue, self.venue_cuts))
            .collect();
        for last in (1..blows.len()).rev() {
            blows.swap(last, rng.random_range(0..=last));
        }
        blows
    }
}

/// What the blows fall on.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) proxy: &'a Proxy,
    pub(super) venues: &'a loopback::Server,
    pub(super) daemon: &'a mut Daemon,
}

/// Strikes at random moments until the time is over. `told`: what a failure is repeated with.
pub(super) fn strike(plan: &Plan, rng: &mut SmallRng, stage: &mut Stage<'_>, told: &str) -> Done {
    let blows = plan.blows(rng);
    let pause = plan.length / u32::try_from(blows.len()).unwrap();
    let mut done = Done::default();
    let begun = Instant::now();
    let mut next_word = WORD_EVERY;
    for (nr, blow) in (1_u32..).zip(&blows) {
        std::thread::sleep(pause.mul_f64(rng.random_range(0.2..0.8)));
        if begun.elapsed() >= next_word {
            next_word = begun.elapsed() + WORD_EVERY;
            let made = stage.venues.stats().rows();
            println!("{told}: {:?}, blow {nr} of {}, {made} rows made: {done:?}", begun.elapsed(), blows.len());
        }
        stage.take(*blow, rng, &mut done);
        std::thread::sleep((pause * nr).saturating_sub(begun.elapsed()));
    }
    done
}

impl Stage<'_> {
    fn take(&mut self, blow: Blow, rng: &mut SmallRng, done: &mut Done) {
        let a_moment = |rng: &mut SmallRng| std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        match blow {
            Blow::KillDaemon => {
                self.daemon.kill();
                a_moment(rng);
                self.daemon.restart();
                done.kills += 1;
            }
            Blow::CrashDatabase => {
                self.cluster.stop();
                a_moment(rng);
                if rng.random_bool(0.25) {
                    self.daemon.kill();
                    a_moment(rng);
                    self.daemon.restart();
                    done.kills_while_down += 1;
                }
                self.cluster.up();
                done.crashes += 1;
            }
            Blow::CutCommit(cut) => {
                let before = self.proxy.cuts();
                self.proxy.cut_next(cut);
                let is_cut = || self.proxy.cuts() > before;
                process::wait(Duration::from_secs(120), "a COMMIT goes through the proxy", is_cut);
                match cut {
                    Cut::BeforeServer => done.cuts_before += 1,
                    Cut::AfterServer => done.cuts_after += 1,
                    Cut::Never => {}
                }
            }
            Blow::CutVenue => {
                done.drops_wanted += self.cut_venue(rng);
                done.venue_cuts += 1;
            }
        }
    }

    /// A venue withholds some trades, and book messages where that can be noticed, and a little later cuts everyone off.
    fn cut_venue(&self, rng: &mut SmallRng) -> u32 {
        let venue = Venue::ALL[rng.random_range(0..Venue::ALL.len())];
        let symbols = venue.symbols(SYMBOLS);
        // Coinbase's book messages have neither ids nor a checksum.
        let channels: &[Channel] =
            if venue == Venue::Coinbase { &[Channel::Trades] } else { &[Channel::Trades, Channel::Book] };
        let mut drops = 0;
        for channel in channels {
            let symbol = &symbols[rng.random_range(0..symbols.len())];
            let count = rng.random_range(1..=3);
            let fault = Fault::new(FaultKind::Drop).on(venue).symbol(symbol).channel(*channel);
            self.venues.fault(&fault.when(When::Count(count)));
            drops += count;
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        self.venues.fault(&Fault::new(FaultKind::Close).on(venue));
        drops
    }
}

/// How often it is said how far it is.
const WORD_EVERY: Duration = Duration::from_secs(30);

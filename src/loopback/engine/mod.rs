//! One venue's engine: a thread that owns the market, the connections' queues, the faults and the truth, and
//! does everything in one order. What reaches it are [`Command`]s (`commands.rs`); what it gives is frames and answers,
//! some of them later on purpose (`waiting.rs`).
//!
//! Because one thread does it all, a snapshot and the frames after it always fit: an acknowledgement, a snapshot
//! and the first change follow each other in a connection's queue as they followed each other here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use tracing::warn;

use super::{
    Kinds, Options, Rate, binance, coinbase,
    faults::Faults,
    hub::Hub,
    kraken,
    market::{Market, Step, Style},
    recording::Recording,
    rng::Rng,
    stats::VenueStats,
    text::IsoClock,
    truth::TruthLog,
    venue::{Instrument, Venue},
};

pub(super) mod commands;
mod waiting;

use commands::Command;
use waiting::{Late, Waiting};

/// One venue's engine. `pub(super)` fields are for the venue's own file.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) venue: Venue,
    pub(super) market: Market,
    pub(super) hub: Hub,
    pub(super) faults: Faults,
    pub(super) truth: TruthLog,
    pub(super) stats: VenueStats,
    pub(super) kinds: Kinds,
    pub(super) iso: IsoClock,
    /// Scratch for one frame.
    pub(super) buf: Vec<u8>,
    pub(super) variants: Vec<u16>,
    commands: Receiver<Command>,
    stop: Arc<AtomicBool>,
    options: Arc<Options>,
    recording: Option<Recording>,
    step: Step,
    kraken: kraken::Views,
    waiting: Vec<Waiting>,
    late: Vec<Late>,
    full: Vec<usize>,
    mid: Rng,
    now_us: i64,
    ticks: u64,
    next_second: Instant,
    next_truth_flush: Instant,
    is_started: bool,
    is_paused: bool,
}

impl Engine {
    /// An engine ready to run.
    pub(super) fn new(
        venue: Venue,
        options: &Arc<Options>,
        truth: TruthLog,
        recording: Option<Recording>,
        commands: Receiver<Command>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let stream = venue as u64 + 1;
        let count = if recording.is_some() { 0 } else { options.symbols };
        let instruments: Vec<_> = (0..count).map(|index| Instrument::nth(venue, index)).collect();
        let style = Style {
            is_contiguous: venue != Venue::BinanceUsdm,
            changes_max: match venue {
                Venue::BinanceSpot | Venue::BinanceUsdm => 14,
                Venue::Coinbase => 6,
                Venue::Kraken => 4,
            },
            focus: if venue == Venue::Kraken { 12 } else { 60 },
            has_off_book: venue == Venue::BinanceUsdm,
            levels: options.book_levels,
            trades_kept: TRADES_KEPT_MAX.min(TRADES_KEPT_TOTAL / count.max(1)),
        };
        let symbols = recording.as_ref().map_or(count, Recording::symbols);
        let now = Instant::now();
        let mut engine = Self {
            venue,
            market: Market::new(instruments, style, options.seed, stream),
            hub: Hub::new(symbols),
            faults: Faults::new(options.seed, stream),
            truth,
            stats: VenueStats::new(venue, count),
            kinds: options.kinds,
            iso: IsoClock::default(),
            buf: Vec::with_capacity(64 * 1024),
            variants: Vec::new(),
            commands,
            stop,
            options: Arc::clone(options),
            recording,
            step: Step::default(),
            kraken: kraken::Views::default(),
            waiting: Vec::new(),
            late: Vec::new(),
            full: Vec::new(),
            mid: Rng::new(options.seed ^ 0x3D, stream),
            now_us: 0,
            ticks: 0,
            next_second: now + SECOND,
            next_truth_flush: now + TRUTH_FLUSH_EVERY,
            is_started: false,
            is_paused: false,
        };
        for fault in &options.faults {
            if fault.venue.is_none_or(|wanted| wanted == venue) {
                engine.faults.set(fault.clone());
            }
        }
        engine
    }

    /// Runs until asked to stop, then lets the connections have what waits for them and closes them.
    pub(super) fn run(mut self) -> VenueStats {
        match self.options.rate {
            Rate::RowsPerSecond(rows) => self.run_paced(rows / self.options.venues.len().max(1) as f64),
            Rate::Max => self.run_flat_out(),
        }
        self.drain();
        self.truth.flush();
        self.stats.finish(&self.hub, self.truth.count());
        self.stats
    }

    fn run_paced(&mut self, rows_per_second: f64) {
        let mut next = Instant::now();
        let mut owed = 0.0;
        while !self.stop.load(Ordering::Relaxed) {
            self.serve_until(next);
            let now = Instant::now();
            if now < next {
                continue;
            }
            if now - next > BEHIND_MAX {
                self.stats.ticks_skipped += 1;
                next = now;
            }
            next += self.options.tick;
            if !self.may_start() {
                continue;
            }
            self.begin_tick();
            owed += rows_per_second * self.options.tick.as_secs_f64();
            let mut steps = 0_usize;
            while owed > 0.0 && !self.is_done() {
                owed -= self.step() as f64;
                steps += 1;
                if steps.is_multiple_of(STEPS_PER_BURST) && !self.make_room() {
                    return;
                }
            }
            owed = owed.min(0.0);
            if !self.make_room() {
                return;
            }
        }
    }

    fn run_flat_out(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_done() || !self.may_start() || self.hub.subscriptions() == 0 {
                self.serve_until(Instant::now() + self.options.tick);
                self.flush();
                continue;
            }
            self.serve_now();
            self.begin_tick();
            for _ in 0..STEPS_PER_BURST {
                self.step();
            }
            if !self.make_room() {
                return;
            }
        }
    }

    /// Hands out what waits, and in lossless mode does so until no connection has too much waiting. False when
    /// asked to stop meanwhile.
    fn make_room(&mut self) -> bool {
        self.flush();
        while self.options.is_lossless && !self.full.is_empty() {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            self.serve_until(Instant::now() + ROOM_CHECK_EVERY);
            self.flush();
        }
        true
    }

    fn flush(&mut self) {
        let bytes_max = if self.options.is_lossless { LOSSLESS_WAITING_BYTES } else { self.options.buffer_bytes_max };
        self.hub.flush(bytes_max, &mut self.full);
        if !self.options.is_lossless {
            for slot in std::mem::take(&mut self.full) {
                self.stats.slow_clients_cut += 1;
                warn!(venue = %self.venue, bytes_max, "a client reads too slowly and is disconnected");
                self.cut(slot, "too slow");
            }
        }
    }

    fn begin_tick(&mut self) {
        self.ticks += 1;
        self.now_us = match self.options.epoch_us {
            Some(epoch) => {
                let tick_us = i64::try_from(self.options.tick.as_micros()).unwrap_or(i64::MAX);
                epoch + i64::try_from(self.ticks).unwrap_or(i64::MAX).saturating_mul(tick_us)
            }
            None => now_us(),
        };
    }

    /// One step of the market, or one frame of the recording; returns its rows.
    fn step(&mut self) -> u64 {
        self.hub.sent.clear();
        if let Some(mut recording) = self.recording.take() {
            let rows = recording.step(self);
            self.recording = Some(recording);
            return rows;
        }
        let mut step = std::mem::take(&mut self.step);
        self.market.choose(&mut step);
        if self.venue == Venue::Kraken {
            self.kraken.before(&self.market, &self.hub, step.symbol);
        }
        self.market.begin(self.now_us, &mut step);
        let mut is_asked = self.waiting.iter().any(|waiting| waiting.symbol == step.symbol);
        while self.market.advance(&mut step) {
            if is_asked && self.mid.below(4) == 0 {
                self.answer_waiting(step.symbol);
                is_asked = false;
            }
        }
        self.market.finish(&mut step);
        let rows = match self.venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => binance::emit(self, &step),
            Venue::Coinbase => coinbase::emit(self, &step),
            Venue::Kraken => {
                let mut views = std::mem::take(&mut self.kraken);
                let rows = kraken::emit(self, &mut views, &step);
                self.kraken = views;
                rows
            }
        };
        self.step = step;
        rows
    }

    fn may_start(&mut self) -> bool {
        self.is_started = self.is_started || self.hub.subscriptions() >= self.options.wait_subscriptions;
        self.is_started
    }

    fn is_done(&self) -> bool {
        self.is_paused
            || self.options.rows_max.is_some_and(|rows_max| self.stats.rows() >= rows_max)
            || self.recording.as_ref().is_some_and(Recording::is_done)
    }

    /// Serves commands until `until`.
    fn serve_until(&mut self, until: Instant) {
        loop {
            self.serve_now();
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.commands.recv_timeout(wait) {
                Ok(command) => {
                    self.serve(command);
                    self.serve_now();
                    self.flush();
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can ask any more; the clock still runs.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    /// Serves the commands that are there and does what is due.
    fn serve_now(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.serve(command);
        }
        let now = Instant::now();
        if now >= self.next_second {
            self.next_second = now + SECOND;
            self.every_second(now);
        }
        if now >= self.next_truth_flush {
            self.next_truth_flush = now + TRUTH_FLUSH_EVERY;
            self.truth.flush();
        }
        self.serve_due(now);
    }

    fn every_second(&mut self, now: Instant) {
        for slot in self.hub.slots() {
            let Some(conn) = self.hub.conn(slot) else { continue };
            conn.messages = 0;
            let is_silent = conn.subscriptions == 0 && now - conn.opened > self.options.subscribe_within;
            match self.venue {
                Venue::BinanceSpot | Venue::BinanceUsdm => {}
                Venue::Coinbase if is_silent && self.late.is_empty() => {
                    self.hub.close(slot, 1000, "no subscribe received");
                }
                Venue::Coinbase => {}
                Venue::Kraken if conn.subscriptions > 0 => self.hub.send(slot, kraken::HEARTBEAT),
                Venue::Kraken => {}
            }
        }
        if self.venue == Venue::Coinbase {
            coinbase::heartbeats(self);
        }
        self.flush();
    }

    /// A symbol's name.
    pub(super) fn symbol_name(&self, symbol: usize) -> &str {
        match &self.recording {
            Some(recording) => recording.symbol_name(symbol),
            None => &self.market.symbols[symbol].instrument.symbol,
        }
    }

    /// The index of a symbol in the venue's spelling (any case).
    pub(super) fn symbol_index(&self, name: &str) -> Option<usize> {
        if let Some(recording) = &self.recording {
            return recording.symbol_index(name);
        }
        self.market.symbols.iter().position(|symbol| symbol.instrument.symbol.eq_ignore_ascii_case(name))
    }

    /// The recording being played, if it is one.
    pub(super) fn recording(&mut self) -> Option<&mut Recording> {
        self.recording.as_mut()
    }

    /// Time for what is answered now, in microseconds.
    pub(super) fn clock_us(&self) -> i64 {
        if self.options.epoch_us.is_some() { self.now_us } else { now_us() }
    }

    fn drain(&mut self) {
        self.hub.release_all();
        for slot in self.hub.slots() {
            self.hub.close(slot, 1001, "going away");
        }
        let deadline = Instant::now() + self.options.drain_within;
        loop {
            self.hub.flush(usize::MAX, &mut self.full);
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Open { reply, .. } => drop(reply.send(Err(503)).ok()),
                    Command::Gone { .. } | Command::Pause | Command::Stats(_) => self.serve(command),
                    Command::Message { .. } | Command::Http { .. } | Command::Fault(_) => {}
                }
            }
            if self.hub.len() == 0 || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(ROOM_CHECK_EVERY);
        }
        if !self.hub.is_flushed() {
            warn!(venue = %self.venue, "some clients did not take all that was sent before the stop");
        }
        for slot in self.hub.slots() {
            self.cut(slot, "stopped");
        }
    }
}

/// A string as JSON.
pub(super) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The host's clock, in microseconds since the Unix epoch.
pub(super) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

const SECOND: Duration = Duration::from_secs(1);
/// A paced market further behind than this goes on from now.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// How often a full connection is looked at while the market waits for it.
const ROOM_CHECK_EVERY: Duration = Duration::from_micros(200);
/// Bytes behind a connection's channel at which a lossless market waits.
const LOSSLESS_WAITING_BYTES: usize = 256 * 1024;
/// Steps between two looks at commands when the market runs flat out.
const STEPS_PER_BURST: usize = 64;
const TRUTH_FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Trades of one instrument, and of all instruments of a venue, kept to be asked for again.
const TRADES_KEPT_MAX: usize = 65_536;
const TRADES_KEPT_TOTAL: usize = 2_097_152;

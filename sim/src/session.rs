//! One lane's session, step by step: what [`tapeway::session`] does with a socket, done with a model venue.
//!
//! Journal, decoder and queue are the real ones, behind the session's own [`Intake`].

use std::sync::Arc;

use tapeway::{journal, lane::Lane, session::intake::Intake};
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, HttpRequest, LanePlan},
    ids::Nanos,
    input::{self, Kind},
};

use crate::{mutation::Mutation, oracle::LaneOracle, rng::Rng, venue::Venue};

/// One lane's session.
pub struct Session {
    /// The lane.
    pub lane: Arc<Lane>,
    intake: Intake,
    state: Connection,
    requests: Vec<Pending>,
    is_begun: bool,
    next_tick_ms: u64,
}

/// How the connection stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Connection {
    Down { until_ms: u64 },
    Open,
    Full,
}

struct Pending {
    request: HttpRequest,
    due_ms: u64,
}

/// What a session needs of the world in one step.
pub struct Surroundings<'a> {
    /// The venue.
    pub venue: &'a mut Venue,
    /// What is to be told of every journaled frame.
    pub oracle: &'a mut LaneOracle,
    /// Dice.
    pub rng: &'a mut Rng,
    /// Milliseconds since the world began.
    pub now_ms: u64,
    /// The host clock, which may step back.
    pub received: Nanos,
    /// What to connect to and ask for.
    pub plan: &'a LanePlan,
    /// Whether nothing is to go wrong any more.
    pub is_calm: bool,
    /// A lie.
    pub mutation: Option<Mutation>,
}

impl Session {
    /// A session over a recovered journal.
    #[must_use]
    pub fn new(lane: Arc<Lane>, intake: Intake, now_ms: u64) -> Self {
        let state = Connection::Down { until_ms: now_ms };
        Self { lane, intake, state, requests: Vec::new(), is_begun: false, next_tick_ms: now_ms }
    }

    /// Does some of what is to be done now.
    ///
    /// # Errors
    ///
    /// The journal is lost to this process.
    pub fn step(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if !self.is_begun {
            match self.intake.begin() {
                Ok(()) => self.is_begun = true,
                Err(journal::Error::Full { .. }) => return Ok(()),
                Err(lost) => return Err(lost),
            }
        }
        let result = match self.state {
            Connection::Down { until_ms } if with.now_ms >= until_ms => self.open(with),
            Connection::Down { .. } => self.flush(),
            Connection::Open => self.pump(with),
            Connection::Full => self.until_room(with),
        };
        match result {
            Err(journal::Error::Full { .. }) => {
                with.venue.conn = None;
                self.requests.clear();
                self.intake.decoder().actions().clear();
                self.state = Connection::Full;
                Ok(())
            }
            result => result,
        }
    }

    /// Ends the connection and seals the journal, as a stop does.
    ///
    /// # Errors
    ///
    /// As the journal has them.
    pub fn stop(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if !self.is_begun {
            return Ok(());
        }
        if self.state == Connection::Open {
            self.close(with, CloseKind::Shutdown)?;
        }
        self.intake.seal()
    }

    /// Whether a connection is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == Connection::Open
    }

    /// When the next request is due.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.requests.iter().map(|pending| pending.due_ms).min()
    }

    /// Rows not handed on, and requests not answered: what is in memory.
    pub fn held(&mut self) -> (usize, usize) {
        (self.intake.decoder().events().rows(), self.requests.len())
    }

    /// Hands on what is decoded.
    ///
    /// # Errors
    ///
    /// As the journal has them.
    pub fn flush(&mut self) -> Result<(), journal::Error> {
        if self.is_begun { self.intake.flush() } else { Ok(()) }
    }

    fn open(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        with.venue.open();
        self.state = Connection::Open;
        let plan = serde_json::to_vec(with.plan).unwrap_or_default();
        self.take(with, Kind::Open, &plan)?;
        self.act(with)
    }

    fn pump(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        let count = 1 + with.rng.index(12);
        for _ in 0..count {
            let Some(text) = with.venue.conn.as_mut().and_then(|conn| conn.wire.pop_front()) else { break };
            self.take(with, Kind::Text, text.as_bytes())?;
            self.act(with)?;
            if self.state != Connection::Open {
                return Ok(());
            }
            if self.intake.is_chunk_full() {
                self.intake.flush()?;
            }
        }
        self.answers(with)?;
        if self.state != Connection::Open {
            return Ok(());
        }
        if with.now_ms >= self.next_tick_ms {
            self.next_tick_ms = with.now_ms + 1_000;
            self.intake.decoder().tick(with.received);
            self.act(with)?;
        }
        if self.state != Connection::Open {
            return Ok(());
        }
        let Some(conn) = &with.venue.conn else { return self.close(with, CloseKind::Lost) };
        if conn.is_stalled() && conn.wire.is_empty() && (with.is_calm || with.rng.chance(100)) {
            return self.close(with, CloseKind::Stall);
        }
        let cut = with.venue.faults.cut;
        if with.rng.chance(cut) {
            return self.close(with, CloseKind::Lost);
        }
        if with.is_calm || with.rng.chance(600) { self.intake.flush() } else { Ok(()) }
    }

    /// Takes in what is due of the answers to requests.
    fn answers(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        for _ in 0..UNDER_WAY_MAX {
            let Some(at) = self.requests.iter().position(|pending| pending.due_ms <= with.now_ms) else { break };
            let Pending { request, .. } = self.requests.remove(at);
            match with.venue.http(&request.path) {
                Some(answer) => {
                    let mut bytes = Vec::new();
                    input::put_http(&mut bytes, &request.tag, answer.status, answer.body.as_bytes());
                    self.take(with, Kind::Http, &bytes)?;
                    self.act(with)?;
                }
                None => self.requests.push(Pending { request, due_ms: with.now_ms + with.rng.between(500, 30_000) }),
            }
            if self.state != Connection::Open {
                break;
            }
        }
        Ok(())
    }

    /// Does what the adapter wants done.
    fn act(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        let actions = std::mem::take(self.intake.decoder().actions());
        for (_, text) in &actions.sends {
            with.venue.message(text);
        }
        for request in actions.requests {
            let delay = u64::try_from(request.delay.as_millis()).unwrap_or(u64::MAX);
            let late = if with.is_calm { 1 } else { with.rng.between(1, 400) };
            self.requests.push(Pending { request, due_ms: with.now_ms + delay + late });
        }
        match actions.reconnects.into_iter().next() {
            Some((_, reason)) => self.close(with, reason.kind),
            None => Ok(()),
        }
    }

    fn close(&mut self, with: &mut Surroundings<'_>, kind: CloseKind) -> Result<(), journal::Error> {
        with.venue.conn = None;
        self.requests.clear();
        let wait = if with.is_calm { 100 } else { with.rng.between(1, 3_000) };
        self.state = Connection::Down { until_ms: with.now_ms + wait };
        let reason = CloseReason { kind, detail: "as the world has it".into() };
        self.take(with, Kind::Close, &serde_json::to_vec(&reason).unwrap_or_default())?;
        self.intake.decoder().actions().clear();
        self.intake.flush()
    }

    fn until_room(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if self.intake.has_room()? { self.close(with, CloseKind::JournalFull) } else { Ok(()) }
    }

    fn take(&mut self, with: &mut Surroundings<'_>, kind: Kind, bytes: &[u8]) -> Result<(), journal::Error> {
        self.intake.take(kind, with.received, bytes)?;
        let is_lie = with.mutation == Some(Mutation::JournalDiffers) && with.oracle.frames() == 40;
        with.oracle.journaled(kind, with.received, if is_lie { b"{}" } else { bytes });
        Ok(())
    }
}

/// Requests of one lane answered in one step.
const UNDER_WAY_MAX: usize = 4;

//! One lane's session, step by step: what [`tapeway::session`] does with a socket, done with a model venue.
//!
//! Journal, decoder and queue are the real ones, behind the session's own [`Intake`].

use std::sync::Arc;

use tapeway::{journal, lane::Lane, session::intake::Intake};
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, HttpRequest, LanePlan},
    conn::{Conn, Conns, PerConn},
    ids::Nanos,
    input::{self, Kind, Origin},
};

use crate::{mutation::Mutation, oracle::LaneOracle, rng::Rng, scenario::LaneSetup, venue::Venue};

/// One lane's session.
pub struct Session {
    /// The lane.
    pub lane: Arc<Lane>,
    setup: LaneSetup,
    intake: Intake,
    /// What the open connections were told to bring.
    plan: Option<LanePlan>,
    slots: PerConn<Slot>,
    /// The journal takes nothing, and nothing is read.
    is_full: bool,
    requests: Vec<Pending>,
    is_begun: bool,
    next_tick_ms: u64,
}

/// How one of the lane's connections stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Slot {
    /// It is not wanted.
    #[default]
    Idle,
    Down {
        until_ms: u64,
    },
    Open(Open),
}

/// An open connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Open {
    /// When it is to be replaced.
    rotate_ms: u64,
    retiring: Option<Retiring>,
    /// Since when the lane could go on with it alone.
    ready_since_ms: Option<u64>,
}

/// Why a connection is to be replaced, and when it is closed whether or not the other is ready, or ends whether or not
/// everything is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Retiring {
    kind: CloseKind,
    deadline_ms: u64,
    /// We have said that we close it, and read what the venue had sent.
    is_closing: bool,
}

impl Open {
    fn is_closing(&self) -> bool {
        self.retiring.is_some_and(|retiring| retiring.is_closing)
    }
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
    pub fn new(lane: Arc<Lane>, setup: LaneSetup, intake: Intake, now_ms: u64) -> Self {
        let mut slots = PerConn::default();
        slots[Conn::FIRST] = Slot::Down { until_ms: now_ms };
        Self {
            lane,
            setup,
            intake,
            plan: None,
            slots,
            is_full: false,
            requests: Vec::new(),
            is_begun: false,
            next_tick_ms: now_ms,
        }
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
        let result = if self.is_full { self.until_room(with) } else { self.pump(with) };
        match result {
            Err(journal::Error::Full { .. }) => {
                with.venue.hang_up();
                self.slots = PerConn::default();
                self.requests.clear();
                self.intake.decoder().actions().clear();
                self.is_full = true;
                Ok(())
            }
            result => result,
        }
    }

    /// Ends the connections and seals the journal, as a stop does.
    ///
    /// # Errors
    ///
    /// As the journal has them.
    pub fn stop(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if !self.is_begun {
            return Ok(());
        }
        for conn in Conn::ALL {
            self.end(with, conn, CloseKind::Shutdown)?;
        }
        self.intake.seal()
    }

    /// Whether it has the connections it is to have, and none is to be replaced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let stays = Conn::ALL.into_iter().filter(|conn| self.is_staying(*conn) && self.is_open(*conn)).count();
        let is_over = |conn: &Conn| self.slots[*conn] == Slot::Idle || self.is_staying(*conn);
        stays == self.setup.redundancy && Conn::ALL.iter().all(is_over)
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

    fn pump(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if self.setup.has_second() {
            self.bury(with, CloseKind::Shutdown)?;
            self.arrange(with);
        }
        self.take_plan(with)?;
        let (mut is_opened, mut read) = (false, Conns::NONE);
        for conn in Conn::ALL {
            match self.slots[conn] {
                Slot::Down { until_ms } if with.now_ms >= until_ms => {
                    self.open(with, conn)?;
                    is_opened = true;
                }
                Slot::Open(_) => {
                    read.insert(conn);
                    let is_late = self.setup.has_second() && !with.is_calm && with.rng.chance(200);
                    if !is_late {
                        self.read(with, conn)?;
                    }
                }
                Slot::Idle | Slot::Down { .. } => {}
            }
        }
        if read.is_empty() {
            return if is_opened { Ok(()) } else { self.flush() };
        }
        if self.has_open() {
            self.answers(with)?;
        }
        if self.has_open() && with.now_ms >= self.next_tick_ms {
            self.next_tick_ms = with.now_ms + 1_000;
            self.intake.decoder().tick(with.received);
            self.act(with)?;
            self.hand_over(with)?;
        }
        let mut is_ended = !self.has_open();
        for conn in read.iter().filter(|conn| self.is_open(*conn)).collect::<Vec<_>>() {
            is_ended |= self.watch(with, conn)?;
        }
        self.act(with)?;
        if is_ended {
            return Ok(());
        }
        if with.is_calm || with.rng.chance(600) { self.intake.flush() } else { Ok(()) }
    }

    /// Tells the open connections of a new plan.
    fn take_plan(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        let open = self.intake.decoder().open().iter().find(|conn| self.is_open(*conn));
        let Some(conn) = open.filter(|_| self.plan.as_ref() != Some(with.plan)) else { return Ok(()) };
        self.plan = Some(with.plan.clone());
        self.take(with, (Kind::Plan, conn), &serde_json::to_vec(with.plan).unwrap_or_default())?;
        self.act(with)
    }

    fn open(&mut self, with: &mut Surroundings<'_>, conn: Conn) -> Result<(), journal::Error> {
        with.venue.open(conn);
        self.plan = Some(with.plan.clone());
        let lifetime = self.setup.lifetime_ms.map(|(least, most)| with.rng.between(least, most));
        let rotate_ms = lifetime.map_or(u64::MAX, |lifetime| with.now_ms + lifetime);
        self.slots[conn] = Slot::Open(Open { rotate_ms, retiring: None, ready_since_ms: None });
        let plan = serde_json::to_vec(with.plan).unwrap_or_default();
        self.take(with, (Kind::Open, conn), &plan)?;
        self.act(with)
    }

    fn read(&mut self, with: &mut Surroundings<'_>, conn: Conn) -> Result<(), journal::Error> {
        let count = 1 + with.rng.index(12);
        for _ in 0..count {
            let Some(text) = with.venue.sockets[conn].as_mut().and_then(|socket| socket.wire.pop_front()) else {
                break;
            };
            self.take(with, (Kind::Text, conn), text.as_bytes())?;
            self.act(with)?;
            if !self.is_open(conn) {
                break;
            }
            if self.intake.is_chunk_full() {
                self.intake.flush()?;
            }
        }
        Ok(())
    }

    /// Ends a connection that the venue, its silence or bad luck ends. Whether it did.
    fn watch(&mut self, with: &mut Surroundings<'_>, conn: Conn) -> Result<bool, journal::Error> {
        let kind = match &with.venue.sockets[conn] {
            None => CloseKind::Lost,
            Some(socket) if socket.is_closed() && socket.wire.is_empty() => CloseKind::Lost,
            Some(socket) if socket.is_stalled() && socket.wire.is_empty() && (with.is_calm || with.rng.chance(100)) => {
                CloseKind::Stall
            }
            Some(_) => {
                let cut = with.venue.faults.cut;
                if !with.rng.chance(cut) {
                    return Ok(false);
                }
                CloseKind::Lost
            }
        };
        let retiring = if let Slot::Open(open) = self.slots[conn] { open.retiring } else { None };
        self.end(with, conn, retiring.map_or(kind, |retiring| retiring.kind))?;
        Ok(true)
    }

    /// Sees to it that as many connections as are asked for are open or about to be.
    fn arrange(&mut self, with: &mut Surroundings<'_>) {
        for conn in Conn::ALL {
            let staying = Conn::ALL.into_iter().filter(|conn| self.is_staying(*conn)).count();
            if staying < self.setup.redundancy && self.slots[conn] == Slot::Idle {
                self.slots[conn] = Slot::Down { until_ms: with.now_ms + with.rng.between(1, 1_000) };
            }
        }
    }

    /// A connection is to be replaced: it ends when the other can go on alone, or after [`HANDOVER_MAX_MS`].
    fn retire(&mut self, with: &mut Surroundings<'_>, conn: Conn, kind: CloseKind) {
        if let Slot::Open(open) = &mut self.slots[conn]
            && open.retiring.is_none()
        {
            open.retiring = Some(Retiring { kind, deadline_ms: with.now_ms + HANDOVER_MAX_MS, is_closing: false });
        }
        self.arrange(with);
    }

    /// Ends connections that are to be replaced and can be, and finds those whose lifetime is over.
    fn hand_over(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        for conn in Conn::ALL {
            let is_ready = self.intake.decoder().is_ready(conn, with.received);
            let Slot::Open(open) = &mut self.slots[conn] else { continue };
            open.ready_since_ms = if is_ready { open.ready_since_ms.or(Some(with.now_ms)) } else { None };
            if with.now_ms >= open.rotate_ms && !with.is_calm {
                self.retire(with, conn, CloseKind::Rotation);
            }
        }
        for conn in Conn::ALL {
            let since = |slot| match slot {
                Slot::Open(open) if !open.is_closing() => open.ready_since_ms,
                Slot::Open(_) | Slot::Idle | Slot::Down { .. } => None,
            };
            let other = since(self.slots[conn.other()]);
            let is_covered = other.is_some_and(|since| with.now_ms - since >= HANDOVER_OVERLAP_MS);
            let Slot::Open(Open { retiring: Some(retiring), .. }) = &mut self.slots[conn] else { continue };
            let is_due = with.now_ms >= retiring.deadline_ms;
            if retiring.is_closing && is_due {
                let kind = retiring.kind;
                self.end(with, conn, kind)?;
            } else if !retiring.is_closing && (is_covered || is_due) {
                *retiring = Retiring { is_closing: true, deadline_ms: with.now_ms + CLOSING_MAX_MS, ..*retiring };
                with.venue.close(conn);
            }
        }
        Ok(())
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
            if !self.has_open() {
                break;
            }
        }
        Ok(())
    }

    /// Does what the adapter wants done.
    fn act(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        while !self.intake.decoder().actions().is_idle() {
            let actions = std::mem::take(self.intake.decoder().actions());
            for (conn, text) in &actions.sends {
                with.venue.message(*conn, text);
            }
            for request in actions.requests {
                let delay = u64::try_from(request.delay.as_millis()).unwrap_or(u64::MAX);
                let late = if with.is_calm { 1 } else { with.rng.between(1, 400) };
                self.requests.push(Pending { request, due_ms: with.now_ms + delay + late });
            }
            for (conn, reason) in actions.reconnects {
                match reason.kind {
                    CloseKind::VenueRestart | CloseKind::Rotation => self.retire(with, conn, reason.kind),
                    CloseKind::Lost
                    | CloseKind::Stall
                    | CloseKind::Protocol
                    | CloseKind::Shutdown
                    | CloseKind::JournalFull => self.end(with, conn, reason.kind)?,
                }
            }
        }
        Ok(())
    }

    /// Ends a connection, if it is open; another follows where one is wanted.
    fn end(&mut self, with: &mut Surroundings<'_>, conn: Conn, kind: CloseKind) -> Result<(), journal::Error> {
        if !self.is_open(conn) {
            return Ok(());
        }
        with.venue.sockets[conn] = None;
        self.slots[conn] = Slot::Idle;
        if let Slot::Open(Open { retiring: Some(retiring), .. }) = &mut self.slots[conn.other()]
            && !retiring.is_closing
        {
            retiring.deadline_ms = with.now_ms + HANDOVER_MAX_MS; // Its successor begins now, or begins anew.
        }
        let wait = if with.is_calm { 100 } else { with.rng.between(1, 3_000) };
        let staying = Conn::ALL.into_iter().filter(|conn| self.is_staying(*conn)).count();
        if staying < self.setup.redundancy {
            self.slots[conn] = Slot::Down { until_ms: with.now_ms + wait };
        }
        self.closed(with, conn, kind)
    }

    /// Journals the end of a connection.
    fn closed(&mut self, with: &mut Surroundings<'_>, conn: Conn, kind: CloseKind) -> Result<(), journal::Error> {
        let reason = CloseReason { kind, detail: "as the world has it".into() };
        self.take(with, (Kind::Close, conn), &serde_json::to_vec(&reason).unwrap_or_default())?;
        if !self.has_open() {
            self.requests.clear();
            self.intake.decoder().actions().clear();
        }
        self.intake.flush()
    }

    /// Journals the end of connections that the journal believes open and that are not.
    fn bury(&mut self, with: &mut Surroundings<'_>, kind: CloseKind) -> Result<(), journal::Error> {
        for conn in self.intake.decoder().open().iter().filter(|conn| !self.is_open(*conn)).collect::<Vec<_>>() {
            self.closed(with, conn, kind)?;
        }
        Ok(())
    }

    fn until_room(&mut self, with: &mut Surroundings<'_>) -> Result<(), journal::Error> {
        if !self.intake.has_room()? {
            return Ok(());
        }
        self.is_full = false;
        if self.setup.has_second() {
            return self.bury(with, CloseKind::JournalFull);
        }
        let wait = if with.is_calm { 100 } else { with.rng.between(1, 3_000) };
        self.slots[Conn::FIRST] = Slot::Down { until_ms: with.now_ms + wait };
        self.closed(with, Conn::FIRST, CloseKind::JournalFull)
    }

    fn is_open(&self, conn: Conn) -> bool {
        matches!(self.slots[conn], Slot::Open(_))
    }

    fn has_open(&self) -> bool {
        Conn::ALL.into_iter().any(|conn| self.is_open(conn))
    }

    /// Whether it is open, or will be, and is to stay so.
    fn is_staying(&self, conn: Conn) -> bool {
        match self.slots[conn] {
            Slot::Idle => false,
            Slot::Down { .. } => true,
            Slot::Open(open) => open.retiring.is_none(),
        }
    }

    fn take(
        &mut self,
        with: &mut Surroundings<'_>,
        origin: impl Into<Origin>,
        bytes: &[u8],
    ) -> Result<(), journal::Error> {
        let origin = origin.into();
        self.intake.take(origin, with.received, bytes)?;
        let is_lie = with.mutation == Some(Mutation::JournalDiffers) && with.oracle.frames() == 40;
        with.oracle.journaled(origin, with.received, if is_lie { b"{}" } else { bytes });
        Ok(())
    }
}

/// Requests of one lane answered in one step.
const UNDER_WAY_MAX: usize = 4;
/// Longest a connection that is to be replaced waits for the other to be ready.
const HANDOVER_MAX_MS: u64 = 30_000;
/// Longest a connection that we close is read.
const CLOSING_MAX_MS: u64 = 10_000;
/// How long both run once the new one is ready.
const HANDOVER_OVERLAP_MS: u64 = 1_000;

//! What must hold, checked against what the world knows and no part of tapeway was asked about.
//!
//! The straight decode is the measure: every frame the journal was given, decoded once from the first to the last by a
//! decoder that never restarts.

use std::io;

use tapeway::{lane::Lane, store::table::Table};
use tapeway_exchanges::{
    adapter::At,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
    input::Origin,
    venue::VenueSpec,
};

use self::truth::Truth;
use crate::database::{SimDatabase, rows::Row, state::State, transaction::Applied};

mod end;
mod truth;

/// What one lane was given, and what it should have made of it.
pub struct LaneOracle {
    /// The lane's name.
    pub name: String,
    spec: &'static VenueSpec,
    /// Every journaled frame that survived, by position.
    log: Vec<Logged>,
    reference: Decoder,
    /// What the frames decoded so far give.
    truths: Vec<Truth>,
    /// Names of the instruments, by the decoder's index.
    symbols: Vec<String>,
    /// Furthest position that was said to be durable.
    durable: u64,
    /// A restored database asked for frames that were kept no longer.
    may_lose: bool,
}

struct Logged {
    origin: Origin,
    received: Nanos,
    bytes: Vec<u8>,
}

/// Something that must not be.
pub type Violation = String;

impl LaneOracle {
    /// A lane before its first frame.
    #[must_use]
    pub fn new(name: &str, spec: &'static VenueSpec) -> Self {
        Self {
            name: name.into(),
            spec,
            log: Vec::new(),
            reference: Decoder::new(spec, FramePos::FIRST),
            truths: Vec::new(),
            symbols: Vec::new(),
            durable: 0,
            may_lose: false,
        }
    }

    /// The journal accepted a frame.
    pub fn journaled(&mut self, origin: Origin, received: Nanos, bytes: &[u8]) {
        self.log.push(Logged { origin, received, bytes: bytes.to_vec() });
    }

    /// Frames journaled that survived.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.log.len() as u64
    }

    /// Every frame, from where it came, and what the straight decode makes of it: a line each.
    ///
    /// # Errors
    ///
    /// As `out` has them.
    pub fn tell(&self, out: &mut impl io::Write) -> io::Result<()> {
        for (pos, Logged { origin, bytes, .. }) in self.log.iter().enumerate() {
            let Origin { kind, conn } = origin;
            write!(out, "{} {pos} {} {conn} {}", self.name, kind.name(), String::from_utf8_lossy(bytes))?;
            if let Some(truth) = self.truths.get(pos) {
                let messages = truth.rows[Table::BookDeltas as usize].chunk_by(|one, next| one.id == next.id);
                let levels: Vec<_> = messages.map(|rows| (rows.len(), rows[0].flags, rows[0].id)).collect();
                let counts = truth.rows.each_ref().map(Vec::len);
                write!(out, " rows {counts:?} levels {levels:?} gaps {:?} rejects {:?}", truth.gaps, truth.rejects)?;
                let ends = truth.ends.iter().map(|(pos, ordinal, end)| format!("{pos}.{ordinal} {}", end.state));
                write!(out, " ends {:?}", ends.collect::<Vec<_>>())?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Frames that a restored database asks for may be gone.
    pub fn may_lose(&mut self) {
        self.may_lose = true;
    }

    /// A process recovered the journal.
    ///
    /// # Errors
    ///
    /// It ends where it must not, or the state read back is not that of the straight decode.
    pub fn recovered(&mut self, end: u64, decoder: Option<&Decoder>) -> Result<(), Violation> {
        if end < self.durable {
            return Err(format!("{}: frames before {} were durable, recovery ends at {end}", self.name, self.durable));
        }
        if end > self.frames() {
            return Err(format!("{}: {} frames were journaled, recovery ends at {end}", self.name, self.log.len()));
        }
        self.log.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        self.durable = end;
        self.decode(end)?;
        if let Some(decoder) = decoder
            && decoder.state() != self.reference.state()
        {
            return Err(format!(
                "{}: the state read back at {end} is {}, the straight decode has {}",
                self.name,
                String::from_utf8_lossy(&decoder.state()),
                String::from_utf8_lossy(&self.reference.state())
            ));
        }
        Ok(())
    }

    /// What holds between any two moments.
    ///
    /// # Errors
    ///
    /// committed <= durable <= appended does not.
    pub fn progress(&mut self, lane: &Lane) -> Result<(), Violation> {
        let [committed, durable, appended] =
            [lane.progress.committed(), lane.progress.durable(), lane.progress.appended()].map(FramePos::get);
        if !(committed <= durable && durable <= appended && appended <= self.frames()) {
            return Err(format!(
                "{}: expected committed <= durable <= appended <= journaled, found {committed}, {durable}, {appended}, {}",
                self.name,
                self.log.len()
            ));
        }
        if durable < self.durable {
            return Err(format!("{}: durable went back from {} to {durable}", self.name, self.durable));
        }
        self.durable = durable;
        Ok(())
    }

    /// A transaction committed a stretch of this lane.
    ///
    /// # Errors
    ///
    /// The rows of a frame are not those of the straight decode, each once; or the frames are not durable.
    pub fn committed(&mut self, applied: Applied, database: &SimDatabase) -> Result<(), Violation> {
        let Applied { lane, old, new } = applied;
        if new > self.durable {
            return Err(format!(
                "{}: the database has frames before {new}, durable are those before {}",
                self.name, self.durable
            ));
        }
        self.decode(new)?;
        (old..new).try_for_each(|pos| database.read(|state| self.frame(lane, pos, state, database)))
    }

    /// Decodes on up to `end`.
    fn decode(&mut self, end: u64) -> Result<(), Violation> {
        if end > self.frames() {
            return Err(format!(
                "{}: the database has frames before {end}, journaled are {}",
                self.name,
                self.log.len()
            ));
        }
        while (self.truths.len() as u64) < end {
            let logged = &self.log[self.truths.len()];
            let pos = FramePos::new(self.truths.len() as u64);
            let mut bytes = logged.bytes.clone();
            let Origin { kind, conn } = logged.origin;
            self.reference.apply(At { pos, received: logged.received, conn }, kind, &mut bytes);
            self.reference.actions().clear();
            let events = self.reference.swap_events(Events::default());
            self.symbols = events.symbols.iter().map(|symbol| symbol.to_string()).collect();
            self.truths.push(Truth::of(&events));
        }
        Ok(())
    }

    fn number(&self, index: i32, state: &State) -> Option<i32> {
        let name = self.symbols.get(usize::try_from(index).ok()?)?;
        state.instruments.get(&(self.spec.name.to_owned(), name.clone())).copied()
    }

    /// Whether a database that was restored says that this frame was kept no longer.
    fn is_lost(&self, lane: i32, pos: u64, state: &State) -> bool {
        self.may_lose
            && state.rejects.iter().filter(|reject| reject.lane == lane && reject.reason == "journal_lost").any(
                |reject| {
                    let end = reject.detail.split("to before ").nth(1).and_then(|text| text.split([',', ' ']).next());
                    let end = end.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
                    (reject.pos..end).contains(&pos.cast_signed())
                },
            )
    }

    /// One frame's rows and notes, each exactly once.
    fn frame(&self, lane: i32, pos: u64, state: &State, database: &SimDatabase) -> Result<(), Violation> {
        let truth = &self.truths[usize::try_from(pos).unwrap_or(usize::MAX)];
        if self.is_lost(lane, pos, state) {
            return Ok(());
        }
        let empty = Default::default();
        let found = state.rows.get(&(lane, pos)).unwrap_or(&empty);
        let mut refused = 0;
        for table in Table::ALL {
            let at = table as usize;
            let mut expected = Vec::new();
            for row in &truth.rows[at] {
                let Some(instrument) = self.number(row.instrument, state) else {
                    return Err(format!("{}: the database has no number for instrument {}", self.name, row.instrument));
                };
                if database.refuses(row) {
                    refused += 1;
                } else {
                    expected.push(Row { instrument, ..row.clone() });
                }
            }
            let mut found = found[at].clone();
            expected.sort();
            found.sort();
            if expected != found {
                return Err(format!(
                    "{}: {} of frame {pos}: expected {expected:?}, found {found:?}; rejects {:?}",
                    self.name,
                    table.name(),
                    state.rejects.iter().filter(|reject| reject.lane == lane).collect::<Vec<_>>()
                ));
            }
        }
        let key = pos.cast_signed();
        if state.sessions.get(&(lane, key)) != truth.session.as_ref() {
            return Err(format!("{}: session of frame {pos}: expected {:?}", self.name, truth.session));
        }
        let rejects: Vec<_> = state.rejects.iter().filter(|reject| reject.lane == lane && reject.pos == key).collect();
        let of_rows = rejects.iter().filter(|reject| reject.reason == "row_refused").count();
        let mut found: Vec<_> = rejects
            .iter()
            .filter(|reject| !matches!(reject.reason.as_str(), "row_refused" | "journal_lost"))
            .map(|reject| (reject.reason.as_str(), reject.detail.clone()))
            .collect();
        let mut expected: Vec<_> = truth.rejects.clone();
        found.sort();
        expected.sort();
        if of_rows != refused || found != expected {
            return Err(format!(
                "{}: rejects of frame {pos}: expected {refused} rows and {expected:?}, found {of_rows} rows and {found:?}",
                self.name
            ));
        }
        for (ordinal, gap) in &truth.gaps {
            let ordinal = i32::try_from(*ordinal).unwrap_or(i32::MAX);
            let Some(stored) = state.gaps.get(&(lane, key, ordinal)) else {
                return Err(format!("{}: gap {ordinal} of frame {pos} is not stored: {gap:?}", self.name));
            };
            let instrument = gap.instrument.and_then(|index| self.number(index, state));
            if (stored.instrument, &stored.channel, &stored.cause, stored.first, stored.since)
                != (instrument, &gap.channel, &gap.cause, gap.first, gap.since)
            {
                return Err(format!("{}: gap {ordinal} of frame {pos}: expected {gap:?}, found {stored:?}", self.name));
            }
        }
        Ok(())
    }
}

//! What must hold, checked against what the world knows and no part of tapeway was asked about.
//!
//! The straight decode is the measure: every frame the journal was given, decoded once from the first to the last by a
//! decoder that never restarts.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tapeway::{lane::Lane, store::table::Table};
use tapeway_exchanges::{
    adapter::At,
    decoder::Decoder,
    event::{Channel, Events, Note},
    ids::{FramePos, Nanos},
    input::Origin,
    venue::VenueSpec,
};

use crate::{
    database::{
        SimDatabase,
        rows::Row,
        state::{Gap, Session, State},
        transaction::{Applied, END_LOST},
    },
    venue::{self, Venue, market::Symbol},
};

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

/// What one frame gives.
#[derive(Default)]
struct Truth {
    rows: [Vec<Row>; Table::COUNT],
    session: Option<Session>,
    rejects: Vec<(&'static str, String)>,
    gaps: Vec<(u32, Gap)>,
    ends: Vec<(FramePos, u32, Ended)>,
}

struct Ended {
    state: &'static str,
    rows: i64,
    last: Option<i64>,
    until: Option<SystemTime>,
    detail: Option<String>,
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

    /// Everything, when nothing is under way any more.
    ///
    /// # Errors
    ///
    /// Something is missing, doubled, altered or not told.
    pub fn settled(&mut self, lane: i32, venue: &Venue, database: &SimDatabase) -> Result<(), Violation> {
        self.decode(self.frames())?;
        database.read(|state| {
            let mark = state.watermarks.get(&lane).copied().unwrap_or_default();
            if mark.next != self.frames() {
                return Err(format!(
                    "{}: {} frames are journaled, the watermark is at {}",
                    self.name,
                    self.frames(),
                    mark.next
                ));
            }
            (0..self.frames()).try_for_each(|pos| self.frame(lane, pos, state, database))?;
            if let Some(((_, pos), _)) = state.rows.range((lane, self.frames())..(lane + 1, 0)).next() {
                return Err(format!("{}: the database has rows of frame {pos}, which was never journaled", self.name));
            }
            let total = self.reference.rows_total();
            if mark.rows + mark.rejected != total && !self.may_lose {
                return Err(format!(
                    "{}: {total} rows were received, {} are committed and {} rejected",
                    self.name, mark.rows, mark.rejected
                ));
            }
            self.gaps(lane, state)?;
            let recorded = venue.symbols.iter().enumerate().filter(|(index, _)| !venue.left_out.contains(index));
            for (index, symbol) in recorded {
                self.trades(lane, venue, (index, symbol), (state, database))?;
                self.book(lane, venue, (index, symbol), state)?;
            }
            Ok(())
        })
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

    /// The ledger as a whole: every gap, ended as the frames ended it.
    fn gaps(&self, lane: i32, state: &State) -> Result<(), Violation> {
        let mut expected: BTreeMap<(i64, i32), Gap> = BTreeMap::new();
        for (pos, truth) in (0u64..).zip(&self.truths) {
            if self.is_lost(lane, pos, state) {
                continue;
            }
            for (ordinal, gap) in &truth.gaps {
                let instrument = gap.instrument.and_then(|index| self.number(index, state));
                let key = (pos.cast_signed(), i32::try_from(*ordinal).unwrap_or(i32::MAX));
                expected.insert(key, Gap { instrument, ..gap.clone() });
            }
            for (of, ordinal, end) in &truth.ends {
                let key = (of.get().cast_signed(), i32::try_from(*ordinal).unwrap_or(i32::MAX));
                let Some(gap) = expected.get_mut(&key) else { continue };
                gap.state = end.state.into();
                gap.healed += end.rows;
                gap.last = end.last.or(gap.last);
                gap.until = end.until.or(gap.until);
                gap.detail = end.detail.clone().or_else(|| gap.detail.take());
            }
        }
        let stored = state.gaps.iter().filter(|((id, _, ordinal), _)| *id == lane && *ordinal >= 0);
        let stored: BTreeMap<(i64, i32), Gap> =
            stored.map(|((_, pos, ordinal), gap)| ((*pos, *ordinal), gap.clone())).collect();
        for (key, gap) in &mut expected {
            // A gap that ended, as far as the frames that are left tell, in frames that are not.
            if let Some(found) = stored.get(key).filter(|found| found.detail.as_deref() == Some(END_LOST)) {
                let ends_here = gap.state == "open" && found.state == "unhealable";
                if ends_here || gap.state == found.state {
                    *gap = found.clone();
                }
            }
            if stored.get(key) != Some(gap) {
                return Err(format!("{}: gap {key:?}: expected {gap:?}, found {:?}", self.name, stored.get(key)));
            }
        }
        if let Some((key, gap)) = stored.iter().find(|(key, _)| !expected.contains_key(*key)) {
            return Err(format!("{}: gap {key:?} that no frame shows: {gap:?}", self.name));
        }
        match expected.iter().find(|(_, gap)| gap.state == "open") {
            Some((key, gap)) => Err(format!("{}: gap {key:?} is open after everything was served: {gap:?}", self.name)),
            None => Ok(()),
        }
    }

    /// Every trade the venue made since the first that is stored: stored once, or in a gap.
    fn trades(
        &self,
        lane: i32,
        venue: &Venue,
        (index, symbol): (usize, &Symbol),
        (state, database): (&State, &SimDatabase),
    ) -> Result<(), Violation> {
        let Some(number) = state.instruments.get(&(self.spec.name.to_owned(), symbol.name.to_owned())) else {
            return Ok(());
        };
        let mut stored: BTreeMap<i64, &Row> = BTreeMap::new();
        for (_, tables) in state.rows.range((lane, 0)..(lane + 1, 0)) {
            for row in tables[0].iter().filter(|row| row.instrument == *number) {
                let id = row.id.unwrap_or_default();
                if stored.insert(id, row).is_some() {
                    return Err(format!("{}: trade {id} of {} is stored twice", self.name, symbol.name));
                }
            }
        }
        let gaps: Vec<_> = self.gaps_of(lane, *number, Channel::Trades, state);
        let lost: Vec<_> = state.gaps.iter().filter(|((id, _, ordinal), _)| *id == lane && *ordinal < 0).collect();
        let Some(first) = stored.keys().next().copied() else { return Ok(()) };
        let is_lied = venue.lied.contains(&index);
        for trade in symbol.trades.iter().filter(|trade| trade.id.cast_signed() >= first) {
            let id = trade.id.cast_signed();
            if let Some(row) = stored.get(&id) {
                let numbers = (row.numbers[0], row.numbers[1]);
                let expected = (Some((i128::from(trade.price), 2)), Some((i128::from(trade.qty), 8)));
                let is_aggregate = venue.kind == venue::Kind::BinanceUsdm;
                if !is_lied && !is_aggregate && numbers != expected {
                    return Err(format!(
                        "{}: trade {id} of {}: expected {expected:?}, found {numbers:?}",
                        self.name, symbol.name
                    ));
                }
                continue;
            }
            let is_named = gaps
                .iter()
                .any(|gap| gap.covers(id) && (gap.state != "healed" || venue.kind == venue::Kind::BinanceUsdm));
            // A row under a wrong id may have been refused for what it held.
            let is_refused = database.refuses_qty(trade.qty) || (is_lied && self.has_refusals(lane, state));
            if !is_named && lost.is_empty() && !is_refused {
                return Err(format!(
                    "{}: trade {id} of {} is neither stored nor in a gap that is not healed; stored from {first}, in frames {:?}, gaps {gaps:?}",
                    self.name,
                    symbol.name,
                    self.frames_with(id)
                ));
            }
        }
        Ok(())
    }

    /// Frames whose text has this number.
    fn frames_with(&self, id: i64) -> Vec<(usize, Origin, String)> {
        let text = id.to_string();
        let frames = self.log.iter().enumerate();
        let texts =
            frames.map(|(pos, logged)| (pos, logged.origin, String::from_utf8_lossy(&logged.bytes).into_owned()));
        texts.filter(|(_, _, bytes)| bytes.contains(&text)).collect()
    }

    fn has_refusals(&self, lane: i32, state: &State) -> bool {
        state.rejects.iter().any(|reject| reject.lane == lane && reject.reason == "row_refused")
    }

    fn gaps_of<'a>(&self, lane: i32, number: i32, channel: Channel, state: &'a State) -> Vec<&'a Gap> {
        let own = state.gaps.iter().filter(|((id, _, _), _)| *id == lane).map(|(_, gap)| gap);
        own.filter(|gap| gap.instrument == Some(number) && gap.channel.as_deref() == Some(channel.name())).collect()
    }

    /// The book built from the stored rows is the venue's; and on numbered books every message is stored or in a gap.
    fn book(
        &self,
        lane: i32,
        venue: &Venue,
        (index, symbol): (usize, &Symbol),
        state: &State,
    ) -> Result<(), Violation> {
        let Some(number) = state.instruments.get(&(self.spec.name.to_owned(), symbol.name.to_owned())) else {
            return Ok(());
        };
        if self.has_refusals(lane, state) || state.gaps.keys().any(|(id, _, ordinal)| *id == lane && *ordinal < 0) {
            return Ok(());
        }
        let mut book: [BTreeMap<i128, i128>; 2] = Default::default();
        let mut run: Vec<&Row> = Vec::new();
        let mut seqs = std::collections::BTreeSet::new();
        let mut is_whole = false;
        for (_, tables) in state.rows.range((lane, 0)..(lane + 1, 0)) {
            let own: Vec<&Row> = tables[1].iter().filter(|row| row.instrument == *number).collect();
            // One frame may let several messages go that waited for it.
            for message in own.chunk_by(|one, next| (one.flags & SNAPSHOT, one.id) == (next.flags & SNAPSHOT, next.id))
            {
                let first = message[0];
                if first.flags & SNAPSHOT != 0 {
                    book = Default::default();
                    message.iter().for_each(|row| put(&mut book, row));
                    let id = first.id.unwrap_or_default();
                    run.retain(|row| row.id.is_some_and(|seq| seq > id));
                    run.iter().for_each(|row| put(&mut book, row));
                    is_whole = true;
                } else {
                    seqs.extend(first.id);
                    message.iter().for_each(|row| put(&mut book, row));
                    run.extend(message);
                }
            }
        }
        if is_whole && !venue.unprovable.contains(&index) && !venue.lied.contains(&index) {
            let truth = [&symbol.bids, &symbol.asks].map(|side| {
                side.iter().map(|(price, qty)| (i128::from(*price), i128::from(*qty))).collect::<BTreeMap<_, _>>()
            });
            if truth != book {
                return Err(format!("{}: book of {}: expected {truth:?}, found {book:?}", self.name, symbol.name));
            }
        }
        let is_numbered = matches!(venue.kind, venue::Kind::BinanceSpot | venue::Kind::BinanceUsdm | venue::Kind::Okx);
        let Some(first) = seqs.first().filter(|_| is_numbered && !venue.lied.contains(&index)) else { return Ok(()) };
        let gaps = self.gaps_of(lane, *number, Channel::Book, state);
        for (from, to) in &symbol.messages {
            let (from, to) = (from.cast_signed(), to.cast_signed());
            if to < *first || seqs.contains(&to) {
                continue;
            }
            if !gaps.iter().any(|gap| gap.covers(from) && gap.covers(to)) {
                return Err(format!(
                    "{}: book message {from}..{to} of {} is neither stored nor in a gap; stored from {first}, in frames {:?}, gaps {gaps:?}",
                    self.name,
                    symbol.name,
                    self.frames_with(to)
                ));
            }
        }
        Ok(())
    }
}

fn put(book: &mut [BTreeMap<i128, i128>; 2], row: &Row) {
    let side = usize::from(row.side != Some(1));
    let (Some((price, _)), Some((qty, _))) = (row.numbers[0], row.numbers[1]) else { return };
    if qty == 0 {
        book[side].remove(&price);
    } else {
        book[side].insert(price, qty);
    }
}

impl Truth {
    /// What one frame's events should be stored as; instruments still by index.
    fn of(events: &Events) -> Self {
        let received = events.received[0].micros();
        let index = |symbol: tapeway_exchanges::ids::SymbolIx| i32::try_from(symbol.0).unwrap_or(i32::MAX);
        let mut truth = Self {
            rows: [
                events.trades.iter().map(|row| Row::of_trade(row, index(row.symbol), received.0)).collect(),
                events.levels.iter().map(|row| Row::of_level(row, index(row.symbol), received.0)).collect(),
                events.quotes.iter().map(|row| Row::of_quote(row, index(row.symbol), received.0)).collect(),
                events.top_books.iter().map(|row| Row::of_top_book(row, index(row.symbol), received.0)).collect(),
            ],
            ..Self::default()
        };
        let moment = |micros: i64| UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs());
        for note in &events.notes {
            match note {
                Note::Session(session) => {
                    let (is_open, detail) = (session.is_open, session.detail.clone());
                    truth.session = Some(Session { at: moment(received.0), is_open, detail });
                }
                Note::Reject(reject) => truth.rejects.push((reject.reason, reject.detail.clone())),
                Note::Gap(gap) => {
                    let stored = Gap {
                        instrument: gap.symbol.map(index),
                        channel: gap.channel.map(|channel| channel.name().to_owned()),
                        cause: gap.cause.name().into(),
                        first: gap.first_missing,
                        last: gap.last_missing,
                        since: gap.since.map(|time| moment(time.0)),
                        until: gap.until.map(|time| moment(time.0)),
                        state: "open".into(),
                        healed: 0,
                        detail: None,
                    };
                    truth.gaps.push((gap.id.ordinal, stored));
                }
                Note::GapClosed(closed) => {
                    let end = Ended {
                        state: closed.end.name(),
                        rows: i64::try_from(closed.rows).unwrap_or(i64::MAX),
                        last: closed.last_missing,
                        until: closed.until.map(|time| moment(time.0)),
                        detail: closed.detail.as_deref().map(str::to_owned),
                    };
                    truth.ends.push((closed.id.pos, closed.id.ordinal, end));
                }
            }
        }
        truth
    }
}

/// `SNAPSHOT` in the `flags` column.
const SNAPSHOT: i16 = 2;

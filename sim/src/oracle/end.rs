//! What must hold in the end: the ledger, trades and books, against what the venue made.

use std::collections::{BTreeMap, BTreeSet};

use tapeway_exchanges::{event::Channel, input::Origin};

use super::{LaneOracle, Violation};
use crate::{
    database::{
        SimDatabase,
        rows::Row,
        state::{Gap, State},
        transaction::END_LOST,
    },
    venue::{
        self, Venue,
        market::{Message, Symbol},
    },
};

impl LaneOracle {
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
        let mut seqs = BTreeSet::new();
        let mut times: BTreeMap<i64, usize> = BTreeMap::new();
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
                    if first.id.is_some_and(|id| !seqs.insert(id)) && !venue.lied.contains(&index) {
                        return Err(format!(
                            "{}: book message {:?} of {} is stored twice",
                            self.name, first.id, symbol.name
                        ));
                    }
                    let whole = message.iter().filter(|row| row.flags & AFTER_GAP == 0);
                    whole.for_each(|row| *times.entry(row.time).or_default() += 1);
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
        let is_by_time = venue.has_own_times && matches!(venue.kind, venue::Kind::Coinbase | venue::Kind::Kraken);
        if is_by_time && !venue.sends_twice {
            let made = symbol.messages.iter().map(|message| (message.time_us, message.levels));
            let since = times.first_key_value().map_or(i64::MAX, |(time, _)| *time);
            let made: BTreeMap<_, _> = made.filter(|(time, _)| *time >= since).collect();
            let all: BTreeSet<_> = made.keys().chain(times.keys()).collect();
            // Levels of the first ones may be left out: a snapshot had newer ones.
            let (least, most) = (
                |time| usize::from(venue.is_sound && made.contains_key(time)),
                |time| made.get(time).copied().unwrap_or(0),
            );
            let count = |time| times.get(time).copied().unwrap_or(0);
            let differs = all.into_iter().find(|time| !(least(*time)..=most(*time)).contains(&count(*time)));
            if let Some(time) = differs {
                return Err(format!(
                    "{}: changes at {time} of {}: expected {:?} levels, found {:?}",
                    self.name,
                    symbol.name,
                    made.get(time),
                    times.get(time)
                ));
            }
        }
        let is_numbered = matches!(venue.kind, venue::Kind::BinanceSpot | venue::Kind::BinanceUsdm | venue::Kind::Okx);
        let Some(first) = seqs.first().filter(|_| is_numbered && !venue.lied.contains(&index)) else { return Ok(()) };
        let gaps = self.gaps_of(lane, *number, Channel::Book, state);
        for Message { ids: (from, to), .. } in &symbol.messages {
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

/// `AFTER_GAP` in the `flags` column.
const AFTER_GAP: i16 = 8;
/// `SNAPSHOT` in the `flags` column.
const SNAPSHOT: i16 = 2;

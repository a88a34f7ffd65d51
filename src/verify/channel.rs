//! One table's rows of one instrument, as they pass by.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use tapeway_exchanges::event::Flags;

use super::{
    Seen,
    against::Journaled,
    arrival::Arrival,
    coverage::Coverage,
    findings::Findings,
    follow::{Follower, Rule},
    moment,
    report::{Finding, SLICE_SECONDS, Severity},
    scope::{GapRow, Instrument, Scope},
    stored::{Body, Stored, StoredLevel},
};
use crate::{
    seal::{self, Key, Sum},
    store::{instruments::InstrumentId, table::Table, watermark::LaneId},
};

/// What a day's rows came to.
#[derive(Debug, Default)]
pub(super) struct Day {
    pub(super) stored: u64,
    pub(super) doubled: u64,
    pub(super) out_of_order: u64,
    pub(super) crossed: u64,
    pub(super) malformed: u64,
    /// Highest id of the day.
    pub(super) id_max: Option<i64>,
    /// Rows by slice of the day.
    pub(super) slices: Vec<u32>,
}

/// What all rows are added up in.
pub(super) struct Sums<'a> {
    pub(super) found: &'a mut HashMap<Key, Sum>,
    pub(super) journaled: Option<&'a mut Journaled>,
    pub(super) coverage: &'a mut Coverage,
    pub(super) findings: &'a mut Findings,
}

/// A table's rows of one instrument being checked.
pub(super) struct Passing<'a> {
    scope: &'a Scope,
    instrument: &'a Instrument,
    table: Table,
    found: &'a mut HashMap<Key, Sum>,
    journaled: Option<&'a mut Journaled>,
    coverage: &'a mut Coverage,
    findings: &'a mut Findings,
    seen: Seen,
    arrival: Arrival,
    frame: Frame,
    follower: Follower,
    /// Gaps of this channel, by lane in order of position, and how many have been passed.
    gaps: BTreeMap<i32, (Vec<i64>, usize)>,
    last: Option<Last>,
}

/// Rows of one frame, as they arrived.
#[derive(Debug, Default)]
struct Frame {
    lane: i32,
    pos: i64,
    rows: usize,
    has_last: bool,
    first_time: i64,
    last_time: i64,
    levels: Vec<(Flags, StoredLevel)>,
}

/// What the row before says about order.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: Option<i64>,
    time: i64,
}

impl<'a> Passing<'a> {
    pub(super) fn new(scope: &'a Scope, instrument: &'a Instrument, table: Table, sums: Sums<'a>) -> Self {
        let Sums { found, journaled, coverage, findings } = sums;
        let mut gaps: BTreeMap<i32, (Vec<i64>, usize)> = BTreeMap::new();
        for gap in scope.gaps.iter().filter(|gap: &&GapRow| gap.concerns(instrument, table)) {
            gaps.entry(gap.lane).or_default().0.push(gap.pos);
        }
        gaps.values_mut().for_each(|(list, _)| list.sort_unstable());
        Self {
            scope,
            instrument,
            table,
            found,
            journaled,
            coverage,
            findings,
            seen: Seen::default(),
            arrival: Arrival::default(),
            frame: Frame::default(),
            follower: Follower::new(Rule::of(&instrument.venue)),
            gaps,
            last: None,
        }
    }

    /// Takes in the next row by venue time.
    pub(super) fn row(&mut self, bytes: &[u8], row: Stored) {
        self.count(bytes, &row);
        let now = row.time;
        self.arrival.push(row);
        while let Some(row) = self.arrival.pop(now) {
            self.arrived(row);
        }
    }

    /// All rows have passed.
    pub(super) fn end(&mut self) {
        while let Some(row) = self.arrival.pop(i64::MAX) {
            self.arrived(row);
        }
        self.end_frame();
    }

    /// What they came to.
    pub(super) fn seen(self) -> Seen {
        self.seen
    }

    fn count(&mut self, bytes: &[u8], row: &Stored) {
        let lane = self.scope.lanes.get(&row.lane);
        let key = Key {
            hour: seal::hour_of(row.time),
            lane: LaneId(row.lane),
            table: self.table,
            instrument: InstrumentId(row.instrument),
        };
        let hash = seal::hash(bytes);
        if lane.is_some_and(|lane| row.pos < lane.sealed_from) {
            self.seen.unsealed += 1;
        } else {
            self.found.entry(key).or_default().add(hash);
        }
        if let Some(journaled) = &mut self.journaled {
            journaled.add(key, row.pos, hash);
        }
        match lane {
            None => {
                self.damage(row, "unknown_lane", format!("a row of lane {}, which audit.lanes does not have", row.lane))
            }
            Some(lane) if row.pos >= lane.next_pos => {
                let next = lane.next_pos;
                self.damage(row, "beyond_watermark", format!("a row of frame {}, the watermark is {next}", row.pos));
            }
            Some(_) => {}
        }
        self.seen.lanes.insert(row.lane);
        self.coverage.add(row.lane, row.received);
        let slice = row.time.rem_euclid(moment::DAY_MICROS) / (SLICE_SECONDS * 1_000_000);
        let day = self.seen.days.entry(moment::day_of(row.time)).or_default();
        day.stored += 1;
        day.slices.resize(SLICES, 0);
        day.slices[usize::try_from(slice).unwrap_or(0)] += 1;
        if let Body::Trade { id: Some(id) } = row.body {
            day.id_max = day.id_max.max(Some(id));
            if !self.seen.ids.insert(id) {
                day.doubled += 1;
                self.find(row, "doubled_trade", format!("trade {id} is there more than once"));
            }
        }
    }

    fn arrived(&mut self, row: Stored) {
        if (row.lane, row.pos) != (self.frame.lane, self.frame.pos) || self.frame.rows == 0 {
            self.end_frame();
            self.frame =
                Frame { lane: row.lane, pos: row.pos, first_time: row.time, ..std::mem::take(&mut self.frame) };
        }
        self.frame.rows += 1;
        self.frame.last_time = row.time;
        self.frame.has_last |= row.flags.has(Flags::LAST_IN_FRAME);
        self.order(&row);
        match &row.body {
            Body::Trade { .. } => {}
            Body::Level(Some(level)) => self.frame.levels.push((row.flags, *level)),
            Body::Level(None) => self.damage(&row, "unreadable_level", "side, price or qty is none".into()),
            Body::Quote { bid, ask } => self.quote(&row, *bid, *ask),
        }
    }

    /// Whether the row comes after a later one.
    fn order(&mut self, row: &Stored) {
        let (number, is_exempt) = match &row.body {
            Body::Trade { id } => (*id, row.flags.has(Flags::BACKFILL)),
            Body::Level(level) => {
                let is_exempt = row.flags.has(Flags::SNAPSHOT) || row.flags.has(Flags::AFTER_GAP);
                (level.and_then(|level| level.seq), is_exempt)
            }
            Body::Quote { .. } => (None, row.flags.has(Flags::VENUE_TIME_BAD)),
        };
        if is_exempt {
            return;
        }
        let is_late = self.last.is_some_and(|last| match (number, last.number) {
            (Some(number), Some(last)) => number < last,
            (None, _) | (_, None) => row.time < last.time,
        });
        if is_late {
            self.seen.days.entry(moment::day_of(row.time)).or_default().out_of_order += 1;
        } else {
            self.last = Some(Last { number, time: row.time });
        }
    }

    fn quote(&mut self, row: &Stored, bid: Option<Decimal>, ask: Option<Decimal>) {
        if matches!((bid, ask), (Some(bid), Some(ask)) if bid >= ask) {
            self.seen.days.entry(moment::day_of(row.time)).or_default().crossed += 1;
        }
    }

    fn end_frame(&mut self) {
        if self.frame.rows == 0 {
            return;
        }
        let mut levels = std::mem::take(&mut self.frame.levels);
        if self.table == Table::BookDeltas {
            self.pass_gaps();
            let (first, last) = (self.frame.first_time, self.frame.last_time);
            // A frame may reach over the range's end.
            let is_inside =
                first.min(last) - EDGE_MICROS >= self.scope.from && first.max(last) + EDGE_MICROS < self.scope.to;
            if !self.frame.has_last && is_inside {
                self.seen.days.entry(moment::day_of(last)).or_default().malformed += 1;
                let detail = format!("frame {} has {} levels and none is the last", self.frame.pos, self.frame.rows);
                self.findings.add(Finding {
                    severity: Severity::Damage,
                    kind: "frame_without_end",
                    venue: self.instrument.venue.clone(),
                    symbol: self.instrument.symbol.clone(),
                    table: self.table.name(),
                    lane_id: Some(self.frame.lane),
                    at: moment::iso(last),
                    detail,
                });
            }
            if self.follower.on_frame(&levels) {
                self.seen.days.entry(moment::day_of(last)).or_default().crossed += 1;
            }
        }
        levels.clear();
        self.frame = Frame { levels, ..Frame::default() };
    }

    /// Tells the book of the gaps that were revealed up to this frame.
    fn pass_gaps(&mut self) {
        let Some((list, passed)) = self.gaps.get_mut(&self.frame.lane) else { return };
        let due = list.partition_point(|pos| *pos <= self.frame.pos);
        if due > *passed {
            *passed = due;
            self.follower.on_gap();
        }
    }

    /// Damage that counts as malformed.
    fn damage(&mut self, row: &Stored, kind: &'static str, detail: String) {
        self.seen.days.entry(moment::day_of(row.time)).or_default().malformed += 1;
        self.find(row, kind, detail);
    }

    fn find(&mut self, row: &Stored, kind: &'static str, detail: String) {
        self.findings.add(Finding {
            severity: Severity::Damage,
            kind,
            venue: self.instrument.venue.clone(),
            symbol: self.instrument.symbol.clone(),
            table: self.table.name(),
            lane_id: Some(row.lane),
            at: moment::iso(row.time),
            detail: format!("frame {}: {detail}", row.pos),
        });
    }
}

/// Slices of a day.
#[expect(clippy::cast_possible_truncation, reason = "288")]
pub(super) const SLICES: usize = (moment::DAY_SECONDS / SLICE_SECONDS) as usize;
/// How near to the range's ends a frame may be cut.
const EDGE_MICROS: i64 = 60_000_000;

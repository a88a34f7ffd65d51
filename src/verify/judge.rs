//! What one channel of one instrument came to: ids held against gaps, day by day.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::{
    Error, Seen,
    channel::SLICES,
    findings::Findings,
    ids::{Ids, length, uncovered},
    moment,
    report::{ChannelReport, DayReport, Finding, Mark, SLICE_SECONDS, Severity, Slice, Verdict},
    scope::{GapRow, Instrument, Scope},
    sealed::ByDay,
};
use crate::store::{Connection, table::Table};

/// One channel of one instrument, before seals and lanes have had their say.
#[derive(Debug)]
pub(super) struct Judged {
    instrument: Instrument,
    table: Table,
    proof: String,
    lanes: BTreeSet<i32>,
    days: BTreeMap<i64, (DayReport, Vec<u32>)>,
}

/// Whether one row of this venue's trades may stand for several ids, so that ids alone prove nothing missing.
fn rows_stand_for_many(venue: &str) -> bool {
    matches!(venue, "okx" | "okcoin")
}

/// Judges what passed by, and tells of gaps.
pub(super) async fn judge(
    connection: &Connection,
    scope: &Scope,
    instrument: &Instrument,
    table: Table,
    seen: Seen,
    findings: &mut Findings,
) -> Result<Judged, Error> {
    let proof = match table {
        Table::Trades | Table::BookDeltas | Table::Quotes => {
            let known = scope.proofs.get(&(instrument.id, table.channel()));
            known.cloned().unwrap_or_else(|| "unprovable".into())
        }
        // Each row is the whole, derived from the changes; what those owe is judged there.
        Table::OrderBooks => "snapshot_only".into(),
    };
    let gaps: Vec<&GapRow> = scope.gaps.iter().filter(|gap| gap.concerns(instrument, table)).collect();
    let gaps: Vec<&GapRow> =
        gaps.into_iter().filter(|gap| gap.instrument.is_some() || seen.lanes.contains(&gap.lane)).collect();
    let Seen { days, ids, lanes, .. } = seen;
    let maxima: Vec<(i64, i64)> = days.iter().filter_map(|(day, of)| Some((*day, of.id_max?))).collect();
    let mut judged = Judged { instrument: instrument.clone(), table, proof, lanes, days: BTreeMap::new() };
    for (day, of) in days {
        let report = judged.day(day);
        report.stored = of.stored;
        report.doubled = of.doubled;
        report.out_of_order = of.out_of_order;
        report.crossed = of.crossed;
        report.malformed = of.malformed;
        judged.days.entry(day).or_default().1 = of.slices;
    }
    for gap in &gaps {
        judged.gap(scope, gap, findings);
    }
    if table == Table::Trades && judged.proof == "contiguous" && !rows_stand_for_many(&instrument.venue) {
        judged.expect(&ids, &maxima);
        judged.ids(connection, scope, &ids, &maxima, &gaps, findings).await?;
    }
    Ok(judged)
}

impl Judged {
    fn day(&mut self, day: i64) -> &mut DayReport {
        let (report, _) = self.days.entry(day).or_default();
        if report.date.is_empty() {
            report.date = moment::date(day);
        }
        report
    }

    /// What a gap is to its day.
    fn gap(&mut self, scope: &Scope, gap: &GapRow, findings: &mut Findings) {
        let (since, until) = gap.span();
        let at = since.clamp(scope.from, scope.to - 1);
        let owes_nothing = self.proof == "snapshot_only";
        let day = self.day(moment::day_of(at));
        day.healed += gap.healed_rows;
        let (severity, kind) = match gap.state.as_str() {
            "healed" => (Severity::Note, "gap_healed"),
            // Of a channel that owes nothing, an end that is still open tells nothing either.
            "open" | "unprovable" if gap.state == "unprovable" || owes_nothing => {
                day.unprovable += 1;
                (Severity::Note, "gap_unprovable")
            }
            "resynced" => {
                day.gaps += 1;
                (Severity::Gap, "gap_resynced")
            }
            "unhealable" => {
                day.gaps += 1;
                (Severity::Gap, "gap_unhealable")
            }
            _ => {
                day.gaps += 1;
                (Severity::Gap, "gap_open")
            }
        };
        let ids = match (gap.first, gap.last) {
            (Some(first), Some(last)) => format!(", ids {first} to {last}"),
            (Some(first), None) => format!(", from id {first}"),
            (None, Some(last)) => format!(", up to id {last}"),
            (None, None) => String::new(),
        };
        let detail = gap.detail.as_deref().map(|detail| format!("; {detail}")).unwrap_or_default();
        findings.add(Finding {
            severity,
            kind,
            venue: self.instrument.venue.clone(),
            symbol: self.instrument.symbol.clone(),
            table: self.table.name(),
            lane_id: Some(gap.lane),
            at: moment::iso(since),
            detail: format!("{} until {}{ids}, {} rows healed{detail}", gap.cause, moment::iso(until), gap.healed_rows),
        });
    }

    /// How many ids each day should have: from the highest before it to its own highest.
    fn expect(&mut self, ids: &Ids, maxima: &[(i64, i64)]) {
        let Some((first, _)) = ids.ends() else { return };
        let mut before = first - 1;
        for (day, max) in maxima {
            self.day(*day).expected = Some(u64::try_from(max - before).unwrap_or(0));
            before = before.max(*max);
        }
    }

    /// Missing ids: in a gap, or silent.
    async fn ids(
        &mut self,
        connection: &Connection,
        scope: &Scope,
        ids: &Ids,
        maxima: &[(i64, i64)],
        gaps: &[&GapRow],
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let mut named: Vec<RangeInclusive<i64>> = Vec::new();
        let mut is_renumbered = false;
        let ends = ids.ends();
        for gap in gaps {
            let (Some(first), Some(last)) = (gap.first, gap.last) else {
                is_renumbered |= gap.first.is_none() && gap.last.is_none() && gap.channel.is_some();
                continue;
            };
            let range = first..=last;
            named.push(range.clone());
            let there = ids.count(range.clone());
            let is_inside = ends.is_some_and(|(low, high)| low < first && last < high);
            if gap.state == "healed" {
                if there < gap.healed_rows && is_inside {
                    let day = day_of_id(first, maxima);
                    self.day(day).silent += gap.healed_rows - there;
                    let detail = format!(
                        "the gap of ids {first} to {last} was healed with {} rows, and {there} are there",
                        gap.healed_rows
                    );
                    findings.add(self.finding(Severity::Damage, "healed_rows_lost", gap.span().0, detail));
                }
                continue;
            }
            // An unprovable stretch of trades names no ids that are known to exist.
            if gap.state != "unprovable" {
                self.day(day_of_id(first, maxima)).missing += length(&range).saturating_sub(there);
            }
        }
        let mut silent: Vec<RangeInclusive<i64>> = Vec::new();
        for hole in ids.missing() {
            silent.extend(uncovered(hole, &named));
            if silent.len() > SILENT_MAX {
                break;
            }
        }
        for hole in silent {
            for part in self.elsewhere(connection, scope, hole).await? {
                let day = day_of_id(*part.start(), maxima);
                let count = length(&part);
                let detail = format!("trades {} to {} ({count}) are missing and in no gap", part.start(), part.end());
                if is_renumbered {
                    self.day(day).unprovable += 1;
                    let detail = format!("{detail}; the venue began to count anew in this range");
                    findings.add(self.finding(Severity::Note, "ids_unprovable", day * moment::DAY_MICROS, detail));
                } else {
                    self.day(day).silent += count;
                    findings.add(self.finding(Severity::Damage, "silent_hole", day * moment::DAY_MICROS, detail));
                }
            }
        }
        if ids.left_out > 0 {
            let detail = format!("{} ids are too scattered to be kept; doubled ones show by the seals", ids.left_out);
            findings.add(self.finding(Severity::Note, "ids_scattered", scope.from, detail));
        }
        Ok(())
    }

    /// What of a hole is not stored just outside the range either: the venue's times do not follow its ids exactly.
    async fn elsewhere(
        &self,
        connection: &Connection,
        scope: &Scope,
        hole: RangeInclusive<i64>,
    ) -> Result<Vec<RangeInclusive<i64>>, Error> {
        let (from, to) = scope.seconds();
        let sql = format!(
            "SELECT trade_id FROM {} WHERE instrument_id = $1 AND trade_id BETWEEN $2 AND $3
             AND (\"time\" >= to_timestamp({}) AND \"time\" < to_timestamp({from})
               OR \"time\" >= to_timestamp({to}) AND \"time\" < to_timestamp({})) LIMIT {ELSEWHERE_MAX}",
            Table::Trades.path(),
            from - ELSEWHERE_SECONDS,
            to + ELSEWHERE_SECONDS,
        );
        let arguments: crate::store::connect::Arguments<'_> = &[&self.instrument.id, hole.start(), hole.end()];
        let rows = connection.query("look beside the range", &sql, arguments).await?;
        let there: Vec<RangeInclusive<i64>> = rows
            .iter()
            .map(|row| {
                let id: i64 = row.get(0);
                id..=id
            })
            .collect();
        Ok(uncovered(hole, &there))
    }

    fn finding(&self, severity: Severity, kind: &'static str, at: i64, detail: String) -> Finding {
        Finding {
            severity,
            kind,
            venue: self.instrument.venue.clone(),
            symbol: self.instrument.symbol.clone(),
            table: self.table.name(),
            lane_id: None,
            at: moment::iso(at),
            detail,
        }
    }

    /// The report, with what seals and lanes say; none of a channel of which there is nothing.
    pub(super) fn report(
        mut self,
        scope: &Scope,
        by_day: &ByDay,
        holes: &BTreeMap<i32, Vec<(i64, i64)>>,
    ) -> Option<ChannelReport> {
        let mine = (self.table, self.instrument.id, i64::MIN)..=(self.table, self.instrument.id, i64::MAX);
        let sealed: Vec<_> = by_day.days.range(mine).map(|((_, _, day), of)| (*day, of.clone())).collect();
        let mut damaged_hours: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (day, of) in sealed {
            let report = self.day(day);
            report.sealed = of.sealed;
            (report.lost, report.surplus, report.altered_hours) = (of.lost, of.surplus, of.altered_hours);
            damaged_hours.insert(day, of.hours);
        }
        if self.days.is_empty() {
            return None;
        }
        let mut days = Vec::new();
        for (day, (mut report, slices)) in std::mem::take(&mut self.days) {
            let mut strip = strip(scope, day, &slices);
            let begin = day * moment::DAY_SECONDS;
            for hole in self.lanes.iter().filter_map(|lane| holes.get(lane)).flatten() {
                let (from, to) = (hole.0.max(begin), hole.1.min(begin + moment::DAY_SECONDS));
                if from < to {
                    report.holes += 1;
                    report.hole_seconds += from.abs_diff(to);
                    // A slice with rows on other channels' account is no hole to the eye.
                    mark(&mut strip, from - begin, to - begin, Mark::Hole);
                }
            }
            let of_channel = |gap: &&GapRow| {
                gap.concerns(&self.instrument, self.table)
                    && (gap.instrument.is_some() || self.lanes.contains(&gap.lane))
            };
            for gap in scope.gaps.iter().filter(of_channel) {
                let (since, until) = gap.span();
                let (from, to) = (since.div_euclid(1_000_000) - begin, until.div_euclid(1_000_000) - begin);
                mark(&mut strip, from, to.max(from) + 1, mark_of(&gap.state));
            }
            for hour in damaged_hours.get(&day).into_iter().flatten() {
                mark(&mut strip, hour * 3_600, (hour + 1) * 3_600, Mark::Damaged);
            }
            report.strip = strip;
            report.verdict = Some(verdict(&report, &self.proof));
            days.push(report);
        }
        let verdict = days.iter().filter_map(|day| day.verdict).max().unwrap_or(Verdict::Complete);
        Some(ChannelReport {
            venue: self.instrument.venue,
            symbol: self.instrument.symbol,
            instrument_id: self.instrument.id,
            channel: label(self.table),
            proof: self.proof,
            verdict,
            days,
        })
    }
}

/// What a table's rows are called in the report.
const fn label(table: Table) -> &'static str {
    match table {
        Table::Trades | Table::BookDeltas | Table::Quotes => table.channel().name(),
        Table::OrderBooks => table.name(),
    }
}

fn verdict(day: &DayReport, proof: &str) -> Verdict {
    let damage = day.silent + day.lost + day.surplus + day.altered_hours + day.doubled + day.malformed;
    if damage > 0 {
        Verdict::Damaged
    } else if day.gaps > 0 || day.missing > 0 {
        Verdict::Gaps
    } else if proof == "unprovable" || day.unprovable > 0 {
        Verdict::Unprovable
    } else if proof == "snapshot_only" {
        Verdict::Intact
    } else {
        Verdict::Complete
    }
}

const fn mark_of_state(state: &[u8]) -> Mark {
    match state {
        b"healed" => Mark::Healed,
        b"unprovable" => Mark::Unprovable,
        _ => Mark::Gap,
    }
}

fn mark_of(state: &str) -> Mark {
    mark_of_state(state.as_bytes())
}

/// The day's slices, plain inside the range.
fn strip(scope: &Scope, day: i64, rows: &[u32]) -> Vec<Slice> {
    let begin = day * moment::DAY_SECONDS;
    let (from, to) = scope.seconds();
    let slice = |(nr, at): (usize, i64)| Slice {
        rows: rows.get(nr).copied().unwrap_or(0),
        mark: if at < to && at + SLICE_SECONDS > from { Mark::Plain } else { Mark::Outside },
    };
    let begins = (0..SLICES).zip(0i64..).map(|(nr, slice)| (nr, begin + slice * SLICE_SECONDS));
    begins.map(slice).collect()
}

/// Marks the slices that a stretch of seconds of the day touches, unless they have a worse mark.
fn mark(strip: &mut [Slice], from: i64, to: i64, mark: Mark) {
    if to <= 0 || from >= moment::DAY_SECONDS {
        return;
    }
    for (slice, begin) in strip.iter_mut().zip((0i64..).map(|nr| nr * SLICE_SECONDS)) {
        if begin < to && begin + SLICE_SECONDS > from && slice.mark != Mark::Outside {
            slice.mark = slice.mark.max(mark);
        }
    }
}

/// The day whose trades an id belongs to: the first that has come so far.
fn day_of_id(id: i64, maxima: &[(i64, i64)]) -> i64 {
    let day = maxima.iter().find(|(_, max)| *max >= id).or(maxima.last());
    day.map_or(0, |(day, _)| *day)
}

/// Silent holes of one instrument that are looked at.
const SILENT_MAX: usize = 10_000;
/// How far beside the range a missing id is looked for.
const ELSEWHERE_SECONDS: i64 = 3_600;
/// Ids that are looked for there.
const ELSEWHERE_MAX: usize = 100_000;

//! Lanes: watermarks held against seals, and stretches in which nothing came.

use std::collections::BTreeMap;

use super::{
    Error,
    coverage::Coverage,
    findings::Findings,
    moment,
    report::{Finding, LaneReport, Severity},
    scope::Scope,
};
use crate::store::Connection;

/// What the lanes came to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) list: Vec<LaneReport>,
    /// Unexplained holes of each lane, in seconds since 1970.
    pub(super) holes: BTreeMap<i32, Vec<(i64, i64)>>,
}

pub(super) async fn check(
    connection: &Connection,
    scope: &Scope,
    coverage: &Coverage,
    hole_seconds: i64,
    findings: &mut Findings,
) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    for (id, lane) in &scope.lanes {
        let names = ["rows_total", "next_pos", "rejected"];
        for ((name, told), sealed) in names.into_iter().zip(lane.by_watermark).zip(lane.by_seals) {
            if told != sealed {
                findings.add(Finding {
                    severity: Severity::Damage,
                    kind: "watermark_moved",
                    venue: lane.venue.clone(),
                    symbol: String::new(),
                    table: "watermarks",
                    lane_id: Some(*id),
                    at: moment::iso(scope.from),
                    detail: format!("{name} is {told}, and the seals of the lane add up to {sealed}"),
                });
            }
        }
    }
    if !scope.is_whole {
        return Ok(checked);
    }
    let quiet = quiet(connection, scope).await?;
    for id in coverage.lanes() {
        let Some(lane) = scope.lanes.get(&id) else { continue };
        let explained = |begin: i64, end: i64| {
            quiet.get(&id).is_some_and(|list| list.iter().any(|(from, to)| *from <= end && *to >= begin))
                || scope.gaps.iter().filter(|gap| gap.lane == id && gap.instrument.is_none()).any(|gap| {
                    let (since, until) = gap.span();
                    since.div_euclid(1_000_000) <= end && until.div_euclid(1_000_000) >= begin
                })
        };
        let holes: Vec<(i64, i64)> =
            coverage.holes(id, hole_seconds).into_iter().filter(|(begin, end)| !explained(*begin, *end)).collect();
        for (begin, end) in &holes {
            findings.add(Finding {
                severity: Severity::Note,
                kind: "receive_hole",
                venue: lane.venue.clone(),
                symbol: String::new(),
                table: "",
                lane_id: Some(id),
                at: moment::iso(begin * 1_000_000),
                detail: format!("{} s without a row on lane {}, connected all the while", end - begin, lane.name),
            });
        }
        let received =
            coverage.ends(id).map(|(first, last)| (moment::iso(first * 1_000_000), moment::iso(last * 1_000_000)));
        checked.list.push(LaneReport {
            lane_id: id,
            venue: lane.venue.clone(),
            name: lane.name.clone(),
            next_pos: lane.next_pos,
            rows_total: lane.by_watermark[0],
            received,
            holes: holes.iter().map(|(begin, end)| (moment::iso(begin * 1_000_000), end.abs_diff(*begin))).collect(),
        });
        checked.holes.insert(id, holes);
    }
    Ok(checked)
}

/// When a lane was not connected, or became so, by lane; in seconds since 1970.
async fn quiet(connection: &Connection, scope: &Scope) -> Result<BTreeMap<i32, Vec<(i64, i64)>>, Error> {
    let (from, to) = scope.seconds();
    let sql = "SELECT lane_id, extract(epoch FROM at)::bigint, is_open FROM audit.sessions
               WHERE at >= to_timestamp($1::bigint) AND at < to_timestamp($2::bigint) ORDER BY lane_id, frame_pos";
    let mut quiet: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    let mut closed: BTreeMap<i32, i64> = BTreeMap::new();
    for row in connection.query("read sessions", sql, &[&from, &to]).await? {
        let (lane, at, is_open): (i32, i64, bool) = (row.get(0), row.get(1), row.get(2));
        let list = quiet.entry(lane).or_default();
        match closed.remove(&lane).filter(|_| is_open) {
            Some(since) => list.push((since, at)),
            None => list.push((at, at)),
        }
        if !is_open {
            closed.insert(lane, at);
        }
    }
    for (lane, since) in closed {
        quiet.entry(lane).or_default().push((since, to));
    }
    Ok(quiet)
}

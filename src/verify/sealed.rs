//! Rows held against their seals.

use std::collections::{BTreeMap, HashMap};

use super::{
    findings::Findings,
    moment,
    report::{Finding, Severity},
    scope::Scope,
};
use crate::{
    seal::{Key, Sum},
    store::table::Table,
};

/// What the seals say, by table, instrument and day.
#[derive(Debug, Default)]
pub(super) struct ByDay {
    pub(super) days: BTreeMap<(Table, i32, i64), SealedDay>,
    /// Seals whose rows retention has dropped.
    pub(super) retired: u64,
}

/// What the seals say of one day.
#[derive(Clone, Debug, Default)]
pub(super) struct SealedDay {
    pub(super) sealed: u64,
    pub(super) lost: u64,
    pub(super) surplus: u64,
    pub(super) altered_hours: u64,
    /// Hours of the day with damage.
    pub(super) hours: Vec<i64>,
    pub(super) lanes: Vec<i32>,
}

/// Compares every seal with the rows that were read, and the rows with the seals.
pub(super) fn compare(
    scope: &Scope,
    found: &HashMap<Key, Sum>,
    rows_by_hour: &HashMap<(Table, i64), u64>,
    findings: &mut Findings,
    by_day: &mut ByDay,
) {
    let mut keys: Vec<Key> = scope.seals.keys().chain(found.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let sealed = scope.seals.get(&key).copied().unwrap_or_default();
        let stored = found.get(&key).copied().unwrap_or_default();
        let is_old = scope.retired_before[key.table as usize].is_some_and(|before| key.hour < before);
        if is_old && !rows_by_hour.contains_key(&(key.table, key.hour)) {
            by_day.retired += 1;
            continue;
        }
        let date = key.hour.div_euclid(moment::DAY_SECONDS);
        let day = by_day.days.entry((key.table, key.instrument.0, date)).or_default();
        day.sealed += sealed.rows;
        if !day.lanes.contains(&key.lane.0) {
            day.lanes.push(key.lane.0);
        }
        if sealed == stored {
            continue;
        }
        day.hours.push(key.hour.rem_euclid(moment::DAY_SECONDS) / crate::seal::HOUR_SECONDS);
        let (kind, what) = match stored.rows.cmp(&sealed.rows) {
            std::cmp::Ordering::Less => {
                day.lost += sealed.rows - stored.rows;
                ("rows_lost", format!("{} were deleted or moved away", sealed.rows - stored.rows))
            }
            std::cmp::Ordering::Greater => {
                day.surplus += stored.rows - sealed.rows;
                ("rows_surplus", format!("{} were added, doubled or moved here", stored.rows - sealed.rows))
            }
            std::cmp::Ordering::Equal => {
                day.altered_hours += 1;
                ("rows_altered", "their bytes are not those that were committed".into())
            }
        };
        let instrument = scope.instruments.iter().find(|instrument| instrument.id == key.instrument.0);
        findings.add(Finding {
            severity: Severity::Damage,
            kind,
            venue: instrument.map(|instrument| instrument.venue.clone()).unwrap_or_default(),
            symbol: instrument.map(|instrument| instrument.symbol.clone()).unwrap_or_default(),
            table: key.table.name(),
            lane_id: Some(key.lane.0),
            at: moment::iso(key.hour * 1_000_000),
            detail: format!(
                "in this hour {} rows are there and {} were committed: {what} (or the seal was)",
                stored.rows, sealed.rows
            ),
        });
    }
}

//! Everything the venues made and the database does not have is named in `audit.gaps`; and a gap of trades says rightly
//! what became of it: `healed` when every trade is there now, otherwise how many are.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use serde::Deserialize;

use crate::{cluster::Cluster, process};

/// What was not seen, all of it named.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) trades: u64,
    pub(crate) books: u64,
    /// Trades that were not seen and are there after all.
    pub(crate) healed: u64,
}

#[derive(Deserialize)]
struct Line {
    venue: String,
    #[serde(default)]
    symbol: String,
    kind: String,
    id: Option<i64>,
    u: Option<i64>,
    #[serde(default)]
    time_us: i64,
    #[serde(default)]
    bids: Vec<[String; 2]>,
    #[serde(default)]
    asks: Vec<[String; 2]>,
}

/// One row of `audit.gaps`, open ends as the widest.
#[derive(Debug)]
struct Gap {
    ids: Option<(i64, i64)>,
    times: (i64, i64),
    state: String,
    rows: usize,
}

type Key = (String, String);

/// Waits until each gap of trades is either healed or known not to be healable.
pub(crate) fn until_settled(cluster: &Cluster, database: &str) {
    const OPEN: &str = "SELECT count(*) FROM audit.gaps WHERE channel = 'trades' AND state = 'open'";
    let is_settled = || cluster.psql(database, OPEN).trim() == "0";
    process::wait(Duration::from_secs(180), "no gap of trades is open", is_settled);
}

/// Panics unless all that is missing is named, and every gap of trades that has ended says rightly how. (Of one that is
/// open some trades may be there already.)
pub(crate) fn check(truth: &Path, (cluster, database): (&Cluster, &str), told: &str) -> Named {
    let trades = seen(cluster, database, "trades", "trade_id", "");
    let updates = seen(cluster, database, "book_deltas", "seq", "WHERE flags & 2 = 0 AND seq IS NOT NULL");
    let moments = seen(
        cluster,
        database,
        "book_deltas",
        "(extract(epoch FROM time) * 1000000)::bigint",
        "WHERE flags & 2 = 0 AND seq IS NULL",
    );
    let (trade_gaps, book_gaps) = (gaps(cluster, database, "trades"), gaps(cluster, database, "book"));
    let mut named = Named::default();
    for line in BufReader::new(File::open(truth).unwrap()).lines() {
        let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
        let key = (line.venue.clone(), line.symbol.clone());
        match (line.kind.as_str(), line.id, line.u) {
            ("trade", Some(id), _) if is_missed(&trades, &key, id) => {
                let is_named = named_by_id(&trade_gaps, &key, id, |gap| gap.state != "healed");
                assert!(
                    is_named,
                    "{told}: trade {id} of {key:?} is missing and in no gap that says so: {:?}",
                    trade_gaps.get(&key)
                );
                named.trades += 1;
            }
            ("book", _, Some(u)) if has_levels(&line) && is_missed(&updates, &key, u) => {
                let is_named = named_by_id(&book_gaps, &key, u, |_| true);
                assert!(
                    is_named,
                    "{told}: book update {u} of {key:?} is missing and in no gap: {:?}",
                    book_gaps.get(&key)
                );
                named.books += 1;
            }
            ("book", _, None) if has_levels(&line) && is_missed(&moments, &key, line.time_us) => {
                let in_gap = |gap: &Gap| (gap.times.0..=gap.times.1).contains(&line.time_us);
                let is_named = book_gaps.get(&key).is_some_and(|gaps| gaps.iter().any(in_gap));
                assert!(
                    is_named,
                    "{told}: the book of {key:?} at {} is missing and in no gap: {:?}",
                    line.time_us,
                    book_gaps.get(&key)
                );
                named.books += 1;
            }
            _ => {}
        }
    }
    for (key, gaps) in &trade_gaps {
        for gap in gaps {
            let Some((first, last)) = gap.ids.filter(|(_, last)| *last != i64::MAX) else { continue };
            if gap.state == "open" {
                continue;
            }
            let ids = usize::try_from(last - first + 1).unwrap();
            let there = trades.get(key).map_or(0, |seen| seen.range(first..=last).count());
            assert_eq!(there, gap.rows, "{told}: a gap of {key:?} miscounts the trades that came after all: {gap:?}");
            let state = if there == ids { "healed" } else { "unhealable" };
            assert_eq!(gap.state, state, "{told}: {there} of {ids} trades of a gap of {key:?} are there: {gap:?}");
            named.healed += u64::try_from(there).unwrap();
        }
    }
    named
}

fn has_levels(line: &Line) -> bool {
    !line.bids.is_empty() || !line.asks.is_empty()
}

/// Whether an id between the first and the last seen was not seen.
fn is_missed(seen: &HashMap<Key, BTreeSet<i64>>, key: &Key, id: i64) -> bool {
    let Some(seen) = seen.get(key) else { return false };
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { return false };
    !seen.contains(&id) && (*first..*last).contains(&id)
}

fn named_by_id(gaps: &HashMap<Key, Vec<Gap>>, key: &Key, id: i64, counts: impl Fn(&Gap) -> bool) -> bool {
    let holds = |gap: &Gap| counts(gap) && gap.ids.is_some_and(|(first, last)| (first..=last).contains(&id));
    gaps.get(key).is_some_and(|gaps| gaps.iter().any(holds))
}

fn seen(cluster: &Cluster, database: &str, table: &str, id: &str, filter: &str) -> HashMap<Key, BTreeSet<i64>> {
    let sql = format!(
        "SELECT DISTINCT i.venue, i.symbol, {id} FROM market_data.{table} JOIN market_data.instruments i USING (instrument_id) {filter}"
    );
    let mut found: HashMap<Key, BTreeSet<i64>> = HashMap::new();
    for line in cluster.psql(database, &sql).lines() {
        let fields: Vec<&str> = line.split('|').collect();
        found.entry((fields[0].into(), fields[1].into())).or_default().insert(fields[2].parse().unwrap());
    }
    found
}

fn gaps(cluster: &Cluster, database: &str, channel: &str) -> HashMap<Key, Vec<Gap>> {
    let sql = format!(
        "SELECT g.venue, i.symbol, first_missing, last_missing, (extract(epoch FROM since) * 1000000)::bigint,
             (extract(epoch FROM until) * 1000000)::bigint, state, healed_rows
         FROM audit.gaps g JOIN market_data.instruments i USING (instrument_id) WHERE channel = '{channel}'"
    );
    let mut found: HashMap<Key, Vec<Gap>> = HashMap::new();
    for line in cluster.psql(database, &sql).lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let number = |at: usize| fields[at].parse::<i64>().ok();
        let ids = number(2).map(|first| (first, number(3).unwrap_or(i64::MAX)));
        let times = (number(4).unwrap_or(i64::MIN), number(5).unwrap_or(i64::MAX));
        found.entry((fields[0].into(), fields[1].into())).or_default().push(Gap {
            ids,
            times,
            state: fields[6].into(),
            rows: fields[7].parse().unwrap(),
        });
    }
    found
}

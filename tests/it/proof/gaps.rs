//! Everything the venues made and the database does not have is named in `audit.gaps`; and a gap of trades says rightly
//! what became of it: `healed` when every trade is there now, otherwise how many are.

use std::{cell::Cell, collections::HashMap, path::Path, time::Duration};

use super::truth::{Kind, Made, Stream, Truth};
use crate::{cluster::Cluster, process};

/// What was not seen, all of it named.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    /// Trades that are not there.
    pub(crate) trades: u64,
    /// Book messages that are not there.
    pub(crate) books: u64,
    /// Trades that were not seen and are there after all.
    pub(crate) healed: u64,
    /// What became of the messages that were withheld on purpose.
    pub(crate) dropped: Dropped,
}

/// Messages that were withheld on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dropped {
    /// Trades in a gap that are there now.
    pub(crate) trades_healed: u64,
    /// Trades in a gap that are not there.
    pub(crate) trades_named: u64,
    /// Trades in no gap that are there: the venue told of them again before anything else.
    pub(crate) trades_told_again: u64,
    /// Book messages in a gap.
    pub(crate) books_named: u64,
    /// Book messages in no gap, of a book without ids: with the next message its checksum was right all the same, so their
    /// changes were overridden by then.
    pub(crate) books_overridden: u64,
    /// Trades before the first or after the last one that is there, and book messages in no gap.
    pub(crate) unnamed: u64,
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
    until_settled_within(cluster, database, Duration::from_secs(180));
}

/// The same, with a limit.
pub(crate) fn until_settled_within(cluster: &Cluster, database: &str, limit: Duration) {
    const OPEN: &str = "SELECT count(*) FROM audit.gaps WHERE channel = 'trades' AND state = 'open'";
    let is_settled = || cluster.psql(database, OPEN).trim() == "0";
    process::wait(limit, "no gap of trades is open", is_settled);
}

/// As [`check_all`], of a truth file that is complete.
pub(crate) fn check(truth: &Path, of: (&Cluster, &str), told: &str) -> Named {
    let folder = tempfile::tempdir().unwrap();
    check_all(&Truth::of(truth, folder.path()), of, told)
}

/// Panics unless all that is missing is named, and every gap of trades that has ended says rightly how. (Of one that is
/// open some trades may be there already.) One instrument at a time, so that an hour fits in memory.
pub(crate) fn check_all(truth: &Truth, (cluster, database): (&Cluster, &str), told: &str) -> Named {
    let instruments = instruments(cluster, database);
    let (trade_gaps, book_gaps) = (gaps(cluster, database, "trades"), gaps(cluster, database, "book"));
    let mut named = Named::default();
    for stream in truth.streams() {
        let key = (stream.venue.clone(), stream.symbol.clone());
        let Some(instrument) = instruments.get(&key) else { continue };
        let seen = Seen::read(cluster, database, *instrument, stream.kind);
        let gaps = match stream.kind {
            Kind::Trades => &trade_gaps,
            Kind::Books | Kind::Moments => &book_gaps,
        };
        let gaps = Gaps { list: gaps.get(&key).map_or(&[], Vec::as_slice), last: Cell::new(0) };
        let mut overridden = 0;
        for made in truth.read(&stream) {
            if stream.kind == Kind::Moments && made.is_dropped && seen.spans(made.id) && !gaps.hold_time(made.id) {
                overridden += 1;
                continue;
            }
            if !made.is_dropped && overridden > 0 {
                assert!(seen.has(made.id), "{told}: {stream:?}: {overridden} messages before {made:?} are in no gap");
                named.dropped.books_overridden += std::mem::take(&mut overridden);
            }
            missed(&stream, made, &seen, &gaps, &mut named, told);
        }
        if stream.kind == Kind::Trades {
            named.healed += healed(&key, &seen, gaps.list, told);
        }
    }
    named
}

/// Counts a message, and panics when it is missing and in no gap.
fn missed(stream: &Stream, made: Made, seen: &Seen, gaps: &Gaps<'_>, named: &mut Named, told: &str) {
    let (is_there, is_within) = (seen.has(made.id), seen.spans(made.id));
    let is_missed = !is_there && is_within;
    let is_named = match stream.kind {
        Kind::Trades if is_missed => gaps.hold_id(made.id, |gap| gap.state != "healed"),
        Kind::Trades | Kind::Books => (is_missed || made.is_dropped) && gaps.hold_id(made.id, |_| true),
        Kind::Moments => (is_missed || made.is_dropped) && gaps.hold_time(made.id),
    };
    if is_missed {
        assert!(is_named, "{told}: {made:?} of {stream:?} is missing and in no gap that says so: {:?}", gaps.list);
        match stream.kind {
            Kind::Trades => named.trades += 1,
            Kind::Books | Kind::Moments => named.books += 1,
        }
    }
    if made.is_dropped {
        let dropped = &mut named.dropped;
        *match (stream.kind, is_named, is_there) {
            (Kind::Trades, true, true) => &mut dropped.trades_healed,
            (Kind::Trades, true, false) => &mut dropped.trades_named,
            (Kind::Trades, false, true) => &mut dropped.trades_told_again,
            (Kind::Books | Kind::Moments, true, _) => &mut dropped.books_named,
            (Kind::Trades, false, false) | (Kind::Books | Kind::Moments, false, _) => &mut dropped.unnamed,
        } += 1;
    }
}

/// Trades of ended gaps that are there. Panics when a gap's state or count is not what is there.
fn healed(key: &Key, seen: &Seen, gaps: &[Gap], told: &str) -> u64 {
    let mut healed = 0;
    for gap in gaps {
        let Some((first, last)) = gap.ids.filter(|(_, last)| *last != i64::MAX) else { continue };
        if gap.state == "open" {
            continue;
        }
        let ids = usize::try_from(last - first + 1).unwrap();
        let there = seen.count(first, last);
        assert_eq!(there, gap.rows, "{told}: a gap of {key:?} miscounts the trades that came after all: {gap:?}");
        let state = if there == ids { "healed" } else { "unhealable" };
        assert_eq!(gap.state, state, "{told}: {there} of {ids} trades of a gap of {key:?} are there: {gap:?}");
        healed += u64::try_from(there).unwrap();
    }
    healed
}

/// Ids, or moments, of one instrument in the database, in order.
struct Seen(Vec<i64>);

impl Seen {
    fn read(cluster: &Cluster, database: &str, instrument: i32, kind: Kind) -> Self {
        let sql = match kind {
            Kind::Trades => format!(
                "SELECT DISTINCT trade_id FROM market_data.trades
                 WHERE instrument_id = {instrument} AND trade_id IS NOT NULL"
            ),
            Kind::Books => format!(
                "SELECT DISTINCT seq FROM market_data.book_deltas
                 WHERE instrument_id = {instrument} AND flags & 2 = 0 AND seq IS NOT NULL"
            ),
            Kind::Moments => format!(
                "SELECT (extract(epoch FROM time) * 1000000)::bigint FROM (
                     SELECT DISTINCT time FROM market_data.book_deltas
                     WHERE instrument_id = {instrument} AND flags & 2 = 0 AND seq IS NULL) AS moments"
            ),
        };
        let mut ids: Vec<i64> = cluster.psql(database, &sql).lines().map(|line| line.parse().unwrap()).collect();
        ids.sort_unstable();
        Self(ids)
    }

    fn has(&self, id: i64) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Whether it lies between the first and the last.
    fn spans(&self, id: i64) -> bool {
        self.0.first().zip(self.0.last()).is_some_and(|(first, last)| (*first..*last).contains(&id))
    }

    fn count(&self, first: i64, last: i64) -> usize {
        self.0.partition_point(|id| *id <= last) - self.0.partition_point(|id| *id < first)
    }
}

/// Gaps of one instrument and channel. What is missing comes in stretches, so the last gap found is asked first.
struct Gaps<'a> {
    list: &'a [Gap],
    last: Cell<usize>,
}

impl Gaps<'_> {
    fn hold_id(&self, id: i64, counts: impl Fn(&Gap) -> bool) -> bool {
        self.any(|gap| counts(gap) && gap.ids.is_some_and(|(first, last)| (first..=last).contains(&id)))
    }

    fn hold_time(&self, time: i64) -> bool {
        self.any(|gap| (gap.times.0..=gap.times.1).contains(&time))
    }

    fn any(&self, holds: impl Fn(&Gap) -> bool) -> bool {
        if self.list.get(self.last.get()).is_some_and(&holds) {
            return true;
        }
        let found = self.list.iter().position(holds);
        self.last.set(found.unwrap_or(self.last.get()));
        found.is_some()
    }
}

fn instruments(cluster: &Cluster, database: &str) -> HashMap<Key, i32> {
    let rows = cluster.psql(database, "SELECT venue, symbol, instrument_id FROM market_data.instruments");
    let instrument = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        ((fields[0].into(), fields[1].into()), fields[2].parse().unwrap())
    };
    rows.lines().map(instrument).collect()
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

//! For every frame in the journal: the rows the adapter gives for it, against the rows in the database.

use std::{collections::HashMap, ops::AddAssign, path::Path, sync::Arc, time::Duration};

use tapeway::{
    config,
    journal::Journal,
    lane::{Lane, Rows},
    queue::Queue,
    replay::Replay,
};
use tapeway_exchanges::{
    event::{Events, Level, Quote, Trade},
    ids::FramePos,
    venue,
};

use crate::cluster::Cluster;

/// How journal and database differ.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Rows the journaled frames give.
    pub(crate) journaled: u64,
    /// Rows the database lacks.
    pub(crate) missing: u64,
    /// Rows the database has too often, or that no frame gives.
    pub(crate) surplus: u64,
    /// Some of them; positive: missing.
    pub(crate) examples: Vec<(String, i64)>,
}

/// Panics unless both are the same multiset and the watermarks count it; returns how many rows there are.
pub(crate) fn compare(journal_dir: &Path, (cluster, database): (&Cluster, &str), told: &str) -> u64 {
    let found = difference(journal_dir, (cluster, database));
    assert!(found.missing == 0 && found.surplus == 0, "{told}: {found:#?}");
    let identity = cluster.psql(
        database,
        "SELECT count(*) FROM audit.watermarks w WHERE rejected <> 0 OR rows_total <>
             (SELECT count(*) FROM market_data.trades t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.book_deltas t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.quotes t WHERE t.lane_id = w.lane_id)",
    );
    assert_eq!(identity.trim(), "0", "{told}: a watermark's row count is not the number of its rows");
    found.journaled
}

/// Compares them as multisets of whole rows.
pub(crate) fn difference(journal_dir: &Path, (cluster, database): (&Cluster, &str)) -> Difference {
    let mut tally: HashMap<String, i64> = HashMap::new();
    let mut difference = Difference::default();
    each_journaled_row(journal_dir, |row| {
        *tally.entry(row).or_default() += 1;
        difference.journaled += 1;
    });
    for query in QUERIES {
        for row in cluster.psql(database, query).lines() {
            match tally.get_mut(row) {
                Some(left) if *left > 1 => *left -= 1,
                Some(1) => drop(tally.remove(row)),
                Some(left) => *left -= 1,
                None => drop(tally.insert(row.to_owned(), -1)),
            }
        }
    }
    for left in tally.values() {
        if *left > 0 { &mut difference.missing } else { &mut difference.surplus }.add_assign(left.unsigned_abs());
    }
    difference.examples = tally.into_iter().take(10).collect();
    difference
}

fn each_journaled_row(journal_dir: &Path, mut each: impl FnMut(String)) {
    let journal = Journal::open(&config::Journal {
        dir: journal_dir.into(),
        segment_bytes_max: 4 << 20,
        sync_interval: Duration::from_millis(10),
        keep_for: Duration::from_secs(86_400),
        bytes_max: 1 << 40,
        free_bytes_min: 0,
        is_compressed: false,
    })
    .unwrap();
    for identity in journal.found().unwrap() {
        let (lane_journal, recovered) = journal.lane(&identity.venue, &identity.lane).unwrap();
        let lane = Lane {
            name: identity.lane.clone(),
            venue: venue::find(&identity.venue).unwrap(),
            journal_id: identity.journal_id,
            disk: lane_journal.disk(),
            dir: lane_journal.dir().into(),
            progress: lane_journal.progress(),
            rows: Rows::default(),
            queue: Queue::new(1),
            is_behind: false.into(),
            writer: Arc::default(),
        };
        let mut replay = Replay::open(&lane, FramePos::FIRST).unwrap();
        let mut spare = Events::default();
        while let Ok(chunk) = replay.next_chunk(&lane, 4_096, spare).unwrap() {
            each_row(&identity.lane, &chunk, &mut each);
            spare = chunk;
        }
        assert_eq!(replay.pos(), recovered.end, "the journal of {} was not read to its end", identity.lane);
    }
}

/// Every column of every row, in the form the queries print.
fn each_row(lane: &str, chunk: &Events, each: &mut impl FnMut(String)) {
    let head = |kind: char, frame: u32, symbol: tapeway_exchanges::ids::SymbolIx| {
        let (pos, received) = (chunk.pos(frame), chunk.received(frame).micros().0);
        format!("{kind}|{lane}|{pos}|{received}|{}", chunk.symbols[symbol.0 as usize])
    };
    let id = |id: Option<i64>| id.map_or(String::new(), |id| id.to_string());
    for Trade { frame, symbol, side, flags, time, price, qty, trade_id, trade_ref } in &chunk.trades {
        let (head, side, trade_id) = (head('t', *frame, *symbol), side.sql(), id(*trade_id));
        let trade_ref = trade_ref.as_deref().unwrap_or("");
        each(format!("{head}|{}|{side}|{price}|{qty}|{trade_id}|{trade_ref}|{}", time.0, flags.0));
    }
    for Level { frame, symbol, side, flags, time, price, qty, seq } in &chunk.levels {
        let (head, side, seq) = (head('l', *frame, *symbol), side.sql(), id(*seq));
        each(format!("{head}|{}|{side}|{price}|{qty}|{seq}|{}", time.0, flags.0));
    }
    for Quote { frame, symbol, flags, time, bid, ask, seq } in &chunk.quotes {
        let (head, seq) = (head('q', *frame, *symbol), id(*seq));
        let pair = |side: &Option<_>| {
            side.map_or("|".into(), |(price, qty): (rust_decimal::Decimal, rust_decimal::Decimal)| {
                format!("{price}|{qty}")
            })
        };
        each(format!("{head}|{}|{}|{}|{seq}|{}", time.0, pair(bid), pair(ask), flags.0));
    }
}

const QUERIES: [&str; 3] = [
    "SELECT concat_ws('|', 't', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
         (extract(epoch FROM time) * 1000000)::bigint, side, price, qty, coalesce(trade_id::text, ''),
         coalesce(trade_ref, ''), flags)
     FROM market_data.trades JOIN market_data.instruments i USING (instrument_id) JOIN audit.lanes l USING (lane_id)",
    "SELECT concat_ws('|', 'l', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
         (extract(epoch FROM time) * 1000000)::bigint, side, price, qty, coalesce(seq::text, ''), flags)
     FROM market_data.book_deltas JOIN market_data.instruments i USING (instrument_id) JOIN audit.lanes l USING (lane_id)",
    "SELECT concat_ws('|', 'q', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
         (extract(epoch FROM time) * 1000000)::bigint, coalesce(bid_price::text, ''), coalesce(bid_qty::text, ''),
         coalesce(ask_price::text, ''), coalesce(ask_qty::text, ''), coalesce(seq::text, ''), flags)
     FROM market_data.quotes JOIN market_data.instruments i USING (instrument_id) JOIN audit.lanes l USING (lane_id)",
];

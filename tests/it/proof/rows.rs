//! For every frame in the journal: the rows the adapter gives for it, against the rows in the database.
//!
//! Both are streamed, in any order, and never held: of each stretch of [`STRETCH_FRAMES`] frames of a lane the hashes of
//! all rows are added up (128 bits, every column of a row), so that equal sums mean equal multisets of rows. Where sums
//! differ, the rows of that stretch are compared as text.

use std::{
    collections::HashMap,
    ops::AddAssign,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tapeway::{
    config,
    journal::{Journal, LaneJournal},
    lane::{Lane, Rows},
    queue::Queue,
    replay::Replay,
};
use tapeway_exchanges::{
    event::{Events, Level, Quote, TopBook, Trade},
    ids::{FramePos, SymbolIx},
    venue,
};

use super::{
    copy::{self, Row, Shape},
    notes::Told,
};
use crate::cluster::Cluster;

/// How journal and database differ.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Rows the journaled frames give.
    pub(crate) journaled: u64,
    /// Rows in the database.
    pub(crate) stored: u64,
    /// Rows the database lacks.
    pub(crate) missing: u64,
    /// Rows the database has too often, or that no frame gives.
    pub(crate) surplus: u64,
    /// Some of them; positive: missing.
    pub(crate) examples: Vec<(String, i64)>,
    /// Stretches of frames that differ and were not looked at, after the first [`STRETCHES_SHOWN_MAX`].
    pub(crate) stretches_unseen: usize,
    /// Rows in the database by lane.
    by_lane: HashMap<i32, u64>,
}

/// Panics unless both are the same multiset and the watermarks count it; returns how many rows there are.
pub(crate) fn compare(journal_dir: &Path, (cluster, database): (&Cluster, &str), told: &str) -> u64 {
    let begun = Instant::now();
    let mut notes = Told::default();
    let found = difference_told(journal_dir, (cluster, database), |lane, chunk| notes.take(lane, chunk));
    assert!(found.missing == 0 && found.surplus == 0, "{told}: {found:#?}");
    assert_eq!(found.journaled, found.stored, "{told}: {found:#?}");
    for line in cluster.psql(database, "SELECT lane_id, rows_total, rejected FROM audit.watermarks").lines() {
        let numbers: Vec<i64> = line.split('|').map(|number| number.parse().unwrap()).collect();
        let lane = i32::try_from(numbers[0]).unwrap();
        let rows = found.by_lane.get(&lane).copied().unwrap_or_default();
        assert_eq!(
            (numbers[1].unsigned_abs(), numbers[2]),
            (rows, 0),
            "{told}: the watermark of lane {lane} does not count its rows"
        );
    }
    let notes = notes.compare((cluster, database), told);
    println!("{told}: {} rows, {notes} notes held against the journal in {:.1?}", found.journaled, begun.elapsed());
    found.journaled
}

/// Compares them as multisets of whole rows.
pub(crate) fn difference(journal_dir: &Path, of: (&Cluster, &str)) -> Difference {
    difference_told(journal_dir, of, |_, _| {})
}

/// The same, and hands every chunk with its lane's name on.
fn difference_told(
    journal_dir: &Path,
    (cluster, database): (&Cluster, &str),
    mut each: impl FnMut(&str, &Events),
) -> Difference {
    let journal = open(journal_dir);
    let lanes = lanes(&journal, (cluster, database));
    let instruments = instruments((cluster, database));
    let mut sums = Sums::default();
    let mut difference = Difference::default();
    std::thread::scope(|scope| {
        let tables = Shape::ALL.map(|shape| {
            scope.spawn(move || {
                let mut sums = Sums::default();
                copy::each_row(cluster, database, shape, |row| sums.count(shape, row, -1));
                sums
            })
        });
        for lane in &lanes {
            lane.each_chunk(|chunk| {
                each(&lane.lane.name, chunk);
                copy::each_row_of(chunk, lane.id, &lane.instruments(chunk, &instruments), |shape, row| {
                    sums.count(shape, row, 1);
                    difference.journaled += 1;
                });
            });
        }
        for table in tables {
            let table = table.join().unwrap();
            for ((shape, lane, _), (count, _)) in &table.0 {
                *difference.by_lane.entry(*lane).or_default() += count.unsigned_abs();
                assert!(*count < 0, "rows of {shape:?} were not counted down");
            }
            sums.add(table);
        }
    });
    difference.stored = difference.by_lane.values().sum();
    sums.0.retain(|_, sum| *sum != (0, 0));
    let mut stretches: Vec<Stretch> = sums.0.into_keys().collect();
    stretches.sort_unstable();
    difference.stretches_unseen = stretches.len().saturating_sub(STRETCHES_SHOWN_MAX);
    stretches.truncate(STRETCHES_SHOWN_MAX);
    for stretch in stretches {
        look_at(stretch, &lanes, (cluster, database), &mut difference);
    }
    difference
}

/// A table's rows of [`STRETCH_FRAMES`] frames of a lane.
type Stretch = (Shape, i32, i64);

/// Number of rows, and the sum of their hashes, by stretch.
#[derive(Debug, Default)]
struct Sums(HashMap<Stretch, (i64, u128)>);

impl Sums {
    fn count(&mut self, shape: Shape, row: &Row<'_>, times: i64) {
        let sum = self.0.entry((shape, row.lane, row.pos / STRETCH_FRAMES)).or_default();
        sum.0 += times;
        let hash = row.hash();
        sum.1 = if times > 0 { sum.1.wrapping_add(hash) } else { sum.1.wrapping_sub(hash) };
    }

    fn add(&mut self, other: Self) {
        for (stretch, (count, hash)) in other.0 {
            let sum = self.0.entry(stretch).or_default();
            *sum = (sum.0 + count, sum.1.wrapping_add(hash));
        }
    }
}

/// Compares the rows of one stretch as text.
fn look_at((shape, lane_id, nr): Stretch, lanes: &[Journaled], of: (&Cluster, &str), difference: &mut Difference) {
    let mut tally: HashMap<String, i64> = HashMap::new();
    let (first, end) = (nr * STRETCH_FRAMES, (nr + 1) * STRETCH_FRAMES);
    let of_shape = |row: &str| row.starts_with(shape.letter());
    for lane in lanes.iter().filter(|lane| lane.id == lane_id) {
        let mut each = |pos: FramePos, row: String| {
            let pos = pos.get().cast_signed();
            if (first..end).contains(&pos) && of_shape(&row) {
                *tally.entry(row).or_default() += 1;
            }
        };
        lane.each_chunk_from(FramePos::new(first.unsigned_abs()), |chunk| {
            each_text(&lane.lane.name, chunk, &mut each);
            chunk.end().get().cast_signed() < end
        });
    }
    let query = format!("{} WHERE lane_id = {lane_id} AND frame_pos >= {first} AND frame_pos < {end}", query(shape));
    for row in of.0.psql(of.1, &query).lines() {
        *tally.entry(row.to_owned()).or_default() -= 1;
    }
    tally.retain(|_, left| *left != 0);
    for left in tally.values() {
        if *left > 0 { &mut difference.missing } else { &mut difference.surplus }.add_assign(left.unsigned_abs());
    }
    let room = EXAMPLES_MAX.saturating_sub(difference.examples.len());
    difference.examples.extend(tally.into_iter().take(room));
}

/// A lane's journal, and its number in the database.
struct Journaled {
    id: i32,
    lane: Lane,
    end: FramePos,
    _journal: LaneJournal,
}

impl Journaled {
    fn each_chunk(&self, mut each: impl FnMut(&Events)) {
        let pos = self.each_chunk_from(FramePos::FIRST, |chunk| {
            each(chunk);
            true
        });
        assert_eq!(pos, self.end, "the journal of {} was not read to its end", self.lane.name);
    }

    /// From a frame on until it is enough; returns how far it went.
    fn each_chunk_from(&self, from: FramePos, mut each: impl FnMut(&Events) -> bool) -> FramePos {
        if from >= self.end {
            return from;
        }
        let mut replay = Replay::open(&self.lane, from).unwrap();
        let mut spare = Events::default();
        while let Ok(chunk) = replay.next_chunk(&self.lane, 4_096, spare).unwrap() {
            if !each(&chunk) {
                break;
            }
            spare = chunk;
        }
        replay.pos()
    }

    /// Numbers of a chunk's symbols; -1 for one that the database does not know.
    fn instruments(&self, chunk: &Events, known: &HashMap<(String, String), i32>) -> Vec<i32> {
        let number = |symbol: &tapeway_exchanges::symbols::Symbol| {
            known.get(&(self.lane.venue.name.to_owned(), symbol.to_string())).copied().unwrap_or(-1)
        };
        chunk.symbols.iter().map(number).collect()
    }
}

fn open(journal_dir: &Path) -> Journal {
    Journal::open(&config::Journal {
        dir: journal_dir.into(),
        segment_bytes_max: 4 << 20,
        sync_interval: Duration::from_millis(10),
        keep_for: Duration::from_secs(86_400),
        bytes_max: 1 << 40,
        free_bytes_min: 0,
        is_compressed: false,
    })
    .unwrap()
}

fn lanes(journal: &Journal, (cluster, database): (&Cluster, &str)) -> Vec<Journaled> {
    let known = cluster.psql(database, "SELECT replace(journal_id::text, '-', ''), name, lane_id FROM audit.lanes");
    let known: HashMap<(&str, &str), i32> = known
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            ((fields[0], fields[1]), fields[2].parse().unwrap())
        })
        .collect();
    let lane = |(nr, identity): (i32, tapeway::journal::Identity)| {
        let (lane_journal, recovered) = journal.lane(&identity.venue, &identity.lane).unwrap();
        let id = known.get(&(format!("{:032x}", identity.journal_id).as_str(), identity.lane.as_str())).copied();
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
        // A lane the database has never heard of gets a number that no row has.
        Journaled { id: id.unwrap_or(-1 - nr), lane, end: recovered.end, _journal: lane_journal }
    };
    (0..).zip(journal.found().unwrap()).map(lane).collect()
}

fn instruments((cluster, database): (&Cluster, &str)) -> HashMap<(String, String), i32> {
    let rows = cluster.psql(database, "SELECT venue, symbol, instrument_id FROM market_data.instruments");
    let instrument = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        ((fields[0].into(), fields[1].into()), fields[2].parse().unwrap())
    };
    rows.lines().map(instrument).collect()
}

/// Every column of every row, in the form the queries print.
fn each_text(lane: &str, chunk: &Events, each: &mut impl FnMut(FramePos, String)) {
    let head = |kind: char, frame: u32, symbol: SymbolIx| {
        let (pos, received) = (chunk.pos(frame), chunk.received(frame).micros().0);
        format!("{kind}|{lane}|{pos}|{received}|{}", chunk.symbols[symbol.0 as usize])
    };
    let id = |id: Option<i64>| id.map_or(String::new(), |id| id.to_string());
    for Trade { frame, symbol, side, flags, time, price, qty, trade_id, trade_ref } in &chunk.trades {
        let (head, side, trade_id) = (head('t', *frame, *symbol), side.sql(), id(*trade_id));
        let trade_ref = trade_ref.as_deref().unwrap_or("");
        let row = format!("{head}|{}|{side}|{price}|{qty}|{trade_id}|{trade_ref}|{}", time.0, flags.0);
        each(chunk.pos(*frame), row);
    }
    for Level { frame, symbol, side, flags, time, price, qty, seq } in &chunk.levels {
        let (head, side, seq) = (head('l', *frame, *symbol), side.sql(), id(*seq));
        each(chunk.pos(*frame), format!("{head}|{}|{side}|{price}|{qty}|{seq}|{}", time.0, flags.0));
    }
    for Quote { frame, symbol, flags, time, bid, ask, seq } in &chunk.quotes {
        let (head, seq) = (head('q', *frame, *symbol), id(*seq));
        let pair = |side: &Option<_>| {
            side.map_or("|".into(), |(price, qty): (rust_decimal::Decimal, rust_decimal::Decimal)| {
                format!("{price}|{qty}")
            })
        };
        each(chunk.pos(*frame), format!("{head}|{}|{}|{}|{seq}|{}", time.0, pair(bid), pair(ask), flags.0));
    }
    for TopBook { frame, symbol, flags, time, seq, bids, asks, bids_exact, asks_exact } in &chunk.top_books {
        let (head, seq) = (head('b', *frame, *symbol), id(*seq));
        let exact = [bids_exact, asks_exact].map(|exact| id(exact.map(i64::from))).join("|");
        let lists = [bids, asks].map(|side| {
            let (prices, qtys): (Vec<_>, Vec<_>) =
                side.iter().map(|(price, qty)| (price.to_string(), qty.to_string())).unzip();
            format!("{{{}}}|{{{}}}", prices.join(","), qtys.join(","))
        });
        each(chunk.pos(*frame), format!("{head}|{}|{seq}|{}|{exact}|{}", time.0, lists.join("|"), flags.0));
    }
}

const fn query(shape: Shape) -> &'static str {
    match shape {
        Shape::Trades => {
            "SELECT concat_ws('|', 't', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
                 (extract(epoch FROM time) * 1000000)::bigint, side, price, qty, coalesce(trade_id::text, ''),
                 coalesce(trade_ref, ''), flags)
             FROM market_data.trades JOIN market_data.instruments i USING (instrument_id)
             JOIN audit.lanes l USING (lane_id)"
        }
        Shape::Levels => {
            "SELECT concat_ws('|', 'l', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
                 (extract(epoch FROM time) * 1000000)::bigint, side, price, qty, coalesce(seq::text, ''), flags)
             FROM market_data.book_deltas JOIN market_data.instruments i USING (instrument_id)
             JOIN audit.lanes l USING (lane_id)"
        }
        Shape::Quotes => {
            "SELECT concat_ws('|', 'q', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
                 (extract(epoch FROM time) * 1000000)::bigint, coalesce(bid_price::text, ''),
                 coalesce(bid_qty::text, ''), coalesce(ask_price::text, ''), coalesce(ask_qty::text, ''),
                 coalesce(seq::text, ''), flags)
             FROM market_data.quotes JOIN market_data.instruments i USING (instrument_id)
             JOIN audit.lanes l USING (lane_id)"
        }
        Shape::TopBooks => {
            "SELECT concat_ws('|', 'b', l.name, frame_pos, (extract(epoch FROM recv_time) * 1000000)::bigint, i.symbol,
                 (extract(epoch FROM time) * 1000000)::bigint, coalesce(seq::text, ''), bid_prices::text,
                 bid_qtys::text, ask_prices::text, ask_qtys::text, coalesce(bids_exact::text, ''),
                 coalesce(asks_exact::text, ''), flags)
             FROM market_data.order_books JOIN market_data.instruments i USING (instrument_id)
             JOIN audit.lanes l USING (lane_id)"
        }
    }
}

/// Frames whose rows' hashes are added up together.
const STRETCH_FRAMES: i64 = 1_024;
/// Stretches that differ and are looked at.
const STRETCHES_SHOWN_MAX: usize = 32;
/// Rows that differ and are shown.
const EXAMPLES_MAX: usize = 10;

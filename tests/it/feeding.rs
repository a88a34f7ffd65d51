//! Lanes fed by hand: chunks whose every row follows from its frame's position, so that what the database must
//! hold can be computed again. The same rows come from the venue's adapter when the frames are journaled.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use rust_decimal::Decimal;
use tapeway::{
    config::{Pin, Writer},
    journal::disk::RealDisk,
    lane::{Lane, Progress, Rows},
    queue::Queue,
};
use tapeway_exchanges::{
    adapter::{Actions, Adapter, At, CloseReason, LanePlan, Outbox},
    config::Limits,
    conn::{Conn, Conns},
    error::FrameError,
    event::{Channel, Events, Flags, Level, Quote, Side, Trade},
    ids::{FramePos, Micros, Nanos, SymbolIx},
    metadata::{Instrument, Source},
    subscription::Subscriptions,
    symbols::Symbol,
    venue::{Proof, VenueSpec},
};
use tokio::sync::Notify;

use crate::cluster::Cluster;

/// A venue whose frames hold the number of their lane; the rows follow from that and the position.
pub(crate) static ACME: VenueSpec = VenueSpec {
    name: "acme",
    ws_url: "ws://127.0.0.1",
    http_url: "http://127.0.0.1",
    channels: &Channel::ALL,
    book_depths: &[],
    limits: Limits {
        streams_per_connection: 100,
        messages_per_second: 100,
        connects: 100,
        connects_per: Duration::from_secs(60),
        http_weight_per_minute: 100,
        silence: Duration::from_secs(60),
        lifetime: None,
    },
    proof: |_| Proof::Unprovable,
    book_rule: "none",
    build: adapter,
    plan: |_, _| Vec::new(),
    tag_of_url: |_| None,
    metadata: Source::Http { path: "/", weight: 1, parse: no_instruments },
};

fn adapter() -> Box<dyn Adapter> {
    Box::new(Acme::default())
}

/// Rows from nothing but the lane's number and the position.
#[derive(Debug, Default)]
struct Acme {
    subscriptions: Subscriptions,
}

impl Adapter for Acme {
    fn on_open(&mut self, _: At, _: &LanePlan, _: &mut Outbox) {}

    fn on_plan(&mut self, _: At, _: &LanePlan, _: &mut Outbox) {}

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let lane = std::str::from_utf8(bytes).unwrap().parse().unwrap();
        for symbol in &*symbols(lane) {
            out.symbols.intern(symbol)?;
        }
        for row in rows(at.pos.get()) {
            match row {
                Row::Trade(trade) => out.push_trade(trade),
                Row::Level(level) => out.push_level(level),
                Row::Quote(quote) => out.push_quote(quote),
            }
        }
        Ok(())
    }

    fn on_http(&mut self, _: At, _: &str, _: u16, _: &mut [u8], _: &mut Outbox) -> Result<(), FrameError> {
        Ok(())
    }

    fn on_close(&mut self, _: At, _: &CloseReason, _: &mut Outbox) {}

    fn on_tick(&mut self, _: Nanos, _: &mut Actions) {}

    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn restore(&mut self, _: serde_json::Value) -> Result<(), serde_json::Error> {
        Ok(())
    }

    fn subscriptions(&self, _: Conn) -> &Subscriptions {
        &self.subscriptions
    }

    fn open(&self) -> Conns {
        Conns::NONE
    }
}

fn no_instruments(_: &mut [u8]) -> Result<Vec<Instrument>, FrameError> {
    Ok(Vec::new())
}

/// A lane with a queue of `chunks_max` chunks.
pub(crate) fn lane(name: &str, journal_id: u128, chunks_max: usize) -> Arc<Lane> {
    Arc::new(Lane {
        name: name.into(),
        venue: &ACME,
        journal_id,
        disk: Arc::new(RealDisk),
        dir: PathBuf::from("/nonexistent"),
        progress: Arc::new(Progress::default()),
        rows: Rows::default(),
        queue: Queue::new(chunks_max),
        is_behind: AtomicBool::new(false),
        writer: Arc::new(Notify::new()),
    })
}

/// Small batches, so that a test makes many transactions.
pub(crate) fn settings(threads: usize, batch_rows_max: usize) -> Writer {
    Writer {
        threads: Some(threads),
        pin: Pin::Off,
        batch_rows_max,
        batch_bytes_max: 64 << 20,
        batch_age_max: Duration::from_millis(5),
        queue_chunks_max: 64,
        chunk_rows_max: 1_000,
    }
}

/// The symbols of a lane fed by hand.
pub(crate) fn symbols(lane: u64) -> Arc<[Symbol]> {
    (0..4).map(|nr| Symbol::from(format!("SYM{}", lane % 3 + nr))).collect()
}

/// The chunk of `frames` frames from `first` on. Some frames have no row at all.
pub(crate) fn chunk(lane: u64, first: u64, frames: u64) -> Events {
    let mut events = Events { symbols: symbols(lane), ..Events::default() };
    events.clear(FramePos::new(first));
    for frame in 0..u32::try_from(frames).unwrap() {
        let pos = first + u64::from(frame);
        events.received.push(received(pos));
        for row in rows(pos) {
            match row {
                Row::Trade(trade) => events.trades.push(Trade { frame, ..trade }),
                Row::Level(level) => events.levels.push(Level { frame, ..level }),
                Row::Quote(quote) => events.quotes.push(Quote { frame, ..quote }),
            }
        }
    }
    events
}

/// When the frame at a position was received.
pub(crate) fn received(pos: u64) -> Nanos {
    Nanos((START + i64::try_from(pos).unwrap() * 1_000) * 1_000 + 123_456_789)
}

/// One row of a frame.
enum Row {
    Trade(Trade),
    Level(Level),
    Quote(Quote),
}

/// The rows of the frame at a position: none to three.
fn rows(pos: u64) -> impl Iterator<Item = Row> {
    let time = Micros(START + i64::try_from(pos).unwrap() * 1_000);
    let (price, qty) = (Decimal::new(i64::try_from(pos * 31 % 100_000).unwrap(), 2), Decimal::new(500, 3));
    (0..pos % 4).map(move |row| {
        let symbol = SymbolIx(u32::try_from((pos + row) % 4).unwrap());
        let number = Some(i64::try_from(pos * 10 + row).unwrap());
        let side = if row % 2 == 0 { Side::Buy } else { Side::Sell };
        let (frame, flags) = (0, Flags::NONE);
        match (pos + row) % 3 {
            0 => Row::Trade(Trade { frame, symbol, side, flags, time, price, qty, trade_id: number, trade_ref: None }),
            1 => Row::Level(Level { frame, symbol, side, flags: Flags::LAST_IN_FRAME, time, price, qty, seq: number }),
            _ => Row::Quote(Quote { frame, symbol, flags, time, bid: Some((price, qty)), ask: None, seq: number }),
        }
    })
}

/// 2025-06-01 in microseconds.
pub(crate) const START: i64 = 1_748_736_000_000_000;

/// Feeds a lane chunk by chunk, waiting when the queue is full, as synced frames.
pub(crate) fn feed(lane: &Lane, events: Events) {
    let end = events.end();
    let rows = events.rows() as u64;
    let mut events = events;
    let until = Instant::now() + PATIENCE;
    // Appended first, as in the daemon; the queue brings it long before the journal would be asked.
    lane.progress.on_append(end);
    lane.progress.on_sync(end);
    lane.rows.on_receive(lane.rows.counts().0 + rows);
    while let Err(back) = lane.queue.push(events) {
        assert!(Instant::now() < until, "the writer does not take chunks");
        events = back;
        std::thread::sleep(Duration::from_millis(1));
    }
    lane.writer.notify_one();
}

/// Waits until everything fed is committed.
pub(crate) fn until_committed(lane: &Lane) {
    until(
        || lane.progress.committed() >= lane.progress.appended(),
        || format!("{} of {}", lane.progress.committed(), lane.progress.appended()),
    );
}

/// Waits until something is so.
pub(crate) fn until(is_so: impl Fn() -> bool, found: impl Fn() -> String) {
    let limit = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < limit, "waited in vain: {}", found());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// For what takes milliseconds unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The rows that chunks must become, sorted, as [`stored`] gives them.
pub(crate) fn expected<'a>(lane: &str, chunks: impl IntoIterator<Item = &'a Events>) -> Vec<String> {
    let mut rows = Vec::new();
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    for events in chunks {
        let tail = |frame: u32, flags: Flags| {
            format!("{}|{}|{}|{lane}", flags.0, events.pos(frame), events.received(frame).micros().0)
        };
        let name = |symbol: SymbolIx| events.symbols[symbol.0 as usize].clone();
        for row in &events.trades {
            rows.push(format!(
                "trade|{}|{}|{}|{}|{}|{}|{}|{}",
                row.time.0,
                name(row.symbol),
                row.price,
                row.qty,
                row.side.sql(),
                text(row.trade_id),
                row.trade_ref.as_deref().unwrap_or_default(),
                tail(row.frame, row.flags)
            ));
        }
        for row in &events.levels {
            rows.push(format!(
                "level|{}|{}|{}|{}|{}|{}|{}",
                row.time.0,
                name(row.symbol),
                row.side.sql(),
                row.price,
                row.qty,
                text(row.seq),
                tail(row.frame, row.flags)
            ));
        }
        for row in &events.top_books {
            let list = |side: &[(Decimal, Decimal)], of: fn(&(Decimal, Decimal)) -> Decimal| {
                let texts: Vec<String> = side.iter().map(|level| of(level).to_string()).collect();
                format!("{{{}}}", texts.join(","))
            };
            rows.push(format!(
                "top|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                row.time.0,
                name(row.symbol),
                text(row.seq),
                list(&row.bids, |level| level.0),
                list(&row.bids, |level| level.1),
                list(&row.asks, |level| level.0),
                list(&row.asks, |level| level.1),
                text(row.bids_exact.map(i64::from)),
                text(row.asks_exact.map(i64::from)),
                tail(row.frame, row.flags)
            ));
        }
        for row in &events.quotes {
            let side = |side: Option<(Decimal, Decimal)>| {
                side.map_or_else(|| "|".to_owned(), |(price, qty)| format!("{price}|{qty}"))
            };
            rows.push(format!(
                "quote|{}|{}|{}|{}|{}|{}",
                row.time.0,
                name(row.symbol),
                side(row.bid),
                side(row.ask),
                text(row.seq),
                tail(row.frame, row.flags)
            ));
        }
    }
    rows.sort();
    rows
}

/// Every column of every row in the database, sorted.
pub(crate) fn stored(cluster: &Cluster, database: &str) -> Vec<String> {
    let micros = |column: &str| format!("(extract(epoch FROM {column}) * 1000000)::bigint");
    let (time, received) = (micros("time"), micros("recv_time"));
    let select = |kind: &str, table: &str, columns: &str| {
        format!(
            "SELECT concat_ws('|', '{kind}', {time}, i.symbol, {columns}, r.flags, r.frame_pos, {received}, l.name)
             FROM market_data.{table} r JOIN market_data.instruments i USING (instrument_id)
             JOIN audit.lanes l USING (lane_id)"
        )
    };
    let text = |column: &str| format!("coalesce({column}::text, '')");
    let numbers = ["bid_price", "bid_qty", "ask_price", "ask_qty", "seq"].map(text).join(", ");
    let sql = [
        select("trade", "trades", &format!("price, qty, side, {}, {}", text("trade_id"), text("trade_ref"))),
        select("level", "book_deltas", &format!("side, price, qty, {}", text("seq"))),
        select("quote", "quotes", &numbers),
        select(
            "top",
            "order_books",
            &format!(
                "{}, bid_prices::text, bid_qtys::text, ask_prices::text, ask_qtys::text, {}, {}",
                text("seq"),
                text("bids_exact"),
                text("asks_exact")
            ),
        ),
    ]
    .join(" UNION ALL ");
    // Without statistics the planner takes loops that read a table once for every row of another.
    let sql = format!("SET enable_nestloop = off; {sql}");
    let mut rows: Vec<String> = cluster.psql(database, &sql).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// Fails with the first difference rather than with all rows.
pub(crate) fn assert_same(found: &[String], expected: &[String]) {
    let differs = found.iter().zip(expected).find(|(a, b)| a != b);
    assert!(
        differs.is_none() && found.len() == expected.len(),
        "{} rows found, {} expected; first difference: {differs:?}",
        found.len(),
        expected.len()
    );
}

//! The writer: every row once, whatever happens to the database; every column as it was; refused rows told apart.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rust_decimal::Decimal;
use tapeway::{
    config::Database,
    lane::Lane,
    store,
    writer::{self, Handle, ShardState, Undone, numeric::put_numeric},
};
use tapeway_exchanges::{
    event::{
        Cause, Channel, Events, Flags, Gap, GapClosed, GapEnd, GapId, Level, Note, Quote, Reject, Session, Side,
        TopBook, Trade,
    },
    ids::{FramePos, Micros, Nanos, SymbolIx},
};

use crate::{
    cluster::{Cluster, Flavor, block_on, connect, on_each},
    feeding::{self, START, assert_same, chunk, expected, feed, lane, settings, stored, until, until_committed},
    proxy::{Cut, Proxy},
};

fn prepared(cluster: &Cluster, name: &str) -> Database {
    let database = cluster.database(name);
    block_on(store::prepare(&database)).unwrap();
    database
}

fn stop(handle: Handle, within: Duration) -> Vec<Undone> {
    block_on(async { handle.stop(tokio::time::Instant::now() + within).await })
}

fn states(handle: &Handle) -> Vec<ShardState> {
    handle.observer().read()
}

/// Lanes and their states on the first thread.
fn lane_states(handle: &Handle) -> Vec<String> {
    states(handle)[0].lanes.iter().map(|lane| format!("{} {}", lane.lane, lane.state)).collect()
}

/// The chunks of a lane: `count` chunks of `frames` frames.
fn chunks(nr: u64, count: u64, frames: u64) -> Vec<Events> {
    (0..count).map(|index| chunk(nr, index * frames, frames)).collect()
}

fn watermarks(cluster: &Cluster, database: &str) -> String {
    cluster.psql(
        database,
        "SELECT name, next_pos, rows_total, rejected FROM audit.watermarks JOIN audit.lanes USING (lane_id) ORDER BY 1",
    )
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn full_chunk() -> Events {
    let mut events = Events { symbols: ["AAA", "BBB"].map(Into::into).into(), ..Events::default() };
    events.clear(FramePos::new(0));
    events.received = vec![Nanos(START * 1_000), Nanos(START * 1_000 + 999), Nanos(START * 1_000 + 1_000)];
    let trade = Trade {
        frame: 1,
        symbol: SymbolIx(1),
        side: Side::Unknown,
        flags: Flags(0b11_1111),
        time: Micros(START + 1),
        price: decimal("79228162514264337593543950335"),
        qty: decimal("0.0000000000000000000000000001"),
        trade_id: None,
        trade_ref: Some("a \"ref\"".into()),
    };
    let plain = Trade {
        frame: 0,
        symbol: SymbolIx(0),
        side: Side::Sell,
        flags: Flags::NONE,
        time: Micros(START + 5),
        price: decimal("61800.30"),
        qty: decimal("-0.00"),
        trade_id: Some(i64::MAX),
        trade_ref: None,
    };
    events.trades = vec![plain, trade];
    let level = Level {
        frame: 0,
        symbol: SymbolIx(0),
        side: Side::Sell,
        flags: Flags::SNAPSHOT,
        time: Micros(START - 7),
        price: decimal("0.10"),
        qty: decimal("0"),
        seq: None,
    };
    let later = Level { frame: 2, side: Side::Buy, seq: Some(-1), ..level.clone() };
    events.levels = vec![level, later];
    let quote = Quote {
        frame: 2,
        symbol: SymbolIx(1),
        flags: Flags::VENUE_TIME_BAD,
        time: Micros(START),
        bid: None,
        ask: Some((decimal("3.14"), decimal("10000.0000"))),
        seq: Some(7),
    };
    events.quotes = vec![quote];
    let whole = TopBook {
        frame: 1,
        symbol: SymbolIx(0),
        flags: Flags::NONE,
        time: Micros(START + 2),
        seq: Some(9),
        bids: [(decimal("61800.30"), decimal("0.00000001")), (decimal("61800"), decimal("7922816251426433759"))].into(),
        asks: [].into(),
        bids_exact: Some(1),
        asks_exact: None,
    };
    events.top_books = vec![TopBook { frame: 2, seq: None, asks: whole.bids.clone(), ..whole.clone() }, whole];
    events.top_books.reverse();
    let gap = Gap {
        frame: 1,
        id: GapId { pos: FramePos::new(1), ordinal: 0 },
        symbol: Some(SymbolIx(1)),
        channel: Some(Channel::Trades),
        cause: Cause::Sequence,
        first_missing: Some(10),
        last_missing: Some(12),
        since: Some(Micros(START)),
        until: None,
    };
    let whole = Gap {
        id: GapId { pos: FramePos::new(1), ordinal: 1 },
        symbol: None,
        channel: None,
        cause: Cause::Downtime,
        first_missing: None,
        last_missing: None,
        since: None,
        until: Some(Micros(START + 3)),
        ..gap.clone()
    };
    let closed = GapClosed {
        frame: 2,
        id: gap.id,
        symbol: gap.symbol,
        channel: gap.channel,
        cause: gap.cause,
        end: GapEnd::Healed,
        rows: 3,
        last_missing: None,
        until: Some(Micros(START + 4)),
        detail: Some("2 of 5\0".into()),
    };
    events.notes = vec![
        Note::Session(Session { frame: 0, is_open: true, detail: "ws://venue\0".into() }),
        Note::Gap(gap),
        Note::Gap(whole),
        Note::GapClosed(closed),
        Note::Reject(Reject { frame: 2, reason: "field", detail: "field `p` should be a price".into() }),
        Note::Session(Session { frame: 2, is_open: false, detail: "lost: reset".into() }),
    ];
    events
}

#[test]
fn a_class_of_proof_that_another_version_knew_otherwise_is_made_true_with_the_next_rows() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "proofs");
        let lane = lane("acme.0", 0xabd, 8);
        let [first, second]: [Events; 2] = chunks(0, 2, 40).try_into().unwrap();
        let classes = || cluster.psql("proofs", "SELECT DISTINCT proof, updated_at IS NOT NULL FROM audit.channels");
        let handle = writer::start(&settings(1, 1_000), &database, vec![lane.clone()]).unwrap();
        feed(&lane, first);
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_eq!(classes(), "unprovable|f\n");
        let count = cluster.psql("proofs", "SELECT count(*) FROM audit.channels");
        assert_eq!(count, "12\n", "four symbols, three channels");
        cluster.psql("proofs", "UPDATE audit.channels SET proof = 'chain'");
        let handle = writer::start(&settings(1, 1_000), &database, vec![lane.clone()]).unwrap();
        feed(&lane, second);
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_eq!(classes(), "unprovable|t\n");
    });
}

#[test]
fn every_column_of_every_table_comes_back_as_it_was() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "columns");
        let lane = lane("acme.0", 0xabc, 8);
        let handle = writer::start(&settings(1, 1_000), &database, vec![lane.clone()]).unwrap();
        let events = full_chunk();
        feed(&lane, events.clone());
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        let mut rows = expected("acme.0", [&events]);
        // PostgreSQL knows no negative zero.
        rows.iter_mut().for_each(|row| *row = row.replace("|-0.00|", "|0.00|"));
        assert_same(&stored(cluster, "columns"), &rows);
        assert_eq!(lane.rows.counts(), (7, 7, 0));
        assert_eq!(watermarks(cluster, "columns"), "acme.0|3|7|0\n");
        let sessions = cluster.psql(
            "columns",
            "SELECT frame_pos, (extract(epoch FROM at) * 1000000)::bigint - 1748736000000000, is_open, detail
             FROM audit.sessions ORDER BY 1",
        );
        assert_eq!(sessions, "0|0|t|ws://venue\u{fffd}\n2|1|f|lost: reset\n");
        let rejects = cluster.psql("columns", "SELECT frame_pos, reason, detail FROM audit.rejects");
        assert_eq!(rejects, "2|field|field `p` should be a price\n");
        let gaps = cluster.psql(
            "columns",
            "SELECT frame_pos, ordinal, g.venue, symbol, channel, cause, first_missing, last_missing,
                    (extract(epoch FROM since) * 1000000)::bigint - 1748736000000000,
                    (extract(epoch FROM until) * 1000000)::bigint - 1748736000000000, state, healed_rows,
                    closed_at - detected_at
             FROM audit.gaps g LEFT JOIN market_data.instruments USING (instrument_id) ORDER BY 2",
        );
        assert_eq!(
            gaps,
            "1|0|acme|BBB|trades|sequence|10|12|0|4|healed|3|00:00:00.000001\n1|1|acme|||downtime||||3|open|0|\n"
        );
        let channels = cluster.psql(
            "columns",
            "SELECT symbol, channel, proof, (extract(epoch FROM c.first_seen) * 1000000)::bigint - 1748736000000000,
                    c.updated_at
             FROM audit.channels c JOIN market_data.instruments USING (instrument_id) ORDER BY 1, 2",
        );
        assert_eq!(
            channels,
            "AAA|book|unprovable|0|\nAAA|trades|unprovable|0|\nBBB|quotes|unprovable|1|\nBBB|trades|unprovable|0|\n"
        );
        let report = cluster.psql(
            "columns",
            "SELECT venue, symbol, channel, proof, cause, state, missing, duration, detail, lane
             FROM audit.gap_report ORDER BY ordinal",
        );
        let healed = "acme|BBB|trades|unprovable|sequence|healed||00:00:00.000004|2 of 5\u{fffd}|acme.0";
        assert_eq!(report, format!("{healed}\nacme||||downtime|open||||acme.0\n"));
        let journal = cluster.psql("columns", "SELECT journal_id, venue FROM audit.lanes");
        assert_eq!(journal, "00000000-0000-0000-0000-000000000abc|acme\n");
        let tick = cluster.psql(
            "columns",
            "SELECT exchange, symbol, price, volume, side, trade_id FROM market_data.ticks ORDER BY 2",
        );
        assert_eq!(
            tick,
            "acme|AAA|61800.30|0.00|S|9223372036854775807\n\
             acme|BBB|79228162514264337593543950335|0.0000000000000000000000000001||a \"ref\"\n"
        );
        let candle = cluster.psql("columns", "SELECT open, close, trades FROM aggregates.ohlcv_1d");
        assert_eq!(candle, "61800.30|61800.30|1\n", "the off-book trade makes no candle");
    });
}

#[test]
fn numerics_are_byte_for_byte_what_numeric_send_gives() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let seed = rand::random::<u64>();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut values: Vec<Decimal> =
        (0..=28).flat_map(|scale| [Decimal::new(0, scale), Decimal::MAX, Decimal::MIN]).collect();
    for scale in 0..=28u32 {
        for bits in 1..=96u32 {
            for is_negative in [false, true] {
                let mantissa: i128 = (rng.random::<u128>() >> (128 - bits)).cast_signed();
                values.push(Decimal::from_i128_with_scale(if is_negative { -mantissa } else { mantissa }, scale));
                let round = mantissa - mantissa % 10_000;
                values.push(Decimal::from_i128_with_scale(round, scale));
            }
        }
    }
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    let sent: Vec<Vec<u8>> = block_on(async {
        let database = cluster.database("numerics");
        let connection = connect(&database).await;
        let sql =
            "SELECT numeric_send(value::numeric) FROM unnest($1::text[]) WITH ORDINALITY AS v (value, nr) ORDER BY nr";
        connection.query("send", sql, &[&texts]).await.unwrap().iter().map(|row| row.get(0)).collect()
    });
    assert!(sent.len() > 10_000);
    let mut buf = BytesMut::new();
    for (value, bytes) in values.iter().zip(sent) {
        buf.clear();
        put_numeric(&mut buf, *value);
        assert_eq!(buf[4..], bytes, "SEED={seed} {value}");
        assert_eq!(buf[..4], u32::try_from(bytes.len()).unwrap().to_be_bytes());
    }
}

#[test]
fn many_lanes_on_two_threads_are_written_once_each() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "lanes");
        let lanes: Vec<Arc<Lane>> = (0..5).map(|nr| lane(&format!("acme.{nr}"), nr, 4)).collect();
        let handle = writer::start(&settings(2, 300), &database, lanes.clone()).unwrap();
        let input: Vec<Vec<Events>> = (0..5).map(|nr| chunks(nr, 40, 17 + nr)).collect();
        thread::scope(|scope| {
            for (lane, chunks) in lanes.iter().zip(&input) {
                scope.spawn(move || chunks.iter().for_each(|chunk| feed(lane, chunk.clone())));
            }
        });
        assert_eq!(stop(handle, feeding::PATIENCE), [], "a stop writes what is left");
        let mut rows: Vec<String> =
            lanes.iter().zip(&input).flat_map(|(lane, chunks)| expected(&lane.name, chunks)).collect();
        rows.sort();
        assert_same(&stored(cluster, "lanes"), &rows);
        for lane in &lanes {
            let (received, committed, rejected) = lane.rows.counts();
            assert_eq!((received, 0), (committed, rejected), "received = committed + rejected + pending");
        }
    });
}

#[test]
fn a_new_lane_joins_and_a_removed_one_is_written_to_its_end() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "reload");
        let (first, second) = (lane("acme.0", 1, 64), lane("acme.1", 2, 64));
        let mut handle = writer::start(&settings(1, 100), &database, vec![first.clone()]).unwrap();
        let input = [chunks(0, 20, 10), chunks(1, 20, 10)];
        input[0].iter().for_each(|chunk| feed(&first, chunk.clone()));
        handle.add(second.clone());
        input[1].iter().for_each(|chunk| feed(&second, chunk.clone()));
        handle.remove("acme.0");
        until(|| lane_states(&handle) == ["acme.1 claimed"], || format!("{:?}", states(&handle)));
        assert_eq!(first.progress.committed(), first.progress.appended());
        until_committed(&second);
        assert!(states(&handle)[0].is_database_up);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        let mut rows = expected("acme.0", &input[0]);
        rows.extend(expected("acme.1", &input[1]));
        rows.sort();
        assert_same(&stored(cluster, "reload"), &rows);
    });
}

#[test]
fn nothing_is_committed_before_it_is_on_disk() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "durable");
        let lane = lane("acme.0", 1, 8);
        let handle = writer::start(&settings(1, 100), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 10));
        until_committed(&lane);
        // Appended and queued, but not synced.
        lane.progress.on_append(FramePos::new(20));
        lane.queue.push(chunk(0, 10, 10)).unwrap();
        lane.writer.notify_one();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        until(|| cluster.psql("durable", waiting).trim() == "1", || "no transaction waits".into());
        assert_eq!(lane.progress.committed(), FramePos::new(10));
        assert_eq!(watermarks(cluster, "durable").split('|').nth(1), Some("10"));
        lane.progress.on_sync(FramePos::new(20));
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "durable"), &expected("acme.0", &[chunk(0, 0, 10), chunk(0, 10, 10)]));
    });
}

#[test]
fn a_stop_names_the_lanes_it_left() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "leaving");
    let lane = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 100), &database, vec![lane.clone()]).unwrap();
    feed(&lane, chunk(0, 0, 10));
    until_committed(&lane);
    cluster.stop();
    feed(&lane, chunk(0, 10, 10));
    let left = Undone { shard: 0, lane: "acme.0".into(), committed: FramePos::new(10), appended: FramePos::new(20) };
    assert_eq!(stop(handle, Duration::from_millis(300)), [left]);
    cluster.up();
}

#[test]
fn a_database_that_goes_away_is_noticed_with_nothing_to_write() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "quiet");
    let lane = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 100), &database, vec![lane]).unwrap();
    until(|| states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    cluster.stop();
    until(|| !states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    cluster.up();
    until(|| states(&handle)[0].is_database_up, || format!("{:?}", states(&handle)));
    assert_eq!(stop(handle, feeding::PATIENCE), []);
}

#[test]
fn refused_rows_are_named_and_the_others_flow_on() {
    on_each(|cluster, flavor| {
        let database = prepared(cluster, "poison");
        cluster.psql("poison", "ALTER TABLE market_data.book_deltas ADD CHECK (price <> 666)");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 2_000), &database, vec![lane.clone()]).unwrap();
        let mut input = chunks(0, 12, 50);
        let mut poison = Vec::new();
        input[2].trades[3].trade_ref = Some("nul \0 in it".into());
        poison.push((input[2].pos(input[2].trades[3].frame), "row_refused"));
        input[5].quotes[0].time = Micros(i64::MAX);
        poison.push((input[5].pos(input[5].quotes[0].frame), "time_out_of_range"));
        for row in [0, 7] {
            input[8].levels[row].price = decimal("666");
            poison.push((input[8].pos(input[8].levels[row].frame), "row_refused"));
        }
        input.iter().for_each(|chunk| feed(&lane, chunk.clone()));
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        input[2].trades.remove(3);
        input[5].quotes.remove(0);
        input[8].levels.remove(7);
        input[8].levels.remove(0);
        assert_same(&stored(cluster, "poison"), &expected("acme.0", &input));
        let (received, committed, rejected) = lane.rows.counts();
        assert_eq!((received, rejected), (committed + rejected, 4), "{flavor:?}");
        let rejects = cluster.psql("poison", "SELECT frame_pos, reason FROM audit.rejects ORDER BY 1");
        let named: String = poison.iter().map(|(pos, reason)| format!("{pos}|{reason}\n")).collect();
        assert_eq!(rejects, named);
        let detail = cluster.psql("poison", "SELECT detail FROM audit.rejects ORDER BY frame_pos LIMIT 1");
        assert!(detail.contains("22021") && detail.contains("SYM"), "{detail}");
        assert_eq!(watermarks(cluster, "poison"), format!("acme.0|600|{committed}|4\n"));
    });
}

/// A constraint that nothing passes: were every row looked for by itself, a lane would stand for minutes, batch after batch.
#[test]
fn rows_refused_by_the_ten_thousand_are_named_together_and_cost_seconds() {
    on_each(|cluster, flavor| {
        let database = prepared(cluster, "flood");
        cluster.psql("flood", "ALTER TABLE market_data.book_deltas ADD CHECK (price <> 666)");
        let lane = lane("acme.0", 1, 4_096);
        let mut input = chunks(0, 60, 500);
        let mut bad = 0;
        for chunk in &mut input {
            chunk.levels.iter_mut().for_each(|level| level.price = decimal("666"));
            bad += chunk.levels.len() as u64;
        }
        assert!(bad > 10_000, "only {bad} rows are bad");
        let begun = std::time::Instant::now();
        let handle = writer::start(&settings(1, 100_000), &database, vec![lane.clone()]).unwrap();
        input.iter().for_each(|chunk| feed(&lane, chunk.clone()));
        until_committed(&lane);
        println!("{flavor:?}: {bad} bad rows took {:?}", begun.elapsed());
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        input.iter_mut().for_each(|chunk| chunk.levels.clear());
        assert_same(&stored(cluster, "flood"), &expected("acme.0", &input));
        let (received, committed, rejected) = lane.rows.counts();
        assert_eq!((received, rejected), (committed + rejected, bad), "{flavor:?}");
        assert_eq!(watermarks(cluster, "flood"), format!("acme.0|30000|{committed}|{bad}\n"));
        let count = |sql: &str| cluster.psql("flood", sql).trim().parse::<u64>().unwrap();
        let together = "SELECT count(*) FROM audit.rejects WHERE detail LIKE '% rows of frames %'";
        assert!(count(together) > 0);
        assert!(count("SELECT count(*) FROM audit.rejects") < bad / 2);
        let named =
            "SELECT sum(coalesce(substring(detail FROM '^([0-9]+) rows of frames')::bigint, 1)) FROM audit.rejects";
        assert_eq!(count(named), bad, "each is counted once");
    });
}

#[test]
fn a_database_stopped_like_a_crash_gets_every_row_once() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "crash");
        let lanes = [lane("acme.0", 1, 4), lane("acme.1", 2, 4)];
        let handle = writer::start(&settings(1, 2_000), &database, lanes.to_vec()).unwrap();
        let input = [chunks(0, 300, 100), chunks(1, 300, 100)];
        thread::scope(|scope| {
            for (lane, chunks) in lanes.iter().zip(&input) {
                scope.spawn(move || {
                    for chunk in chunks {
                        feed(lane, chunk.clone());
                        thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            for nr in 1..=3u64 {
                // In mid-COPY or just about: the feeders never pause.
                let mark = FramePos::new(nr * 6_000);
                until(|| lanes[0].progress.committed() >= mark, || lanes[0].progress.committed().to_string());
                cluster.stop();
                cluster.up();
            }
        });
        let reconnects = states(&handle)[0].reconnects;
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert!(reconnects >= 3, "{reconnects}");
        let mut rows = expected("acme.0", &input[0]);
        rows.extend(expected("acme.1", &input[1]));
        rows.sort();
        assert_same(&stored(cluster, "crash"), &rows);
        assert_eq!(lanes[0].rows.counts().0, lanes[0].rows.counts().1);
    });
}

#[test]
fn a_commit_whose_answer_never_came_is_decided_by_the_watermark() {
    on_each(|cluster, _| {
        prepared(cluster, "cut");
        let proxy = Proxy::start(cluster.port);
        let database = cluster.database_at("cut", proxy.port);
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        let input = chunks(0, 60, 20);
        let mut cuts = 0;
        for (nr, chunk) in input.iter().enumerate() {
            if nr % 10 == 5 {
                let kind = if nr % 20 == 5 { Cut::BeforeServer } else { Cut::AfterServer };
                proxy.cut_next(kind);
                cuts += 1;
            }
            feed(&lane, chunk.clone());
            if nr % 10 == 7 {
                until(|| proxy.cuts() == cuts, || "no cut".into());
                until_committed(&lane);
            }
        }
        until_committed(&lane);
        assert_eq!(states(&handle)[0].reconnects, 6);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "cut"), &expected("acme.0", &input));
        let rows = input.iter().map(Events::rows).sum::<usize>() as u64;
        assert_eq!(lane.rows.counts(), (rows, rows, 0));
    });
}

#[test]
fn a_watermark_moved_by_someone_else_fences_the_writer() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "fence");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 100));
        until_committed(&lane);
        // As if frames 100 to 149 had been written by another: the next batch, of frames 100 to 199, must not be.
        cluster.psql("fence", "UPDATE audit.watermarks SET next_pos = 150");
        feed(&lane, chunk(0, 100, 100));
        until_committed(&lane);
        let state = &states(&handle)[0];
        assert!(state.last_error.as_ref().is_some_and(|(_, text)| text.contains("another writer")), "{state:?}");
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "fence"), &expected("acme.0", &[chunk(0, 0, 100), chunk(0, 150, 50)]));
    });
}

#[test]
fn a_journal_older_than_its_watermark_is_not_written_before_it_goes_on_from_there() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "older");
    let before = lane("acme.0", 1, 8);
    let handle = writer::start(&settings(1, 500), &database, vec![before.clone()]).unwrap();
    feed(&before, chunk(0, 0, 100));
    until_committed(&before);
    assert_eq!(stop(handle, feeding::PATIENCE), []);
    let cut = lane("acme.0", 1, 8);
    cut.progress.recovered(FramePos::new(40));
    let handle = writer::start(&settings(1, 500), &database, vec![cut.clone()]).unwrap();
    let said = || states(&handle)[0].lanes.first().and_then(|lane| lane.why.clone());
    until(|| said().is_some(), || format!("{:?}", states(&handle)));
    assert_eq!(lane_states(&handle), ["acme.0 waiting"]);
    let why = said().unwrap();
    assert!(why.contains("100") && why.contains("40"), "{why}");
    feed(&cut, chunk(1, 40, 20));
    assert_eq!(stop(handle, Duration::from_secs(3)).len(), 1, "what cannot be written is named");
    assert_same(&stored(&cluster, "older"), &expected("acme.0", &[chunk(0, 0, 100)]));
}

#[test]
fn a_second_daemon_stands_by_and_goes_on_where_the_first_ended() {
    on_each(|cluster, _| {
        let database = prepared(cluster, "standby");
        let (active, spare) = (lane("acme.0", 1, 64), lane("acme.0", 2, 64));
        let first = writer::start(&settings(1, 500), &database, vec![active.clone()]).unwrap();
        feed(&active, chunk(0, 0, 100));
        until_committed(&active);
        let second = writer::start(&settings(1, 500), &database, vec![spare.clone()]).unwrap();
        // Both hear the venue; only one writes.
        feed(&spare, chunk(0, 0, 120));
        until(|| lane_states(&second) == ["acme.0 standby"], || format!("{:?}", states(&second)));
        assert_eq!(spare.progress.committed(), FramePos::FIRST);
        assert_eq!(stop(first, feeding::PATIENCE), []);
        until_committed(&spare);
        assert_eq!(lane_states(&second), ["acme.0 claimed"]);
        assert_eq!(stop(second, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "standby"), &expected("acme.0", &[chunk(0, 0, 120)]));
        let (received, committed, rejected) = spare.rows.counts();
        assert_eq!(received, committed + rejected, "rows that the first daemon wrote are accounted for");
        let said = cluster.psql("standby", "SELECT reason, detail FROM audit.rejects");
        assert!(
            said.starts_with(&format!("written_elsewhere|{rejected} rows of the frames from 1 to before 100")),
            "{said}"
        );
    });
}

#[test]
fn a_writer_that_starts_before_the_schema_waits_for_it() {
    on_each(|cluster, _| {
        let database = cluster.database("early");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
        feed(&lane, chunk(0, 0, 100));
        until(|| states(&handle)[0].last_error.is_some(), || "no error".into());
        let (_, error) = states(&handle)[0].last_error.clone().unwrap();
        assert!(error.contains("tapeway migrate"), "{error}");
        block_on(store::prepare(&database)).unwrap();
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        assert_same(&stored(cluster, "early"), &expected("acme.0", &[chunk(0, 0, 100)]));
    });
}

#[test]
fn rows_arrive_compressed_unless_a_trigger_forbids_it_which_is_noticed() {
    let Some(cluster) = Cluster::start(Flavor::Timescale) else { return };
    let database = prepared(&cluster, "direct");
    let lane = lane("acme.0", 1, 64);
    let handle = writer::start(&settings(1, 50_000), &database, vec![lane.clone()]).unwrap();
    let input = chunks(0, 10, 5_000);
    input.iter().for_each(|chunk| feed(&lane, chunk.clone()));
    until_committed(&lane);
    assert!(states(&handle)[0].is_direct_compress_on);
    assert_eq!(stop(handle, feeding::PATIENCE), []);
    assert_same(&stored(&cluster, "direct"), &expected("acme.0", &input));
    let compressed =
        "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_schema = 'market_data'";
    assert_eq!(cluster.psql("direct", compressed).trim(), "3");
    cluster.psql(
        "direct",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER nothing BEFORE INSERT ON market_data.trades FOR EACH ROW EXECUTE FUNCTION nothing()",
    );
    block_on(async {
        let connection = connect(&database).await;
        connection.run("on", "SET timescaledb.enable_direct_compress_copy = on").await.unwrap();
        let sink: tokio_postgres::CopyInSink<bytes::Bytes> =
            connection.client.copy_in("COPY market_data.trades FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        let row = "2026-01-01\t2026-01-01\t1\t1\t1\t1\t\\N\t\\N\t0\t1\t1\n";
        futures_util::SinkExt::send(&mut sink, bytes::Bytes::from_static(row.as_bytes())).await.unwrap();
        sink.finish().await.unwrap();
        assert_eq!(connection.notices.direct_compress_warnings(), 1);
    });
}

#[test]
fn a_lane_marked_behind_with_nothing_to_read_is_live_again() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = prepared(&cluster, "behind");
    let lane = lane("acme.0", 1, 64);
    let handle = writer::start(&settings(1, 500), &database, vec![lane.clone()]).unwrap();
    feed(&lane, chunk(0, 0, 100));
    until_committed(&lane);
    lane.is_behind.store(true, Ordering::SeqCst);
    until(|| !lane.is_behind.load(Ordering::SeqCst), || "still behind".into());
    assert_eq!(stop(handle, feeding::PATIENCE), []);
}

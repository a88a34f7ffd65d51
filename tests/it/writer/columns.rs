//! Every column of every table comes back as it was given, and compressed where the server can.

use bytes::BytesMut;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rust_decimal::Decimal;
use tapeway::writer::{self, numeric::put_numeric};
use tapeway_exchanges::{
    event::{
        Cause, Channel, Events, Flags, Gap, GapClosed, GapEnd, GapId, Level, Note, Quote, Reject, Session, Side,
        TopBook, Trade,
    },
    ids::{FramePos, Micros, Nanos, SymbolIx},
};

use super::{chunks, decimal, prepared, states, stop, watermarks};
use crate::{
    cluster::{Cluster, Flavor, block_on, connect, on_each},
    feeding::{self, START, assert_same, expected, feed, lane, settings, stored, until_committed},
};

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

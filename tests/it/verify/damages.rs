//! Damages to a recorded database, each with what it has to be called.

/// One damage.
pub(super) struct Damage {
    pub(super) name: &'static str,
    /// Does it.
    pub(super) sql: String,
    /// The finding's kind.
    pub(super) kind: &'static str,
    /// The finding's table.
    pub(super) place: &'static str,
}

/// What is damaged, and put back.
pub(super) const TABLES: [&str; 9] = [
    "market_data.trades",
    "market_data.book_deltas",
    "market_data.quotes",
    "audit.watermarks",
    "audit.seals",
    "audit.gaps",
    "audit.sessions",
    "audit.rejects",
    "audit.channels",
];

/// A trade in the middle of its instrument's, as conditions that only it meets.
pub(super) const TRADE: &str = "(instrument_id, trade_id) = (SELECT instrument_id, trade_id FROM market_data.trades
    WHERE instrument_id = (SELECT min(instrument_id) FROM market_data.trades)
    ORDER BY trade_id OFFSET 20 LIMIT 1)";

/// A frame with several levels of one instrument.
const FRAME: &str = "(lane_id, frame_pos, instrument_id) = (SELECT lane_id, frame_pos, instrument_id
    FROM market_data.book_deltas WHERE flags & 2 = 0 GROUP BY 1, 2, 3 HAVING count(*) > 2 AND sum(flags & 1) = 1
    ORDER BY 1, 2, 3 OFFSET 10 LIMIT 1)";

/// A level of that frame that is not its last.
pub(super) fn level() -> String {
    format!(
        "{FRAME} AND flags & 1 = 0 AND (side, price) = (SELECT side, price FROM market_data.book_deltas
         WHERE {FRAME} AND flags & 1 = 0 ORDER BY 1, 2 LIMIT 1)"
    )
}

pub(super) const QUOTE: &str = "(lane_id, frame_pos, instrument_id) = (SELECT lane_id, frame_pos, instrument_id
    FROM market_data.quotes ORDER BY 1, 2, 3 OFFSET 10 LIMIT 1)";

const GAP: &str = "(lane_id, frame_pos, ordinal) = (SELECT lane_id, frame_pos, ordinal FROM audit.gaps
    WHERE first_missing IS NOT NULL ORDER BY 1, 2, 3 LIMIT 1)";

const SEAL: &str = "(hour, lane_id, relation, instrument_id) = (SELECT hour, lane_id, relation, instrument_id
    FROM audit.seals WHERE relation = 'book_deltas' ORDER BY 1, 2, 3, 4 LIMIT 1)";

pub(super) fn damages() -> Vec<Damage> {
    let level = level();
    let one = |name, kind, place, sql: String| Damage { name, sql, kind, place };
    let trades = |name, kind, sql: &str| one(name, kind, "trades", sql.replace("TRADE", TRADE));
    let book =
        |name, kind, sql: &str| one(name, kind, "book_deltas", sql.replace("FRAME", FRAME).replace("LEVEL", &level));
    let minute = "\"time\" >= (SELECT min(\"time\") + interval '1 second' FROM market_data.trades)
        AND \"time\" < (SELECT min(\"time\") + interval '61 seconds' FROM market_data.trades)";
    vec![
        trades("a deleted trade", "rows_lost", "DELETE FROM market_data.trades WHERE TRADE"),
        trades("a deleted trade, by its id", "silent_hole", "DELETE FROM market_data.trades WHERE TRADE"),
        trades("a doubled trade", "doubled_trade", "INSERT INTO market_data.trades SELECT * FROM market_data.trades WHERE TRADE"),
        trades("a doubled trade, by its seal", "rows_surplus", "INSERT INTO market_data.trades SELECT * FROM market_data.trades WHERE TRADE"),
        trades("an altered price", "rows_altered", "UPDATE market_data.trades SET price = price + 0.01 WHERE TRADE"),
        trades("a price with another zero", "rows_altered", "UPDATE market_data.trades SET price = (price::text || CASE WHEN price::text ~ '[.]' THEN '0' ELSE '.0' END)::numeric WHERE TRADE"),
        trades("an altered quantity", "rows_altered", "UPDATE market_data.trades SET qty = qty * 2 WHERE TRADE"),
        trades("an altered side", "rows_altered", "UPDATE market_data.trades SET side = -side WHERE TRADE"),
        trades("an altered time", "rows_altered", "UPDATE market_data.trades SET \"time\" = \"time\" + interval '1 microsecond' WHERE TRADE"),
        trades("an altered receive time", "rows_altered", "UPDATE market_data.trades SET recv_time = recv_time + interval '1 microsecond' WHERE TRADE"),
        trades("altered flags", "rows_altered", "UPDATE market_data.trades SET flags = flags # 32 WHERE TRADE"),
        trades("an altered trade id", "rows_altered", "UPDATE market_data.trades SET trade_id = trade_id + 1000000 WHERE TRADE"),
        trades("another frame's trade", "rows_altered", "UPDATE market_data.trades SET frame_pos = frame_pos - 1 WHERE TRADE"),
        trades("a trade of another instrument", "rows_surplus", "UPDATE market_data.trades SET instrument_id = (SELECT max(instrument_id) FROM market_data.trades) WHERE TRADE"),
        trades("a trade of no instrument", "unknown_instrument", "UPDATE market_data.trades SET instrument_id = 999999 WHERE TRADE"),
        trades("a trade of no lane", "unknown_lane", "UPDATE market_data.trades SET lane_id = 999999, trade_id = trade_id WHERE TRADE"),
        trades("a trade of another lane", "rows_surplus", "UPDATE market_data.trades SET lane_id = (SELECT max(lane_id) FROM audit.lanes) WHERE TRADE"),
        trades("a trade beyond the watermark", "beyond_watermark", "UPDATE market_data.trades SET frame_pos = 1000000000 WHERE TRADE"),
        trades("all trades of a minute deleted", "rows_lost", &format!("DELETE FROM market_data.trades WHERE {minute}")),
        book("a deleted level inside a frame", "rows_lost", "DELETE FROM market_data.book_deltas WHERE LEVEL"),
        book("a deleted last level", "frame_without_end", "DELETE FROM market_data.book_deltas WHERE FRAME AND flags & 1 = 1"),
        book("a doubled level", "rows_surplus", "INSERT INTO market_data.book_deltas SELECT * FROM market_data.book_deltas WHERE LEVEL"),
        book("an altered level", "rows_altered", "UPDATE market_data.book_deltas SET qty = qty + 1 WHERE LEVEL"),
        book("a removed level as a level", "rows_altered", "UPDATE market_data.book_deltas SET seq = coalesce(seq, 0) + 1 WHERE LEVEL"),
        book("a whole frame deleted", "rows_lost", "DELETE FROM market_data.book_deltas WHERE FRAME"),
        book("a whole minute deleted", "rows_lost", &format!("DELETE FROM market_data.book_deltas WHERE {minute}")),
        one("a deleted quote", "rows_lost", "quotes", format!("DELETE FROM market_data.quotes WHERE {QUOTE}")),
        one("an emptied quote", "rows_altered", "quotes", format!("UPDATE market_data.quotes SET bid_price = NULL WHERE {QUOTE}")),
        one("a deleted gap", "audit_altered", "gaps", format!("DELETE FROM audit.gaps WHERE {GAP}")),
        one("a gap said to be healed", "audit_altered", "gaps", format!("UPDATE audit.gaps SET state = CASE state WHEN 'healed' THEN 'open' ELSE 'healed' END WHERE {GAP}")),
        one("a gap of other ids", "audit_altered", "gaps", format!("UPDATE audit.gaps SET first_missing = first_missing + 1 WHERE {GAP}")),
        one("a deleted session", "audit_altered", "sessions", "DELETE FROM audit.sessions WHERE (lane_id, frame_pos) = (SELECT lane_id, frame_pos FROM audit.sessions ORDER BY 1, 2 LIMIT 1)".into()),
        one("a reject made up", "audit_altered", "rejects", "INSERT INTO audit.rejects SELECT min(lane_id), 0, 'made_up', 'made up', now() FROM audit.lanes".into()),
        one("a watermark moved back", "watermark_moved", "watermarks", "UPDATE audit.watermarks SET next_pos = next_pos - 1 WHERE lane_id = (SELECT min(lane_id) FROM audit.watermarks)".into()),
        one("a watermark moved on", "watermark_moved", "watermarks", "UPDATE audit.watermarks SET next_pos = next_pos + 1 WHERE lane_id = (SELECT min(lane_id) FROM audit.watermarks)".into()),
        one("a watermark's count altered", "watermark_moved", "watermarks", "UPDATE audit.watermarks SET rows_total = rows_total + 1 WHERE lane_id = (SELECT min(lane_id) FROM audit.watermarks)".into()),
        one("an altered seal", "rows_altered", "book_deltas", format!("UPDATE audit.seals SET hash_low = hash_low + 1 WHERE {SEAL}")),
        one("a deleted seal", "rows_surplus", "book_deltas", format!("DELETE FROM audit.seals WHERE {SEAL}")),
        one("rows and their seal deleted", "watermark_moved", "watermarks", format!(
            "WITH gone AS (DELETE FROM audit.seals WHERE {SEAL} RETURNING lane_id, instrument_id, hour)
             DELETE FROM market_data.book_deltas b USING gone g WHERE b.lane_id = g.lane_id
             AND b.instrument_id = g.instrument_id AND date_trunc('hour', b.\"time\", 'UTC') = g.hour"
        )),
    ]
}

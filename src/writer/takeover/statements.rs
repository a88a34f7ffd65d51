//! What the database is asked at a seam.

pub(super) const OPEN: &str = "
SELECT instrument_id, frame_pos, ordinal FROM audit.gaps
WHERE lane_id = $1 AND ordinal >= $2 AND state = 'open' AND channel = 'book' AND instrument_id IS NOT NULL";

/// When the lane last went on without the end of its journal.
pub(super) const LOST: &str = "
SELECT max(since) FROM audit.gaps WHERE lane_id = $1 AND ordinal >= $2 AND instrument_id IS NULL";

pub(super) const LAST_TRADES: &str = "
SELECT asked.id, last.trade_id, last.time
FROM unnest($1::int[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT trade_id, time FROM market_data.trades
    WHERE instrument_id = asked.id AND (lane_id <> $2 OR $3) AND trade_id IS NOT NULL
    ORDER BY time DESC, trade_id DESC LIMIT 1) AS last";

pub(super) const LAST_BOOKS: &str = "
SELECT asked.id, last.seq, last.time, (
    SELECT count(DISTINCT frame_pos) FROM market_data.book_deltas AS twin
    WHERE twin.instrument_id = asked.id AND twin.time = last.time AND twin.lane_id = last.lane_id AND twin.flags & 2 = 0)
FROM unnest($1::int[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT seq, time, lane_id FROM market_data.book_deltas
    WHERE instrument_id = asked.id AND (lane_id <> $2 OR $3) AND flags & 2 = 0
    ORDER BY time DESC, seq DESC NULLS LAST LIMIT 1) AS last";

pub(super) const LAST_QUOTES: &str = "
SELECT asked.id, last.seq, last.time, (
    SELECT count(DISTINCT frame_pos) FROM market_data.quotes AS twin
    WHERE twin.instrument_id = asked.id AND twin.time = last.time AND twin.lane_id = last.lane_id)
FROM unnest($1::int[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT seq, time, lane_id FROM market_data.quotes
    WHERE instrument_id = asked.id AND (lane_id <> $2 OR $3)
    ORDER BY time DESC, seq DESC NULLS LAST LIMIT 1) AS last";

pub(super) const LAST_TOPS: &str = "
SELECT asked.id, NULL::bigint, last.time, 1::bigint
FROM unnest($1::int[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT time FROM market_data.order_books
    WHERE instrument_id = asked.id AND (lane_id <> $2 OR $3)
    ORDER BY time DESC LIMIT 1) AS last";

/// Of a gap that one owner could not heal, trades may have come by another: it is healed when all have, and counts them
/// otherwise.
pub(super) const RECONCILE: &str = "
UPDATE audit.gaps AS gap
SET state = CASE WHEN held.is_whole THEN 'healed' ELSE gap.state END,
    detail = CASE WHEN held.is_whole THEN 'the owners of the lane have all of them between them' ELSE gap.detail END,
    closed_at = coalesce(gap.closed_at, now()), healed_rows = held.rows
FROM (
    SELECT lane_id, frame_pos, ordinal, found.rows, found.rows = last_missing - first_missing + 1 AS is_whole
    FROM audit.gaps AS missed
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT trade_id) AS rows FROM market_data.trades
        WHERE instrument_id = missed.instrument_id AND trade_id BETWEEN missed.first_missing AND missed.last_missing
          AND time BETWEEN missed.since - interval '1 s' AND missed.until + interval '1 s') AS found
    WHERE channel = 'trades' AND state IN ('open', 'unhealable') AND lane_id IN (
        SELECT owner.lane_id FROM audit.lanes AS own JOIN audit.lanes AS owner USING (venue, name) WHERE own.lane_id = $1)
      AND detected_at > $2
    ORDER BY detected_at DESC LIMIT 512
) AS held
WHERE gap.lane_id = held.lane_id AND gap.frame_pos = held.frame_pos AND gap.ordinal = held.ordinal
  AND (held.is_whole OR (gap.state = 'unhealable' AND gap.healed_rows <> held.rows))";

pub(super) const STORED: &str = "
SELECT DISTINCT instrument_id, trade_id FROM market_data.trades
WHERE instrument_id = ANY($1) AND trade_id = ANY($2) AND time BETWEEN $3 AND $4 AND (lane_id <> $5 OR $6)";

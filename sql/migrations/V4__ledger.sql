-- Purpose: the gap ledger complete: what proof each channel allows, stretches that nothing can prove; and whole books
-- at moments, so that a book as of any time is one query.
-- Lock: ACCESS EXCLUSIVE on audit.gaps for the new check. Duration: milliseconds, and one pass over audit.gaps.

-- open        something is missing, and it may still be had
-- healed      everything that was missing came after all; or nothing was missing
-- resynced    the book is right again; the changes in between are gone
-- unhealable  missing for good; detail says why
-- unprovable  the stretch is over, and nothing the venue sends tells whether something was missed in it
ALTER TABLE audit.gaps DROP CONSTRAINT gaps_state_check;
ALTER TABLE audit.gaps ADD CONSTRAINT gaps_state_check
    CHECK (state IN ('open', 'healed', 'resynced', 'unhealable', 'unprovable'));

-- What an instrument's channel allows to be proven. Written with the first rows of the channel.
-- contiguous     ids count up by one: what is missing is known, id by id
-- chain          each message names the one before it: that something is missing is known, and between which ids
-- checksum       the venue says what the whole is: that something is missing is known after the next message
-- snapshot_only  each message is the whole: nothing is owed but what happened between two
-- unprovable     nothing the venue sends shows that something is missing
CREATE TABLE audit.channels (
    instrument_id int NOT NULL REFERENCES market_data.instruments,
    channel       text NOT NULL,
    proof         text NOT NULL CHECK (proof IN ('contiguous', 'chain', 'checksum', 'snapshot_only', 'unprovable')),
    first_seen    timestamptz NOT NULL,    -- receive time
    updated_at    timestamptz,             -- when another version of tapeway changed the class
    PRIMARY KEY (instrument_id, channel)
);

-- Gaps with names, and how long they are.
CREATE VIEW audit.gap_report AS
SELECT g.venue,
       i.symbol,
       g.channel,
       c.proof,
       g.cause,
       g.state,
       g.first_missing,
       g.last_missing,
       CASE WHEN c.proof = 'contiguous' THEN g.last_missing - g.first_missing + 1 END AS missing, -- ids
       g.healed_rows,
       g.since,
       g.until,
       g.until - g.since AS duration,      -- by the venue's clock
       g.detail,
       g.detected_at,
       g.closed_at,
       l.name AS lane,
       g.frame_pos,
       g.ordinal,
       g.instrument_id
FROM audit.gaps g
JOIN audit.lanes l USING (lane_id)
LEFT JOIN market_data.instruments i USING (instrument_id)
LEFT JOIN audit.channels c ON c.instrument_id = g.instrument_id AND c.channel = g.channel;

-- Gaps of one instrument by when they began: whether a book was whole at a moment.
CREATE INDEX gaps_instrument_since ON audit.gaps (instrument_id, since);
-- Those that concern every instrument of a lane; they are few.
CREATE INDEX gaps_of_lanes ON audit.gaps (lane_id, frame_pos) WHERE instrument_id IS NULL;

DO $$
DECLARE
    -- As the tables of V2: the layout is chosen once.
    is_timescale boolean := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND (SELECT relkind <> 'p' FROM pg_class WHERE oid = 'market_data.trades'::regclass);
    storage text := CASE WHEN is_timescale THEN '' ELSE ' PARTITION BY RANGE (time)' END;
BEGIN
    -- The best levels of a whole book, as it was before everything that came at or after `time`, a moment of a grid in
    -- the venue's time. `frame_pos` is the first frame whose changes are not in it. Prices and quantities best first.
    -- bids_exact, asks_exact: so many, from the best, have no other between them that is not known; NULL: these are all
    -- there are.
    EXECUTE 'CREATE TABLE market_data.order_books (
        time          timestamptz NOT NULL,
        recv_time     timestamptz NOT NULL,
        instrument_id int NOT NULL,
        seq           bigint,
        bid_prices    numeric[] NOT NULL,
        bid_qtys      numeric[] NOT NULL,
        ask_prices    numeric[] NOT NULL,
        ask_qtys      numeric[] NOT NULL,
        bids_exact    int,
        asks_exact    int,
        flags         smallint NOT NULL,
        lane_id       int NOT NULL,
        frame_pos     bigint NOT NULL)' || storage;
    IF is_timescale THEN
        PERFORM create_hypertable('market_data.order_books'::regclass, by_range('time', interval '1 day'),
            create_default_indexes => false);
    END IF;
    CREATE INDEX order_books_instrument_time ON market_data.order_books (instrument_id, time DESC);
END
$$;

-- The book of an instrument as it was at a moment, best levels first; nothing if it was not whole then, or is not known.
--
-- Taken from the newest whole book at or before the moment (a row of order_books, or the venue's own snapshot), with
-- every later change up to the moment. A change counts by the venue's time; of a snapshot by HTTP (binance) those with a
-- newer id count, also ones received before it.
--
-- side       1 bid, -1 ask
-- level      1 for the best
-- is_exact   no level that is not known can lie before it; with `only_exact` no others are given
-- as_of      time of the last change in it, by the venue's clock
CREATE FUNCTION market_data.book_at(
    instrument int, at timestamptz, depth int DEFAULT 20, only_exact boolean DEFAULT true)
RETURNS TABLE (side smallint, level int, price numeric, qty numeric, is_exact boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    base   market_data.order_books; -- where to begin
    snap   record;                  -- a newer snapshot of the venue's, if any
    is_cut boolean;                 -- the venue does not say which levels fall out of the depth that it keeps
    late   CONSTANT interval := '10 s';  -- how far a change may be behind the order of the venue's times
    run    CONSTANT interval := '2 min'; -- how long before a snapshot by HTTP the deltas that lead up to it may lie
    quiet  CONSTANT interval := '1 day'; -- how old the last thing seen before a gap, or a first snapshot, may be
BEGIN
    SELECT o.* INTO base FROM market_data.order_books o
    WHERE o.instrument_id = instrument AND o.time <= at ORDER BY o.time DESC, o.recv_time DESC LIMIT 1;
    SELECT d.lane_id, d.frame_pos, d.seq, min(d.time) AS time, min(d.recv_time) AS recv_time INTO snap
    FROM market_data.book_deltas d
    WHERE d.instrument_id = instrument AND d.time >= coalesce(base.time - late, at - quiet) AND d.time <= at
      AND d.flags & 10 = 2 -- SNAPSHOT and not AFTER_GAP
      AND (base.lane_id IS NULL OR d.recv_time > base.recv_time)
    GROUP BY d.lane_id, d.frame_pos, d.seq
    ORDER BY recv_time DESC, d.frame_pos DESC LIMIT 1;
    IF snap.time IS NOT NULL THEN
        base := NULL;
        base.time := snap.time;
        base.lane_id := snap.lane_id;
        base.frame_pos := snap.frame_pos;
        base.seq := snap.seq;
    ELSIF base.time IS NULL THEN
        RETURN;
    END IF;
    -- A gap that was found after it and began before the moment: not whole.
    IF EXISTS (SELECT FROM audit.gaps g
               WHERE g.instrument_id = instrument AND (g.channel = 'book' OR g.channel IS NULL)
                 AND g.lane_id = base.lane_id AND g.frame_pos > base.frame_pos
                 AND g.since >= base.time - quiet AND g.since < at)
       OR EXISTS (SELECT FROM audit.gaps g
                  WHERE g.instrument_id = instrument AND (g.channel = 'book' OR g.channel IS NULL)
                    AND g.lane_id = base.lane_id AND g.frame_pos > base.frame_pos
                    AND g.since IS NULL AND g.detected_at < at)
       OR EXISTS (SELECT FROM audit.gaps g
                  WHERE g.instrument_id IS NULL AND (g.channel = 'book' OR g.channel IS NULL)
                    AND g.lane_id = base.lane_id AND g.frame_pos > base.frame_pos
                    AND coalesce(g.since, g.detected_at) < at) THEN
        RETURN;
    END IF;
    SELECT i.venue = 'kraken' INTO is_cut FROM market_data.instruments i WHERE i.instrument_id = instrument;
    RETURN QUERY
    WITH changes AS MATERIALIZED (
        SELECT d.side, d.price, d.qty, d.time, d.seq, d.flags,
               CASE WHEN d.frame_pos = snap.frame_pos THEN -1 ELSE d.frame_pos END AS pos
        FROM market_data.book_deltas d
        WHERE d.instrument_id = instrument AND d.lane_id = base.lane_id
          AND d.time >= base.time - CASE WHEN snap.seq IS NULL THEN late ELSE run END AND d.time <= at
          AND CASE WHEN snap.time IS NULL THEN d.frame_pos >= base.frame_pos
                   WHEN d.frame_pos = snap.frame_pos THEN d.flags & 2 <> 0
                   WHEN snap.seq IS NOT NULL AND d.seq IS NOT NULL AND d.frame_pos < snap.frame_pos
                       THEN d.seq > snap.seq AND d.flags & 2 = 0
                   ELSE d.frame_pos > snap.frame_pos AND NOT coalesce(d.flags & 8 <> 0 AND d.seq <= snap.seq, false) END
    ), began AS (
        SELECT 1::smallint AS side, b.price, b.qty, b.nr <= base.bids_exact AS is_exact
        FROM unnest(base.bid_prices, base.bid_qtys) WITH ORDINALITY AS b (price, qty, nr)
        UNION ALL
        SELECT (-1)::smallint, a.price, a.qty, a.nr <= base.asks_exact
        FROM unnest(base.ask_prices, base.ask_qtys) WITH ORDINALITY AS a (price, qty, nr)
        UNION ALL
        SELECT c.side, c.price, c.qty, true FROM changes c WHERE c.pos = -1
    ), newest AS (
        SELECT DISTINCT ON (l.side, l.price) l.side, l.price, l.qty
        FROM (SELECT b.side, b.price, b.qty, -1::bigint AS pos FROM began b
              UNION ALL SELECT c.side, c.price, c.qty, c.pos FROM changes c WHERE c.pos >= 0) l
        ORDER BY l.side, l.price, l.pos DESC
    ), bound AS ( -- Of each side: whether something is not known, and the exact levels of the beginning, best first.
        SELECT s.side,
               snap.time IS NOT NULL OR CASE s.side WHEN 1 THEN base.bids_exact ELSE base.asks_exact END IS NOT NULL
                   AS is_bound,
               ARRAY(SELECT b.price FROM began b WHERE b.side = s.side AND b.is_exact ORDER BY b.price * -s.side) AS prices,
               -- Each price that came anew above the last may have pushed one out.
               CASE WHEN is_cut THEN (SELECT count(DISTINCT c.price) FROM changes c
                                      WHERE c.side = s.side AND c.pos >= 0 AND c.qty <> 0
                                        AND c.price * -s.side < (SELECT max(b.price * -s.side) FROM began b
                                                                 WHERE b.side = s.side AND b.is_exact)
                                        AND NOT EXISTS (SELECT FROM began b WHERE b.side = s.side AND b.price = c.price))
                    ELSE 0 END AS pushed
        FROM (VALUES (1::smallint), ((-1)::smallint)) s (side)
    ), ranked AS (
        SELECT n.side, row_number() OVER (PARTITION BY n.side ORDER BY n.price * -n.side)::int AS level, n.price, n.qty,
               NOT b.is_bound OR coalesce(
                   n.price * -n.side <= b.prices[cardinality(b.prices) - b.pushed] * -n.side, false) AS is_exact
        FROM newest n JOIN bound b USING (side) WHERE n.qty <> 0
    )
    SELECT r.side, r.level, r.price, r.qty, r.is_exact, (SELECT coalesce(max(c.time), base.time) FROM changes c)
    FROM ranked r
    WHERE r.level <= depth AND (r.is_exact OR NOT only_exact)
      -- Changes that the recorder itself did not vouch for.
      AND NOT EXISTS (SELECT FROM changes c WHERE c.flags & 8 <> 0 AND c.pos > base.frame_pos
                          AND NOT coalesce(c.seq <= base.seq, false))
    ORDER BY r.side DESC, r.level;
END
$$;

-- The same by names.
CREATE FUNCTION market_data.book_at(
    venue text, symbol text, at timestamptz, depth int DEFAULT 20, only_exact boolean DEFAULT true)
RETURNS TABLE (side smallint, level int, price numeric, qty numeric, is_exact boolean, as_of timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT b.* FROM market_data.instruments i,
        market_data.book_at(i.instrument_id, book_at.at, book_at.depth, book_at.only_exact) b
    WHERE i.venue = book_at.venue AND i.symbol = book_at.symbol
$$;

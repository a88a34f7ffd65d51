-- Purpose: book_at() in a third of the time. A bound that is computed inside a condition is not asked of the columnstore's batches,
-- so the search for a newer snapshot unpacked the instrument's whole day: now it is a variable. Of each level the newest
-- change is found by hash and then fetched, where all changes were sorted; reading them twice costs less than keeping them.
-- Whole books are looked for nearby first, so that few chunks are planned for.
-- Merge joins are off, because they would sort all changes again. Volatile, so that each of its statements sees what is there once
-- it has its locks: a stable function sees what was there when its caller began, and of a chunk that was recompressed in between
-- that is nothing, no rows and so a book without its changes.
-- Lock: none on existing tables. Duration: milliseconds.
CREATE OR REPLACE FUNCTION market_data.book_at(
    instrument int, at timestamptz, depth int DEFAULT 20, only_exact boolean DEFAULT true)
RETURNS TABLE (side smallint, level int, price numeric, qty numeric, is_exact boolean, as_of timestamptz)
LANGUAGE plpgsql VOLATILE SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    base   market_data.order_books; -- where to begin
    snap   record;                  -- a newer snapshot of the venue's, if any
    is_cut boolean;                 -- the venue does not say which levels fall out of the depth that it keeps
    since  timestamptz;             -- changes count from this time on ...
    first  bigint;                  -- ... and from this frame on
    began  timestamptz;             -- newest time in that snapshot
    age    interval;                -- how far back a whole book is looked for
    near   CONSTANT interval := '1 min'; -- how old a whole book is at most, while books are recorded
    ever   CONSTANT interval := '100 years';
    late   CONSTANT interval := '10 s';  -- how far a change may be behind the order of the venue's times
    run    CONSTANT interval := '2 min'; -- how long before a snapshot by HTTP the deltas that lead up to it may lie
    quiet  CONSTANT interval := '1 day'; -- how old the last thing seen before a gap, or a first snapshot, may be
BEGIN
    -- Its time first: books are long, and to find the newest all of many would be unpacked.
    FOREACH age IN ARRAY ARRAY[near, quiet, ever] LOOP
        SELECT o.time INTO since FROM market_data.order_books o
        WHERE o.instrument_id = instrument AND o.time <= at AND o.time > at - age ORDER BY o.time DESC LIMIT 1;
        EXIT WHEN since IS NOT NULL;
    END LOOP;
    IF since IS NOT NULL THEN
        SELECT o.* INTO base FROM market_data.order_books o
        WHERE o.instrument_id = instrument AND o.time = since ORDER BY o.recv_time DESC LIMIT 1;
    END IF;
    since := coalesce(base.time - late, at - quiet);
    SELECT d.lane_id, d.frame_pos, d.seq, min(d.time) AS time, min(d.recv_time) AS recv_time INTO snap
    FROM market_data.book_deltas d
    WHERE d.instrument_id = instrument AND d.time >= since AND d.time <= at
      AND d.flags & 10 = 2 -- SNAPSHOT and not AFTER_GAP
      AND d.flags >= 2     -- says no more, but is asked of whole columns
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
    since := base.time - CASE WHEN snap.seq IS NULL THEN late ELSE run END;
    first := CASE WHEN snap.seq IS NULL THEN base.frame_pos ELSE 0 END;
    IF snap.time IS NOT NULL THEN
        SELECT coalesce(array_agg(l.price) FILTER (WHERE l.side = 1), '{}'),
               coalesce(array_agg(l.qty) FILTER (WHERE l.side = 1), '{}'),
               coalesce(array_agg(l.price) FILTER (WHERE l.side = -1), '{}'),
               coalesce(array_agg(l.qty) FILTER (WHERE l.side = -1), '{}'),
               max(l.time)
        INTO base.bid_prices, base.bid_qtys, base.ask_prices, base.ask_qtys, began
        FROM (SELECT DISTINCT ON (d.side, d.price) d.side, d.price, d.qty, d.time
              FROM market_data.book_deltas d
              WHERE d.instrument_id = instrument AND d.lane_id = base.lane_id
                AND d.time >= since AND d.time <= at AND d.frame_pos = base.frame_pos AND d.flags & 2 <> 0
              ORDER BY d.side, d.price, d.time DESC) l;
        base.bids_exact := cardinality(base.bid_prices);
        base.asks_exact := cardinality(base.ask_prices);
    END IF;
    RETURN QUERY
    WITH changes AS NOT MATERIALIZED (
        SELECT d.side, d.price, d.qty, d.time, d.frame_pos AS pos,
               -- The recorder itself does not vouch for it.
               d.flags & 8 <> 0 AND d.frame_pos > base.frame_pos AND NOT coalesce(d.seq <= base.seq, false) AS is_doubtful
        FROM market_data.book_deltas d
        WHERE d.instrument_id = instrument AND d.lane_id = base.lane_id
          AND d.time >= since AND d.time <= at AND d.frame_pos >= first
          AND (snap.time IS NULL
               OR CASE WHEN snap.seq IS NOT NULL AND d.seq IS NOT NULL AND d.frame_pos < snap.frame_pos
                           THEN d.seq > snap.seq AND d.flags & 2 = 0
                       ELSE d.frame_pos > snap.frame_pos
                           AND NOT coalesce(d.flags & 8 <> 0 AND d.seq <= snap.seq, false) END)
    ), touched AS MATERIALIZED ( -- By hash: levels are few, and changes of them many.
        SELECT c.side, c.price, max(c.pos) AS pos, max(c.time) AS time, bool_or(c.is_doubtful) AS is_doubtful,
               bool_or(is_cut AND c.qty <> 0) AS was_set
        FROM changes c GROUP BY c.side, c.price
    ), levels AS MATERIALIZED ( -- Of the beginning.
        SELECT 1::smallint AS side, b.price, b.qty, b.nr <= base.bids_exact AS is_exact
        FROM unnest(base.bid_prices, base.bid_qtys) WITH ORDINALITY AS b (price, qty, nr)
        UNION ALL
        SELECT (-1)::smallint, a.price, a.qty, a.nr <= base.asks_exact
        FROM unnest(base.ask_prices, base.ask_qtys) WITH ORDINALITY AS a (price, qty, nr)
    ), newest AS (
        SELECT b.side, b.price, b.qty FROM levels b
        WHERE NOT EXISTS (SELECT FROM touched t WHERE t.side = b.side AND t.price = b.price)
        UNION ALL
        (SELECT DISTINCT ON (c.side, c.price) c.side, c.price, c.qty -- a frame may have a level twice
         FROM changes c JOIN touched t ON t.pos = c.pos AND t.side = c.side AND t.price = c.price
         ORDER BY c.side, c.price, c.time DESC)
    ), bound AS MATERIALIZED ( -- Of each side: whether something is not known, and the exact levels of the beginning, best first.
        SELECT s.side,
               CASE s.side WHEN 1 THEN base.bids_exact ELSE base.asks_exact END IS NOT NULL AS is_bound,
               ARRAY(SELECT b.price FROM levels b WHERE b.side = s.side AND b.is_exact ORDER BY b.price * -s.side) AS prices,
               -- Each price that came anew above the last may have pushed one out.
               CASE WHEN is_cut THEN (SELECT count(*) FROM touched t
                                      WHERE t.side = s.side AND t.was_set AND t.price * -s.side < w.price
                                        AND NOT EXISTS (SELECT FROM levels b WHERE b.side = s.side AND b.price = t.price))
                    ELSE 0 END AS pushed
        FROM (VALUES (1::smallint), ((-1)::smallint)) s (side),
             LATERAL (SELECT max(b.price * -s.side) AS price FROM levels b WHERE b.side = s.side AND b.is_exact) w
    ), ranked AS (
        SELECT n.side, row_number() OVER (PARTITION BY n.side ORDER BY n.price * -n.side)::int AS level, n.price, n.qty,
               NOT b.is_bound OR coalesce(
                   n.price * -n.side <= b.prices[cardinality(b.prices) - b.pushed] * -n.side, false) AS is_exact
        FROM newest n JOIN bound b USING (side) WHERE n.qty <> 0
    )
    SELECT r.side, r.level, r.price, r.qty, r.is_exact, (SELECT coalesce(greatest(max(t.time), began), base.time) FROM touched t)
    FROM ranked r
    WHERE r.level <= depth AND (r.is_exact OR NOT only_exact)
      AND NOT EXISTS (SELECT FROM touched t WHERE t.is_doubtful)
    ORDER BY r.side DESC, r.level;
END
$$;

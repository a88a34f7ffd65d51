-- Purpose: book_at() by sets instead of row by row: of a book that the venue cuts (Kraken) each change was held against every level
-- it began with, seconds for a busy book.
-- Lock: none on existing tables. Duration: milliseconds.
CREATE OR REPLACE FUNCTION market_data.book_at(
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
    ), bound AS MATERIALIZED ( -- Once, not for each level. Of each side: whether something is not known, and the exact levels of the beginning, best first.
        SELECT s.side,
               snap.time IS NOT NULL OR CASE s.side WHEN 1 THEN base.bids_exact ELSE base.asks_exact END IS NOT NULL
                   AS is_bound,
               ARRAY(SELECT b.price FROM began b WHERE b.side = s.side AND b.is_exact ORDER BY b.price * -s.side) AS prices,
               -- Each price that came anew above the last may have pushed one out.
               CASE WHEN is_cut THEN (SELECT count(*) FROM (
                                          SELECT c.price FROM changes c
                                          WHERE c.side = s.side AND c.pos >= 0 AND c.qty <> 0
                                            AND c.price * -s.side < w.price
                                          EXCEPT
                                          SELECT b.price FROM began b WHERE b.side = s.side) anew)
                    ELSE 0 END AS pushed
        FROM (VALUES (1::smallint), ((-1)::smallint)) s (side),
             LATERAL (SELECT max(b.price * -s.side) AS price FROM began b WHERE b.side = s.side AND b.is_exact) w
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

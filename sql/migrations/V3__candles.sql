-- Purpose: candles of 1m, 5m, 15m, 30m, 1h, 4h and 1d, each level built from the one below it.
-- On TimescaleDB: continuous aggregates, created empty (WITH NO DATA) so that this fits in a transaction; they answer
-- for what is not yet materialized too. On plain PostgreSQL: views.
-- Trades outside the order book (flag OFF_BOOK, 32) make no candle. Trades of one moment are ordered by trade id, so
-- that open and close are the venue's.
-- Lock: SHARE ROW EXCLUSIVE on market_data.trades. Duration: milliseconds.
CREATE SCHEMA IF NOT EXISTS aggregates;

DO $$
DECLARE
    is_timescale boolean := (SELECT relkind = 'r' FROM pg_class WHERE oid = 'market_data.trades'::regclass);
    head text := CASE WHEN is_timescale
        THEN 'CREATE MATERIALIZED VIEW aggregates.%I WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS '
        ELSE 'CREATE VIEW aggregates.%I AS ' END;
    bucket text := CASE WHEN is_timescale
        THEN 'time_bucket(interval %L, %I)'
        ELSE 'date_bin(interval %L, %I, timestamptz ''2000-01-03 00:00:00+00'')' END;
    tail text := CASE WHEN is_timescale THEN ' WITH NO DATA' ELSE '' END;
    names text[] := ARRAY['ohlcv_1m', 'ohlcv_5m', 'ohlcv_15m', 'ohlcv_30m', 'ohlcv_1h', 'ohlcv_4h', 'ohlcv_1d'];
    widths text[] := ARRAY['1 minute', '5 minutes', '15 minutes', '30 minutes', '1 hour', '4 hours', '1 day'];
BEGIN
    EXECUTE format(head, names[1]) || 'SELECT instrument_id, ' || format(bucket, widths[1], 'time') || ' AS bucket,
        (array_agg(price ORDER BY time, trade_id, frame_pos))[1] AS open,
        max(price) AS high,
        min(price) AS low,
        (array_agg(price ORDER BY time DESC, trade_id DESC, frame_pos DESC))[1] AS close,
        sum(qty) AS volume,
        sum(price * qty) AS quote_volume,
        count(*) AS trades
        FROM market_data.trades WHERE flags & 32 = 0 GROUP BY 1, 2' || tail;
    FOR level IN 2 .. array_length(names, 1) LOOP
        EXECUTE format(head, names[level]) || 'SELECT instrument_id, ' || format(bucket, widths[level], 'bucket') || ' AS bucket,
            (array_agg(open ORDER BY bucket))[1] AS open,
            max(high) AS high,
            min(low) AS low,
            (array_agg(close ORDER BY bucket DESC))[1] AS close,
            sum(volume) AS volume,
            sum(quote_volume) AS quote_volume,
            sum(trades)::bigint AS trades
            FROM ' || format('aggregates.%I', names[level - 1]) || ' GROUP BY 1, 2' || tail;
    END LOOP;
END
$$;

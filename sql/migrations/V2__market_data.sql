-- Purpose: instruments and the tables that events go to.
-- On TimescaleDB the event tables become hypertables, on plain PostgreSQL they are range-partitioned by time.
-- No unique index and no trigger on an event table: either would shut out direct compress.
-- Lock: none on existing tables. Duration: milliseconds.
CREATE SCHEMA IF NOT EXISTS market_data;

CREATE TABLE market_data.venues (
    venue      text PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE market_data.instruments (
    instrument_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    venue         text NOT NULL REFERENCES market_data.venues,
    symbol        text NOT NULL,           -- the venue's own spelling
    base          text,
    quote         text,
    kind          text CHECK (kind IN ('spot', 'perp', 'future', 'option')),
    expiry        timestamptz,
    price_tick    numeric,
    qty_step      numeric,
    contract_size numeric,
    is_trading    boolean,                 -- NULL until the venue's list has been read
    listed        timestamptz,
    delisted      timestamptz,             -- when the venue's list was first seen without it, or with it not trading
    first_seen    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz,             -- when the venue's list last changed it
    UNIQUE (venue, symbol)
);

-- What the venue's list said at any time; one row a change.
CREATE TABLE market_data.instruments_history (
    instrument_id int NOT NULL REFERENCES market_data.instruments,
    valid_from    timestamptz NOT NULL,
    valid_to      timestamptz,             -- NULL: still so
    base          text,
    quote         text,
    kind          text,
    expiry        timestamptz,
    price_tick    numeric,
    qty_step      numeric,
    contract_size numeric,
    is_trading    boolean,
    listed        timestamptz,
    PRIMARY KEY (instrument_id, valid_from)
);

DO $$
DECLARE
    is_timescale boolean := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND coalesce(current_setting('timescaledb.license', true), '') = 'timescale';
    storage text := CASE WHEN is_timescale THEN '' ELSE ' PARTITION BY RANGE (time)' END;
    event_table text;
BEGIN
    -- side: 1 buy or bid, -1 sell or ask, 0 unknown. flags: see market_data.flag_names.
    EXECUTE 'CREATE TABLE market_data.trades (
        time          timestamptz NOT NULL,
        recv_time     timestamptz NOT NULL,
        instrument_id int NOT NULL,
        price         numeric NOT NULL,
        qty           numeric NOT NULL,
        side          smallint NOT NULL,
        trade_id      bigint,
        trade_ref     text,
        flags         smallint NOT NULL,
        lane_id       int NOT NULL,
        frame_pos     bigint NOT NULL)' || storage;
    -- One row per changed level; qty 0 removes it.
    EXECUTE 'CREATE TABLE market_data.book_deltas (
        time          timestamptz NOT NULL,
        recv_time     timestamptz NOT NULL,
        instrument_id int NOT NULL,
        side          smallint NOT NULL,
        price         numeric NOT NULL,
        qty           numeric NOT NULL,
        seq           bigint,
        flags         smallint NOT NULL,
        lane_id       int NOT NULL,
        frame_pos     bigint NOT NULL)' || storage;
    EXECUTE 'CREATE TABLE market_data.quotes (
        time          timestamptz NOT NULL,
        recv_time     timestamptz NOT NULL,
        instrument_id int NOT NULL,
        bid_price     numeric,
        bid_qty       numeric,
        ask_price     numeric,
        ask_qty       numeric,
        seq           bigint,
        flags         smallint NOT NULL,
        lane_id       int NOT NULL,
        frame_pos     bigint NOT NULL)' || storage;
    FOREACH event_table IN ARRAY ARRAY['trades', 'book_deltas', 'quotes'] LOOP
        IF is_timescale THEN
            PERFORM create_hypertable(format('market_data.%I', event_table)::regclass,
                by_range('time', interval '1 day'), create_default_indexes => false);
        END IF;
        EXECUTE format('CREATE INDEX %I ON market_data.%I (instrument_id, time DESC)',
            event_table || '_instrument_time', event_table);
    END LOOP;
END
$$;

-- Names of the bits of a flags column.
CREATE FUNCTION market_data.flag_names(flags smallint) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_remove(ARRAY[
        CASE WHEN flags & 1 <> 0 THEN 'LAST_IN_FRAME' END,
        CASE WHEN flags & 2 <> 0 THEN 'SNAPSHOT' END,
        CASE WHEN flags & 4 <> 0 THEN 'BACKFILL' END,
        CASE WHEN flags & 8 <> 0 THEN 'AFTER_GAP' END,
        CASE WHEN flags & 16 <> 0 THEN 'VENUE_TIME_BAD' END,
        CASE WHEN flags & 32 <> 0 THEN 'OFF_BOOK' END], NULL)
$$;

-- Trades with names instead of ids.
CREATE VIEW market_data.ticks AS
SELECT t.time,
       i.venue AS exchange,
       i.symbol,
       t.price,
       t.qty AS volume,
       CASE t.side WHEN 1 THEN 'B' WHEN -1 THEN 'S' END AS side,
       coalesce(t.trade_id::text, t.trade_ref) AS trade_id
FROM market_data.trades t
JOIN market_data.instruments i USING (instrument_id);

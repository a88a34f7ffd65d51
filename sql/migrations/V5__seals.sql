-- Purpose: seals: how many rows the writer committed and the sum of their hashes, by hour, lane, table and instrument,
-- written in the transaction that carries the rows. `tapeway verify` reads the rows back and finds by them every row that
-- was deleted, doubled or altered since, also where the venue numbers nothing. They guard against damage, not against
-- somebody who writes rows and seals alike.
-- Lock: ACCESS EXCLUSIVE on audit.watermarks, SHARE ROW EXCLUSIVE on the other audit tables.
-- Duration: one pass over audit.gaps, audit.sessions and audit.rejects.

-- relation       what was counted                                   hash
-- trades, ...    rows of market_data.<relation>, hour of their time XXH3-64 (seed 0) of the row as in COPY BINARY:
--                                                                   field count and fields, in the order of the columns
-- gaps, sessions, rejects
--                rows of audit.<relation>, hour of detected_at, at, received       audit.row_hash
-- frames         positions that the watermark passed, hour of the last one's receive time     none
-- refused        rows that audit.watermarks.rejected counts, likewise                         none
CREATE TABLE audit.seals (
    hour          timestamptz NOT NULL,
    lane_id       int NOT NULL,
    relation      text NOT NULL,
    instrument_id int NOT NULL,            -- 0 where rows are not counted by instrument
    rows          bigint NOT NULL,
    hash_high     bigint NOT NULL,         -- sum of the hashes' upper halves
    hash_low      bigint NOT NULL,         -- sum of their lower halves: neither overflows below 2^31 rows
    PRIMARY KEY (hour, lane_id, relation, instrument_id)
) WITH (fillfactor = 50); -- the rows of the hour are updated in place several times a second

-- What was committed before there were seals: nothing of it is sealed but gaps, sessions and rejects, below.
ALTER TABLE audit.watermarks
    ADD COLUMN unsealed_frames bigint NOT NULL DEFAULT 0,
    ADD COLUMN unsealed_rows bigint NOT NULL DEFAULT 0,
    ADD COLUMN unsealed_rejected bigint NOT NULL DEFAULT 0;
UPDATE audit.watermarks SET unsealed_frames = next_pos, unsealed_rows = rows_total, unsealed_rejected = rejected;

-- First 64 bits of the MD5 of a row as JSON without its nulls. Of a row with moments: only under timezone UTC.
CREATE FUNCTION audit.row_hash(audited jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('x' || left(md5(jsonb_strip_nulls(audited)::text), 16))::bit(64)::bigint
$$;

-- Seals what the writer does to an audit table; it says so by `SET tapeway.seals = 'on'`. What anybody else does shows.
CREATE FUNCTION audit.seal_rows() RETURNS trigger
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
BEGIN
    IF current_setting('tapeway.seals', true) IS DISTINCT FROM 'on' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit.seals AS s (hour, lane_id, relation, instrument_id, rows, hash_high, hash_low)
        SELECT date_trunc('hour', (audited ->> TG_ARGV[0])::timestamptz), (audited ->> 'lane_id')::int, TG_TABLE_NAME, 0,
               count(*), sum((audit.row_hash(audited) >> 32) & 4294967295), sum(audit.row_hash(audited) & 4294967295)
        FROM (SELECT to_jsonb(n) AS audited FROM new_rows n) AS list
        GROUP BY 1, 2
        ON CONFLICT (hour, lane_id, relation, instrument_id) DO UPDATE
        SET rows = s.rows + excluded.rows, hash_high = s.hash_high + excluded.hash_high,
            hash_low = s.hash_low + excluded.hash_low;
    ELSE
        INSERT INTO audit.seals AS s (hour, lane_id, relation, instrument_id, rows, hash_high, hash_low)
        SELECT date_trunc('hour', (audited ->> TG_ARGV[0])::timestamptz), (audited ->> 'lane_id')::int, TG_TABLE_NAME, 0,
               sum(sign), sum(sign * ((audit.row_hash(audited) >> 32) & 4294967295)),
               sum(sign * (audit.row_hash(audited) & 4294967295))
        FROM (SELECT to_jsonb(n) AS audited, 1 AS sign FROM new_rows n
              UNION ALL SELECT to_jsonb(o), -1 FROM old_rows o) AS list
        GROUP BY 1, 2
        ON CONFLICT (hour, lane_id, relation, instrument_id) DO UPDATE
        SET rows = s.rows + excluded.rows, hash_high = s.hash_high + excluded.hash_high,
            hash_low = s.hash_low + excluded.hash_low;
    END IF;
    RETURN NULL;
END
$$;

DO $$
DECLARE
    audited text[];
BEGIN
    SET LOCAL timezone = 'UTC';
    FOREACH audited SLICE 1 IN ARRAY ARRAY[['gaps', 'detected_at'], ['sessions', 'at'], ['rejects', 'received']] LOOP
        EXECUTE format('CREATE TRIGGER seal_insert AFTER INSERT ON audit.%I REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION audit.seal_rows(%L)', audited[1], audited[2]);
        EXECUTE format('CREATE TRIGGER seal_update AFTER UPDATE ON audit.%I
            REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION audit.seal_rows(%L)', audited[1], audited[2]);
        EXECUTE format('INSERT INTO audit.seals
            SELECT date_trunc(''hour'', %2$I), lane_id, %1$L, 0, count(*),
                   sum((audit.row_hash(to_jsonb(r)) >> 32) & 4294967295), sum(audit.row_hash(to_jsonb(r)) & 4294967295)
            FROM audit.%1$I r GROUP BY 1, 2', audited[1], audited[2]);
    END LOOP;
END
$$;

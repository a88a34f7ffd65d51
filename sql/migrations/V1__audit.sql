-- Purpose: what is known about completeness: lanes, how far each is committed, connections, gaps, rejects.
-- Lock: none on existing tables. Duration: milliseconds.
CREATE SCHEMA IF NOT EXISTS audit;

-- One row per lane and journal folder. A new folder starts positions anew, so it is another lane here.
CREATE TABLE audit.lanes (
    lane_id    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    venue      text NOT NULL,
    name       text NOT NULL,
    journal_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (venue, name, journal_id)
);

-- How far each lane is committed; moves in the transaction that carries the rows.
CREATE TABLE audit.watermarks (
    lane_id       int PRIMARY KEY REFERENCES audit.lanes,
    next_pos      bigint NOT NULL DEFAULT 0, -- first position not yet committed
    rows_total    bigint NOT NULL DEFAULT 0, -- rows committed since the lane began
    rejected      bigint NOT NULL DEFAULT 0, -- rows refused or left out since then; audit.rejects says why
    last_received timestamptz,               -- receive time of the last committed frame
    updated_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50); -- updated in place several times a second

-- Connections opened and closed.
CREATE TABLE audit.sessions (
    lane_id   int NOT NULL,
    frame_pos bigint NOT NULL,
    at        timestamptz NOT NULL,
    is_open   boolean NOT NULL,
    detail    text NOT NULL,               -- the URL when opened, the reason when closed
    PRIMARY KEY (lane_id, frame_pos)
);
CREATE INDEX sessions_at ON audit.sessions (at);

-- Stretches that a venue did not send or that were not seen.
CREATE TABLE audit.gaps (
    lane_id       int NOT NULL,
    frame_pos     bigint NOT NULL,         -- the frame that revealed the gap
    ordinal       int NOT NULL,            -- which gap of that frame; -1 for one the writer itself found
    venue         text NOT NULL,
    instrument_id int,                     -- NULL: every instrument of the lane
    channel       text,                    -- NULL: every channel of the lane
    cause         text NOT NULL,
    first_missing bigint,
    last_missing  bigint,
    since         timestamptz,             -- last thing seen before
    until         timestamptz,             -- first thing seen after
    state         text NOT NULL DEFAULT 'open'
                  CHECK (state IN ('open', 'healed', 'resynced', 'unhealable')),
    healed_rows   bigint NOT NULL DEFAULT 0,
    detail        text,
    detected_at   timestamptz NOT NULL,    -- receive time of the frame that revealed it
    closed_at     timestamptz,
    PRIMARY KEY (lane_id, frame_pos, ordinal)
);
CREATE INDEX gaps_detected_at ON audit.gaps (detected_at);
CREATE INDEX gaps_open ON audit.gaps (venue) WHERE state = 'open';

-- Frames that could not be decoded, rows that the database refused, and stretches of rows that were left out.
CREATE TABLE audit.rejects (
    lane_id   int NOT NULL,
    frame_pos bigint NOT NULL,
    reason    text NOT NULL,
    detail    text NOT NULL,
    received  timestamptz NOT NULL
);
CREATE INDEX rejects_received ON audit.rejects (received);
CREATE INDEX rejects_frame ON audit.rejects (lane_id, frame_pos);

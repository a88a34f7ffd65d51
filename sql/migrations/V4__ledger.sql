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

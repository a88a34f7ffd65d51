//! PostgreSQL as writers see it: the steps of a transaction on one connection.

use std::{cell::RefCell, collections::HashSet, pin::pin};

use bytes::Bytes;
use futures_util::SinkExt;
use tapeway_exchanges::{event::Channel, symbols::Symbol};
use tokio_postgres::{CopyInSink, Statement};

use super::{
    batch::{Mark, Sealed},
    link::{Connect, Link, Server},
    notes::{Channels, Lost, Notes, Rejects, Sessions, moment},
    seals,
};
use crate::{
    config::Database,
    store::{
        self, Capabilities, Connection, Connector, Layout,
        capabilities::DIRECT_COMPRESS_SETTING,
        instruments::{self, InstrumentId},
        partitions,
        table::Table,
        watermark::{self, LaneId, Watermark},
        within,
    },
};

/// A connection with the statements a transaction needs.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    copies: [Statement; Table::COUNT],
    watermarks: Statement,
    seals: Statement,
    sessions: Statement,
    rejects: Statement,
    gaps: Statement,
    ends: Statement,
    channels: Statement,
    lost: Statement,
    /// Widths of partitions in seconds by table, on plain PostgreSQL.
    widths: Option<[i64; Table::COUNT]>,
    /// Partitions known to exist, by table and start. At most one a bucket of the rows this session has seen.
    partitions: RefCell<HashSet<(Table, i64)>>,
    /// Channels known to be in `audit.channels`. At most one an instrument and table this session has written.
    known_channels: RefCell<HashSet<(InstrumentId, Channel)>>,
}

impl Session {
    /// Prepares the statements.
    ///
    /// # Errors
    ///
    /// [`store::Error::Server`], [`store::Error::Timeout`].
    async fn new(connection: Connection, widths: Option<[i64; Table::COUNT]>) -> Result<Self, store::Error> {
        let limit = connection.timeout();
        connection.run("turn seals on", seals::ON).await?;
        let prepare = async |sql: &str| within("prepare", limit, connection.client.prepare(sql)).await;
        let [trades, levels, quotes, books] = Table::ALL.map(Table::copy_sql);
        let copies =
            [prepare(&trades).await?, prepare(&levels).await?, prepare(&quotes).await?, prepare(&books).await?];
        let watermarks = prepare(WATERMARKS).await?;
        let seals = prepare(seals::UPSERT).await?;
        let sessions = prepare(SESSIONS).await?;
        let rejects = prepare(REJECTS).await?;
        let gaps = prepare(GAPS).await?;
        let ends = prepare(ENDS).await?;
        let channels = prepare(CHANNELS).await?;
        let lost = prepare(LOST).await?;
        Ok(Self {
            connection,
            copies,
            watermarks,
            seals,
            sessions,
            rejects,
            gaps,
            ends,
            channels,
            lost,
            widths,
            partitions: RefCell::default(),
            known_channels: RefCell::default(),
        })
    }
}

/// PostgreSQL as writers see it.
#[derive(Clone, Debug)]
pub struct Postgres {
    connector: Connector,
    database: Database,
}

impl Postgres {
    /// The database of the configuration. `role` ends up in `application_name`.
    ///
    /// # Errors
    ///
    /// [`store::Error::Url`] and [`store::Error::CaFile`].
    pub fn new(database: &Database, role: &str) -> Result<Self, store::Error> {
        Ok(Self { connector: Connector::new(database, role)?, database: database.clone() })
    }
}

impl Connect for Postgres {
    type Link = Session;

    async fn connect(&self) -> Result<(Session, Server), store::Error> {
        let connection = self.connector.connect().await?;
        let capabilities = Capabilities::read(&connection).await?;
        let widths = match capabilities.layout {
            None => return Err(store::Error::NotMigrated),
            Some(Layout::Hypertable) => None,
            Some(Layout::Partitioned) => Some(Table::ALL.map(|table| partitions::width(table.policy(&self.database)))),
        };
        let is_direct_compress_on = capabilities.direct_compress(self.database.is_columnstore_wanted);
        if is_direct_compress_on {
            connection.run("turn direct compress on", &format!("SET {DIRECT_COMPRESS_SETTING} = on")).await?;
        }
        let session = Session::new(connection, widths).await?;
        Ok((session, Server { capabilities, is_direct_compress_on }))
    }
}

impl Link for Session {
    fn server(&self) -> Option<&Connection> {
        Some(&self.connection)
    }

    fn widths(&self) -> Option<[i64; Table::COUNT]> {
        self.widths
    }

    fn compress_warnings(&self) -> u64 {
        self.connection.notices.direct_compress_warnings()
    }

    async fn heartbeat(&self) -> Result<(), store::Error> {
        self.connection.run("heartbeat", "").await
    }

    async fn claim(&self, venue: &str, lane: &str) -> Result<bool, store::Error> {
        let connection = &self.connection;
        Ok(watermark::claim(connection, venue, lane).await?
            || (watermark::end_stale_claim(connection, venue, lane).await?
                && watermark::claim(connection, venue, lane).await?))
    }

    async fn release(&self, venue: &str, lane: &str) -> Result<(), store::Error> {
        watermark::release(&self.connection, venue, lane).await
    }

    async fn lane_id(&self, venue: &str, lane: &str, journal_id: u128) -> Result<LaneId, store::Error> {
        watermark::lane_id(&self.connection, venue, lane, journal_id).await
    }

    async fn watermark(&self, lane: LaneId) -> Result<Watermark, store::Error> {
        watermark::read(&self.connection, lane).await
    }

    async fn standing(&self, venue: &str, lane: &str, journal_id: u128) -> Result<Watermark, store::Error> {
        watermark::standing(&self.connection, venue, lane, journal_id).await
    }

    async fn instruments(&self, venue: &str, symbols: &[Symbol]) -> Result<Vec<InstrumentId>, store::Error> {
        instruments::register(&self.connection, venue, symbols).await
    }

    async fn ensure_partitions(&self, sealed: &Sealed) -> Result<(), store::Error> {
        let Some(widths) = self.widths else { return Ok(()) };
        for copy in &sealed.copies {
            let key = |start: &i64| (copy.table, *start);
            let is_new = |start: &i64| !self.partitions.borrow().contains(&key(start));
            let starts: Vec<i64> = copy.partitions.iter().copied().filter(is_new).collect();
            if !starts.is_empty() {
                partitions::ensure(&self.connection, copy.table, widths[copy.table as usize], &starts).await?;
                self.partitions.borrow_mut().extend(starts.iter().map(key));
            }
        }
        Ok(())
    }

    fn forget_partitions(&self) {
        self.partitions.borrow_mut().clear();
    }

    async fn begin(&self) -> Result<(), store::Error> {
        self.connection.run("begin", "BEGIN").await
    }

    async fn copy(&self, table: Table, blocks: &[Bytes]) -> Result<(), store::Error> {
        let limit = self.connection.timeout();
        let copy = async {
            let sink: CopyInSink<Bytes> = self.connection.client.copy_in(&self.copies[table as usize]).await?;
            let mut sink = pin!(sink);
            for block in blocks {
                if sink.feed(block.clone()).await.is_err() {
                    break; // The server has stopped listening; finish() says why.
                }
            }
            sink.finish().await
        };
        within("copy", limit, copy).await.map(drop)
    }

    async fn check_constraints(&self) -> Result<(), store::Error> {
        self.connection.run("check constraints", "SET CONSTRAINTS ALL IMMEDIATE").await
    }

    async fn notes(&self, notes: &Notes) -> Result<(), store::Error> {
        let limit = self.connection.timeout();
        let client = &self.connection.client;
        let Notes { sessions, rejects, gaps, ends, lost } = notes;
        if !sessions.lane.is_empty() {
            let Sessions { lane, pos, at, is_open, detail } = sessions;
            within("write sessions", limit, client.execute(&self.sessions, &[lane, pos, at, is_open, detail])).await?;
        }
        if !rejects.lane.is_empty() {
            let Rejects { lane, pos, reason, detail, received } = rejects;
            within("write rejects", limit, client.execute(&self.rejects, &[lane, pos, reason, detail, received]))
                .await?;
        }
        if !gaps.lane.is_empty() {
            within("write gaps", limit, client.execute(&self.gaps, &gaps.columns())).await?;
        }
        if !lost.lane.is_empty() {
            let Lost { lane, end, at } = lost;
            within("give up gaps", limit, client.execute(&self.lost, &[lane, end, at])).await?;
        }
        if !ends.lane.is_empty() {
            within("write ends of gaps", limit, client.execute(&self.ends, &ends.columns())).await?;
        }
        Ok(())
    }

    async fn channels(&self, sealed: &Sealed) -> Result<(), store::Error> {
        let channels = Channels::of(sealed, &self.known_channels.borrow());
        if channels.instrument.is_empty() {
            return Ok(());
        }
        let limit = self.connection.timeout();
        let Channels { instrument, channel, proof, first_seen } = &channels;
        let arguments: store::connect::Arguments<'_> = &[instrument, channel, proof, first_seen];
        within("write channels", limit, self.connection.client.execute(&self.channels, arguments)).await.map(drop)
    }

    async fn seals(&self, sealed: &Sealed) -> Result<(), store::Error> {
        seals::write(&self.connection, &self.seals, sealed).await
    }

    fn committed(&self, sealed: &Sealed) {
        let met = sealed
            .copies
            .iter()
            .flat_map(|copy| copy.instruments.iter().map(|met| (met.instrument, copy.table.channel())));
        self.known_channels.borrow_mut().extend(met);
    }

    async fn watermarks(&self, marks: &[Mark]) -> Result<u64, store::Error> {
        let lane: Vec<i32> = marks.iter().map(|mark| mark.lane_id.0).collect();
        let column =
            |value: fn(&Mark) -> u64| -> Vec<i64> { marks.iter().map(|mark| value(mark).cast_signed()).collect() };
        let old = column(|mark| mark.old.get());
        let new = column(|mark| mark.new.get());
        let rows = column(|mark| mark.rows);
        let rejected = column(|mark| mark.rejected);
        let received: Vec<_> = marks.iter().map(|mark| moment(mark.received)).collect();
        let arguments: store::connect::Arguments<'_> = &[&lane, &old, &new, &rows, &rejected, &received];
        let update = self.connection.client.execute(&self.watermarks, arguments);
        within("move watermarks", self.connection.timeout(), update).await
    }

    async fn commit(&self) -> Result<(), store::Error> {
        self.connection.run("commit", "COMMIT").await
    }

    async fn rollback(&self) -> Result<(), store::Error> {
        self.connection.run("roll back", "ROLLBACK").await
    }
}

/// Fencing: a lane whose watermark is not at `old` is not updated, and the count shows it.
const WATERMARKS: &str = "
UPDATE audit.watermarks w
SET next_pos = m.new, rows_total = w.rows_total + m.rows, rejected = w.rejected + m.rejected,
    last_received = greatest(w.last_received, m.received), updated_at = now()
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
    AS m (lane_id, old, new, rows, rejected, received)
WHERE w.lane_id = m.lane_id AND w.next_pos = m.old";

const SESSIONS: &str = "
INSERT INTO audit.sessions (lane_id, frame_pos, at, is_open, detail)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::bool[], $5::text[])
ON CONFLICT DO NOTHING";

const REJECTS: &str = "
INSERT INTO audit.rejects (lane_id, frame_pos, reason, detail, received)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[])";

/// A class that another version knew otherwise is made true.
const CHANNELS: &str = "
INSERT INTO audit.channels AS c (instrument_id, channel, proof, first_seen)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (instrument_id, channel) DO UPDATE SET proof = excluded.proof, updated_at = now()
WHERE c.proof <> excluded.proof";

const GAPS: &str = "
INSERT INTO audit.gaps (lane_id, frame_pos, ordinal, venue, instrument_id, channel, cause, first_missing,
                        last_missing, since, until, state, detail, detected_at)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::int[], $4::text[], $5::int[], $6::text[], $7::text[], $8::bigint[],
                     $9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[],
                     $14::timestamptz[])
ON CONFLICT DO NOTHING";

/// Should one of them go on and end after all, its end says so.
const LOST: &str = "
UPDATE audit.gaps g
SET state = 'unhealable', closed_at = l.at,
    detail = concat_ws('; ', g.detail, 'its end, if it had one, is in frames that are no longer in the journal')
FROM unnest($1::int[], $2::bigint[], $3::timestamptz[]) AS l (lane_id, end_pos, at)
WHERE g.lane_id = l.lane_id AND g.frame_pos < l.end_pos AND g.state = 'open'";

const ENDS: &str = "
UPDATE audit.gaps g
SET state = e.state, healed_rows = g.healed_rows + e.rows, last_missing = coalesce(e.last_missing, g.last_missing),
    until = coalesce(e.until, g.until), detail = coalesce(e.detail, g.detail), closed_at = e.closed_at
FROM unnest($1::int[], $2::bigint[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[],
            $8::text[], $9::timestamptz[])
    AS e (lane_id, frame_pos, ordinal, state, rows, last_missing, until, detail, closed_at)
WHERE g.lane_id = e.lane_id AND g.frame_pos = e.frame_pos AND g.ordinal = e.ordinal AND g.state <> 'healed'";

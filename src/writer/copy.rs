//! Runs a sealed batch: one transaction on one connection.

use std::{cell::RefCell, collections::HashSet, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt;
use tapeway_exchanges::event::Channel;
use thiserror::Error;
use tokio_postgres::{CopyInSink, Statement};

use super::{
    batch::{Mark, Sealed, Step, encode_some},
    notes::{Channels, Notes, Rejects, Sessions, moment},
    order::RowRef,
};
use crate::{
    journal,
    store::{self, Connection, instruments::InstrumentId, partitions, table::Table, within},
};

/// A connection with the statements a transaction needs.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    copies: [Statement; Table::COUNT],
    watermarks: Statement,
    sessions: Statement,
    rejects: Statement,
    gaps: Statement,
    ends: Statement,
    channels: Statement,
    /// Widths of partitions in seconds by table, on plain PostgreSQL.
    pub widths: Option<[i64; Table::COUNT]>,
    /// Partitions known to exist, by table and start. At most one a bucket of the rows this session has seen.
    partitions: RefCell<HashSet<(Table, i64)>>,
    /// Channels known to be in `audit.channels`. At most one an instrument and table this session has written.
    known_channels: RefCell<HashSet<(InstrumentId, Channel)>>,
}

/// Why a batch is not committed, or not known to be.
#[derive(Debug, Error)]
pub enum Failure {
    /// The database refused, or did not answer. Whether the commit happened is for the watermark to say.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A watermark was not where it was believed to be: another writer moved it. Nothing was committed.
    #[error("a watermark was moved by another writer: {moved} of {lanes} lanes are where they were expected")]
    Fenced {
        /// Lanes in the batch.
        lanes: u64,
        /// Lanes whose watermark was as expected.
        moved: u64,
    },
    /// Frames of the batch did not reach the disk in time; nothing was committed.
    #[error("lane {lane}: frames before {end} are not on disk after {after:?}, synced up to {durable}")]
    NotDurable {
        /// The lane.
        lane: String,
        /// End of the batch in the lane.
        end: tapeway_exchanges::ids::FramePos,
        /// How far the lane is synced.
        durable: tapeway_exchanges::ids::FramePos,
        /// How long it was waited for.
        after: Duration,
    },
    /// The journal could not be read.
    #[error("lane {lane}: {source}")]
    Journal {
        /// The lane.
        lane: String,
        /// What the journal said.
        source: journal::Error,
    },
}

impl Failure {
    /// Whether the rows themselves are what the server refuses.
    #[must_use]
    pub fn is_data(&self) -> bool {
        match self {
            Self::Store(error) => error.is_data(),
            Self::Fenced { .. } | Self::NotDurable { .. } | Self::Journal { .. } => false,
        }
    }

    /// Fixed name for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store(store::Error::Timeout { .. }) => "timeout",
            Self::Store(store::Error::NotMigrated) => "not_migrated",
            Self::Store(error) => match error.code() {
                Some(code) => match &code.code()[..2] {
                    "25" => "read_only",
                    "40" => "serialization",
                    "53" => "resources",
                    "57" => "shutdown",
                    _ => "refused",
                },
                None => "connection",
            },
            Self::Fenced { .. } => "fenced",
            Self::NotDurable { .. } => "not_durable",
            Self::Journal { .. } => "journal",
        }
    }
}

impl Session {
    /// Prepares the statements.
    ///
    /// # Errors
    ///
    /// [`store::Error::Server`], [`store::Error::Timeout`].
    pub async fn new(connection: Connection, widths: Option<[i64; Table::COUNT]>) -> Result<Self, store::Error> {
        let limit = connection.timeout();
        let prepare = async |sql: &str| within("prepare", limit, connection.client.prepare(sql)).await;
        let [trades, levels, quotes, books] = Table::ALL.map(Table::copy_sql);
        let copies =
            [prepare(&trades).await?, prepare(&levels).await?, prepare(&quotes).await?, prepare(&books).await?];
        let watermarks = prepare(WATERMARKS).await?;
        let sessions = prepare(SESSIONS).await?;
        let rejects = prepare(REJECTS).await?;
        let gaps = prepare(GAPS).await?;
        let ends = prepare(ENDS).await?;
        let channels = prepare(CHANNELS).await?;
        Ok(Self {
            connection,
            copies,
            watermarks,
            sessions,
            rejects,
            gaps,
            ends,
            channels,
            widths,
            partitions: RefCell::default(),
            known_channels: RefCell::default(),
        })
    }

    /// Commits a batch, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Failure`]. After one that is the server's answer ([`Failure::is_data`], [`Failure::Fenced`]) the
    /// transaction has been rolled back and the session can be used; after any other it cannot.
    pub async fn commit(&self, sealed: &Sealed) -> Result<(), Failure> {
        self.ensure_partitions(sealed).await?;
        for step in sealed.steps() {
            if let Err(failure) = self.step(sealed, step).await {
                if failure.is_data() || matches!(failure, Failure::Fenced { .. } | Failure::NotDurable { .. }) {
                    self.connection.run("roll back", "ROLLBACK").await?;
                }
                return Err(failure);
            }
        }
        let met = sealed
            .copies
            .iter()
            .flat_map(|copy| copy.instruments.iter().map(|met| (met.instrument, copy.table.channel())));
        self.known_channels.borrow_mut().extend(met);
        Ok(())
    }

    /// Whether the server takes these rows; `Err` holds its words if it does not. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`store::Error`] for anything but a refusal of the rows.
    pub async fn probe(
        &self,
        sealed: &Sealed,
        table: Table,
        rows: &[RowRef],
    ) -> Result<Result<(), String>, store::Error> {
        let blocks = encode_some(&sealed.pieces, table, rows);
        self.connection.run("begin", "BEGIN").await?;
        let mut result = self.copy(table, &blocks).await;
        if result.is_ok() {
            // Constraints that would only speak at commit.
            result = self.connection.run("check constraints", "SET CONSTRAINTS ALL IMMEDIATE").await;
        }
        match result {
            Err(error) if !error.is_data() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.connection.run("roll back", "ROLLBACK").await?;
        Ok(result.map_err(|error| error.to_string()))
    }

    /// Looks at partitions anew: one may have been dropped by retention since it was seen.
    pub fn forget_partitions(&self) {
        self.partitions.borrow_mut().clear();
    }

    /// Makes the partitions that the batch's rows need and that this session has not seen yet.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    pub async fn ensure_partitions(&self, sealed: &Sealed) -> Result<(), store::Error> {
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

    async fn step(&self, sealed: &Sealed, step: Step<'_>) -> Result<(), Failure> {
        match step {
            Step::Begin => self.connection.run("begin", "BEGIN").await?,
            Step::Copy(copy) => self.copy(copy.table, &copy.blocks).await?,
            Step::Notes => {
                self.channels(sealed).await?;
                self.notes(&Notes::of(sealed)).await?;
            }
            Step::Watermarks => self.watermarks(&sealed.marks).await?,
            Step::UntilDurable => until_durable(&sealed.marks).await?,
            Step::Commit => self.connection.run("commit", "COMMIT").await?,
        }
        Ok(())
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

    async fn notes(&self, notes: &Notes) -> Result<(), store::Error> {
        let limit = self.connection.timeout();
        let client = &self.connection.client;
        let Notes { sessions, rejects, gaps, ends } = notes;
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
        if !ends.lane.is_empty() {
            within("write ends of gaps", limit, client.execute(&self.ends, &ends.columns())).await?;
        }
        Ok(())
    }

    async fn watermarks(&self, marks: &[Mark]) -> Result<(), Failure> {
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
        let moved = within("move watermarks", self.connection.timeout(), update).await?;
        let lanes = marks.len() as u64;
        if moved == lanes { Ok(()) } else { Err(Failure::Fenced { lanes, moved }) }
    }
}

async fn until_durable(marks: &[Mark]) -> Result<(), Failure> {
    for mark in marks {
        let wait = mark.lane.progress.until_durable(mark.new);
        if tokio::time::timeout(DURABLE_TIMEOUT, wait).await.is_err() {
            return Err(Failure::NotDurable {
                lane: mark.lane.name.clone(),
                end: mark.new,
                durable: mark.lane.progress.durable(),
                after: DURABLE_TIMEOUT,
            });
        }
    }
    Ok(())
}

/// Longest wait for the journal's `fdatasync`; a healthy disk takes milliseconds.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(10);

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

const ENDS: &str = "
UPDATE audit.gaps g
SET state = e.state, healed_rows = g.healed_rows + e.rows, last_missing = coalesce(e.last_missing, g.last_missing),
    until = coalesce(e.until, g.until), detail = coalesce(e.detail, g.detail), closed_at = e.closed_at
FROM unnest($1::int[], $2::bigint[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[],
            $8::text[], $9::timestamptz[])
    AS e (lane_id, frame_pos, ordinal, state, rows, last_missing, until, detail, closed_at)
WHERE g.lane_id = e.lane_id AND g.frame_pos = e.frame_pos AND g.ordinal = e.ordinal";

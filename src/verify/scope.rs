//! What a run is about: everything but the rows, read at once inside the snapshot.

use std::collections::{BTreeMap, HashMap};

use tapeway_exchanges::{event::Channel, venue};
use tokio_postgres::Row;

use super::{Error, Options};
use crate::{
    config::Database,
    seal::{HOUR_MICROS, HOUR_SECONDS, Key, Sum},
    store::{Capabilities, Connection, Layout, instruments::InstrumentId, table::Table, watermark::LaneId},
};

/// What a run is about.
#[derive(Debug)]
pub(super) struct Scope {
    /// First moment of the rows that are read, a whole hour; microseconds since 1970.
    pub(super) from: i64,
    /// First moment after them, a whole hour.
    pub(super) to: i64,
    /// No instrument is left out, so that lanes can be judged too.
    pub(super) is_whole: bool,
    pub(super) instruments: Vec<Instrument>,
    pub(super) lanes: BTreeMap<i32, LaneRow>,
    pub(super) proofs: HashMap<(i32, Channel), String>,
    pub(super) gaps: Vec<GapRow>,
    pub(super) seals: HashMap<Key, Sum>,
    /// Seals of hours that lie wholly before this second may have lost their rows to retention; by table.
    pub(super) retired_before: [Option<i64>; Table::ALL.len()],
    pub(super) server: String,
}

#[derive(Clone, Debug)]
pub(super) struct Instrument {
    pub(super) id: i32,
    pub(super) venue: String,
    pub(super) symbol: String,
}

/// A lane, its watermark, and what its seals add up to.
#[derive(Clone, Debug)]
pub(super) struct LaneRow {
    pub(super) venue: String,
    pub(super) name: String,
    pub(super) journal_id: String,
    pub(super) next_pos: i64,
    /// Rows, frames and refused rows: by the watermark, and by the seals with what was before them.
    pub(super) by_watermark: [i64; 3],
    pub(super) by_seals: [i64; 3],
    /// Frames before this one are not sealed.
    pub(super) sealed_from: i64,
}

/// A row of `audit.gaps`.
#[derive(Clone, Debug)]
pub(super) struct GapRow {
    pub(super) lane: i32,
    pub(super) pos: i64,
    pub(super) venue: String,
    pub(super) instrument: Option<i32>,
    pub(super) channel: Option<String>,
    pub(super) cause: String,
    pub(super) first: Option<i64>,
    pub(super) last: Option<i64>,
    pub(super) since: Option<i64>,
    pub(super) until: Option<i64>,
    pub(super) state: String,
    pub(super) healed_rows: u64,
    pub(super) detail: Option<String>,
    pub(super) detected_at: i64,
}

impl GapRow {
    /// From when to when, as far as is known.
    pub(super) fn span(&self) -> (i64, i64) {
        let since = self.since.or(self.until).unwrap_or(self.detected_at);
        let until = self.until.unwrap_or(self.detected_at).max(since);
        (since.min(until), until)
    }

    /// Whether it concerns this table's rows of this instrument, which the lane carries. Whole books are derived from the
    /// changes: a gap is those changes' and is counted there.
    pub(super) fn concerns(&self, instrument: &Instrument, table: Table) -> bool {
        table != Table::OrderBooks
            && self.venue == instrument.venue
            && self.instrument.is_none_or(|id| id == instrument.id)
            && self.channel.as_deref().is_none_or(|name| name == table.channel().name())
    }
}

impl Scope {
    pub(super) async fn read(
        connection: &Connection,
        options: &Options,
        database: Option<&Database>,
    ) -> Result<Self, Error> {
        let capabilities = Capabilities::read(connection).await?;
        let Some(layout) = capabilities.layout else { return Err(crate::store::Error::NotMigrated.into()) };
        let has_seals: bool =
            connection.query_one("look for seals", "SELECT to_regclass('audit.seals') IS NOT NULL", &[]).await?.get(0);
        if !has_seals {
            return Err(Error::NoSeals);
        }
        let (from, to) = range(connection, options).await?;
        let instruments = instruments(connection, options).await?;
        let server = format!(
            "PostgreSQL {}, TimescaleDB {}",
            capabilities.server_version_text,
            capabilities.timescaledb.as_deref().unwrap_or("none")
        );
        let ids: Vec<i32> = instruments.iter().map(|instrument| instrument.id).collect();
        Ok(Self {
            from,
            to,
            is_whole: options.is_whole(),
            lanes: lanes(connection).await?,
            proofs: proofs(connection, &instruments).await?,
            gaps: gaps(connection, from, to).await?,
            seals: seals(connection, from, to, &ids).await?,
            retired_before: retired_before(connection, layout, database).await?,
            instruments,
            server,
        })
    }

    /// Seconds since 1970 of the range.
    pub(super) fn seconds(&self) -> (i64, i64) {
        (self.from.div_euclid(1_000_000), self.to.div_euclid(1_000_000))
    }

    /// The condition that rows of the range meet.
    pub(super) fn in_range(&self) -> String {
        let (from, to) = self.seconds();
        format!("\"time\" >= to_timestamp({from}) AND \"time\" < to_timestamp({to})")
    }
}

/// The range, widened to whole hours.
async fn range(connection: &Connection, options: &Options) -> Result<(i64, i64), Error> {
    let sql = "SELECT floor(extract(epoch FROM $1::text::timestamptz) * 1000000)::bigint,
                      ceil(extract(epoch FROM $2::text::timestamptz) * 1000000)::bigint";
    let row = connection.query_one("understand --from and --to", sql, &[&options.from, &options.to]).await?;
    let (from, to): (i64, i64) = (row.get(0), row.get(1));
    if from >= to {
        return Err(Error::Range { from: options.from.clone(), to: options.to.clone() });
    }
    let from = from.div_euclid(HOUR_MICROS) * HOUR_MICROS;
    let to = (to + HOUR_MICROS - 1).div_euclid(HOUR_MICROS) * HOUR_MICROS;
    Ok((from, to))
}

async fn instruments(connection: &Connection, options: &Options) -> Result<Vec<Instrument>, Error> {
    let sql = "SELECT instrument_id, venue, symbol FROM market_data.instruments
               WHERE (cardinality($1::text[]) = 0 OR venue = ANY ($1))
                 AND (cardinality($2::text[]) = 0 OR symbol = ANY ($2)) ORDER BY venue, symbol";
    let rows = connection.query("read instruments", sql, &[&options.venues, &options.instruments]).await?;
    let list: Vec<Instrument> =
        rows.iter().map(|row| Instrument { id: row.get(0), venue: row.get(1), symbol: row.get(2) }).collect();
    let is_known = |named: &String| list.iter().any(|one| one.symbol == *named);
    match options.instruments.iter().find(|named| !is_known(named)) {
        Some(named) => Err(Error::Unknown { what: "instrument", name: named.clone() }),
        None => match options.venues.iter().find(|named| !list.iter().any(|one| one.venue == **named)) {
            Some(named) => Err(Error::Unknown { what: "venue", name: named.clone() }),
            None => Ok(list),
        },
    }
}

async fn lanes(connection: &Connection) -> Result<BTreeMap<i32, LaneRow>, Error> {
    let rows = connection.query("read lanes", LANES, &[]).await?;
    let lane = |row: &Row| {
        let lane = LaneRow {
            venue: row.get("venue"),
            name: row.get("name"),
            journal_id: row.get("journal_id"),
            next_pos: row.get("next_pos"),
            by_watermark: [row.get("rows_total"), row.get("next_pos"), row.get("rejected")],
            by_seals: [row.get("rows"), row.get("frames"), row.get("refused")],
            sealed_from: row.get("sealed_from"),
        };
        (row.get("lane_id"), lane)
    };
    Ok(rows.iter().map(lane).collect())
}

/// What the database says each channel's class of proof is, or else what this version knows of the venue.
async fn proofs(connection: &Connection, instruments: &[Instrument]) -> Result<HashMap<(i32, Channel), String>, Error> {
    let mut proofs = HashMap::new();
    for instrument in instruments {
        if let Some(spec) = venue::find(&instrument.venue) {
            let known = Channel::ALL.map(|channel| ((instrument.id, channel), (spec.proof)(channel).name().to_owned()));
            proofs.extend(known);
        }
    }
    let sql = "SELECT to_regclass('audit.channels') IS NOT NULL";
    let is_stored: bool = connection.query_one("look for channels", sql, &[]).await?.get(0);
    if is_stored {
        let sql = "SELECT instrument_id, channel, proof FROM audit.channels";
        for row in connection.query("read channels", sql, &[]).await? {
            let name: &str = row.get(1);
            if let Some(channel) = Channel::ALL.into_iter().find(|channel| channel.name() == name) {
                proofs.insert((row.get(0), channel), row.get(2));
            }
        }
    }
    Ok(proofs)
}

async fn gaps(connection: &Connection, from: i64, to: i64) -> Result<Vec<GapRow>, Error> {
    let rows = connection.query("read gaps", GAPS, &[&from, &to]).await?;
    let gap = |row: &Row| GapRow {
        lane: row.get("lane_id"),
        pos: row.get("frame_pos"),
        venue: row.get("venue"),
        instrument: row.get("instrument_id"),
        channel: row.get("channel"),
        cause: row.get("cause"),
        first: row.get("first_missing"),
        last: row.get("last_missing"),
        since: row.get("since"),
        until: row.get("until"),
        state: row.get("state"),
        healed_rows: row.get::<_, i64>("healed_rows").max(0).unsigned_abs(),
        detail: row.get("detail"),
        detected_at: row.get("detected_at"),
    };
    Ok(rows.iter().map(gap).collect())
}

async fn seals(connection: &Connection, from: i64, to: i64, ids: &[i32]) -> Result<HashMap<Key, Sum>, Error> {
    let names: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
    let rows = connection.query("read seals", SEALS, &[&from, &to, &names, &ids]).await?;
    let seal = |row: &Row| {
        let name: &str = row.get(2);
        let table = Table::ALL.into_iter().find(|table| table.name() == name)?;
        let (lane, instrument) = (LaneId(row.get(1)), InstrumentId(row.get(3)));
        let [rows, high, low] = [4, 5, 6].map(|at| row.get::<_, i64>(at).cast_unsigned());
        Some((Key { hour: row.get(0), lane, table, instrument }, Sum { rows, high, low }))
    };
    Ok(rows.iter().filter_map(seal).collect())
}

/// Before when rows may be gone by retention, in seconds since 1970, by table.
async fn retired_before(
    connection: &Connection,
    layout: Layout,
    database: Option<&Database>,
) -> Result<[Option<i64>; Table::ALL.len()], Error> {
    let mut list = [None; Table::ALL.len()];
    for table in Table::ALL {
        let age = match layout {
            Layout::Hypertable => {
                let rows = connection.query("read retention", RETENTION, &[&table.name()]).await?;
                rows.first().and_then(|row| row.get::<_, Option<i64>>(0))
            }
            Layout::Partitioned => database
                .and_then(|database| table.policy(database).drop_after)
                .map(|age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)),
        };
        let now: i64 =
            connection.query_one("read the clock", "SELECT extract(epoch FROM now())::bigint", &[]).await?.get(0);
        list[table as usize] = age.map(|age| now.saturating_sub(age).div_euclid(HOUR_SECONDS) * HOUR_SECONDS);
    }
    Ok(list)
}

const LANES: &str = "
SELECT l.lane_id, l.venue, l.name, replace(l.journal_id::text, '-', '') AS journal_id,
       coalesce(w.next_pos, 0) AS next_pos, coalesce(w.rows_total, 0) AS rows_total,
       coalesce(w.rejected, 0) AS rejected, coalesce(w.unsealed_frames, 0) AS sealed_from,
       coalesce(w.unsealed_rows, 0) + coalesce(s.rows, 0)::bigint AS rows,
       coalesce(w.unsealed_frames, 0) + coalesce(s.frames, 0)::bigint AS frames,
       coalesce(w.unsealed_rejected, 0) + coalesce(s.refused, 0)::bigint AS refused
FROM audit.lanes l
LEFT JOIN audit.watermarks w USING (lane_id)
LEFT JOIN (SELECT lane_id,
                  sum(rows) FILTER (WHERE relation NOT IN ('frames', 'refused', 'gaps', 'sessions', 'rejects')) AS rows,
                  sum(rows) FILTER (WHERE relation = 'frames') AS frames,
                  sum(rows) FILTER (WHERE relation = 'refused') AS refused
           FROM audit.seals GROUP BY lane_id) s USING (lane_id)
ORDER BY l.lane_id";

/// Gaps that reach into the range, by venue time or by when they were found.
const GAPS: &str = "
SELECT lane_id, frame_pos, venue, instrument_id, channel, cause, first_missing, last_missing,
       (extract(epoch FROM since) * 1000000)::bigint AS since, (extract(epoch FROM until) * 1000000)::bigint AS until,
       state, healed_rows, detail, (extract(epoch FROM detected_at) * 1000000)::bigint AS detected_at
FROM audit.gaps
WHERE least(since, until, detected_at) < to_timestamp($2::bigint / 1000000)
  AND greatest(since, until, detected_at) >= to_timestamp($1::bigint / 1000000)
ORDER BY detected_at, lane_id, frame_pos, ordinal";

const SEALS: &str = "
SELECT extract(epoch FROM hour)::bigint, lane_id, relation, instrument_id, rows, hash_high, hash_low
FROM audit.seals
WHERE hour >= to_timestamp($1::bigint / 1000000) AND hour < to_timestamp($2::bigint / 1000000)
  AND relation = ANY ($3::text[]) AND instrument_id = ANY ($4::int[])";

const RETENTION: &str = "
SELECT extract(epoch FROM (config ->> 'drop_after')::interval)::bigint FROM timescaledb_information.jobs
WHERE hypertable_schema = 'market_data' AND hypertable_name = $1 AND proc_name = 'policy_retention'";

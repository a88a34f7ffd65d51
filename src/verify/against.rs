//! The journal's frames decoded again, held against the rows in the database, in both directions.
//!
//! Sums by hour, lane, table and instrument say where the two differ; only the rows of those hours are then compared one by
//! one, so that memory follows the damage and not the range. What was refused or left out on purpose stands in
//! `audit.rejects` and explains itself.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::BytesMut;
use tapeway_exchanges::{
    event::{Events, Level, Quote, TopBook, Trade},
    ids::FramePos,
    venue::{self, VenueSpec},
};

use super::{
    Error,
    findings::Findings,
    moment,
    report::{Against, Finding, Severity},
    scope::Scope,
    stored,
};
use crate::{
    journal::{self, disk::RealDisk},
    lane::{Lane, Progress, Rows},
    queue::Queue,
    replay::Replay,
    seal::{self, HOUR_SECONDS, Key, Sum},
    store::{Connection, instruments::InstrumentId, table::Table, watermark::LaneId},
    writer::row::{Context, Row},
};

/// The lanes that journal and database have in common.
#[derive(Debug, Default)]
pub(super) struct Journaled {
    lanes: Vec<JournaledLane>,
    unknown: Vec<String>,
    /// Sums of the database's rows from frames that the journal has; filled while they pass by.
    pub(super) found: HashMap<Key, Sum>,
}

#[derive(Debug)]
struct JournaledLane {
    id: i32,
    lane: Lane,
    /// Frames that both have.
    frames: Range<i64>,
    /// Instruments that are looked at, by symbol.
    instruments: HashMap<String, i32>,
}

/// A row that only one of both has.
#[derive(Clone, Debug)]
struct Single {
    lane: i32,
    pos: i64,
    time: i64,
    table: Table,
    bytes: Vec<u8>,
}

impl Journaled {
    /// Looks which lanes the folder has and which of their frames the database should have.
    pub(super) fn open(dir: &Path, scope: &Scope, findings: &mut Findings) -> Result<Self, Error> {
        let told = dir.display().to_string();
        let entries =
            fs::read_dir(dir).map_err(|error| Error::Folder { dir: told.clone(), what: error.to_string() })?;
        let mut journaled = Self::default();
        let mut paths: Vec<_> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        paths.sort();
        for path in paths {
            let Some(report) = journal::verify(&RealDisk, &path)? else { continue };
            let identity = &report.identity;
            let Some(spec) = venue::find(&identity.venue) else { continue };
            let Some((first, end)) = report.range() else { continue };
            let hex = format!("{:032x}", identity.journal_id);
            let known = scope
                .lanes
                .iter()
                .find(|(_, lane)| lane.journal_id == hex && lane.venue == identity.venue && lane.name == identity.lane);
            let Some((id, row)) = known else {
                journaled.unknown.push(identity.lane.clone());
                continue;
            };
            for hole in &report.holes {
                findings.add(finding(Severity::Note, "journal_hole", *id, Table::Trades, scope.from, hole.to_string()));
            }
            let of_venue = scope.instruments.iter().filter(|instrument| instrument.venue == identity.venue);
            let instruments: HashMap<String, i32> =
                of_venue.map(|instrument| (instrument.symbol.clone(), instrument.id)).collect();
            if instruments.is_empty() {
                continue;
            }
            let end = end.get().cast_signed();
            journaled.lanes.push(JournaledLane {
                id: *id,
                frames: first.get().cast_signed()..end.min(row.next_pos),
                lane: lane(spec, identity, &path, FramePos::new(end.unsigned_abs())),
                instruments,
            });
        }
        if journaled.lanes.is_empty() && journaled.unknown.is_empty() {
            return Err(Error::Folder { dir: told, what: "no lane's folder is in it".into() });
        }
        Ok(journaled)
    }

    /// Takes in a row of the database.
    pub(super) fn add(&mut self, key: Key, pos: i64, hash: u64) {
        if self.lanes.iter().any(|lane| lane.id == key.lane.0 && lane.frames.contains(&pos)) {
            self.found.entry(key).or_default().add(hash);
        }
    }

    /// Decodes the journal and names what differs.
    pub(super) async fn compare(
        self,
        connection: &Connection,
        scope: &Scope,
        findings: &mut Findings,
    ) -> Result<Against, Error> {
        let mut sums: HashMap<Key, Sum> = HashMap::new();
        for lane in &self.lanes {
            lane.replay(scope, |key, _, bytes| sums.entry(key).or_default().add(seal::hash(bytes)))?;
        }
        let rows = |sums: &HashMap<Key, Sum>| sums.values().map(|sum| sum.rows).sum();
        let mine = |(id, lane): &(&i32, &super::scope::LaneRow)| {
            scope.instruments.iter().any(|instrument| instrument.venue == lane.venue)
                && !self.lanes.iter().any(|one| one.id == **id)
        };
        let mut against = Against {
            lanes: self.lanes.iter().map(JournaledLane::told).collect(),
            unknown: self.unknown.clone(),
            absent: scope.lanes.iter().filter(mine).map(|(_, lane)| lane.name.clone()).collect(),
            journaled: rows(&sums),
            stored: rows(&self.found),
            ..Against::default()
        };
        let differing = self.differing(&sums, findings, &mut against);
        if differing.is_empty() {
            return Ok(against);
        }
        let mut stored = self.stored_rows(connection, &differing).await?;
        let mut expected: Vec<Single> = Vec::new();
        for lane in &self.lanes {
            lane.replay(scope, |key, pos, bytes| {
                if !differing.contains_key(&key) {
                    return;
                }
                match stored.get_mut(&(key, seal::hash(bytes))) {
                    Some((count, _)) if *count > 0 => *count -= 1,
                    Some(_) | None => expected.push(single(key, pos, bytes)),
                }
            })?;
        }
        let surplus = stored.into_values().filter(|(count, _)| *count > 0);
        let found: Vec<Single> =
            surplus.flat_map(|(count, row)| std::iter::repeat_n(row, usize::try_from(count).unwrap_or(1))).collect();
        let excuses = excuses(connection).await?;
        tell(expected, found, &excuses, findings, &mut against);
        Ok(against)
    }

    /// Hours that differ, the smallest first, as far as their rows can be held in memory; of the others it is only told.
    fn differing(
        &self,
        sums: &HashMap<Key, Sum>,
        findings: &mut Findings,
        against: &mut Against,
    ) -> BTreeMap<Key, u64> {
        let mut keys: Vec<Key> = sums.keys().chain(self.found.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let of = |sums: &HashMap<Key, Sum>, key: &Key| sums.get(key).copied().unwrap_or_default();
        keys.retain(|key| of(sums, key) != of(&self.found, key));
        keys.sort_by_key(|key| of(sums, key).rows.max(of(&self.found, key).rows));
        let (mut differing, mut held) = (BTreeMap::new(), 0);
        for key in keys {
            let (journaled, found) = (of(sums, &key).rows, of(&self.found, &key).rows);
            held += journaled.max(found);
            if held <= ROWS_HELD_MAX {
                differing.insert(key, found);
                continue;
            }
            against.differences += journaled.abs_diff(found).max(1);
            let detail = format!(
                "in this hour the journal gives {journaled} rows of instrument {} and {found} are there; too many to name",
                key.instrument.0
            );
            let at = key.hour * 1_000_000;
            findings.add(finding(Severity::Damage, "journal_differs", key.lane.0, key.table, at, detail));
        }
        differing
    }

    /// The database's rows of the differing hours, by hash, with how often each is there.
    async fn stored_rows(
        &self,
        connection: &Connection,
        differing: &BTreeMap<Key, u64>,
    ) -> Result<HashMap<(Key, u64), (u64, Single)>, Error> {
        let mut rows: HashMap<(Key, u64), (u64, Single)> = HashMap::new();
        for key in differing.iter().filter(|(_, rows)| **rows > 0).map(|(key, _)| key) {
            let Some(lane) = self.lanes.iter().find(|lane| lane.id == key.lane.0) else { continue };
            let condition = format!(
                "instrument_id = {} AND lane_id = {} AND frame_pos >= {} AND frame_pos < {} \
                 AND \"time\" >= to_timestamp({}) AND \"time\" < to_timestamp({})",
                key.instrument.0,
                key.lane.0,
                lane.frames.start,
                lane.frames.end,
                key.hour,
                key.hour + HOUR_SECONDS
            );
            stored::each_row(&connection.client, key.table, &condition, |bytes, row| {
                let entry = rows.entry((*key, seal::hash(bytes)));
                entry.or_insert_with(|| (0, single(*key, row.pos, bytes))).0 += 1;
                Ok(())
            })
            .await?;
        }
        Ok(rows)
    }
}

impl JournaledLane {
    fn told(&self) -> (String, u64, u64) {
        (self.lane.name.clone(), self.frames.start.unsigned_abs(), self.frames.end.unsigned_abs())
    }

    /// Every row that the journaled frames give in the range, as the writer would send it.
    fn replay(&self, scope: &Scope, mut each: impl FnMut(Key, i64, &[u8])) -> Result<(), Error> {
        let mut replay = Replay::open(&self.lane, FramePos::new(self.frames.start.unsigned_abs()))?;
        let mut spare = Events::default();
        let mut buf = BytesMut::new();
        while let Ok(chunk) = replay.next_chunk(&self.lane, CHUNK_ROWS, spare)? {
            let ids: Vec<Option<i32>> =
                chunk.symbols.iter().map(|symbol| self.instruments.get(symbol.as_ref()).copied()).collect();
            self.rows::<Trade>(scope, &chunk, &ids, &mut buf, &mut each);
            self.rows::<Level>(scope, &chunk, &ids, &mut buf, &mut each);
            self.rows::<Quote>(scope, &chunk, &ids, &mut buf, &mut each);
            self.rows::<TopBook>(scope, &chunk, &ids, &mut buf, &mut each);
            if chunk.end().get().cast_signed() >= self.frames.end {
                break;
            }
            spare = chunk;
        }
        Ok(())
    }

    fn rows<R: Row>(
        &self,
        scope: &Scope,
        chunk: &Events,
        ids: &[Option<i32>],
        buf: &mut BytesMut,
        each: &mut impl FnMut(Key, i64, &[u8]),
    ) {
        for event in R::list(chunk) {
            let pos = chunk.pos(event.frame());
            let (time, at) = (event.time().0, pos.get().cast_signed());
            let Some(Some(id)) = ids.get(event.symbol().0 as usize).copied() else { continue };
            if !(scope.from..scope.to).contains(&time) || !self.frames.contains(&at) {
                continue;
            }
            let (instrument, lane) = (InstrumentId(id), LaneId(self.id));
            let received = chunk.received(event.frame()).micros();
            buf.clear();
            event.put(buf, &Context { instrument, lane, pos, received });
            each(Key { hour: seal::hour_of(time), lane, table: R::TABLE, instrument }, at, buf);
        }
    }
}

fn lane(spec: &'static VenueSpec, identity: &journal::Identity, dir: &Path, end: FramePos) -> Lane {
    let progress = Arc::new(Progress::default());
    progress.recovered(end);
    Lane {
        name: identity.lane.clone(),
        venue: spec,
        journal_id: identity.journal_id,
        disk: Arc::new(RealDisk),
        dir: dir.into(),
        progress,
        rows: Rows::default(),
        queue: Queue::new(1),
        is_behind: false.into(),
        writer: Arc::default(),
    }
}

fn single(key: Key, pos: i64, bytes: &[u8]) -> Single {
    Single { lane: key.lane.0, pos, time: key.hour * 1_000_000, table: key.table, bytes: bytes.to_vec() }
}

/// Frames of which rows were refused or left out: lane, first and frame after the last.
async fn excuses(connection: &Connection) -> Result<Vec<(i32, Range<i64>)>, Error> {
    let sql = "SELECT lane_id, frame_pos,
                      coalesce(substring(detail FROM 'to before ([0-9]+)')::bigint, frame_pos + 1)
               FROM audit.rejects WHERE reason IN ('row_refused', 'journal_lost', 'written_elsewhere')";
    let rows = connection.query("read rejects", sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1)..row.get(2))).collect())
}

/// Pairs what is expected with what is there, and tells of each row.
fn tell(
    mut expected: Vec<Single>,
    mut found: Vec<Single>,
    excuses: &[(i32, Range<i64>)],
    findings: &mut Findings,
    against: &mut Against,
) {
    let order = |row: &Single| (row.table, row.lane, row.pos);
    expected.sort_by_key(order);
    found.sort_by_key(order);
    for row in expected {
        if excuses.iter().any(|(lane, frames)| *lane == row.lane && frames.contains(&row.pos)) {
            against.explained += 1;
            continue;
        }
        against.differences += 1;
        let begin = found.partition_point(|other| order(other) < order(&row));
        let end = found.partition_point(|other| order(other) <= order(&row));
        let wanted = texts(&row);
        let alike = |other: &Single| texts(other).iter().zip(&wanted).filter(|(a, b)| a == b).count();
        let best = (begin..end).max_by_key(|at| alike(&found[*at]));
        match best.filter(|at| 2 * alike(&found[*at]) > wanted.len()) {
            Some(at) => {
                let other = found.remove(at);
                let fields: Vec<String> = row
                    .table
                    .columns()
                    .iter()
                    .zip(wanted.iter().zip(texts(&other)))
                    .filter(|(_, (expected, found))| *expected != found)
                    .map(|(column, (expected, found))| format!("{column} is {found}, expected {expected}"))
                    .collect();
                let detail = format!("frame {}: {}", row.pos, fields.join("; "));
                findings.add(finding(Severity::Damage, "journal_altered", row.lane, row.table, row.time, detail));
            }
            None => {
                let detail = format!("frame {}: not there, expected {}", row.pos, named(&row, &wanted));
                findings.add(finding(Severity::Damage, "journal_missing", row.lane, row.table, row.time, detail));
            }
        }
    }
    for row in found {
        against.differences += 1;
        let detail = format!("frame {}: no frame gives {}", row.pos, named(&row, &texts(&row)));
        findings.add(finding(Severity::Damage, "journal_surplus", row.lane, row.table, row.time, detail));
    }
}

fn texts(row: &Single) -> Vec<String> {
    match stored::fields(&row.bytes, row.table) {
        Ok(Some((fields, _))) => fields.texts(row.table),
        Ok(None) | Err(_) => Vec::new(),
    }
}

fn named(row: &Single, texts: &[String]) -> String {
    let pairs: Vec<String> =
        row.table.columns().iter().zip(texts).map(|(column, text)| format!("{column} {text}")).collect();
    pairs.join(", ")
}

fn finding(severity: Severity, kind: &'static str, lane: i32, table: Table, at: i64, detail: String) -> Finding {
    Finding {
        severity,
        kind,
        venue: String::new(),
        symbol: String::new(),
        table: table.name(),
        lane_id: Some(lane),
        at: moment::iso(at),
        detail,
    }
}

/// Rows decoded at once.
const CHUNK_ROWS: usize = 8_192;
/// Rows of differing hours that are held to be compared one by one: about 300 MB.
const ROWS_HELD_MAX: u64 = 1_000_000;

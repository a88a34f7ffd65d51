//! psql's side of a database stage: the same rows in the same order, in the same transactions, as files that
//! `\copy ... (format binary)` reads.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tapeway_exchanges::{event::Events, symbols::Symbol};

use super::{
    BenchError,
    database::Target,
    failed,
    material::{Material, writer_config},
};
use crate::{
    lane::Lane,
    store::{
        Connection,
        capabilities::DIRECT_COMPRESS_SETTING,
        instruments::{self, InstrumentId},
        table::Table,
        watermark::LaneId,
    },
    writer::{
        batch::{Building, Limits, Piece, Sealed},
        encode::{Encoder, Poison, Scratch},
    },
};

/// Files for psql.
pub(super) struct Script {
    path: PathBuf,
    /// Inserts the lanes and their watermarks.
    prepare: String,
    /// Rows by table, in the order of [`Table::ALL`].
    pub(super) rows: [u64; Table::COUNT],
    /// Transactions.
    pub(super) batches: u64,
}

impl Script {
    /// Batches the material's chunks as the writer does and writes each batch's COPY files below `dir`.
    ///
    /// # Errors
    ///
    /// The journal, the disk, or the database, which numbers the instruments.
    pub(super) async fn write(dir: &Path, material: &Material, target: &Target) -> Result<Self, BenchError> {
        let dir = dir.join("copy");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let connection = target.connect().await?;
        let mut script = String::new();
        if target.capabilities.direct_compress(true) {
            writeln!(script, "SET {DIRECT_COMPRESS_SETTING} = on;").expect("a String takes any text");
        }
        let path = dir.join("script.sql");
        let mut files = Files { dir, script, next: 0, rows: [0; Table::COUNT], scratch: Scratch::default() };
        let numbers = register(material, &connection).await?;
        let config = writer_config();
        let limits = Limits {
            rows_max: config.batch_rows_max,
            bytes_max: config.batch_bytes_max,
            age_max: config.batch_age_max,
        };
        let mut building = Building::default();
        let mut lanes: Vec<Option<Arc<Lane>>> = Vec::new();
        material.each_chunk(|nr, lane, events| {
            lanes.resize(lanes.len().max(nr + 1), None);
            lanes[nr].get_or_insert_with(|| lane.clone());
            let instruments = events.symbols.iter().map(|symbol| numbers[&(lane.venue.name, symbol.clone())]).collect();
            building.push(piece(lane, nr, events, instruments), Instant::now().into());
            if building.is_full(&limits) {
                files.add(building.take())?;
            }
            Ok(())
        })?;
        if !building.is_empty() {
            files.add(building.take())?;
        }
        fs::write(&path, &files.script).map_err(failed(&path))?;
        let mut prepare = String::new();
        for lane in lanes.iter().flatten() {
            write!(
                prepare,
                "WITH lane AS (INSERT INTO audit.lanes (venue, name, journal_id) VALUES ('{}', '{}', gen_random_uuid()) \
                 RETURNING lane_id) INSERT INTO audit.watermarks (lane_id) SELECT lane_id FROM lane;",
                lane.venue.name, lane.name
            )
            .expect("a String takes any text");
        }
        Ok(Self { path, prepare, rows: files.rows, batches: files.next })
    }

    /// Makes the lanes and watermarks that the transactions move.
    ///
    /// # Errors
    ///
    /// psql's.
    pub(super) fn prepare(&self, target: &Target) -> Result<(), BenchError> {
        target.psql(&["-c", &self.prepare]).map(drop)
    }

    /// Lets psql copy everything; returns how long it took.
    ///
    /// # Errors
    ///
    /// psql's.
    pub(super) fn run(&self, target: &Target) -> Result<Duration, BenchError> {
        let began = Instant::now();
        target.psql(&["-f", &self.path.display().to_string()])?;
        Ok(began.elapsed())
    }

    /// Sees to it that every table holds as many rows as it should.
    ///
    /// # Errors
    ///
    /// [`BenchError::NotExact`].
    pub(super) fn verify(&self, what: &'static str, target: &Target) -> Result<(), BenchError> {
        for (table, rows) in Table::ALL.into_iter().zip(self.rows) {
            let found = target.psql(&["-At", "-c", &format!("SELECT count(*) FROM {}", table.path())])?;
            if found.trim() != rows.to_string() {
                let detail = format!("{} has {} rows instead of {rows}", table.path(), found.trim());
                return Err(BenchError::NotExact { what, detail });
            }
        }
        Ok(())
    }

    /// Removes the files.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    pub(super) fn remove(self) -> Result<(), BenchError> {
        let dir = self.path.parent().unwrap_or(&self.path);
        fs::remove_dir_all(dir).map_err(failed(dir))
    }

    /// All rows.
    pub(super) fn rows_total(&self) -> u64 {
        self.rows.iter().sum()
    }
}

/// A whole chunk of the lane that is number `nr`, ready to be encoded.
pub(super) fn piece(lane: &Arc<Lane>, nr: usize, events: Events, instruments: Arc<[InstrumentId]>) -> Piece {
    let lane_id = LaneId(i32::try_from(nr + 1).expect("a handful of lanes"));
    Piece { lane: lane.clone(), lane_id, old: events.first, from: 0, events, left_out: Vec::new(), instruments }
}

/// Numbers of instruments by venue and symbol.
pub(super) type Numbers = std::collections::BTreeMap<(&'static str, Symbol), InstrumentId>;

/// Gives every instrument of the material its number.
pub(super) async fn register(material: &Material, connection: &Connection) -> Result<Numbers, BenchError> {
    let mut symbols = std::collections::BTreeSet::new();
    material.each_chunk(|_, lane, events| {
        symbols.extend(events.symbols.iter().map(|symbol| (lane.venue.name, symbol.clone())));
        Ok(())
    })?;
    let mut numbers = Numbers::new();
    for (venue, symbol) in symbols {
        let number = instruments::register(connection, venue, std::slice::from_ref(&symbol)).await?;
        numbers.extend(number.first().map(|number| ((venue, symbol), *number)));
    }
    Ok(numbers)
}

struct Files {
    dir: PathBuf,
    script: String,
    next: u64,
    rows: [u64; Table::COUNT],
    scratch: Scratch,
}

impl Files {
    fn add(&mut self, pieces: Vec<Piece>) -> Result<(), BenchError> {
        let scratch = std::mem::take(&mut self.scratch);
        let (sealed, scratch) = Encoder::new(pieces, scratch, None, Poison::default()).finish();
        self.scratch = scratch;
        let Sealed { copies, marks, .. } = sealed;
        let out = &mut self.script;
        out.push_str("BEGIN;\n");
        for copy in &copies {
            let path = self.dir.join(format!("{}.{}", self.next, copy.table.name()));
            let mut file = fs::File::create(&path).map_err(failed(&path))?;
            for block in &copy.blocks {
                file.write_all(block).map_err(failed(&path))?;
            }
            let (table, columns) = (copy.table.path(), copy.table.columns().join(", "));
            let line = writeln!(out, "\\copy {table} ({columns}) FROM '{}' (FORMAT binary)", path.display());
            line.expect("a String takes any text");
            self.rows[copy.table as usize] += copy.rows;
        }
        for mark in &marks {
            let line = writeln!(
                out,
                "UPDATE audit.watermarks SET next_pos = {}, rows_total = rows_total + {}, updated_at = now() \
                 WHERE lane_id = {} AND next_pos = {};",
                mark.new, mark.rows, mark.lane_id.0, mark.old
            );
            line.expect("a String takes any text");
        }
        out.push_str("COMMIT;\n");
        self.next += 1;
        Ok(())
    }
}

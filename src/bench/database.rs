//! The database that is measured: a private one, or one that was named.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{BenchError, Options, progress};
use crate::{
    config::Database,
    demo::cluster::{Cluster, Extension, StopMode, psql_program},
    store::{
        self, Capabilities, Connection, Connector,
        table::{ORDER_BY, SEGMENT_BY, Table},
    },
};

/// The database, prepared and empty.
pub(super) struct Target {
    /// How the writer reaches it.
    pub(super) database: Database,
    /// What it is and can do.
    pub(super) capabilities: Capabilities,
    url: String,
    cluster: Option<Cluster>,
    psql: PathBuf,
    /// It had no tables of ours before.
    is_fresh: bool,
}

impl Target {
    /// Starts a private database, or looks at the one that was named, and makes the tables.
    ///
    /// # Errors
    ///
    /// [`BenchError::HasData`], or it cannot be had.
    pub(super) async fn open(options: &Options, dir: &Path) -> Result<Self, BenchError> {
        let cluster = match &options.database_url {
            Some(_) => None,
            None => {
                progress!("starting a private PostgreSQL");
                let extension = if options.is_plain { Extension::Never } else { Extension::WhenThere };
                Some(Cluster::create(&dir.join("postgres"), extension)?)
            }
        };
        let url = match (&options.database_url, &cluster) {
            (Some(url), _) => url.clone(),
            (None, Some(cluster)) => cluster.url(),
            (None, None) => unreachable!("without a URL there is a private database"),
        };
        let database = Database::at(&url);
        let connection = Connector::new(&database, "bench")?.connect().await?;
        let is_fresh = Capabilities::read(&connection).await?.layout.is_none();
        if !is_fresh && !options.is_forced {
            let row = connection.query_one("look for data", "SELECT count(*) FROM audit.lanes", &[]).await?;
            let lanes: i64 = row.get(0);
            if lanes > 0 {
                return Err(BenchError::HasData { rows: lanes.unsigned_abs() });
            }
        }
        let capabilities = store::prepare(&database).await?;
        let direct = if capabilities.direct_compress(true) { "direct compress" } else { "no direct compress" };
        progress!(
            "PostgreSQL {}, TimescaleDB {}, {direct}",
            capabilities.server_version_text,
            capabilities.timescaledb.as_deref().unwrap_or("none"),
        );
        Ok(Self { database, capabilities, url, cluster, psql: psql_program(), is_fresh })
    }

    /// A connection.
    ///
    /// # Errors
    ///
    /// As the server has them.
    pub(super) async fn connect(&self) -> Result<Connection, BenchError> {
        Ok(Connector::new(&self.database, "bench")?.connect().await?)
    }

    /// Deletes all rows, instruments but those excepted, and writes a checkpoint, so that every run begins the same.
    ///
    /// # Errors
    ///
    /// As the server has them.
    pub(super) fn empty(&self) -> Result<(), BenchError> {
        self.psql(&["-c", EMPTY, "-c", "CHECKPOINT"]).map(drop)
    }

    /// Runs psql.
    ///
    /// # Errors
    ///
    /// What it printed, if it failed.
    pub(super) fn psql(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url]).args(arguments);
        let output = command.output().map_err(|error| BenchError::Psql(format!("{}: {error}", self.psql.display())))?;
        if !output.status.success() {
            return Err(BenchError::Psql(String::from_utf8_lossy(&output.stderr).trim().into()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether rows are compressed as they come.
    pub(super) fn has_columnstore(&self) -> bool {
        self.capabilities.direct_compress(true)
    }

    /// Sets the empty tables to a segment an instrument, as they are shipped, or to none, ordered by instrument.
    ///
    /// # Errors
    ///
    /// As the server has them.
    pub(super) fn set_segments(&self, are_shipped: bool) -> Result<(), BenchError> {
        let (segment_by, order_by) =
            if are_shipped { (SEGMENT_BY, ORDER_BY.to_owned()) } else { ("", format!("{SEGMENT_BY}, {ORDER_BY}")) };
        for table in Table::ALL {
            let path = table.path();
            let sql = format!(
                "ALTER TABLE {path} SET (timescaledb.segmentby = '{segment_by}', timescaledb.orderby = '{order_by}')"
            );
            self.psql(&["-c", &sql])?;
        }
        Ok(())
    }

    /// Stops the server.
    ///
    /// # Errors
    ///
    /// [`BenchError::NotOurs`], or it does not stop.
    pub(super) fn stop_server(&mut self, mode: StopMode) -> Result<(), BenchError> {
        Ok(self.cluster.as_mut().ok_or(BenchError::NotOurs)?.stop(mode)?)
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// [`BenchError::NotOurs`], or it does not start.
    pub(super) fn start_server(&mut self) -> Result<(), BenchError> {
        Ok(self.cluster.as_mut().ok_or(BenchError::NotOurs)?.start()?)
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// CPU seconds of the whole server so far, when it is ours to look at.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        super::process::family_cpu_seconds(self.cluster.as_ref()?.pid().ok()?)
    }

    /// Removes what the bench has made.
    ///
    /// # Errors
    ///
    /// As the server has them.
    pub(super) async fn clean(&mut self, mode: StopMode) -> Result<(), BenchError> {
        match &mut self.cluster {
            Some(cluster) => cluster.stop(mode)?,
            None if self.is_fresh => {
                self.psql(&["-c", "DROP SCHEMA aggregates, market_data, audit CASCADE"])?;
            }
            None => {
                self.empty()?;
                self.psql(&[
                    "-c",
                    "TRUNCATE market_data.instruments, market_data.instruments_history, market_data.venues, audit.channels",
                ])?;
            }
        }
        Ok(())
    }
}

/// Instruments keep their numbers, lanes get theirs anew.
const EMPTY: &str = "TRUNCATE market_data.trades, market_data.book_deltas, market_data.quotes, market_data.order_books, audit.watermarks, \
     audit.lanes, audit.sessions, audit.gaps, audit.rejects, audit.seals RESTART IDENTITY";

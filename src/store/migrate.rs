//! The schema: numbered, forward-only files in `sql/migrations`, built into the binary.
//!
//! refinery keeps the list of what was applied (`audit.migrations`), with checksums, and runs each file in its own
//! transaction. Around it: an advisory lock, so that two daemons starting at once take turns, and the
//! creation of the TimescaleDB extension, which decides the layout once and for all.

use std::time::Duration;

use refinery::{Migration, Runner};
use tracing::{info, warn};

use super::{Capabilities, Connection, Connector, Error, within};

/// Brings the schema up to date. Returns the migrations applied now, none if it was.
///
/// # Errors
///
/// [`Error::Migration`] with the file's name and the server's words: that file was rolled back, those before it
/// stay. [`Error::TooOld`], [`Error::Server`], [`Error::Timeout`].
pub async fn migrate(connector: &Connector) -> Result<Vec<String>, Error> {
    let mut connection = connector.connect().await?;
    lock(&connection).await?;
    let found = Capabilities::read(&connection).await?;
    if found.layout.is_none() && found.timescaledb.is_none() && found.is_timescaledb_offered {
        create_timescaledb(connector).await;
        // A session that began without the extension does not see all of it: go on in a new one.
        connection = connector.connect().await?;
        lock(&connection).await?;
    }
    // Files may take longer than a statement of the writer should; the lock keeps others waiting that long too.
    connection.run("lift the statement timeout", "SET statement_timeout = 0").await?;
    connection.run("create schema audit", "CREATE SCHEMA IF NOT EXISTS audit").await?;
    let mut runner = Runner::new(&migrations());
    runner.set_migration_table_name("audit.migrations");
    let report = tokio::time::timeout(MIGRATION_TIMEOUT, runner.run_async(&mut connection.client))
        .await
        .map_err(|_| Error::Timeout { doing: "migration", after: MIGRATION_TIMEOUT })?
        .map_err(|error| Error::Migration(Box::new(error)))?;
    let applied: Vec<String> = report.applied_migrations().iter().map(ToString::to_string).collect();
    if !applied.is_empty() {
        info!(?applied, "database schema migrated");
    }
    Ok(applied)
}

/// Holds the migration lock until the connection is closed.
///
/// # Errors
///
/// [`Error::Timeout`] when another daemon holds it for longer than a migration may take.
pub(super) async fn lock(connection: &Connection) -> Result<(), Error> {
    let sql = "SET statement_timeout = 0; SELECT pg_advisory_lock(hashtextextended('tapeway migrate', 0))";
    within("wait for the migration lock", MIGRATION_TIMEOUT, connection.client.batch_execute(sql)).await
}

/// On a connection of its own: a server that has the files but not the library ends the session.
async fn create_timescaledb(connector: &Connector) {
    let create = async {
        let connection: Connection = connector.connect().await?;
        connection.run("create extension timescaledb", "CREATE EXTENSION IF NOT EXISTS timescaledb").await
    };
    if let Err(error) = create.await {
        warn!(%error, "TimescaleDB is installed but cannot be used; going on with plain PostgreSQL");
    }
}

fn migrations() -> Vec<Migration> {
    FILES
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql).expect("file names follow V<number>__<name>"))
        .collect()
}

const FILES: [(&str, &str); 7] = [
    ("V1__audit", include_str!("../../sql/migrations/V1__audit.sql")),
    ("V2__market_data", include_str!("../../sql/migrations/V2__market_data.sql")),
    ("V3__candles", include_str!("../../sql/migrations/V3__candles.sql")),
    ("V4__ledger", include_str!("../../sql/migrations/V4__ledger.sql")),
    ("V5__seals", include_str!("../../sql/migrations/V5__seals.sql")),
    ("V6__book_at", include_str!("../../sql/migrations/V6__book_at.sql")),
    ("V7__book_at", include_str!("../../sql/migrations/V7__book_at.sql")),
];

/// Longest time all migrations, or waiting for another daemon's, may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_built_in_and_the_numbers_have_no_hole() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/migrations");
        let on_disk = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(on_disk, FILES.len());
        let numbers: Vec<_> = migrations().iter().map(Migration::version).collect();
        assert_eq!(numbers, (1..).take(FILES.len()).collect::<Vec<_>>());
    }
}

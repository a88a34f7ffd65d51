//! What the server is and can do, read at every connect.

use serde::Serialize;

use super::{Connection, Error};

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Capabilities {
    /// PostgreSQL's version as a number, e.g. 150020.
    pub server_version: i32,
    /// PostgreSQL's version as text, e.g. `15.20`.
    pub server_version_text: String,
    /// TimescaleDB's version, when the extension is in this database.
    pub timescaledb: Option<String>,
    /// TimescaleDB could be created in this database: the server has it loaded.
    pub is_timescaledb_offered: bool,
    /// The edition with columnstore, continuous aggregates and policies.
    pub is_community: bool,
    /// The server can compress rows as COPY brings them.
    pub has_direct_compress: bool,
    /// The server takes no writes: a standby, or read-only.
    pub is_read_only: bool,
    /// How the event tables are kept; `None` before the first migration.
    pub layout: Option<Layout>,
    /// The user may create schemas in the database.
    pub can_create: bool,
    /// The user may insert into the event tables; `None` before the first migration.
    pub can_insert: Option<bool>,
}

/// How event tables are kept. Chosen by the first migration, never changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// TimescaleDB hypertables.
    Hypertable,
    /// Native range partitions by time.
    Partitioned,
}

impl Capabilities {
    /// Asks the server.
    ///
    /// # Errors
    ///
    /// [`Error::Server`], [`Error::Timeout`], and [`Error::TooOld`] below [`SERVER_VERSION_MIN`] or
    /// [`TIMESCALEDB_MIN`].
    pub async fn read(connection: &Connection) -> Result<Self, Error> {
        let row = connection.query_one("read capabilities", QUERY, &[]).await?;
        let layout = row.get::<_, Option<i8>>("relkind").map(|relkind| match relkind.unsigned_abs() {
            b'p' => Layout::Partitioned,
            _ => Layout::Hypertable,
        });
        let found = Self {
            server_version: row.get("server_version"),
            server_version_text: row.get("server_version_text"),
            timescaledb: row.get("timescaledb"),
            is_timescaledb_offered: row.get("is_timescaledb_offered"),
            is_community: row.get("is_community"),
            has_direct_compress: row.get("has_direct_compress"),
            is_read_only: row.get("is_read_only"),
            layout,
            can_create: row.get("can_create"),
            can_insert: row.get("can_insert"),
        };
        if found.server_version < SERVER_VERSION_MIN {
            return Err(Error::TooOld { what: "PostgreSQL", found: found.server_version_text, needed: "15" });
        }
        match &found.timescaledb {
            Some(version) if version_pair(version) < Some(TIMESCALEDB_MIN) => {
                Err(Error::TooOld { what: "TimescaleDB", found: version.clone(), needed: "2.18" })
            }
            Some(_) | None => Ok(found),
        }
    }

    /// Whether rows should be compressed as they arrive: wanted, possible, and the tables are hypertables.
    #[must_use]
    pub fn direct_compress(&self, is_wanted: bool) -> bool {
        is_wanted && self.has_direct_compress && self.is_community && self.layout == Some(Layout::Hypertable)
    }
}

fn version_pair(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The session setting that turns direct compress on for COPY.
pub const DIRECT_COMPRESS_SETTING: &str = "timescaledb.enable_direct_compress_copy";

/// Oldest PostgreSQL, as `server_version_num`.
pub const SERVER_VERSION_MIN: i32 = 150_000;
/// Oldest TimescaleDB.
pub const TIMESCALEDB_MIN: (u32, u32) = (2, 18);

/// Looks in the catalog rather than at the table, which the user may not be allowed to name.
const QUERY: &str = "
SELECT current_setting('server_version_num')::int AS server_version,
       current_setting('server_version') AS server_version_text,
       extension.extversion AS timescaledb,
       current_setting('timescaledb.disable_load', true) IS NOT NULL
           AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') AS is_timescaledb_offered,
       extension.extversion IS NOT NULL
           AND coalesce(current_setting('timescaledb.license', true), '') = 'timescale' AS is_community,
       current_setting('timescaledb.enable_direct_compress_copy', true) IS NOT NULL AS has_direct_compress,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS is_read_only,
       trades.relkind AS relkind,
       has_database_privilege(current_database(), 'CREATE') AS can_create,
       has_schema_privilege(trades.relnamespace, 'USAGE') AND has_table_privilege(trades.oid, 'INSERT') AS can_insert
FROM (SELECT) AS one
LEFT JOIN (SELECT pg_class.* FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
           WHERE nspname = 'market_data' AND relname = 'trades') AS trades ON true
LEFT JOIN (SELECT extversion::text FROM pg_extension WHERE extname = 'timescaledb') AS extension ON true";

//! Settings of the server that a recorder feels, and what `tapeway check` says about those that are not as they should be.
//!
//! The reasons are PostgreSQL's own; loads of some seconds do not tell them apart. None is needed for a single row to be right, but
//! `fsync` and `full_page_writes`, without which nothing that a server says can be believed after a crash of its machine.

use super::{Connection, Error};

/// One setting that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advice {
    /// Its name.
    pub setting: &'static str,
    /// What it is, as the server shows it.
    pub found: String,
    /// What it should be.
    pub wanted: &'static str,
    /// Why.
    pub because: &'static str,
}

/// Asks the server for what concerns it. `has_timescaledb`: whether chunks are TimescaleDB's.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn read(connection: &Connection, has_timescaledb: bool) -> Result<Vec<Advice>, Error> {
    let mut list = Vec::new();
    for rule in RULES.iter().filter(|rule| has_timescaledb || !rule.is_timescaledbs) {
        // Shown for people, and as a number in the setting's own unit (bytes for those of memory) or as 0 and 1.
        let row = connection.query_one("read a setting", QUERY, &[&rule.setting]).await?;
        let (found, value): (String, f64) = (row.get(0), row.get(1));
        if value < rule.min {
            list.push(Advice { setting: rule.setting, found, wanted: rule.wanted, because: rule.because });
        }
    }
    Ok(list)
}

/// What a setting should be at least.
struct Rule {
    setting: &'static str,
    min: f64,
    wanted: &'static str,
    because: &'static str,
    is_timescaledbs: bool,
}

const RULES: [Rule; 6] = [
    Rule {
        setting: "fsync",
        min: 1.0,
        wanted: "on",
        because: "a crash of the machine may leave a database that neither a watermark nor a backup can mend",
        is_timescaledbs: false,
    },
    Rule {
        setting: "full_page_writes",
        min: 1.0,
        wanted: "on",
        because: "a power cut in the middle of a page leaves half of it",
        is_timescaledbs: false,
    },
    Rule {
        setting: "shared_buffers",
        min: 256.0 * MIB,
        wanted: "256MB or more, usually a quarter of the memory",
        because: "the chunks being written, their indexes and the seals should stay in it",
        is_timescaledbs: false,
    },
    Rule {
        setting: "max_wal_size",
        min: 4_096.0 * MIB,
        wanted: "4GB or more",
        because: "a database that catches up fills the default in seconds, and every checkpoint writes whole pages anew",
        is_timescaledbs: false,
    },
    Rule {
        setting: "wal_compression",
        min: 1.0,
        wanted: "on",
        because: "whole pages after a checkpoint are most of the WAL",
        is_timescaledbs: false,
    },
    Rule {
        setting: "max_locks_per_transaction",
        min: 256.0,
        wanted: "256 or more",
        because: "a query over months of chunks locks each of them",
        is_timescaledbs: true,
    },
];

const MIB: f64 = 1_048_576.0;

/// The setting as it is shown, and as a number.
const QUERY: &str = "
SELECT current_setting(name),
       CASE vartype WHEN 'bool' THEN (setting = 'on')::int::float8
                    WHEN 'enum' THEN (setting NOT IN ('off', 'no', 'false', '0'))::int::float8
                    ELSE CASE unit WHEN '8kB' THEN setting::float8 * 8192 WHEN 'kB' THEN setting::float8 * 1024
                                   WHEN 'MB' THEN setting::float8 * 1048576 ELSE setting::float8 END END
FROM pg_settings WHERE name = $1";

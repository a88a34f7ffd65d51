//! The database: how to reach it, what it can do, its schema, its policies, and who is who in it.
//!
//! Everything here is called rarely (at start, at reconnect, on a new instrument, every few minutes); rows go
//! through [`writer`](crate::writer). Every await on the server has a timeout.

use std::{future::Future, time::Duration};

use thiserror::Error;
use tokio_postgres::error::SqlState;

pub mod advice;
pub mod capabilities;
pub mod connect;
pub mod instruments;
pub mod migrate;
pub(crate) mod partitions;
pub mod policies;
pub mod table;
mod tls;
pub mod watermark;

pub use capabilities::{Capabilities, Layout};
pub use connect::{Connection, Connector};

use crate::config::Database;

/// Connects, migrates the schema and reconciles the policies; returns what the server can do afterwards.
/// Safe to run from several daemons at once and as often as one likes.
///
/// # Errors
///
/// As [`migrate::migrate`] and [`policies::reconcile`]. What was migrated before the error stays.
pub async fn prepare(database: &Database) -> Result<Capabilities, Error> {
    let connector = Connector::new(database, "migrate")?;
    migrate::migrate(&connector).await?;
    let connection = connector.connect().await?;
    let capabilities = Capabilities::read(&connection).await?;
    policies::reconcile(&connection, &capabilities, database).await?;
    Ok(capabilities)
}

/// Why the database could not be used.
#[derive(Debug, Error)]
pub enum Error {
    /// `database.url` is not one.
    #[error("database.url: {what}")]
    Url {
        /// What is wrong with it; never contains the URL, which may hold a password.
        what: String,
    },
    /// The certificate authority file cannot be used.
    #[error("database certificate authority {path}: {what}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The server refused, or the connection broke.
    #[error("{doing}: {}", describe(source))]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What the server or the socket said.
        source: tokio_postgres::Error,
    },
    /// The database refused, through another client than PostgreSQL's.
    #[error("{doing}: {what} [{}]", code.code())]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The SQLSTATE.
        code: SqlState,
        /// The database's words.
        what: String,
    },
    /// The connection broke, through another client than PostgreSQL's.
    #[error("{doing}: {what}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// How.
        what: &'static str,
    },
    /// The server did not answer in time.
    #[error("{doing}: no answer within {after:?}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// A migration failed.
    #[error("migration: {0}")]
    Migration(Box<refinery::Error>),
    /// The server is older than what tapeway needs.
    #[error("{what} {found} is too old, {needed} or newer is needed")]
    TooOld {
        /// PostgreSQL or TimescaleDB.
        what: &'static str,
        /// The version found.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
    /// The schema is not there yet.
    #[error("the database has no tapeway schema yet; run `tapeway migrate`")]
    NotMigrated,
}

impl Error {
    /// Wraps an error of the client library.
    pub(crate) fn server(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Server { doing, source }
    }

    /// The SQLSTATE, if the server gave one.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server { source, .. } => source.code(),
            Self::Refused { code, .. } => Some(code),
            Self::Lost { .. }
            | Self::Url { .. }
            | Self::CaFile { .. }
            | Self::Timeout { .. }
            | Self::Migration(_)
            | Self::TooOld { .. }
            | Self::NotMigrated => None,
        }
    }

    /// Which row of a COPY the server stopped at, from 0, if it says so: its context is `COPY trades, line 3, column 2`.
    #[must_use]
    pub fn copy_row(&self) -> Option<usize> {
        let Self::Server { source, .. } = self else { return None };
        row_of(source.as_db_error()?.where_()?)
    }

    /// Whether it is the rows that the server will not have, so that sending them again cannot help.
    #[must_use]
    pub fn is_data(&self) -> bool {
        // Class 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (a field too long).
        self.code().is_some_and(|code| ["22", "23", "54"].contains(&&code.code()[..2]))
    }
}

fn row_of(context: &str) -> Option<usize> {
    let (_, rest) = context.split_once(", line ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse::<usize>().ok()?.checked_sub(1)
}

/// Runs one await on the server under a limit.
///
/// # Errors
///
/// The server's own, or [`Error::Timeout`]; after a timeout the connection is of no further use.
pub(crate) async fn within<T>(
    doing: &'static str,
    after: Duration,
    future: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(after, future).await {
        Ok(result) => result.map_err(Error::server(doing)),
        Err(_) => Err(Error::Timeout { doing, after }),
    }
}

/// The client library says only `db error`; the server's own words follow it.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{} [{}]{detail}", db.message(), db.code().code())
        }
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

//! A sealed batch as one transaction: what is done in which order, and what a failure leaves.

use std::time::Duration;

use thiserror::Error;

use super::{
    batch::{Mark, Sealed, Step},
    encode::encode_some,
    link::Link,
    notes::Notes,
    order::RowRef,
};
use crate::{
    journal,
    store::{self, table::Table},
};

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

/// Commits a batch, whole or not at all.
///
/// # Errors
///
/// [`Failure`]. After one that is the server's answer ([`Failure::is_data`], [`Failure::Fenced`]) the
/// transaction has been rolled back and the connection can be used; after any other it cannot.
pub async fn commit(link: &impl Link, sealed: &Sealed) -> Result<(), Failure> {
    link.ensure_partitions(sealed).await?;
    for step in sealed.steps() {
        if let Err(failure) = take(link, sealed, step).await {
            if failure.is_data() || matches!(failure, Failure::Fenced { .. } | Failure::NotDurable { .. }) {
                link.rollback().await?;
            }
            return Err(failure);
        }
    }
    link.committed(sealed);
    Ok(())
}

/// Whether the server takes these rows; `Err` holds its words if it does not, and the row among them at which it says it
/// stopped. Leaves nothing behind.
///
/// # Errors
///
/// [`store::Error`] for anything but a refusal of the rows.
pub async fn probe(
    link: &impl Link,
    sealed: &Sealed,
    table: Table,
    rows: &[RowRef],
) -> Result<Result<(), (String, Option<usize>)>, store::Error> {
    let blocks = encode_some(&sealed.pieces, table, rows);
    link.begin().await?;
    let mut result = link.copy(table, &blocks).await;
    if result.is_ok() {
        result = link.check_constraints().await;
    }
    match result {
        Err(error) if !error.is_data() => return Err(error),
        Ok(()) | Err(_) => {}
    }
    link.rollback().await?;
    Ok(result.map_err(|error| (error.to_string(), error.copy_row())))
}

async fn take(link: &impl Link, sealed: &Sealed, step: Step<'_>) -> Result<(), Failure> {
    match step {
        Step::Begin => link.begin().await?,
        Step::Copy(copy) => link.copy(copy.table, &copy.blocks).await?,
        Step::Notes => {
            link.channels(sealed).await?;
            link.notes(&Notes::of(sealed)).await?;
        }
        Step::Watermarks => {
            link.seals(sealed).await?;
            let (lanes, moved) = (sealed.marks.len() as u64, link.watermarks(&sealed.marks).await?);
            if moved != lanes {
                return Err(Failure::Fenced { lanes, moved });
            }
        }
        Step::UntilDurable => until_durable(&sealed.marks).await?,
        Step::Commit => link.commit().await?,
    }
    Ok(())
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

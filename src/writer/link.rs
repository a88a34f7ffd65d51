//! What a writer needs of a database. Two things are one: PostgreSQL, and the simulated database of `sim/`.
//!
//! A [`Link`] does single steps; which of them make a transaction, in which order and what follows from a failure is
//! decided in [`transaction`](super::transaction), for both alike.

use bytes::Bytes;
use tapeway_exchanges::symbols::Symbol;

use super::{
    batch::{Mark, Sealed},
    notes::Notes,
};
use crate::store::{
    self, Capabilities, Connection,
    instruments::InstrumentId,
    table::Table,
    watermark::{LaneId, Watermark},
};

/// Opens connections to one database.
#[expect(async_fn_in_trait, reason = "a shard and its connection live on one thread")]
pub trait Connect {
    /// A connection.
    type Link: Link;

    /// Opens a connection, ready for transactions.
    ///
    /// # Errors
    ///
    /// [`store::Error`], [`store::Error::NotMigrated`] among them.
    async fn connect(&self) -> Result<(Self::Link, Server), store::Error>;
}

/// What a connection found the server to be.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it can do.
    pub capabilities: Capabilities,
    /// Rows are compressed as they arrive.
    pub is_direct_compress_on: bool,
}

/// One connection. Dropping it ends it, whatever was under way.
///
/// Every call has a limit of its own for the server's silence. After an error that is not the server's answer the
/// connection is of no further use.
#[expect(async_fn_in_trait, reason = "a shard and its connection live on one thread")]
pub trait Link {
    /// Widths of partitions in seconds by table, where the writer has to make them.
    fn widths(&self) -> Option<[i64; Table::COUNT]>;

    /// How often the server said that it does not compress rows as they arrive.
    fn compress_warnings(&self) -> u64;

    /// The server itself, where it is one that knows SQL: asked for what other owners of a lane wrote. In a world where
    /// each lane has one journal there is nothing to ask.
    fn server(&self) -> Option<&Connection> {
        None
    }

    /// Whether the connection lives.
    ///
    /// # Errors
    ///
    /// It does not.
    async fn heartbeat(&self) -> Result<(), store::Error>;

    /// Claims a lane for as long as this connection lives; `false` when another connection has it.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn claim(&self, venue: &str, lane: &str) -> Result<bool, store::Error>;

    /// Gives a claimed lane back.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn release(&self, venue: &str, lane: &str) -> Result<(), store::Error>;

    /// The number of a lane's journal, given now if it is new.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn lane_id(&self, venue: &str, lane: &str, journal_id: u128) -> Result<LaneId, store::Error>;

    /// How far a lane is committed.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn watermark(&self, lane: LaneId) -> Result<Watermark, store::Error>;

    /// How far a lane is that another connection has: what this journal has committed, nothing if the database does not know
    /// it, and in [`Watermark::elsewhere`] how far the others are, by the earlier of their clock and the server's.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn standing(&self, venue: &str, lane: &str, journal_id: u128) -> Result<Watermark, store::Error>;

    /// The numbers of these symbols, in the same order; new symbols get theirs now.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn instruments(&self, venue: &str, symbols: &[Symbol]) -> Result<Vec<InstrumentId>, store::Error>;

    /// Makes the partitions that the rows need and that this connection has not seen yet.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn ensure_partitions(&self, sealed: &Sealed) -> Result<(), store::Error>;

    /// Looks at partitions anew: one may have been dropped by retention since it was seen.
    fn forget_partitions(&self);

    /// Opens a transaction.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn begin(&self) -> Result<(), store::Error>;

    /// Copies encoded rows into a table.
    ///
    /// # Errors
    ///
    /// [`store::Error`]; the server's refusal of the rows among them ([`store::Error::is_data`]).
    async fn copy(&self, table: Table, blocks: &[Bytes]) -> Result<(), store::Error>;

    /// Asks the constraints that would only speak at commit.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn check_constraints(&self) -> Result<(), store::Error>;

    /// Writes gaps, ends of gaps, sessions and rejects.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn notes(&self, notes: &Notes) -> Result<(), store::Error>;

    /// Writes the class of proof of the channels that this connection has not seen yet.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn channels(&self, sealed: &Sealed) -> Result<(), store::Error>;

    /// Adds the batch's rows to their seals.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn seals(&self, sealed: &Sealed) -> Result<(), store::Error>;

    /// The batch is committed: what was written with it need not be written again.
    fn committed(&self, sealed: &Sealed);

    /// Moves each watermark that is where its mark says it is; gives how many were.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn watermarks(&self, marks: &[Mark]) -> Result<u64, store::Error>;

    /// Ends the transaction with its effects.
    ///
    /// # Errors
    ///
    /// [`store::Error`]; unless it is the server's answer, whether it happened is for the watermark to say.
    async fn commit(&self) -> Result<(), store::Error>;

    /// Ends the transaction without effects.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    async fn rollback(&self) -> Result<(), store::Error>;
}

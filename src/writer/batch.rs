//! A batch: chunks of several lanes on their way into one transaction. Pure: no socket, no clock.
//!
//! ```text
//! Building  chunks as they are pulled, until rows, bytes or age say enough
//!    | seal (instrument numbers known)
//! Encoder   orders and encodes a slice of rows per step, so that a transaction in flight is served in between
//!    | finish                                                                        (`encode.rs`)
//! Sealed    encoded COPY blocks, notes, marks; its steps are what a transaction does
//! ```
//!
//! A batch ends at the end of a chunk, which is the end of a frame.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use tapeway_exchanges::{
    event::{Events, Level, Note, Quote, TopBook, Trade},
    ids::{FramePos, Nanos},
    venue::VenueSpec,
};
use tokio::time::Instant;

use super::{order::RowRef, row::Row};
use crate::{
    lane::Lane,
    seal::{Key, Sum},
    store::{instruments::InstrumentId, table::Table, watermark::LaneId},
};

/// When a batch is big or old enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows.
    pub rows_max: usize,
    /// Encoded bytes, estimated.
    pub bytes_max: usize,
    /// Time since the first chunk was pulled.
    pub age_max: Duration,
}

/// A lane's chunk, or the part of it that is still needed.
#[derive(Debug)]
pub struct Piece {
    /// The lane.
    pub lane: Arc<Lane>,
    /// The lane's number.
    pub lane_id: LaneId,
    /// What the watermark is when this piece's turn comes: the end of the piece before it.
    pub old: FramePos,
    /// Index of the first frame that is still needed.
    pub from: u32,
    /// The chunk.
    pub events: Events,
    /// Frames before the first whose rows are not written.
    pub left_out: Vec<LeftOut>,
    /// Numbers of the chunk's symbols, by index.
    pub instruments: Arc<[InstrumentId]>,
}

/// Frames whose rows are not written, though nothing is wrong with them. They count as rejected, and
/// `audit.rejects` has one row for all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeftOut {
    /// The first of them.
    pub first: FramePos,
    /// The frame after the last.
    pub end: FramePos,
    /// Their rows, as far as is known.
    pub rows: u64,
    /// Why.
    pub why: Why,
}

/// Why rows are left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// The journal no longer had them when they were needed: a gap.
    Lost,
    /// They were received while another daemon wrote this lane, and are there from its journal.
    Elsewhere,
}

impl Why {
    /// Fixed name, for `audit.rejects.reason` and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "journal_lost",
            Self::Elsewhere => "written_elsewhere",
        }
    }
}

impl Piece {
    /// Rows of one kind that are still needed, as indices into the chunk's list.
    pub(super) fn range<R: Row>(&self) -> Range<usize> {
        range_from::<R>(&self.events, self.from)
    }

    /// Rows still needed.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows_by_table().iter().sum()
    }

    /// Rows still needed, by table in the order of [`Table::ALL`].
    #[must_use]
    pub fn rows_by_table(&self) -> [usize; Table::COUNT] {
        [
            self.range::<Trade>().len(),
            self.range::<Level>().len(),
            self.range::<Quote>().len(),
            self.range::<TopBook>().len(),
        ]
    }

    /// Notes still needed.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.events.notes.iter().filter(|note| note_frame(note) >= self.from)
    }

    /// Receive times of the frames still needed.
    #[must_use]
    pub fn received(&self) -> &[Nanos] {
        &self.events.received[self.from as usize..]
    }
}

fn range_from<R: Row>(events: &Events, frame: u32) -> Range<usize> {
    let list = R::list(events);
    list.partition_point(|row| row.frame() < frame)..list.len()
}

/// The frame a note belongs to.
pub(super) fn note_frame(note: &Note) -> u32 {
    match note {
        Note::Gap(gap) => gap.frame,
        Note::GapClosed(closed) => closed.frame,
        Note::Reject(reject) => reject.frame,
        Note::Session(session) => session.frame,
    }
}

/// Chunks being gathered for the next batch.
#[derive(Debug, Default)]
pub struct Building {
    pieces: Vec<Piece>,
    rows: usize,
    since: Option<Instant>,
}

impl Building {
    /// Adds a lane's next chunk, pulled at `now`.
    pub fn push(&mut self, piece: Piece, now: Instant) {
        self.rows += piece.rows();
        self.since.get_or_insert(now);
        self.pieces.push(piece);
    }

    /// The chunks gathered so far.
    pub fn pieces_mut(&mut self) -> &mut [Piece] {
        &mut self.pieces
    }

    /// Takes all chunks, leaving none.
    pub fn take(&mut self) -> Vec<Piece> {
        self.rows = 0;
        self.since = None;
        std::mem::take(&mut self.pieces)
    }

    /// Whether no chunk is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether nothing more should be added.
    #[must_use]
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.rows >= limits.rows_max
            || self.rows * ROW_BYTES_USUAL >= limits.bytes_max
            || self.pieces.len() >= PIECES_MAX
    }

    /// When it has to be written even if more would fit; `None` while it is empty.
    #[must_use]
    pub fn due(&self, limits: &Limits) -> Option<Instant> {
        self.since.map(|since| since + limits.age_max)
    }
}

/// What a lane's watermark does in this transaction.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Its number.
    pub lane_id: LaneId,
    /// Where the watermark is before.
    pub old: FramePos,
    /// Where it is after.
    pub new: FramePos,
    /// Rows that are committed.
    pub rows: u64,
    /// Rows that are refused or left out.
    pub rejected: u64,
    /// Receive time of the last frame.
    pub received: Nanos,
}

/// A row that does not reach its table but `audit.rejects`; or several of a lane that are refused together.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The lane's number.
    pub lane_id: LaneId,
    /// How many rows.
    pub rows: u64,
    /// The table it was for.
    pub table: Table,
    /// The row's frame.
    pub pos: FramePos,
    /// Fixed name of why.
    pub reason: &'static str,
    /// Table, row and why exactly.
    pub detail: String,
    /// When the frame arrived.
    pub received: Nanos,
}

/// Encoded rows of one table.
#[derive(Debug)]
pub struct Copy {
    /// The table.
    pub table: Table,
    /// A COPY file, in blocks.
    pub blocks: Vec<Bytes>,
    /// Rows in it.
    pub rows: u64,
    /// Starts of the partitions they need (seconds since 1970), on plain PostgreSQL.
    pub partitions: Vec<i64>,
    /// The instruments they are of.
    pub instruments: Vec<Met>,
}

/// An instrument that a table's rows of this batch are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Met {
    /// The instrument's number.
    pub instrument: InstrumentId,
    /// Its venue.
    pub venue: &'static VenueSpec,
    /// When the first of the rows was received, by order of the table.
    pub received: Nanos,
}

/// A batch ready to be written.
#[derive(Debug)]
pub struct Sealed {
    /// The chunks, kept until they are committed.
    pub pieces: Vec<Piece>,
    /// Encoded rows, only of tables that have some.
    pub copies: Vec<Copy>,
    /// One a lane.
    pub marks: Vec<Mark>,
    /// Seals of the encoded rows.
    pub seals: Vec<(Key, Sum)>,
    /// Rows left out.
    pub refused: Vec<Refused>,
    /// The rows of each table in the order they are written, kept for when the server refuses some.
    pub orders: [Vec<RowRef>; Table::COUNT],
}

/// One thing a transaction does.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Opens the transaction.
    Begin,
    /// Copies rows into a table.
    Copy(&'a Copy),
    /// Writes gaps, ends of gaps, sessions and rejects.
    Notes,
    /// Writes the seals and moves the watermarks; if one is not where it is believed to be, the transaction must not be committed.
    Watermarks,
    /// Waits until every frame of the batch is on disk.
    UntilDurable,
    /// Commits.
    Commit,
}

impl Sealed {
    /// What to do, in order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        std::iter::once(Step::Begin).chain(self.copies.iter().map(Step::Copy)).chain([
            Step::Notes,
            Step::Watermarks,
            Step::UntilDurable,
            Step::Commit,
        ])
    }

    /// Rows that will be committed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.copies.iter().map(|copy| copy.rows).sum()
    }
}

/// What a row usually takes, for the byte limit.
pub(super) const ROW_BYTES_USUAL: usize = 128;
/// Chunks in one batch, whatever they hold: a quiet lane's chunks may be nearly empty.
const PIECES_MAX: usize = 4_096;

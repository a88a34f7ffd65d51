//! A batch: chunks of several lanes on their way into one transaction. Pure: no socket, no clock.
//!
//! ```text
//! Building  chunks as they are pulled, until rows, bytes or age say enough
//!    | seal (instrument numbers known)
//! Encoder   orders and encodes a slice of rows per step, so that a transaction in flight is served in between
//!    | finish
//! Sealed    encoded COPY blocks, notes, marks; its steps are what a transaction does
//! ```
//!
//! A batch ends at the end of a chunk, which is the end of a frame.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tapeway_exchanges::{
    event::{Events, Level, Note, Quote, TopBook, Trade},
    ids::{FramePos, Nanos},
    venue::VenueSpec,
};
use tokio::time::Instant;

use super::{
    order::{RowRef, Sorter},
    row::{self, Context, ROW_BYTES_MAX, Row},
};
use crate::{
    lane::Lane,
    seal::{Key, Sealer, Sum},
    store::{instruments::InstrumentId, partitions, table::Table, watermark::LaneId},
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
    fn range<R: Row>(&self) -> Range<usize> {
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

/// Rows to leave out, with why.
#[derive(Debug, Default)]
pub struct Poison {
    /// The rows.
    pub rows: HashSet<(Table, RowRef)>,
    /// Their entries for `audit.rejects`.
    pub refused: Vec<Refused>,
}

/// Memory that encoding reuses.
#[derive(Debug, Default)]
pub struct Scratch {
    sorter: Sorter,
}

/// Turns pieces into a [`Sealed`] batch, a slice at a time.
#[derive(Debug)]
pub struct Encoder {
    pieces: Vec<Piece>,
    scratch: Scratch,
    marks: Vec<Mark>,
    refused: Vec<Refused>,
    orders: [Vec<RowRef>; Table::COUNT],
    copies: Vec<Copy>,
    /// Table being encoded (index into [`Table::ALL`]), and its next row; the table is ordered when `at` is `None`.
    table: usize,
    at: Option<usize>,
    writing: Writing,
    widths: Option<[i64; Table::COUNT]>,
}

impl Encoder {
    /// Begins with pieces whose instruments are known. `widths`: of each table's partitions in seconds, on plain
    /// PostgreSQL. `poison`: rows already known to be refused.
    #[must_use]
    pub fn new(pieces: Vec<Piece>, scratch: Scratch, widths: Option<[i64; Table::COUNT]>, poison: Poison) -> Self {
        let mut encoder = Self {
            marks: marks(&pieces),
            pieces,
            scratch,
            refused: Vec::new(),
            orders: Default::default(),
            copies: Vec::new(),
            table: 0,
            at: None,
            writing: Writing::default(),
            widths,
        };
        encoder.order::<Trade>(&poison.rows);
        encoder.order::<Level>(&poison.rows);
        encoder.order::<Quote>(&poison.rows);
        encoder.order::<TopBook>(&poison.rows);
        encoder.refused.extend(poison.refused);
        for refused in &encoder.refused {
            let mark = encoder.marks.iter_mut().find(|mark| mark.lane_id == refused.lane_id);
            let mark = mark.expect("a refused row is of a lane of the batch");
            mark.rejected += refused.rows;
            mark.rows -= refused.rows;
        }
        encoder
    }

    /// Encodes about `rows_max` rows; `false` when nothing is left to do.
    pub fn step(&mut self, rows_max: usize) -> bool {
        let Some(table) = Table::ALL.get(self.table).copied() else { return false };
        let done = match table {
            Table::Trades => self.encode::<Trade>(rows_max),
            Table::BookDeltas => self.encode::<Level>(rows_max),
            Table::Quotes => self.encode::<Quote>(rows_max),
            // Each is as long as hundreds of others.
            Table::OrderBooks => self.encode::<TopBook>(rows_max.div_ceil(TOP_BOOK_ROWS)),
        };
        if done {
            self.table += 1;
            self.at = None;
        }
        true
    }

    /// The finished batch. Encodes what is left.
    #[must_use]
    pub fn finish(mut self) -> (Sealed, Scratch) {
        while self.step(usize::MAX) {}
        let seals = self.writing.sealer.take();
        let Self { pieces, copies, marks, refused, orders, scratch, .. } = self;
        (Sealed { pieces, copies, marks, seals, refused, orders }, scratch)
    }

    /// The pieces back, encoded or not.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }

    fn order<R: Row>(&mut self, poison: &HashSet<(Table, RowRef)>) {
        for (nr, piece) in (0u32..).zip(&self.pieces) {
            let range = piece.range::<R>();
            let list = R::list(&piece.events);
            for (row, event) in (0u32..).zip(list).skip(range.start) {
                let at = RowRef { piece: nr, row };
                if !poison.is_empty() && poison.contains(&(R::TABLE, at)) {
                    continue;
                }
                if !(TIME_MIN..TIME_MAX).contains(&event.time().0) {
                    self.refused.push(refuse(piece, R::TABLE, event, "time_out_of_range", "before 2000 or after 2200"));
                    continue;
                }
                self.scratch.sorter.push(piece.instruments[event.symbol().0 as usize], event.time(), at);
            }
        }
        self.scratch.sorter.drain_into(&mut self.orders[R::TABLE as usize]);
    }

    /// Encodes rows of one table; `true` when they are all encoded.
    fn encode<R: Row>(&mut self, rows_max: usize) -> bool {
        let order = &self.orders[R::TABLE as usize];
        if order.is_empty() {
            return true;
        }
        let from = self.at.unwrap_or_else(|| {
            self.writing.begin(order.len());
            0
        });
        let to = from.saturating_add(rows_max).min(order.len());
        let width = self.widths.map(|widths| widths[R::TABLE as usize]);
        for at in &order[from..to] {
            self.writing.put::<R>(&self.pieces[at.piece as usize], at.row, width);
        }
        self.at = Some(to);
        if to < order.len() {
            return false;
        }
        let instruments = std::mem::take(&mut self.writing.met);
        let (blocks, partitions) = self.writing.end();
        self.copies.push(Copy { table: R::TABLE, blocks, rows: order.len() as u64, partitions, instruments });
        true
    }
}

/// Encodes some rows of one table as a COPY file of their own: to find out whether the server takes them.
#[must_use]
pub fn encode_some(pieces: &[Piece], table: Table, rows: &[RowRef]) -> Vec<Bytes> {
    let mut writing = Writing::default();
    writing.begin(rows.len());
    for at in rows {
        let piece = &pieces[at.piece as usize];
        match table {
            Table::Trades => writing.put::<Trade>(piece, at.row, None),
            Table::BookDeltas => writing.put::<Level>(piece, at.row, None),
            Table::Quotes => writing.put::<Quote>(piece, at.row, None),
            Table::OrderBooks => writing.put::<TopBook>(piece, at.row, None),
        }
    }
    writing.end().0
}

/// The entries in `audit.rejects` for rows that the server refused, because: one for a row by itself, one a lane for rows
/// that were refused together.
#[must_use]
pub fn refused_rows(pieces: &[Piece], table: Table, rows: &[RowRef], because: &str) -> Vec<Refused> {
    let one = |at: &RowRef| {
        let piece = &pieces[at.piece as usize];
        let row = at.row as usize;
        match table {
            Table::Trades => refuse(piece, table, &piece.events.trades[row], "row_refused", because),
            Table::BookDeltas => refuse(piece, table, &piece.events.levels[row], "row_refused", because),
            Table::Quotes => refuse(piece, table, &piece.events.quotes[row], "row_refused", because),
            Table::OrderBooks => refuse(piece, table, &piece.events.top_books[row], "row_refused", because),
        }
    };
    if let [at] = rows {
        return vec![one(at)];
    }
    let mut lanes: HashMap<LaneId, (Refused, FramePos)> = HashMap::new();
    for at in rows {
        let found = one(at);
        let pos = found.pos;
        let (first, last) = lanes.entry(found.lane_id).or_insert_with(|| (Refused { rows: 0, ..found.clone() }, pos));
        first.rows += 1;
        *last = pos.max(*last);
        if pos < first.pos {
            *first = Refused { rows: first.rows, ..found };
        }
    }
    let mut list: Vec<Refused> = lanes
        .into_values()
        .map(|(first, last)| {
            let (rows, from) = (first.rows, first.pos);
            let detail =
                format!("{rows} rows of frames {from} to {last}, too many bad ones to name each: {}", first.detail);
            Refused { detail, ..first }
        })
        .collect();
    list.sort_by_key(|refused| refused.pos);
    list
}

fn refuse<R: Row>(piece: &Piece, table: Table, row: &R, reason: &'static str, because: &str) -> Refused {
    let symbol = &piece.events.symbols[row.symbol().0 as usize];
    Refused {
        lane_id: piece.lane_id,
        rows: 1,
        table,
        pos: piece.events.pos(row.frame()),
        reason,
        detail: format!("{}: {because}: {symbol} {row:?}", table.name()),
        received: piece.events.received(row.frame()),
    }
}

/// A COPY file being written.
#[derive(Debug, Default)]
struct Writing {
    buf: BytesMut,
    blocks: Vec<Bytes>,
    partitions: Vec<i64>,
    /// The partition of the row before.
    partition: Range<i64>,
    sealer: Sealer,
    /// Instruments so far; rows come instrument by instrument.
    met: Vec<Met>,
}

impl Writing {
    /// `rows`: how many are to come.
    fn begin(&mut self, rows: usize) {
        self.buf = BytesMut::with_capacity((rows * ROW_BYTES_USUAL).min(BLOCK_BYTES) + BLOCK_SLACK);
        row::put_header(&mut self.buf);
        self.partition = 0..0;
    }

    fn put<R: Row>(&mut self, piece: &Piece, row: u32, partition_width: Option<i64>) {
        let event = &R::list(&piece.events)[row as usize];
        let context = Context {
            instrument: piece.instruments[event.symbol().0 as usize],
            lane: piece.lane_id,
            pos: piece.events.pos(event.frame()),
            received: piece.events.received(event.frame()).micros(),
        };
        let begin = self.buf.len();
        event.put(&mut self.buf, &context);
        self.sealer.add(R::TABLE, context.instrument, context.lane, event.time().0, &self.buf[begin..]);
        if self.met.last().is_none_or(|met| met.instrument != context.instrument) {
            let received = piece.events.received(event.frame());
            self.met.push(Met { instrument: context.instrument, venue: piece.lane.venue, received });
        }
        if let Some(width) = partition_width {
            self.note_partition(event.time().0.div_euclid(1_000_000), width);
        }
        if self.buf.len() >= BLOCK_BYTES {
            let full = std::mem::replace(&mut self.buf, BytesMut::with_capacity(BLOCK_BYTES + BLOCK_SLACK));
            self.blocks.push(full.freeze());
        }
    }

    fn note_partition(&mut self, second: i64, width: i64) {
        if !self.partition.contains(&second) {
            let start = partitions::bucket(second, width);
            self.partition = start..start + width;
            if !self.partitions.contains(&start) {
                self.partitions.push(start);
            }
        }
    }

    fn end(&mut self) -> (Vec<Bytes>, Vec<i64>) {
        row::put_trailer(&mut self.buf);
        self.blocks.push(std::mem::take(&mut self.buf).freeze());
        (std::mem::take(&mut self.blocks), std::mem::take(&mut self.partitions))
    }
}

/// One mark a lane, in order of lane number, so that two writers lock watermarks in the same order.
fn marks(pieces: &[Piece]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for piece in pieces {
        let end = piece.events.end();
        let received = piece.received().last().copied().unwrap_or_default();
        let rows = piece.rows() as u64;
        let left_out: u64 = piece.left_out.iter().map(|left| left.rows).sum();
        match marks.iter_mut().find(|mark| mark.lane_id == piece.lane_id) {
            Some(mark) => {
                assert_eq!(mark.new, piece.old, "a lane's pieces must follow one another");
                mark.new = end;
                mark.rows += rows;
                mark.rejected += left_out;
                mark.received = received;
            }
            None => marks.push(Mark {
                lane: piece.lane.clone(),
                lane_id: piece.lane_id,
                old: piece.old,
                new: end,
                rows,
                rejected: left_out,
                received,
            }),
        }
    }
    marks.sort_unstable_by_key(|mark| mark.lane_id);
    marks
}

/// Bytes of a block handed to the connection at once: a usual batch's rows of one table. What is handed over the connection's task
/// sends by itself; each hand-over waits for a turn of the shard's.
const BLOCK_BYTES: usize = 4 << 20;
/// A row may begin just below the block's end.
const BLOCK_SLACK: usize = 2 * ROW_BYTES_MAX;
/// What a row usually takes, for the byte limit.
const ROW_BYTES_USUAL: usize = 128;
/// As how many rows a whole book counts where encoding is cut into slices.
const TOP_BOOK_ROWS: usize = 128;
/// Chunks in one batch, whatever they hold: a quiet lane's chunks may be nearly empty.
const PIECES_MAX: usize = 4_096;
/// 2000-01-01: nothing here is older, and PostgreSQL counts from there.
const TIME_MIN: i64 = 946_684_800_000_000;
/// 2200-01-01: a later time is a unit mistaken, and would make a chunk that no retention ever drops.
const TIME_MAX: i64 = 7_258_118_400_000_000;

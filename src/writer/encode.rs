//! A batch's pieces ordered and encoded as COPY files. Pure: no socket, no clock.
//!
//! An [`Encoder`] does a slice of rows per step. A row whose time cannot be, or that the server is known to refuse, becomes
//! an entry for `audit.rejects` instead, and counts as such in its lane's mark.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use bytes::{Bytes, BytesMut};
use tapeway_exchanges::{
    event::{Level, Quote, TopBook, Trade},
    ids::FramePos,
};

use super::{
    batch::{Copy, Mark, Met, Piece, ROW_BYTES_USUAL, Refused, Sealed},
    order::{RowRef, Sorter},
    row::{self, Context, ROW_BYTES_MAX, Row},
};
use crate::{
    seal::Sealer,
    store::{partitions, table::Table, watermark::LaneId},
};

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

    #[inline]
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
/// As how many rows a whole book counts where encoding is cut into slices.
const TOP_BOOK_ROWS: usize = 128;
/// 2000-01-01: nothing here is older, and PostgreSQL counts from there.
const TIME_MIN: i64 = 946_684_800_000_000;
/// 2200-01-01: a later time is a unit mistaken, and would make a chunk that no retention ever drops.
const TIME_MAX: i64 = 7_258_118_400_000_000;

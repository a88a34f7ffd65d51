//! Taking a lane over: what another owner of the lane has written already is left out, row by row, and what lies between
//! its last row and our first is named.
//!
//! A standby receives what the owner receives, over a connection of its own and into a journal of its own. When it takes
//! over, the frames of both overlap around the moment at which the owner committed its last one, but not to the frame: what
//! one connection brought before that moment the other may have brought after it. So rows are told by what they say:
//!
//! ```text
//! trade with an id       left out if that id is in the database
//! trade fetched again    left out if that id is in the database, however late it comes
//! book, quote with a seq left out up to the last one in the database
//! book, quote without    left out up to the venue's time of the last one in the database; of messages with that very
//!                        time as many as are there
//! whole book of a moment left out up to the last moment in the database
//! neither                left out if received before the seam
//! ```
//!
//! Notes are kept: what our own connection missed meanwhile stays named. What is left out counts as rejected
//! (`written_elsewhere`), so that *received = committed + rejected + pending* holds. Three gaps are added here:
//!
//! - the book of an instrument without ids cannot be shown to join: from its last row there until our next snapshot;
//! - a book with ids that joins, but that was not whole here since before our first frame of it: the same;
//! - a lane that begins after the last owner ended: the ids between, trades as `unhealable`, books until our snapshot.
//!
//! A little after the seam, gaps of trades that one owner could not heal are held against what all owners have written.
//!
//! The rule is the same when a former owner comes back with its old journal, and when that journal has lost its end and
//! goes on beyond the watermark: what is in the database then came from the lane itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tapeway_exchanges::{
    event::{Cause, Channel, Events, Flags, Gap, GapClosed, GapEnd, GapId, Level, Note, Quote, Reject, TopBook, Trade},
    ids::{FramePos, Micros, Nanos, SymbolIx},
};
use tokio_postgres::Row as SqlRow;
use tracing::{info, warn};

use super::{
    batch::{LeftOut, Piece, Why, note_frame},
    row::Row,
};
use crate::store::{
    self, Connection,
    watermark::{LaneId, Watermark},
};

mod last;
mod notes;
mod statements;

use last::{Last, LastTrade};
use notes::{Notes, SEAM_ORDINAL};
use statements::{LAST_BOOKS, LAST_QUOTES, LAST_TOPS, LAST_TRADES, LOST, OPEN, RECONCILE, STORED};

/// What a lane that others have written before, or that lost the end of its journal, has to be careful with.
#[derive(Debug)]
pub(super) struct Seam {
    lane: LaneId,
    /// Receive time of the last frame that was committed before ours.
    until: Micros,
    /// The lane's own rows are among what was written before: its journal has lost them.
    counts_own: bool,
    /// The journal has not been read before, or not where it now begins: nobody else will say what lies before its first
    /// frame.
    is_fresh: bool,
    /// The lane is before the seam.
    is_before: bool,
    trades: HashMap<i32, Option<LastTrade>>,
    books: HashMap<i32, Option<Last>>,
    quotes: HashMap<i32, Option<Last>>,
    tops: HashMap<i32, Option<Last>>,
    /// Gaps made here that wait for a snapshot.
    open: HashMap<i32, GapId>,
    /// Positions the journal does not hold, told with the next piece.
    lost: Option<(FramePos, FramePos)>,
    /// First and last frame of the piece that rows were left out of.
    left: Option<(u32, u32)>,
    /// The owners' gaps have been held against what they have between them.
    is_reconciled: bool,
}

impl Seam {
    /// What there is to be careful with; `None` when nobody but this journal has written the lane. `lost`: positions that
    /// are committed and not in the journal.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    pub(super) async fn read(
        connection: &Connection,
        lane: LaneId,
        watermark: &Watermark,
        lost: Option<(FramePos, FramePos)>,
    ) -> Result<Option<Self>, store::Error> {
        let own = watermark.last_received.map(micros);
        let ordinal = i32::try_from(SEAM_ORDINAL).unwrap_or(i32::MAX);
        let before = connection.query_one("read what the journal lost", LOST, &[&lane.0, &ordinal]).await?;
        let before = before.get::<_, Option<SystemTime>>(0).map(micros);
        let of_own = if lost.is_some() { own } else { before };
        let Some(until) = watermark.elsewhere.map(micros).max(of_own) else { return Ok(None) };
        let open = connection.query("read the seam's gaps", OPEN, &[&lane.0, &ordinal]).await?;
        let open = open.iter().map(|row| {
            let id = GapId {
                pos: FramePos::new(row.get::<_, i64>(1).unsigned_abs()),
                ordinal: row.get::<_, i32>(2).unsigned_abs(),
            };
            (row.get(0), id)
        });
        Ok(Some(Self {
            lane,
            until,
            counts_own: of_own.is_some(),
            is_fresh: watermark.next == FramePos::FIRST,
            is_before: own.is_none_or(|own| own <= until),
            trades: HashMap::new(),
            books: HashMap::new(),
            quotes: HashMap::new(),
            tops: HashMap::new(),
            open: open.collect(),
            lost,
            left: None,
            is_reconciled: own.is_some_and(|own| own.0 > until.0.saturating_add(RECONCILE_AFTER)),
        }))
    }

    /// The journal begins after its watermark, with frames from before the seam: what lies before its first frame is told
    /// as of a journal that has not been read before.
    pub(super) fn begin_anew(&mut self) {
        self.is_fresh = true;
    }

    /// Whether a piece may hold something that is in the database, or to be named.
    pub(super) fn concerns(&self, piece: &Piece) -> bool {
        let Events { trades, levels, received, .. } = &piece.events;
        self.lost.is_some()
            || !self.is_reconciled
            || received.iter().any(|received| self.is_near(*received))
            || trades.iter().any(|trade| self.is_fetched(trade))
            || (!self.open.is_empty() && levels.iter().any(|level| level.flags.has(Flags::SNAPSHOT)))
            || (self.is_fresh && self.is_news(piece))
    }

    /// Whether a piece of a new journal has rows of an instrument that is still to be held against the last owner's.
    fn is_news(&self, piece: &Piece) -> bool {
        let number = |symbol: SymbolIx| piece.instruments[symbol.0 as usize].0;
        let is_new_trade = |trade: &Trade| match self.trades.get(&number(trade.symbol)) {
            None => true,
            Some(last) => last.is_some_and(|last| trade.trade_id.is_some_and(|id| id <= last.id)),
        };
        let is_new_level = |level: &Level| match self.books.get(&number(level.symbol)) {
            None => true,
            Some(last) => last.is_some_and(|last| !last.is_met),
        };
        piece.events.trades.iter().any(is_new_trade) || piece.events.levels.iter().any(is_new_level)
    }

    /// Leaves out of a piece what is in the database, and names what lies between.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    pub(super) async fn settle(&mut self, connection: &Connection, piece: &mut Piece) -> Result<(), store::Error> {
        self.look_up(connection, piece).await?;
        let stored = self.stored(connection, piece).await?;
        let rows_before = piece.rows();
        self.reconcile(connection, piece).await?;
        let mut notes = Notes { list: Vec::new(), first: piece.events.first };
        self.tell_lost(piece, &mut notes);
        self.trades(piece, &stored, &mut notes);
        self.levels(piece, &mut notes);
        self.quotes(piece);
        self.tops(piece);
        let rows = (rows_before - piece.rows()) as u64;
        if let Some((first, last)) = self.left.take() {
            let (first, end) = (piece.events.pos(first), piece.events.pos(last).next());
            piece.left_out.push(LeftOut { first, end, rows, why: Why::Elsewhere });
        }
        if !notes.list.is_empty() {
            piece.events.notes.append(&mut notes.list);
            piece.events.notes.sort_by_key(note_frame);
        }
        let last = piece.events.received.last().copied().unwrap_or_default();
        if self.is_fresh && last.micros().0 > self.until.0.saturating_add(FRESH_FOR) {
            self.is_fresh = false;
        }
        Ok(())
    }

    /// Once past the seam: trades that one owner missed another may have.
    async fn reconcile(&mut self, connection: &Connection, piece: &Piece) -> Result<(), store::Error> {
        let is_past = |received: &Nanos| received.micros().0 > self.until.0.saturating_add(RECONCILE_AFTER);
        if !self.is_reconciled && piece.events.received.first().is_some_and(is_past) {
            let from = system_time(self.until.0.saturating_sub(RECONCILED));
            let arguments: store::connect::Arguments<'_> = &[&self.lane.0, &from];
            let gaps = connection.execute("hold gaps against what all owners wrote", RECONCILE, arguments).await?;
            info!(lane = piece.lane.name, gaps, "gaps of trades held against what all owners of the lane wrote");
            self.is_reconciled = true;
        }
        Ok(())
    }

    /// Whether what was received then may be in the database: not so long after the seam that only trades fetched again can
    /// be.
    fn is_near(&self, received: Nanos) -> bool {
        received.micros().0 <= self.until.0.saturating_add(MARGIN)
    }

    /// A trade fetched again that may be in the database.
    fn is_fetched(&self, trade: &Trade) -> bool {
        trade.flags.has(Flags::BACKFILL) && trade.time.0 <= self.until.0.saturating_add(MARGIN)
    }

    /// Reads how far each instrument is in the database, when the piece has the first rows of it.
    async fn look_up(&mut self, connection: &Connection, piece: &Piece) -> Result<(), store::Error> {
        let wanted = self.wanted::<Trade, _>(piece, &self.trades);
        for (instrument, row) in self.ask(connection, LAST_TRADES, &wanted).await? {
            let last = row.map(|row| LastTrade { id: row.get(1), time: moment(&row, 2), is_met: false });
            self.trades.insert(instrument, last);
        }
        let wanted = self.wanted::<Level, _>(piece, &self.books);
        for (instrument, row) in self.ask(connection, LAST_BOOKS, &wanted).await? {
            self.books.insert(instrument, row.map(|row| Last::of(&row)));
        }
        let wanted = self.wanted::<Quote, _>(piece, &self.quotes);
        for (instrument, row) in self.ask(connection, LAST_QUOTES, &wanted).await? {
            self.quotes.insert(instrument, row.map(|row| Last::of(&row)));
        }
        let wanted = self.wanted::<TopBook, _>(piece, &self.tops);
        for (instrument, row) in self.ask(connection, LAST_TOPS, &wanted).await? {
            self.tops.insert(instrument, row.map(|row| Last::of(&row)));
        }
        Ok(())
    }

    /// Instruments with rows near the seam that have not been looked up.
    fn wanted<R: Row, T>(&self, piece: &Piece, known: &HashMap<i32, T>) -> Vec<i32> {
        let mut wanted = BTreeSet::new();
        for row in R::list(&piece.events).iter().filter(|row| row.frame() >= piece.from) {
            let instrument = piece.instruments[row.symbol().0 as usize].0;
            let is_near = self.is_fresh || self.is_near(piece.events.received(row.frame()));
            if is_near && !known.contains_key(&instrument) {
                wanted.insert(instrument);
            }
        }
        wanted.into_iter().collect()
    }

    /// Asks for the last rows of instruments: each with its answer, if there is one.
    async fn ask(
        &self,
        connection: &Connection,
        sql: &str,
        wanted: &Vec<i32>,
    ) -> Result<Vec<(i32, Option<SqlRow>)>, store::Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows = connection
            .query("look at what another owner wrote", sql, &[wanted, &self.lane.0, &self.counts_own])
            .await?;
        let mut rows: HashMap<i32, SqlRow> = rows.into_iter().map(|row| (row.get(0), row)).collect();
        Ok(wanted.iter().map(|instrument| (*instrument, rows.remove(instrument))).collect())
    }

    /// Of the piece's trades, those that are in the database.
    async fn stored(&self, connection: &Connection, piece: &Piece) -> Result<HashSet<(i32, i64)>, store::Error> {
        let asked = piece.events.trades.iter().filter(|trade| {
            let instrument = piece.instruments[trade.symbol.0 as usize].0;
            let received = piece.events.received(trade.frame);
            trade.frame >= piece.from && self.is_doubtful(trade, instrument, received)
        });
        let mut ids = Vec::new();
        let mut instruments = BTreeSet::new();
        let (mut from, mut to) = (i64::MAX, i64::MIN);
        for trade in asked {
            ids.extend(trade.trade_id);
            instruments.insert(piece.instruments[trade.symbol.0 as usize].0);
            (from, to) = (from.min(trade.time.0), to.max(trade.time.0));
        }
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let instruments: Vec<i32> = instruments.into_iter().collect();
        // REST rounds times to the millisecond.
        let [from, to] = [from.saturating_sub(SECOND), to.saturating_add(SECOND)].map(system_time);
        let arguments: store::connect::Arguments<'_> =
            &[&instruments, &ids, &from, &to, &self.lane.0, &self.counts_own];
        let rows = connection.query("look for trades that another owner wrote", STORED, arguments).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Whether only the database can say if it has this trade.
    fn is_doubtful(&self, trade: &Trade, instrument: i32, received: Nanos) -> bool {
        let Some(id) = trade.trade_id else { return false };
        let last = self.trades.get(&instrument).copied().flatten();
        self.is_fetched(trade) || last.is_some_and(|last| self.is_near(received) || id <= last.id)
    }

    fn trades(&mut self, piece: &mut Piece, stored: &HashSet<(i32, i64)>, notes: &mut Notes) {
        let mut trades = std::mem::take(&mut piece.events.trades);
        trades.retain(|trade| {
            if trade.frame < piece.from {
                return true; // Committed before; not looked at again.
            }
            let instrument = piece.instruments[trade.symbol.0 as usize].0;
            self.meet_trade(trade, instrument, notes);
            let is_kept = self.is_trade_kept(trade, instrument, piece.events.received(trade.frame), stored);
            self.count(trade.frame, is_kept)
        });
        piece.events.trades = trades;
    }

    fn is_trade_kept(&self, trade: &Trade, instrument: i32, received: Nanos, stored: &HashSet<(i32, i64)>) -> bool {
        let Some(id) = trade.trade_id else { return received.micros() > self.until };
        !self.is_doubtful(trade, instrument, received) || !stored.contains(&(instrument, id))
    }

    /// Of a journal that begins after the last owner ended, the first trade shows which ones nobody has.
    fn meet_trade(&mut self, trade: &Trade, instrument: i32, notes: &mut Notes) {
        let (Some(id), false) = (trade.trade_id, trade.flags.has(Flags::BACKFILL)) else { return };
        let Some(Some(last)) = self.trades.get_mut(&instrument) else { return };
        if std::mem::replace(&mut last.is_met, true) || !self.is_fresh || id <= last.id.saturating_add(1) {
            return;
        }
        let span = (Some(last.time), Some(trade.time));
        let ids = (Some(last.id.saturating_add(1)), Some(id.saturating_sub(1)));
        let gap = notes.open(trade.frame, trade.symbol, Channel::Trades, ids, span);
        let why = "the lane's last owner has none of them, this journal begins after them, and nobody asks for trades from \
                   before it";
        notes.close(trade.frame, (gap, trade.symbol, Channel::Trades), GapEnd::Unhealable, None, Some(why));
    }

    fn levels(&mut self, piece: &mut Piece, notes: &mut Notes) {
        let mut levels = std::mem::take(&mut piece.events.levels);
        levels.retain(|level| {
            if level.frame < piece.from {
                return true;
            }
            let instrument = piece.instruments[level.symbol.0 as usize].0;
            let at = (piece.events.pos(level.frame), piece.events.received(level.frame));
            let is_kept = self.is_level_kept(level, instrument, at);
            self.meet_level(level, instrument, is_kept, notes);
            self.count(level.frame, is_kept)
        });
        piece.events.levels = levels;
    }

    fn is_level_kept(&mut self, level: &Level, instrument: i32, at: (FramePos, Nanos)) -> bool {
        let until = self.until;
        let Some(Some(last)) = self.books.get_mut(&instrument) else { return true };
        if level.flags.has(Flags::SNAPSHOT) {
            let is_behind = last.seq.zip(level.seq).is_some_and(|(last, seq)| seq <= last);
            return at.1.micros() > until && !is_behind;
        }
        last.is_followed_by((level.seq, level.time), level.flags, at, until)
    }

    /// Whether the book joins is said at the first message that is kept; a snapshot makes it whole again.
    fn meet_level(&mut self, level: &Level, instrument: i32, is_kept: bool, notes: &mut Notes) {
        let is_snapshot = level.flags.has(Flags::SNAPSHOT);
        let is_whole = !level.flags.has(Flags::AFTER_GAP);
        if let Some(Some(last)) = self.books.get_mut(&instrument) {
            let mut hole = None;
            let is_numbered = last.seq.is_some() && level.seq.is_some();
            if !last.is_met {
                // A numbered message that is left out is one that is there: the ones after it follow.
                last.is_met = is_kept || (is_numbered && !is_snapshot);
                last.is_broken = is_numbered && !is_whole;
                let joins = last.seq.zip(level.seq).is_some_and(|(last, seq)| seq <= last.saturating_add(1));
                let is_hole = if is_numbered { self.is_fresh && !joins } else { self.is_before };
                if is_kept && is_hole {
                    let before = level.seq.map(|seq| seq.saturating_sub(1));
                    hole = Some((last.seq.map(|seq| seq.saturating_add(1)), before));
                }
            } else if is_whole {
                last.is_broken = false;
            }
            // Its ids may join all the same.
            if let Some(ids) = hole.or((is_kept && last.is_broken).then_some((None, None))) {
                last.is_broken = false;
                let gap = notes.open(level.frame, level.symbol, Channel::Book, ids, (Some(last.time), None));
                self.open.insert(instrument, gap);
            }
        }
        if is_kept
            && is_snapshot
            && is_whole
            && let Some(gap) = self.open.remove(&instrument)
        {
            let until = Some(level.time);
            notes.close(level.frame, (gap, level.symbol, Channel::Book), GapEnd::Resynced, until, None);
        }
    }

    fn quotes(&mut self, piece: &mut Piece) {
        let until = self.until;
        let mut quotes = std::mem::take(&mut piece.events.quotes);
        quotes.retain(|quote| {
            let instrument = piece.instruments[quote.symbol.0 as usize].0;
            let Some(Some(last)) = self.quotes.get_mut(&instrument) else { return true };
            let at = (piece.events.pos(quote.frame), piece.events.received(quote.frame));
            let is_kept =
                quote.frame < piece.from || last.is_followed_by((quote.seq, quote.time), quote.flags, at, until);
            self.count(quote.frame, is_kept)
        });
        piece.events.quotes = quotes;
    }

    /// Whole books are of moments: one that is there is not told again, nor one from before it.
    fn tops(&mut self, piece: &mut Piece) {
        let until = self.until;
        let mut tops = std::mem::take(&mut piece.events.top_books);
        tops.retain(|top| {
            let instrument = piece.instruments[top.symbol.0 as usize].0;
            let Some(Some(last)) = self.tops.get_mut(&instrument) else { return true };
            let at = (piece.events.pos(top.frame), piece.events.received(top.frame));
            let is_kept = top.frame < piece.from || last.is_followed_by((None, top.time), Flags::NONE, at, until);
            self.count(top.frame, is_kept)
        });
        piece.events.top_books = tops;
    }

    /// Remembers where rows are left out; gives back whether this one is kept.
    fn count(&mut self, frame: u32, is_kept: bool) -> bool {
        if !is_kept {
            let (first, last) = self.left.unwrap_or((frame, frame));
            self.left = Some((first.min(frame), last.max(frame)));
        }
        is_kept
    }

    /// The journal has lost its end: what it held is in the database, and what came since then is for the ids to tell.
    fn tell_lost(&mut self, piece: &Piece, notes: &mut Notes) {
        let Some((first, end)) = self.lost.take() else { return };
        let frame = piece.from;
        let detail = format!(
            "the journal ended at {first} and the database has frames to before {end} committed: the journal was cut off or \
             is a copy; it goes on from there"
        );
        warn!(lane = piece.lane.name, %first, %end, "the journal is behind the database; it goes on from the watermark");
        let id = notes.id(frame);
        let (since, until) = (Some(self.until), Some(piece.events.received(frame).micros()));
        let (symbol, channel, cause, first_missing, last_missing) = (None, None, Cause::Downtime, None, None);
        let gap = Gap { frame, id, symbol, channel, cause, first_missing, last_missing, since, until };
        notes.list.push(Note::Gap(gap));
        let (end, rows, last_missing, until) = (GapEnd::Unhealable, 0, None, None);
        let said = Some(detail.clone().into());
        let closed = GapClosed { frame, id, symbol, channel, cause, end, rows, last_missing, until, detail: said };
        notes.list.push(Note::GapClosed(closed));
        notes.list.push(Note::Reject(Reject { frame, reason: "journal_behind", detail }));
    }
}

fn moment(row: &SqlRow, column: usize) -> Micros {
    micros(row.get(column))
}

fn micros(time: SystemTime) -> Micros {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn system_time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.clamp(0, TIME_MAX).unsigned_abs())
}

/// Two daemons' clocks and connections are not further apart than this (microseconds).
const MARGIN: i64 = 60 * SECOND;
/// How long after the seam instruments of a new journal are still held against what the last owner wrote.
const FRESH_FOR: i64 = 3_600 * SECOND;
/// How long after the seam everything from before it is committed.
const RECONCILE_AFTER: i64 = 5 * SECOND;
/// Gaps found this long before the seam, or after it, are looked at.
const RECONCILED: i64 = 86_400 * SECOND;
const SECOND: i64 = 1_000_000;
/// 2200-01-01, as rows later than that are not written.
const TIME_MAX: i64 = 7_258_118_400_000_000;

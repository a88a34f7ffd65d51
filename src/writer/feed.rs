//! One lane's input: what its writer needs next, from the queue or from the journal.
//!
//! The next position needed is the end of what was pulled before; after a (re)connect it is the database's watermark.
//! Every chunk is held against it:
//!
//! ```text
//! chunk ends before it            recycle
//! chunk begins at or before it    take, from it on
//! chunk begins after it           read the journal first
//! no chunk, lane is behind        read the journal to its end, then let the queue carry on
//! no chunk, frames are overdue    read the journal: their chunk was refused by a full queue, or a start found them
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tapeway_exchanges::{
    event::Events,
    ids::{FramePos, Nanos},
    symbols::Symbol,
};
use tokio::time::Instant;
use tracing::{error, info};

use super::{
    batch::{LeftOut, Piece, Why},
    standby::{self, Standby},
    takeover::Seam,
};
use crate::{
    journal,
    lane::Lane,
    metrics::LaneWriterMetrics,
    replay::Replay,
    store::{
        self, Connection,
        instruments::InstrumentId,
        watermark::{LaneId, Watermark},
    },
};

/// A lane as its writer sees it.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) lane: Arc<Lane>,
    pub(super) metrics: LaneWriterMetrics,
    pub(super) claim: Claim,
    /// The lane was taken out of the configuration: drain it and let it go.
    pub(super) is_leaving: bool,
    /// What is known of another daemon that has the lane.
    pub(super) standby: Standby,
    /// First position not yet pulled.
    next: FramePos,
    /// End of the last piece: where the watermark will be when the next piece's turn comes.
    old: FramePos,
    /// What others wrote before, when there is any.
    seam: Option<Seam>,
    /// Receive time of the last frame that others committed before.
    elsewhere: Option<SystemTime>,
    /// Chunks below have lost rows at the seam and are of no further use.
    edited_to: FramePos,
    /// Rows of the lane that are committed, refused, left out or pulled.
    accounted: u64,
    /// Frames that the journal no longer has, from and to, told with the next piece.
    lost: Option<(FramePos, FramePos)>,
    /// Chunks pulled and given back, then the queue's front.
    held: VecDeque<Events>,
    replay: Option<Replay>,
    /// Since when frames are appended that no chunk has brought.
    overdue_since: Option<Instant>,
    /// Frames were overdue: the journal is read to its end.
    is_catching_up: bool,
    /// Whether the lane was claimed before, on an earlier connection.
    was_claimed: bool,
    /// The journal failed; not read again before.
    retry_at: Option<Instant>,
    symbols: Arc<[Symbol]>,
    instruments: Arc<[InstrumentId]>,
}

/// Whether the lane may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// Not asked yet on this connection.
    Unclaimed,
    /// Another daemon has it; asked again now and then.
    Standby,
    /// It is this connection's.
    Held(LaneId),
}

/// What to do next for a lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Plan {
    Recycle,
    Take,
    ReadJournal,
    Wait,
}

/// Decides. `front`: first position and end of the oldest chunk.
fn plan(
    next: FramePos,
    front: Option<(FramePos, FramePos)>,
    appended: FramePos,
    is_behind: bool,
    is_overdue: bool,
) -> Plan {
    match front {
        Some((_, end)) if end <= next => Plan::Recycle,
        Some((first, _)) if first <= next => Plan::Take,
        Some(_) => Plan::ReadJournal,
        None if is_behind || (is_overdue && appended > next) => Plan::ReadJournal,
        None => Plan::Wait,
    }
}

impl Feed {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self {
            metrics: LaneWriterMetrics::new(lane.venue.name, &lane.name),
            lane,
            claim: Claim::Unclaimed,
            is_leaving: false,
            standby: Standby::default(),
            next: FramePos::FIRST,
            old: FramePos::FIRST,
            seam: None,
            elsewhere: None,
            edited_to: FramePos::FIRST,
            accounted: 0,
            lost: None,
            held: VecDeque::new(),
            replay: None,
            overdue_since: None,
            is_catching_up: false,
            was_claimed: false,
            retry_at: None,
            symbols: Arc::default(),
            instruments: Arc::default(),
        }
    }

    /// The lane is this connection's, and this is how far it is. `seam`: what others wrote of it.
    pub(super) fn claimed(&mut self, lane_id: LaneId, watermark: &Watermark, seam: Option<Seam>) {
        self.standby.forget(&self.lane);
        self.standby = Standby::default();
        let appended = self.lane.progress.appended();
        self.seam = seam;
        self.elsewhere = watermark.elsewhere;
        self.claim = Claim::Held(lane_id);
        self.next = watermark.next;
        self.old = watermark.next;
        self.lost = None;
        self.replay = None;
        self.overdue_since = None;
        // A start knows what the last run left; after a reconnect the queue most likely has what comes next.
        self.is_catching_up = !self.was_claimed;
        self.was_claimed = true;
        self.accounted = watermark.rows_total + watermark.rejected;
        self.lane.progress.set_committed(watermark.next.min(appended));
        self.lane.rows.on_commit(watermark.rows_total, watermark.rejected);
        let behind = appended.frames_since(watermark.next).unwrap_or_default();
        info!(lane = self.lane.name, watermark = %watermark.next, behind, "lane claimed");
    }

    /// Another daemon has the lane; `found`: how far that one is and this journal, when the database was asked.
    pub(super) fn stand_by(&mut self, found: &Watermark, now: Instant) {
        self.standby.learn(&self.lane, found, now);
        // Chunks from before would be held against rows that the database may long have dropped.
        let committed = self.lane.progress.committed();
        loop {
            if self.held.is_empty() {
                self.held.extend(self.lane.queue.pop());
            }
            match self.held.pop_front() {
                Some(old) if old.end() <= committed => self.lane.queue.recycle(old),
                Some(needed) => return self.held.push_front(needed),
                None => return,
            }
        }
    }

    /// The connection is gone: pieces that were not committed come back, oldest first, in front of what is held.
    pub(super) fn give_back(&mut self, pieces: impl DoubleEndedIterator<Item = Piece>) {
        for piece in pieces.rev() {
            if piece.events.first < self.edited_to {
                self.lane.queue.recycle(piece.events); // To be read again, whole.
            } else {
                self.held.push_front(piece.events);
            }
        }
        self.edited_to = FramePos::FIRST;
        self.seam = None;
        self.forget_ids();
        self.standby.forget(&self.lane);
        self.claim = Claim::Unclaimed;
        self.replay = None;
    }

    /// Numbers of instruments are asked for anew: the next connection may be to a database that was restored.
    pub(super) fn forget_ids(&mut self) {
        self.symbols = Arc::default();
        self.instruments = Arc::default();
    }

    /// The next chunk, if there is one now. `is_draining`: nothing more will come, do not wait for it.
    pub(super) fn pull(
        &mut self,
        rows_max: usize,
        now: Instant,
        is_draining: bool,
    ) -> Result<Option<Piece>, journal::Error> {
        let Claim::Held(lane_id) = self.claim else { return Ok(None) };
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(None);
        }
        loop {
            if self.held.is_empty() {
                self.held.extend(self.lane.queue.pop());
            }
            let front = self.held.front().map(|chunk| (chunk.first, chunk.end()));
            let appended = self.lane.progress.appended();
            let is_behind = self.lane.is_behind.load(Ordering::SeqCst);
            self.is_catching_up |= is_draining || self.is_overdue(now);
            match plan(self.next, front, appended, is_behind, self.is_catching_up) {
                Plan::Recycle => {
                    let old = self.held.pop_front().expect("the plan saw it");
                    self.lane.queue.recycle(old);
                }
                Plan::Take => {
                    let chunk = self.held.pop_front().expect("the plan saw it");
                    self.replay = None;
                    self.is_catching_up = false;
                    self.metrics.queue_rows_out.increment(chunk.rows() as u64);
                    return Ok(Some(self.piece(lane_id, chunk)));
                }
                Plan::ReadJournal => match self.read_journal(rows_max) {
                    Ok(Some(chunk)) => {
                        self.metrics.catch_up_rows.increment(chunk.rows() as u64);
                        return Ok(Some(self.piece(lane_id, chunk)));
                    }
                    Ok(None) => {
                        self.overdue_since = None;
                        self.is_catching_up = false;
                        if is_behind {
                            info!(lane = self.lane.name, next = %self.next, "lane has caught up with its journal");
                            self.lane.is_behind.store(false, Ordering::SeqCst);
                        }
                        return Ok(None);
                    }
                    Err(journal::Error::Gone { first, wanted }) if first > wanted => self.jump(first),
                    Err(error) => {
                        self.replay = None;
                        self.retry_at = Some(now + JOURNAL_RETRY);
                        return Err(error);
                    }
                },
                Plan::Wait => {
                    if appended > self.next {
                        self.overdue_since.get_or_insert(now);
                    } else {
                        self.overdue_since = None;
                        self.is_catching_up = false;
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// The numbers of a chunk's symbols, if they are known.
    pub(super) fn instruments(&self, symbols: &Arc<[Symbol]>) -> Option<Arc<[InstrumentId]>> {
        (Arc::ptr_eq(&self.symbols, symbols) || self.symbols == *symbols).then(|| self.instruments.clone())
    }

    /// Keeps the numbers of these symbols.
    pub(super) fn learn(&mut self, symbols: Arc<[Symbol]>, instruments: Arc<[InstrumentId]>) {
        self.symbols = symbols;
        self.instruments = instruments;
    }

    /// Whether the seam with what others wrote concerns a piece.
    pub(super) fn has_seam_in(&self, piece: &Piece) -> bool {
        self.seam.as_ref().is_some_and(|seam| seam.concerns(piece))
    }

    /// Leaves out of a piece what others wrote.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    pub(super) async fn settle_seam(&mut self, connection: &Connection, piece: &mut Piece) -> Result<(), store::Error> {
        if let Some(seam) = self.seam.as_mut().filter(|seam| seam.concerns(piece)) {
            self.edited_to = self.edited_to.max(piece.events.end());
            seam.settle(connection, piece).await?;
        }
        Ok(())
    }

    /// Whether everything appended has been pulled.
    pub(super) fn is_drained(&self) -> bool {
        match self.claim {
            Claim::Held(_) => self.next >= self.lane.progress.appended() && self.held.is_empty(),
            // Another daemon writes it: nothing to wait for.
            Claim::Standby => true,
            Claim::Unclaimed => false,
        }
    }

    /// Frames appended and not pulled while the journal is being read; zero on the live path, and on standby, where nothing
    /// is pulled.
    pub(super) fn behind_frames(&self) -> u64 {
        let is_ours = match self.claim {
            Claim::Held(_) | Claim::Unclaimed => true,
            Claim::Standby => false,
        };
        if is_ours && (self.replay.is_some() || self.lane.is_behind.load(Ordering::SeqCst)) {
            self.lane.progress.appended().frames_since(self.next).unwrap_or_default()
        } else {
            0
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.overdue_since.is_some_and(|since| now.duration_since(since) >= OVERDUE_AFTER)
    }

    /// What of a chunk is needed.
    fn piece(&mut self, lane_id: LaneId, events: Events) -> Piece {
        let already = self.next.frames_since(events.first).unwrap_or_default();
        let already = usize::try_from(already).unwrap_or(usize::MAX).min(events.received.len());
        let index = |frame: usize| u32::try_from(frame).expect("a chunk holds far fewer than 2^32 frames");
        let old = std::mem::replace(&mut self.old, events.end());
        self.next = events.end();
        self.overdue_since = None;
        let (lane, from, instruments) = (self.lane.clone(), index(already), Arc::default());
        let mut piece = Piece { lane, lane_id, old, from, events, left_out: Vec::new(), instruments };
        if let Some(missing) = self.lost.take() {
            let left = self.missing(missing, &piece);
            piece.left_out.push(left);
        }
        self.accounted += piece.rows() as u64 + piece.left_out.iter().map(|left| left.rows).sum::<u64>();
        piece
    }

    /// Why the frames before a piece are not in the journal: another owner wrote them and they were let go of while it did, or
    /// they are lost.
    fn missing(&mut self, (first, end): (FramePos, FramePos), piece: &Piece) -> LeftOut {
        let rows_before = piece.events.rows_total.saturating_sub(piece.rows() as u64);
        let rows = rows_before.saturating_sub(self.accounted);
        let received = piece.received().first().copied().unwrap_or(Nanos(0));
        let name = self.lane.name.as_str();
        let why = if standby::is_written(received, self.elsewhere) {
            info!(lane = name, from = %first, to = %end, rows, "frames that another daemon committed meanwhile were let go of");
            Why::Elsewhere
        } else {
            error!(lane = name, from = %first, to = %end, rows, "frames that were not committed are no longer in the journal");
            Why::Lost
        };
        if let (Why::Elsewhere, Some(seam)) = (why, &mut self.seam) {
            seam.begin_anew();
        }
        LeftOut { first, end, rows, why }
    }

    /// The next chunk from the journal; `None` at its end.
    fn read_journal(&mut self, rows_max: usize) -> Result<Option<Events>, journal::Error> {
        let replay = match &mut self.replay {
            Some(replay) if replay.pos() == self.next => replay,
            Some(_) | None => {
                if self.next >= self.lane.progress.appended() {
                    return Ok(None);
                }
                info!(lane = self.lane.name, from = %self.next, "reading the journal");
                self.replay.insert(Replay::open(&self.lane, self.next)?)
            }
        };
        match replay.next_chunk(&self.lane, rows_max, self.lane.queue.spare())? {
            Ok(chunk) => Ok(Some(chunk)),
            Err(spare) => {
                self.lane.queue.recycle(spare);
                Ok(None)
            }
        }
    }

    /// Goes on where the journal begins; the next piece says what became of the frames before.
    fn jump(&mut self, first: FramePos) {
        self.lost = Some((self.lost.map_or(self.next, |(from, _)| from), first));
        self.next = first;
        self.replay = None;
    }
}

/// Frames that no chunk brings for this long are read from the journal.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);
/// Wait after the journal could not be read.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64, front: Option<(u64, u64)>, appended: u64, is_behind: bool, is_overdue: bool) -> Plan {
        let front = front.map(|(first, end)| (FramePos::new(first), FramePos::new(end)));
        plan(FramePos::new(next), front, FramePos::new(appended), is_behind, is_overdue)
    }

    #[test]
    fn a_chunk_that_is_already_committed_is_recycled() {
        assert_eq!(at(10, Some((5, 10)), 20, false, false), Plan::Recycle);
        assert_eq!(at(10, Some((5, 10)), 20, true, true), Plan::Recycle);
    }

    #[test]
    fn a_chunk_that_holds_the_next_position_is_taken_even_when_the_lane_is_behind() {
        assert_eq!(at(10, Some((5, 11)), 20, true, false), Plan::Take);
        assert_eq!(at(10, Some((10, 11)), 20, false, true), Plan::Take);
    }

    #[test]
    fn a_hole_before_the_chunk_is_read_from_the_journal() {
        assert_eq!(at(10, Some((11, 12)), 20, false, false), Plan::ReadJournal);
    }

    #[test]
    fn without_a_chunk_the_journal_is_read_only_when_behind_or_overdue() {
        assert_eq!(at(10, None, 20, false, false), Plan::Wait);
        assert_eq!(at(10, None, 20, true, false), Plan::ReadJournal);
        assert_eq!(at(10, None, 20, false, true), Plan::ReadJournal);
        assert_eq!(at(10, None, 10, false, true), Plan::Wait);
        assert_eq!(at(10, None, 10, true, false), Plan::ReadJournal);
    }
}

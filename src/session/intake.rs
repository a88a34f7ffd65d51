//! Append, then parse, then enqueue: the synchronous heart of a session.

use std::sync::Arc;

use tapeway_exchanges::{
    adapter::At,
    decoder::Decoder,
    event::{Events, Flags, Note},
    ids::Nanos,
    input::Origin,
};
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::{
    journal::{self, LaneJournal},
    lane::{Ahead, Lane},
    metrics::SessionMetrics,
    status::{LaneStatus, Shared, unix_now},
};

/// One lane's journal and decoder, and the way to its queue.
#[derive(Debug)]
pub struct Intake {
    lane: Arc<Lane>,
    journal: LaneJournal,
    decoder: Decoder,
    metrics: SessionMetrics,
    status: Arc<Shared<LaneStatus>>,
    chunk_rows_max: usize,
    /// A frame's bytes as the parser may edit them.
    scratch: Vec<u8>,
    /// The decoder's state at the end of what was recovered, until the writer has found that the database is not ahead.
    recovered: Option<Vec<u8>>,
}

impl Intake {
    /// Joins a recovered journal and the decoder that stands at its end.
    pub fn new(
        lane: Arc<Lane>,
        journal: LaneJournal,
        decoder: Decoder,
        status: Arc<Shared<LaneStatus>>,
        chunk_rows_max: usize,
    ) -> Self {
        let metrics = SessionMetrics::new(lane.venue.name, &lane.name);
        lane.rows.on_receive(decoder.rows_total());
        Self { lane, journal, decoder, metrics, status, chunk_rows_max, scratch: Vec::new(), recovered: None }
    }

    /// Journals one input and decodes it.
    ///
    /// # Errors
    ///
    /// The journal could not take it; then it was not decoded either.
    pub fn take(&mut self, origin: impl Into<Origin>, received: Nanos, bytes: &[u8]) -> Result<(), journal::Error> {
        let Origin { kind, conn } = origin.into();
        let pos = self.journal.append((kind, conn), received, bytes)?;
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        self.decoder.apply(At { pos, received, conn }, kind, &mut self.scratch);
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        self.metrics.frames.increment(1);
        self.metrics.frame_bytes.increment(bytes.len() as u64);
        Ok(())
    }

    /// Begins a segment with the decoder's state. Before anything is taken.
    ///
    /// # Errors
    ///
    /// The journal has no room, or cannot be written.
    pub fn begin(&mut self) -> Result<(), journal::Error> {
        let state = self.decoder.state();
        block_in_place(|| self.journal.begin(&state))?;
        self.recovered = Some(state);
        Ok(())
    }

    /// Goes on from the watermark when the database has more of the lane than the journal. What was received since the
    /// start stands at positions that are taken, so the decoder goes back to the end of what was recovered: the venue's
    /// numbering then shows what is missing since. Between connections only.
    ///
    /// # Errors
    ///
    /// The journal has no room, or cannot be written.
    pub fn go_on_if_behind(&mut self) -> Result<(), journal::Error> {
        let Some(Ahead { next, rows_total }) = self.lane.progress.ahead() else { return Ok(()) };
        let state = self.recovered.clone().unwrap_or_else(|| self.decoder.state());
        let mut decoder = Decoder::restore(self.lane.venue, &state, next).unwrap_or_else(|error| {
            warn!(lane = self.lane.name, %error, "the adapter's state at the start is of no use");
            Decoder::new(self.lane.venue, next)
        });
        decoder.go_on_at(next, rows_total);
        let from = self.journal.next();
        block_in_place(|| self.journal.begin_at(next, &decoder.state()))?;
        info!(lane = self.lane.name, %from, to = %next, "the journal goes on from the watermark");
        self.decoder = decoder;
        self.lane.rows.on_receive(rows_total);
        Ok(())
    }

    /// Whether the chunk is large enough to be handed on without waiting for more.
    pub fn is_chunk_full(&self) -> bool {
        let events = self.decoder.events();
        events.rows() >= self.chunk_rows_max || events.received.len() >= CHUNK_FRAMES_MAX
    }

    /// Whether frames wait to be flushed.
    pub fn is_chunk_empty(&self) -> bool {
        self.decoder.events().is_empty()
    }

    /// Gives the frames taken so far to the operating system, then their events to the writer.
    ///
    /// # Errors
    ///
    /// The journal could not write; the events are not handed on.
    pub fn flush(&mut self) -> Result<(), journal::Error> {
        if self.decoder.events().is_empty() {
            return Ok(());
        }
        self.journal.flush()?;
        let chunk = self.decoder.swap_events(self.lane.queue.spare());
        let repeats = self.decoder.take_repeats();
        self.metrics.repeats_dropped.increment(repeats.dropped);
        self.metrics.holes_filled.increment(repeats.filled);
        self.account(&chunk);
        self.lane.offer(chunk, &self.metrics);
        self.roll_if_due()
    }

    /// Flushes and seals the journal: the last thing a session does. The next start finds an empty segment with
    /// the decoder's state and has nothing to read.
    ///
    /// # Errors
    ///
    /// The disk refused; the next start recovers what is there.
    pub fn seal(&mut self) -> Result<(), journal::Error> {
        self.flush()?;
        block_in_place(|| match self.journal.roll(&self.decoder.state()) {
            Err(journal::Error::Full { .. } | journal::Error::TooLong { .. }) => self.journal.seal(),
            result => result,
        })
    }

    /// What it was made of, for another session of this lane.
    pub fn into_parts(self) -> (LaneJournal, Decoder) {
        (self.journal, self.decoder)
    }

    /// Whether a journal that was full takes frames again. Tries to write what waits, and lets retention have the
    /// segment if everything in it is committed.
    ///
    /// # Errors
    ///
    /// The journal is lost: it will never have room.
    pub fn has_room(&mut self) -> Result<bool, journal::Error> {
        match self.flush().and_then(|()| self.journal.flush()).and_then(|()| self.roll_if_due()) {
            Ok(()) => Ok(!self.journal.is_full()),
            Err(journal::Error::Full { .. }) => Ok(false),
            Err(lost) => Err(lost),
        }
    }

    /// The decoder, for its actions, ticks and subscriptions.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// The session's metrics.
    pub fn metrics(&self) -> &SessionMetrics {
        &self.metrics
    }

    /// The lane.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Other lanes go on meanwhile: a roll waits for the disk.
    fn roll_if_due(&mut self) -> Result<(), journal::Error> {
        if self.journal.is_roll_due() {
            block_in_place(|| self.journal.roll(&self.decoder.state()))?;
        }
        Ok(())
    }

    fn account(&self, chunk: &Events) {
        let Events { trades, levels, quotes, top_books, notes, .. } = chunk;
        self.lane.rows.on_receive(chunk.rows_total);
        self.metrics.trades.increment(trades.len() as u64);
        self.metrics.levels.increment(levels.len() as u64);
        self.metrics.quotes.increment(quotes.len() as u64);
        self.metrics.top_books.increment(top_books.len() as u64);
        // A trade that was fetched again says nothing about the way from the venue to here.
        let live = trades.iter().rfind(|row| !row.flags.has(Flags::BACKFILL));
        let lags = [
            live.map(|row| (row.frame, row.time)),
            levels.last().map(|row| (row.frame, row.time)),
            quotes.last().map(|row| (row.frame, row.time)),
        ];
        // One sample a chunk and kind: the exporter keeps every sample until the next scrape.
        for (frame, time) in lags.into_iter().flatten() {
            let lag = chunk.received(frame).micros().0.saturating_sub(time.0);
            #[expect(clippy::cast_precision_loss, reason = "a lag below 2^53 microseconds is exact")]
            self.metrics.venue_to_receive.record(lag as f64 / 1e6);
        }
        if !notes.is_empty() {
            self.account_notes(chunk);
        }
    }

    fn account_notes(&self, chunk: &Events) {
        let lane = self.lane.name.as_str();
        let name = |symbol: Option<tapeway_exchanges::ids::SymbolIx>| {
            symbol.map_or("all", |symbol| &*chunk.symbols[symbol.0 as usize])
        };
        let mut said = 0;
        for note in &chunk.notes {
            said += 1;
            let is_said = said <= NOTES_LOGGED_MAX;
            match note {
                Note::Gap(gap) => {
                    self.metrics.gap(gap.channel, gap.cause);
                    self.status.update(|status| status.gaps += 1);
                    if is_said {
                        let (symbol, channel) = (name(gap.symbol), gap.channel.map_or("all", |channel| channel.name()));
                        let cause = gap.cause.name();
                        let (first, last) = (gap.first_missing, gap.last_missing);
                        warn!(lane, symbol, channel, cause, pos = %gap.id.pos, first, last, "gap");
                    }
                }
                Note::GapClosed(closed) => {
                    self.metrics.gap_closed(closed.channel, closed.end);
                    self.status.update(|status| status.gaps_closed += 1);
                    if is_said {
                        let symbol = name(closed.symbol);
                        let channel = closed.channel.map_or("all", |channel| channel.name());
                        let (end, rows, detail) = (closed.end.name(), closed.rows, closed.detail.as_deref());
                        info!(lane, symbol, channel, end, pos = %closed.id.pos, rows, detail, "gap closed");
                    }
                }
                Note::Reject(reject) => {
                    self.metrics.reject(reject.reason);
                    let pos = chunk.pos(reject.frame);
                    let error = (unix_now(), format!("frame {pos}: {}", reject.detail));
                    self.status.update(|status| status.last_error = Some(error));
                    if is_said {
                        warn!(lane, %pos, reason = reject.reason, detail = reject.detail, "frame could not be decoded; it stays in the journal");
                    }
                }
                Note::Session(_) => said -= 1,
            }
        }
        if said > NOTES_LOGGED_MAX {
            warn!(
                lane,
                more = said - NOTES_LOGGED_MAX,
                "gaps and rejects not logged one by one; audit.gaps and audit.rejects have all"
            );
        }
    }
}

/// A frame larger than this gives its buffer back to the allocator.
const SCRATCH_BYTES_KEPT: usize = 4 << 20;
/// Frames in one chunk, whatever they hold.
const CHUNK_FRAMES_MAX: usize = 4_096;
/// Gaps and rejects of one chunk that are logged one by one.
const NOTES_LOGGED_MAX: u32 = 5;

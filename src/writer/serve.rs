//! What a writer thread does while it has a connection.
//!
//! One transaction is in flight at most. While it is, the next batch is gathered and encoded, in slices of
//! [`ROWS_PER_SLICE`] rows between which the connection is served.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tapeway_exchanges::ids::Nanos;
use tokio::{task::yield_now, time::Instant};
use tracing::{error, info, warn};

use super::{
    batch::{Piece, Sealed},
    bisect::Bisect,
    encode::{Encoder, Poison, refused_rows},
    feed::{Claim, Feed},
    link::{Connect, Link},
    shard::{Shard, is_committed},
    takeover::Seam,
    transaction::{self, Failure},
};
use crate::store::{instruments::InstrumentId, table::Table, watermark::LaneId};

/// A transaction under way. Gives the batch back with how it went.
type InFlight<'a> = Pin<Box<dyn Future<Output = (Sealed, Duration, Result<(), Failure>)> + 'a>>;

impl<C: Connect> Shard<C> {
    /// Serves the lanes on this connection; returns when all is done.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the connection is of no further use, or not to be trusted. Chunks not committed are in
    /// `failed`, `encoder` and `building`, in this order.
    pub(super) async fn serve(&mut self, link: &C::Link) -> Result<(), Failure> {
        let mut in_flight: Option<InFlight<'_>> = None;
        let mut look_at = Instant::now();
        loop {
            self.take_commands();
            if in_flight.is_none() {
                self.look(link, &mut look_at).await?;
                self.let_go(link).await?;
                if self.building.is_empty() && self.is_done() {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                outcome = landed(&mut in_flight) => {
                    in_flight = None;
                    self.settle(link, outcome).await?;
                    continue;
                }
                result = self.fill(look_at) => result,
            }
            if self.building.is_empty() {
                if let Some(flight) = in_flight.take() {
                    // Nothing to gather and something to look at: not before the connection is free.
                    self.settle(link, flight.await).await?;
                }
                continue;
            }
            if !self.knows_instruments() {
                if let Some(flight) = in_flight.take() {
                    self.settle(link, flight.await).await?;
                }
                self.register(link).await?;
            }
            if self.has_seam() {
                if let Some(flight) = in_flight.take() {
                    self.settle(link, flight.await).await?;
                }
                self.settle_seams(link).await?;
            }
            let pieces = self.numbered();
            let scratch = std::mem::take(&mut self.scratch);
            self.encoder = Some(Encoder::new(pieces, scratch, link.widths(), Poison::default()));
            loop {
                tokio::select! {
                    biased;
                    () = encode(&mut self.encoder) => break,
                    outcome = landed(&mut in_flight) => {
                        in_flight = None;
                        self.settle(link, outcome).await?;
                    }
                }
            }
            if let Some(flight) = in_flight.take() {
                self.settle(link, flight.await).await?;
            }
            // Under load this is the only moment without a transaction.
            self.look(link, &mut look_at).await?;
            let (sealed, scratch) = self.encoder.take().expect("it was encoded just now").finish();
            self.scratch = scratch;
            in_flight = Some(Box::pin(write(link, sealed)));
        }
    }

    /// Claims lanes and looks whether the connection lives, if it is time for that.
    async fn look(&mut self, link: &C::Link, look_at: &mut Instant) -> Result<(), Failure> {
        if Instant::now() >= *look_at {
            self.claim(link).await?;
            self.let_go(link).await?;
            *look_at = Instant::now() + LOOK_EVERY;
        }
        Ok(())
    }

    /// Gathers chunks until the batch is big or old enough, or until there is something else to do: a command, the end,
    /// or, with nothing gathered, a look at the lanes.
    async fn fill(&mut self, look_at: Instant) {
        loop {
            let now = Instant::now();
            let any = self.pull_next(now);
            if self.building.is_full(&self.limits) {
                return;
            }
            let due = self.building.due(&self.limits);
            let is_ending = self.is_stopping() || self.feeds.iter().any(|feed| feed.is_leaving);
            let is_look_due = self.building.is_empty() && now >= look_at;
            if due.is_some_and(|due| due <= now) || is_look_due || (is_ending && !any) {
                if is_ending && self.building.is_empty() {
                    tokio::time::sleep(POLL_ENDING).await; // For what another lane's or the disk's turn is.
                }
                return;
            }
            if any {
                yield_now().await;
                continue;
            }
            let until = due.unwrap_or(look_at).min(now + POLL);
            let (wake, mut stop) = (self.wake.clone(), self.stop.clone());
            stop.mark_unchanged();
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = tokio::time::sleep_until(until) => {}
                _ = stop.changed() => {}
                () = self.next_command() => return,
            }
        }
    }

    /// The next chunk of the next lane that has one; the lanes take turns, so that one with much to catch up on keeps no
    /// other waiting. One at a time, because a chunk that is read from the journal takes as long as the connection may be
    /// left alone. `false`: no lane has one.
    fn pull_next(&mut self, now: Instant) -> bool {
        let is_stopping = self.is_stopping();
        let lanes = self.feeds.len();
        let first = self.turn;
        for at in (0..lanes).map(|nr| (first + nr) % lanes) {
            let feed = &mut self.feeds[at];
            match feed.pull(self.chunk_rows_max, now, is_stopping || feed.is_leaving) {
                Ok(Some(piece)) => {
                    self.building.push(piece, now);
                    self.turn = at + 1;
                    return true;
                }
                Ok(None) => {}
                Err(source) => {
                    let failure = Failure::Journal { lane: feed.lane.name.clone(), source };
                    warn!(shard = self.index, %failure, "journal cannot be read, trying again");
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    self.shared.lock().last_error = Some((now, failure.to_string()));
                }
            }
        }
        false
    }

    /// Looks whether the connection lives, claims lanes that are not claimed, and reads how far they are.
    async fn claim(&mut self, link: &C::Link) -> Result<(), Failure> {
        // With nothing to write, this is how a dead connection is noticed.
        link.heartbeat().await?;
        let now = Instant::now();
        for feed in &mut self.feeds {
            if !matches!(feed.claim, Claim::Unclaimed | Claim::Standby) || feed.is_leaving && is_committed(&feed.lane) {
                continue;
            }
            let (venue, name) = (feed.lane.venue.name, feed.lane.name.as_str());
            let is_ours = link.claim(venue, name).await?;
            if !is_ours {
                if feed.claim != Claim::Standby {
                    info!(lane = name, "another daemon writes this lane; standing by");
                }
                feed.claim = Claim::Standby;
                if feed.standby.is_due(now) {
                    let found = link.standing(venue, name, feed.lane.journal_id).await?;
                    feed.stand_by(&found, now);
                }
                continue;
            }
            let lane_id = link.lane_id(venue, name, feed.lane.journal_id).await?;
            let watermark = link.watermark(lane_id).await?;
            let lost = feed.lane.progress.is_behind(watermark.next, watermark.rows_total + watermark.rejected);
            let seam = match link.server() {
                Some(server) => Seam::read(server, lane_id, &watermark, lost).await?,
                None => None,
            };
            feed.claimed(lane_id, &watermark, seam);
        }
        self.publish();
        Ok(())
    }

    /// Lets lanes go that have left the configuration and have nothing left.
    async fn let_go(&mut self, link: &C::Link) -> Result<(), Failure> {
        let mut at = 0;
        while let Some(feed) = self.feeds.get(at) {
            let is_free = match feed.claim {
                // Everything committed: none of its chunks is under way.
                Claim::Held(_) => feed.is_drained() && is_committed(&feed.lane),
                Claim::Unclaimed => is_committed(&feed.lane),
                Claim::Standby => true,
            };
            if feed.is_leaving && is_free {
                if matches!(feed.claim, Claim::Held(_)) {
                    link.release(feed.lane.venue.name, &feed.lane.name).await?;
                }
                self.drop_feed(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether every symbol of the gathered chunks has its number.
    fn knows_instruments(&mut self) -> bool {
        let known = &self.known;
        let feeds = &mut self.feeds;
        self.building.pieces_mut().iter_mut().all(|piece| {
            let feed = feed_of(feeds, piece);
            if let Some(instruments) = feed.instruments(&piece.events.symbols) {
                piece.instruments = instruments;
                return true;
            }
            let venue = piece.lane.venue.name;
            let numbers: Option<Arc<[InstrumentId]>> =
                piece.events.symbols.iter().map(|symbol| known.get(&(venue, symbol.clone())).copied()).collect();
            let Some(numbers) = numbers else { return false };
            feed.learn(piece.events.symbols.clone(), numbers.clone());
            piece.instruments = numbers;
            true
        })
    }

    /// Asks the database for the numbers of new symbols.
    async fn register(&mut self, link: &C::Link) -> Result<(), Failure> {
        let mut missing: BTreeMap<&'static str, BTreeSet<_>> = BTreeMap::new();
        for piece in self.building.pieces_mut() {
            let venue = piece.lane.venue.name;
            let new =
                piece.events.symbols.iter().filter(|symbol| !self.known.contains_key(&(venue, (*symbol).clone())));
            missing.entry(venue).or_default().extend(new.cloned());
        }
        for (venue, symbols) in missing {
            let symbols: Vec<_> = symbols.into_iter().collect();
            let numbers = link.instruments(venue, &symbols).await?;
            self.known.extend(symbols.into_iter().map(|symbol| (venue, symbol)).zip(numbers));
        }
        Ok(())
    }

    /// Whether the gathered chunks hold what other owners of their lanes may have written.
    fn has_seam(&mut self) -> bool {
        let is_known = self.knows_instruments();
        assert!(is_known, "instruments are registered before rows are held against the database");
        let feeds = &mut self.feeds;
        self.building.pieces_mut().iter().any(|piece| feed_of(feeds, piece).has_seam_in(piece))
    }

    /// Leaves out what other owners wrote. Chunks lose rows here: when the connection fails they are read again.
    async fn settle_seams(&mut self, link: &C::Link) -> Result<(), Failure> {
        if let Some(server) = link.server() {
            for piece in self.building.pieces_mut() {
                feed_of(&mut self.feeds, piece).settle_seam(server, piece).await?;
            }
        }
        Ok(())
    }

    /// The gathered chunks, with their instruments' numbers.
    fn numbered(&mut self) -> Vec<Piece> {
        let is_known = self.knows_instruments();
        assert!(is_known, "instruments are registered before a batch is encoded");
        self.building.take()
    }

    /// After a transaction: progress, or what to do about its failure.
    async fn settle(
        &mut self,
        link: &C::Link,
        (sealed, took, result): (Sealed, Duration, Result<(), Failure>),
    ) -> Result<(), Failure> {
        self.count_warnings(link);
        match result {
            Ok(()) => {
                self.committed(sealed, took);
                Ok(())
            }
            Err(failure) if failure.is_data() => self.isolate(link, sealed, &failure).await,
            Err(failure) => {
                self.failed = sealed.pieces;
                Err(failure)
            }
        }
    }

    /// The server refuses the batch for its data: finds the rows, leaves them out, commits the rest.
    async fn isolate(&mut self, link: &C::Link, sealed: Sealed, failure: &Failure) -> Result<(), Failure> {
        warn!(shard = self.index, %failure, rows = sealed.rows(), "batch refused, looking for the rows");
        let begun = Instant::now();
        let poison = match poison(link, &sealed).await {
            Ok(poison) => poison,
            Err(failure) => {
                self.failed = sealed.pieces;
                return Err(failure);
            }
        };
        let encoder = Encoder::new(sealed.pieces, std::mem::take(&mut self.scratch), link.widths(), poison);
        let (sealed, scratch) = encoder.finish();
        self.scratch = scratch;
        let (sealed, _, result) = write(link, sealed).await;
        match result {
            Ok(()) => {
                error!(
                    shard = self.index,
                    refused = sealed.refused.iter().map(|refused| refused.rows).sum::<u64>(),
                    took = ?begun.elapsed(),
                    "rows refused by the database are in audit.rejects; the rest of the batch is committed"
                );
                self.committed(sealed, begun.elapsed());
                Ok(())
            }
            Err(failure) => {
                self.failed = sealed.pieces;
                Err(failure)
            }
        }
    }

    /// A batch is committed: says so to everyone.
    fn committed(&mut self, sealed: Sealed, took: Duration) {
        self.backoff.reset();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Nanos(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats; a batch is far below 2^53 rows")]
        self.metrics.batch_rows.record(sealed.rows() as f64);
        self.metrics.commit_seconds.record(took.as_secs_f64());
        for mark in &sealed.marks {
            let (_, committed, rejected) = mark.lane.rows.counts();
            mark.lane.rows.on_commit(committed + mark.rows, rejected + mark.rejected);
            mark.lane.progress.on_commit(mark.new);
        }
        let mut state = self.shared.lock();
        state.rows_committed += sealed.rows();
        drop(state);
        let mut refused: HashMap<(LaneId, Table), u64> = HashMap::new();
        for row in &sealed.refused {
            *refused.entry((row.lane_id, row.table)).or_default() += row.rows;
            if let Some(feed) = self.feeds.iter().find(|feed| feed.claim == Claim::Held(row.lane_id)) {
                feed.metrics.rejected(row.reason, row.rows);
            }
        }
        for piece in sealed.pieces {
            let feed = feed_of(&mut self.feeds, &piece);
            for left in &piece.left_out {
                feed.metrics.rejected(left.why.name(), left.rows);
            }
            for ((table, counter), rows) in
                Table::ALL.into_iter().zip(&feed.metrics.rows_committed).zip(piece.rows_by_table())
            {
                let left_out = refused.entry((piece.lane_id, table)).or_default();
                let here = (*left_out).min(rows as u64);
                *left_out -= here;
                counter.increment(rows as u64 - here);
            }
            record_latency(feed, &piece, now);
            piece.lane.queue.recycle(piece.events);
        }
    }

    fn count_warnings(&mut self, link: &C::Link) {
        let seen = link.compress_warnings();
        self.metrics.direct_compress_warnings.increment(seen.saturating_sub(self.warnings_seen));
        self.warnings_seen = seen;
    }
}

/// The rows that the server refuses.
async fn poison(link: &impl Link, sealed: &Sealed) -> Result<Poison, Failure> {
    // A partition that was dropped meanwhile is made again when the batch is written; here the rows need it too.
    link.forget_partitions();
    link.ensure_partitions(sealed).await?;
    let (mut poison, mut tries) = (Poison::default(), ISOLATE_TRIES_MAX);
    for (table, order) in Table::ALL.into_iter().zip(&sealed.orders) {
        let mut search = Bisect::new(order.len(), tries);
        while let Some(range) = search.next() {
            match transaction::probe(link, sealed, table, &order[range]).await? {
                Ok(()) => search.accepted(),
                Err((why, at)) => search.refused(why, at),
            }
        }
        tries = search.tries_left();
        for (range, why) in search.into_found() {
            let rows = &order[range];
            poison.refused.extend(refused_rows(&sealed.pieces, table, rows, &why));
            poison.rows.extend(rows.iter().map(|row| (table, *row)));
        }
    }
    Ok(poison)
}

/// Receive-to-commit of a chunk's frames: a few samples, each counting for its share of the frames.
fn record_latency(feed: &Feed, piece: &Piece, now: Nanos) {
    let received = piece.received();
    for frames in received.chunks(received.len().div_ceil(LATENCY_SAMPLES).max(1)) {
        let middle = frames[frames.len() / 2];
        feed.metrics.receive_to_commit.record_many(now.since(middle).as_secs_f64(), frames.len());
    }
}

fn feed_of<'a>(feeds: &'a mut [Feed], piece: &Piece) -> &'a mut Feed {
    feeds.iter_mut().find(|feed| Arc::ptr_eq(&feed.lane, &piece.lane)).expect("a lane with chunks under way is kept")
}

async fn write(link: &impl Link, sealed: Sealed) -> (Sealed, Duration, Result<(), Failure>) {
    let begun = Instant::now();
    let result = transaction::commit(link, &sealed).await;
    (sealed, begun.elapsed(), result)
}

/// Waits for the transaction under way; for ever if there is none.
async fn landed(in_flight: &mut Option<InFlight<'_>>) -> (Sealed, Duration, Result<(), Failure>) {
    match in_flight {
        Some(flight) => flight.await,
        None => std::future::pending().await,
    }
}

/// Encodes slice by slice. Can be dropped and called again.
async fn encode(encoder: &mut Option<Encoder>) {
    while encoder.as_mut().is_some_and(|encoder| encoder.step(ROWS_PER_SLICE)) {
        yield_now().await;
    }
}

/// Tries to find single refused rows in one batch: seconds on a slow server. A batch with more bad rows than that finds is refused
/// in pieces.
const ISOLATE_TRIES_MAX: usize = 256;
/// Rows encoded between two looks at the connection: about a quarter of a millisecond.
const ROWS_PER_SLICE: usize = 2_048;
/// How often lanes that are not claimed are tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often lanes are looked at without being woken.
const POLL: Duration = Duration::from_millis(50);
/// The same while something is being ended.
const POLL_ENDING: Duration = Duration::from_millis(5);
/// Samples of receive-to-commit time per chunk.
const LATENCY_SAMPLES: usize = 8;

//! One lane's life: connect, subscribe, read, answer, watch, reconnect; for ever.
//!
//! A session needs no database. What it receives goes through [`intake::Intake`]: journal, decoder, queue. What
//! the adapter wants done (messages, HTTP requests, a reconnect) is done here, within the venue's limits.

use std::{collections::HashSet, mem::discriminant, sync::Arc, time::Duration};

use futures_util::{FutureExt, SinkExt, StreamExt};
use rand::RngExt;
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, LanePlan},
    decoder::Decoder,
    event::Channel,
    ids::{Nanos, SymbolIx},
    input::{self, Kind},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{error, info, warn};

use crate::{
    journal::{self, LaneJournal},
    lane::Lane,
    status::{Connection, LaneStatus, PROBLEMS_MAX, Shared, Subscriptions, unix_now},
};

mod backoff;
mod clock;
pub mod connect;
pub mod http;
pub mod intake;
pub mod limiter;
mod requests;
pub mod tls;
mod watchdog;

use backoff::Backoff;
use clock::ClockSteps;
use connect::{Dialer, WebSocket};
use intake::Intake;
use limiter::Limiter;
use requests::Requests;
use watchdog::{Finding, Watchdog};

/// What all lanes of one venue share.
#[derive(Debug)]
pub struct VenueLink {
    /// Opens connections.
    pub dialer: Dialer,
    /// Connection attempts.
    pub connects: Limiter,
    /// REST request weight.
    pub http_weight: Limiter,
    /// The venue's limits.
    pub limits: tapeway_exchanges::config::Limits,
}

impl VenueLink {
    /// A link within `limits`.
    pub fn new(dialer: Dialer, limits: tapeway_exchanges::config::Limits) -> Self {
        let connects = Limiter::new(limits.connects, limits.connects_per);
        let http_weight = Limiter::new(limits.http_weight_per_minute, Duration::from_secs(60));
        Self { dialer, connects, http_weight, limits }
    }
}

/// What a session is to do. The newest counts, whenever the session comes to read it.
#[derive(Clone, Debug)]
pub struct Order {
    /// What to connect to and ask for.
    pub plan: LanePlan,
    /// How the venue is reached, within which limits.
    pub link: Arc<VenueLink>,
}

/// Everything a session is made of.
#[derive(Debug)]
pub struct Session {
    intake: Intake,
    order: Order,
    orders: watch::Receiver<Order>,
    stop: watch::Receiver<bool>,
    status: Arc<Shared<LaneStatus>>,
    watchdog: Watchdog,
    last_frame: Nanos,
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to stop. The journal is sealed (if it has room), and ready for another session.
    Stopped(Box<(LaneJournal, Decoder)>),
    /// The journal cannot be trusted any more: the process must end and recover.
    JournalLost(journal::Error),
}

/// What is wrong inside a connection's loop.
type Pumped = Result<CloseReason, journal::Error>;

impl Session {
    /// A session over a recovered journal and the decoder that stands at its end. Runs in a runtime of several
    /// threads.
    pub fn new(
        lane: Arc<Lane>,
        (journal, decoder): (LaneJournal, Decoder),
        mut orders: watch::Receiver<Order>,
        stop: watch::Receiver<bool>,
        status: Arc<Shared<LaneStatus>>,
        chunk_rows_max: usize,
    ) -> Self {
        let intake = Intake::new(lane, journal, decoder, status.clone(), chunk_rows_max);
        let order = orders.borrow_and_update().clone();
        Self { intake, order, orders, stop, status, watchdog: Watchdog::default(), last_frame: now() }
    }

    /// Runs until told to stop or the journal is lost.
    pub async fn run(mut self) -> Ended {
        match self.record().await {
            Ok(()) | Err(journal::Error::Full { .. }) => {}
            Err(lost) => {
                error!(lane = self.name(), error = %lost, "the journal is lost to this process; a restart recovers it");
                self.intake.metrics().connected.set(0.0);
                self.error(lost.to_string());
                self.status.update(|status| status.connection = Connection::Stopped);
                return Ended::JournalLost(lost);
            }
        }
        self.intake.metrics().retire();
        self.status.update(|status| {
            status.connection = Connection::Stopped;
            status.last_frame = None;
        });
        Ended::Stopped(Box::new(self.intake.into_parts()))
    }

    /// Everything between the first segment and its seal.
    async fn record(&mut self) -> Result<(), journal::Error> {
        self.begin().await?;
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
        while !*self.stop.borrow() {
            match self.connection(&mut backoff).await {
                Err(full @ journal::Error::Full { .. }) => {
                    self.full(&full);
                    self.until_room().await;
                }
                result => result?,
            }
        }
        self.intake.seal()
    }

    /// Begins the first segment, as soon as there is room for it: what the journal holds can be written meanwhile.
    async fn begin(&mut self) -> Result<(), journal::Error> {
        let mut stop = self.stop.clone();
        let mut is_said = false;
        loop {
            match self.intake.begin() {
                Err(full @ journal::Error::Full { .. }) => {
                    if !std::mem::replace(&mut is_said, true) {
                        error!(lane = self.name(), error = %full, "the journal cannot take anything: not connecting");
                    }
                    self.full(&full);
                }
                result => return result,
            }
            tokio::select! {
                () = sleep(FULL_RETRY) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
        }
    }

    /// One connection, from waiting for its turn to its journaled end.
    async fn connection(&mut self, backoff: &mut Backoff) -> Result<(), journal::Error> {
        self.status.update(|status| status.connection = Connection::Connecting);
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(backoff.delay()) => {}
            () = changed(&mut self.orders) => backoff.reset(),
            () = stopped(&mut stop) => return Ok(()),
        }
        self.take_order();
        let Order { link, plan } = self.order.clone();
        let url = plan.url;
        let dialed = async {
            link.connects.take(1).await;
            link.dialer.websocket(&url).await
        };
        let socket = tokio::select! {
            socket = dialed => socket,
            () = stopped(&mut stop) => return Ok(()),
        };
        let mut socket = match socket {
            Ok(socket) => socket,
            Err(failure) => {
                warn!(lane = self.name(), url, error = %failure, failures = backoff.failures(), "cannot connect; will try again");
                self.error(format!("cannot connect: {failure}"));
                backoff.fail();
                return Ok(());
            }
        };
        self.take_order();
        if self.order.plan.url != url {
            return Ok(()); // Meanwhile it is to go elsewhere.
        }
        let opened = Instant::now();
        let result = self.opened(&mut socket).await;
        if opened.elapsed() > STEADY_AFTER || result.as_ref().is_ok_and(|reason| reason.kind == CloseKind::Rotation) {
            backoff.reset();
        } else {
            backoff.fail();
        }
        self.disconnected();
        let closing = socket.close(None);
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            info!(lane = self.name(), "the venue did not answer the close in time");
        }
        let reason = match result {
            Ok(reason) => reason,
            Err(full @ journal::Error::Full { .. }) => {
                self.stopped_reading(&full);
                return Err(full);
            }
            Err(long @ journal::Error::TooLong { .. }) => {
                CloseReason { kind: CloseKind::Protocol, detail: long.to_string() }
            }
            Err(lost) => return Err(lost),
        };
        self.closed(&reason)
    }

    async fn opened(&mut self, socket: &mut WebSocket) -> Pumped {
        let plan = self.order.plan.clone();
        info!(lane = self.name(), url = plan.url, symbols = plan.symbols.len(), "connected");
        self.intake.metrics().connected.set(1.0);
        self.status.update(|status| {
            status.connection = Connection::Open;
            status.symbols = plan.symbols.len();
        });
        self.last_frame = now();
        self.take_json(Kind::Open, &plan)?;
        self.pump(socket).await
    }

    /// Nothing is known of subscriptions without a connection.
    fn disconnected(&self) {
        let metrics = self.intake.metrics();
        metrics.connected.set(0.0);
        metrics.subscriptions.iter().for_each(|gauge| gauge.set(0.0));
        self.status.update(|status| {
            status.connection = Connection::Connecting;
            status.subscriptions = Subscriptions::default();
            status.problems.clear();
        });
    }

    /// Journals the end of a connection; the adapter draws its conclusions.
    fn closed(&mut self, reason: &CloseReason) -> Result<(), journal::Error> {
        info!(lane = self.name(), reason = reason.kind.name(), detail = reason.detail, "disconnected");
        self.intake.metrics().reconnect(reason.kind);
        self.status.update(|status| {
            status.reconnects += 1;
            status.last_error = Some((unix_now(), format!("{}: {}", reason.kind.name(), reason.detail)));
        });
        self.take_json(Kind::Close, reason)?;
        self.intake.decoder().actions().clear();
        self.intake.flush()
    }

    /// Reads, acts and watches until something ends the connection.
    async fn pump(&mut self, socket: &mut WebSocket) -> Pumped {
        let Order { link, plan } = self.order.clone();
        let sends_limit = Limiter::new(link.limits.messages_per_second, Duration::from_secs(1));
        let mut requests = Requests::new(link.clone(), plan.http_url);
        let mut sends = std::collections::VecDeque::new();
        let mut said = HashSet::new();
        let mut flush_at = None;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Connections that began together do not end together.
        let used = rand::rng().random_range(LIFETIME_USED);
        let rotate_at = Instant::now() + link.limits.lifetime.map_or(FOREVER, |lifetime| lifetime.mul_f64(used));
        let mut clock = ClockSteps::new();
        let mut stop = self.stop.clone();
        loop {
            let actions = self.intake.decoder().actions();
            sends.extend(actions.sends.drain(..));
            requests.extend(actions.requests.drain(..));
            if let Some(reason) = actions.reconnect.take() {
                return Ok(reason);
            }
            if self.intake.is_chunk_full() {
                self.intake.flush()?;
            }
            if self.intake.is_chunk_empty() {
                flush_at = None;
            } else if flush_at.is_none() {
                flush_at = Some(Instant::now() + CHUNK_AGE_MAX);
            }
            tokio::select! {
                message = socket.next() => {
                    if let Some(reason) = self.on_message(message)? {
                        return Ok(reason);
                    }
                    // What else has arrived already costs no further trip through the runtime.
                    while !self.intake.is_chunk_full() && self.intake.decoder().actions().is_idle() {
                        let Some(message) = socket.next().now_or_never() else { break };
                        if let Some(reason) = self.on_message(message)? {
                            return Ok(reason);
                        }
                    }
                }
                () = sleep_until(flush_at.unwrap_or(rotate_at)), if flush_at.is_some() => self.intake.flush()?,
                () = sleep_until(sends_limit.next()), if !sends.is_empty() => {
                    if sends_limit.try_take() && let Some(text) = sends.pop_front()
                        && let Some(reason) = send(socket, text).await {
                            return Ok(reason);
                        }
                }
                (tag, answer) = requests.next(), if !requests.is_empty() => {
                    let mut bytes = Vec::with_capacity(answer.body.len() + 64);
                    input::put_http(&mut bytes, &tag, answer.status, &answer.body);
                    self.intake.take(Kind::Http, now(), &bytes)?;
                }
                () = changed(&mut self.orders) => {
                    if let Some(reason) = self.on_order()? {
                        return Ok(reason);
                    }
                }
                _ = tick.tick() => {
                    if let Some(detail) = clock.look() {
                        return Ok(CloseReason { kind: CloseKind::Rotation, detail });
                    }
                    if let Some(reason) = self.on_tick(&mut said) {
                        return Ok(reason);
                    }
                }
                () = sleep_until(rotate_at) => {
                    return Ok(CloseReason { kind: CloseKind::Rotation, detail: "end of the connection's lifetime".into() });
                }
                () = stopped(&mut stop) => {
                    return Ok(CloseReason { kind: CloseKind::Shutdown, detail: "told to stop".into() });
                }
            }
        }
    }

    fn on_message(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<Option<CloseReason>, journal::Error> {
        let lost = |detail: String| Ok(Some(CloseReason { kind: CloseKind::Lost, detail }));
        let received = now();
        match message {
            Some(Ok(Message::Text(text))) => self.intake.take(Kind::Text, received, text.as_bytes())?,
            Some(Ok(Message::Binary(bytes))) => self.intake.take(Kind::Binary, received, &bytes)?,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(Some(close)))) => return lost(format!("closed by the venue: {close}")),
            Some(Ok(Message::Close(None))) => return lost("closed by the venue".into()),
            Some(Err(failure)) => return lost(failure.to_string()),
            None => return lost("end of stream".into()),
        }
        self.last_frame = received;
        Ok(None)
    }

    fn take_order(&mut self) {
        self.order = self.orders.borrow_and_update().clone();
    }

    fn on_order(&mut self) -> Result<Option<CloseReason>, journal::Error> {
        let before = self.order.plan.clone();
        self.take_order();
        let plan = self.order.plan.clone();
        if plan == before {
            return Ok(None); // Only limits changed.
        }
        info!(lane = self.name(), symbols = plan.symbols.len(), "new plan");
        if (&plan.url, &plan.http_url) != (&before.url, &before.http_url) {
            return Ok(Some(CloseReason { kind: CloseKind::Rotation, detail: "the lane's URL changed".into() }));
        }
        self.take_json(Kind::Plan, &plan)?;
        self.status.update(|status| status.symbols = plan.symbols.len());
        Ok(None)
    }

    /// Once a second: the adapter's timers, the watchdog, the status.
    fn on_tick(&mut self, said: &mut HashSet<String>) -> Option<CloseReason> {
        let now = now();
        self.intake.decoder().tick(now);
        let silence = self.order.link.limits.silence;
        let (findings, [live, requested, refused, stale]) =
            self.watchdog.look(now, silence, self.last_frame, self.intake.decoder().subscriptions());
        let mut problems = Vec::new();
        let mut reason = None;
        let mut unsaid = 0;
        for finding in findings {
            let kind = discriminant(&finding);
            let (text, is_reconnect) = self.judge(finding, now);
            if said.insert(format!("{kind:?} {}", text.split(" for ").next().unwrap_or_default())) {
                if problems.len() < PROBLEMS_MAX {
                    warn!(lane = self.name(), "{text}");
                } else {
                    unsaid += 1;
                }
            }
            if is_reconnect && reason.is_none() {
                reason = Some(CloseReason { kind: CloseKind::Stall, detail: text.clone() });
            }
            if problems.len() < PROBLEMS_MAX {
                problems.push(text);
            }
        }
        if unsaid > 0 {
            warn!(lane = self.name(), more = unsaid, "problems of subscriptions not logged one by one");
        }
        let metrics = self.intake.metrics();
        for (gauge, count) in metrics.subscriptions.iter().zip([live, requested, refused, stale]) {
            gauge.set(f64::from(count));
        }
        #[expect(clippy::cast_precision_loss, reason = "a Unix time to the microsecond")]
        let last_frame = self.last_frame.0 as f64 / 1e9;
        metrics.last_frame.set(last_frame);
        self.status.update(|status| {
            status.subscriptions = Subscriptions { live, requested, refused, stale };
            status.problems = problems;
            status.last_frame = Some(last_frame);
        });
        reason
    }

    /// A finding in words, and whether it is worth a reconnect.
    fn judge(&mut self, finding: Finding, now: Nanos) -> (String, bool) {
        match finding {
            Finding::ConnectionSilent(silent) => (format!("the connection is silent for {silent:.0?}"), true),
            Finding::Unanswered(symbol, channel, waited, is_due) => {
                if is_due {
                    self.watchdog.strike(symbol, channel, now);
                }
                (format!("{} is unanswered for {waited:.0?}", self.subscription(symbol, channel)), is_due)
            }
            Finding::Refused(symbol, channel, why) => {
                (format!("{} was refused: {why}", self.subscription(symbol, channel)), false)
            }
            Finding::Stale(symbol, channel, silent) => {
                self.watchdog.strike(symbol, channel, now);
                let name = self.subscription(symbol, channel);
                (format!("{name} is silent for {silent:.0?} while others move"), true)
            }
            Finding::AllSilent(silent) => {
                let all = self.intake.decoder().subscriptions().list().iter();
                let all: Vec<_> = all.map(|one| (one.symbol, one.channel)).collect();
                for (symbol, channel) in all {
                    self.watchdog.strike(symbol, channel, now);
                }
                (format!("all subscriptions are silent for {silent:.0?}"), true)
            }
        }
    }

    fn subscription(&mut self, symbol: SymbolIx, channel: Channel) -> String {
        format!("subscription {} {}", channel.name(), self.intake.decoder().symbols().name(symbol))
    }

    fn take_json(&mut self, kind: Kind, value: &impl serde::Serialize) -> Result<(), journal::Error> {
        let bytes = serde_json::to_vec(value).expect("plans and reasons have only string keys");
        self.intake.take(kind, now(), &bytes)
    }

    /// The journal is full: the end of this connection is journaled when there is room again.
    fn stopped_reading(&mut self, full: &journal::Error) {
        error!(lane = self.name(), error = %full, "the journal cannot take more: the socket is closed and what the venue sends now is missed");
        self.intake.metrics().reconnect(CloseKind::JournalFull);
        self.intake.decoder().actions().clear();
    }

    fn full(&self, full: &journal::Error) {
        self.error(format!("not reading: {full}"));
        self.status.update(|status| status.connection = Connection::JournalFull);
    }

    async fn until_room(&mut self) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                () = sleep(FULL_RETRY) => {}
                () = stopped(&mut stop) => return,
            }
            if self.intake.has_room() {
                break;
            }
        }
        let reason = CloseReason { kind: CloseKind::JournalFull, detail: "the journal was full".into() };
        match self.closed(&reason) {
            Ok(()) => info!(lane = self.name(), "the journal has room again"),
            Err(failure) => warn!(lane = self.name(), error = %failure, "the journal is full again"),
        }
    }

    fn error(&self, text: String) {
        self.status.update(|status| status.last_error = Some((unix_now(), text)));
    }

    fn name(&self) -> &str {
        &self.intake.lane().name
    }
}

/// Sends one message; a reason to reconnect if that fails.
async fn send(socket: &mut WebSocket, text: String) -> Option<CloseReason> {
    let detail = match timeout(SEND_TIMEOUT, socket.send(Message::text(text))).await {
        Ok(Ok(())) => return None,
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => format!("a message could not be sent within {SEND_TIMEOUT:?}"),
    };
    Some(CloseReason { kind: CloseKind::Lost, detail })
}

/// Returns when the session is told to stop, or nobody is left to tell it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Returns when there is a new order; never when there will be none.
async fn changed(orders: &mut watch::Receiver<Order>) {
    if orders.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The host clock.
fn now() -> Nanos {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Longest a received frame waits for company before it is flushed.
const CHUNK_AGE_MAX: Duration = Duration::from_millis(2);
/// How often timers and watchdogs run.
const TICK: Duration = Duration::from_secs(1);
/// First delay after a connection failed, and the cap.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
/// The cap of the delay between attempts.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted this long was good: the next attempt is not delayed.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Longest wait for a message to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the close handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a full journal is asked for room.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// The share of a connection's lifetime that is used before a planned reconnect.
const LIFETIME_USED: std::ops::Range<f64> = 0.9..0.95;
/// Stands for no lifetime at all.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

//! One lane's life: connect, subscribe, read, answer, watch, reconnect; for ever.
//!
//! A session needs no database. What it receives goes through [`intake::Intake`]: journal, decoder, queue. What
//! the adapter wants done (messages, HTTP requests, a reconnect) is done here, within the venue's limits.
//!
//! A lane has one connection, or two of the same (`redundancy: 2`): each in a [`slot`] of its own, all read by the one
//! task that owns the intake. A connection that is to end (its lifetime, a venue's notice) is *retired*: it is closed when
//! the other could go on alone, and where there is no other, one is opened for that, with `redundancy: 1` too. What the
//! venue had sent on it before it answers the close is still read: the old connection may lag behind the new one.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, LanePlan},
    conn::Conn,
    decoder::Decoder,
    ids::Nanos,
    input::{self, Kind},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{error, info};

use crate::{
    journal::{self, LaneJournal},
    lane::Lane,
    status::{Connection, LaneStatus, Shared, unix_now},
};

mod backoff;
mod clock;
pub mod connect;
mod connections;
pub mod http;
pub mod intake;
pub mod limiter;
mod requests;
mod slot;
mod ticks;
pub mod tls;
mod watchdog;

use clock::ClockSteps;
use connect::Dialer;
use intake::Intake;
use limiter::Limiter;
use requests::{Answered, Requests};
use slot::{Event, Slot, State};

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
    /// How many connections the lane is to have: 1 or 2.
    pub redundancy: u32,
}

/// Everything a session is made of.
#[derive(Debug)]
pub struct Session {
    intake: Intake,
    order: Order,
    orders: watch::Receiver<Order>,
    stop: watch::Receiver<bool>,
    status: Arc<Shared<LaneStatus>>,
    slots: [Slot; Conn::ALL.len()],
    /// Whose turn it is to be looked at first.
    turn: Conn,
    /// The lane's HTTP requests, while a connection is open.
    requests: Option<Requests>,
    /// When what was received must be handed on.
    flush_at: Option<Instant>,
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to stop. The journal is sealed (if it has room), and ready for another session.
    Stopped(Box<(LaneJournal, Decoder)>),
    /// The journal cannot be trusted any more: the process must end and recover.
    JournalLost(journal::Error),
}

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
        let slots = Conn::ALL.map(Slot::new);
        let (turn, requests, flush_at) = (Conn::FIRST, None, None);
        Self { intake, order, orders, stop, status, slots, turn, requests, flush_at }
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
            status.connections.clear();
            status.last_frame = None;
        });
        Ended::Stopped(Box::new(self.intake.into_parts()))
    }

    /// Everything between the first segment and its seal.
    async fn record(&mut self) -> Result<(), journal::Error> {
        self.begin().await?;
        let detail = "the process ended while it was open";
        let mut left = CloseReason { kind: CloseKind::Shutdown, detail: detail.into() };
        while !*self.stop.borrow() {
            let result = match self.intake.go_on_if_behind().and_then(|()| self.bury(&left)) {
                Ok(()) => self.pump().await,
                Err(failure) => Err(failure),
            };
            match result {
                Err(full @ journal::Error::Full { .. }) => {
                    if self.stopped_reading(&full) {
                        left = CloseReason { kind: CloseKind::JournalFull, detail: "the journal was full".into() };
                    }
                    self.full(&full);
                    self.until_room().await?;
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

    /// Connects, reads, acts and watches until told to stop.
    async fn pump(&mut self) -> Result<(), journal::Error> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clock = ClockSteps::new();
        let mut stop = self.stop.clone();
        self.take_order();
        self.arrange();
        loop {
            self.act().await?;
            if self.intake.is_chunk_full() {
                self.intake.flush()?;
            }
            if self.intake.is_chunk_empty() {
                self.flush_at = None;
            } else if self.flush_at.is_none() {
                self.flush_at = Some(Instant::now() + CHUNK_AGE_MAX);
            }
            let (flush_at, send_at) = (self.flush_at, self.send_at());
            let never = Instant::now() + TICK;
            let Self { slots, turn, requests, orders, .. } = self;
            tokio::select! {
                (conn, event) = slot::next(slots, *turn) => {
                    self.on_event(conn, event).await?;
                    // What else has arrived already costs no further trip through the runtime.
                    while !self.intake.is_chunk_full() && self.intake.decoder().actions().is_idle() {
                        let next = slot::next(&mut self.slots, self.turn).now_or_never();
                        let Some((conn, event)) = next else { break };
                        self.on_event(conn, event).await?;
                    }
                }
                () = sleep_until(flush_at.unwrap_or(never)), if flush_at.is_some() => self.intake.flush()?,
                () = sleep_until(send_at.unwrap_or(never)), if send_at.is_some() => self.send().await?,
                answered = Requests::next(requests), if requests.is_some() => self.on_answer(answered)?,
                () = changed(orders) => self.on_order()?,
                _ = tick.tick() => {
                    if let Some(detail) = clock.look() {
                        let reason = CloseReason { kind: CloseKind::Rotation, detail };
                        for conn in Conn::ALL {
                            self.end(conn, &reason)?;
                        }
                    }
                    self.on_tick()?;
                }
                () = stopped(&mut stop) => {
                    let reason = CloseReason { kind: CloseKind::Shutdown, detail: "told to stop".into() };
                    return self.stop_all(&reason).await;
                }
            }
        }
    }

    /// Does what the adapter wants done.
    async fn act(&mut self) -> Result<(), journal::Error> {
        let actions = self.intake.decoder().actions();
        if actions.is_idle() {
            return Ok(());
        }
        for (conn, text) in actions.sends.drain(..) {
            if let Some(link) = self.slots[conn.index()].link() {
                link.say(text);
            }
        }
        match &mut self.requests {
            Some(requests) => requests.extend(actions.requests.drain(..)),
            None => actions.requests.clear(),
        }
        let reconnects = std::mem::take(&mut actions.reconnects);
        for (conn, reason) in reconnects {
            match reason.kind {
                CloseKind::VenueRestart | CloseKind::Rotation => {
                    self.retire(conn, reason);
                    self.arrange();
                }
                CloseKind::Lost
                | CloseKind::Stall
                | CloseKind::Protocol
                | CloseKind::Shutdown
                | CloseKind::JournalFull => self.end(conn, &reason)?,
            }
        }
        Ok(())
    }

    async fn on_event(&mut self, conn: Conn, event: Event) -> Result<(), journal::Error> {
        self.turn = conn.other();
        match event {
            Event::Dialed(Ok(socket)) => self.on_open(conn, socket),
            Event::Dialed(Err(failure)) => {
                self.on_refused(conn, &failure);
                Ok(())
            }
            Event::Message(message) => self.on_message(conn, message),
        }
    }

    fn on_message(
        &mut self,
        conn: Conn,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), journal::Error> {
        let received = now();
        let lost = |detail: String| Some(CloseReason { kind: CloseKind::Lost, detail });
        let taken = match message {
            Some(Ok(Message::Text(text))) => self.intake.take((Kind::Text, conn), received, text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => self.intake.take((Kind::Binary, conn), received, &bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(Some(close)))) => {
                return self.gone(conn, lost(format!("closed by the venue: {close}")));
            }
            Some(Ok(Message::Close(None))) => return self.gone(conn, lost("closed by the venue".into())),
            Some(Err(failure)) => return self.gone(conn, lost(failure.to_string())),
            None => return self.gone(conn, lost("end of stream".into())),
        };
        match taken {
            Ok(()) => {
                self.slots[conn.index()].last_frame = received;
                Ok(())
            }
            Err(long @ journal::Error::TooLong { .. }) => {
                self.end(conn, &CloseReason { kind: CloseKind::Protocol, detail: long.to_string() })
            }
            Err(failure) => Err(failure),
        }
    }

    fn on_answer(&mut self, Answered { tag, answer }: Answered) -> Result<(), journal::Error> {
        let mut bytes = Vec::with_capacity(answer.body.len() + 64);
        input::put_http(&mut bytes, &tag, answer.status, &answer.body);
        self.intake.take(Kind::Http, now(), &bytes)
    }

    fn send_at(&mut self) -> Option<Instant> {
        self.slots.iter_mut().filter_map(|slot| slot.link()?.send_at()).min()
    }

    async fn send(&mut self) -> Result<(), journal::Error> {
        for conn in Conn::ALL {
            let Some(link) = self.slots[conn.index()].link() else { continue };
            if let Some(reason) = link.send().await {
                self.gone(conn, Some(reason))?;
            }
        }
        Ok(())
    }

    fn take_order(&mut self) {
        self.order = self.orders.borrow_and_update().clone();
    }

    fn on_order(&mut self) -> Result<(), journal::Error> {
        let before = self.order.plan.clone();
        self.take_order();
        let plan = self.order.plan.clone();
        for slot in &mut self.slots {
            if matches!(slot.state, State::Dialing(_)) {
                slot.backoff.reset();
                slot.state = State::Idle; // It begins anew, at once.
            }
        }
        if plan != before {
            info!(lane = self.name(), symbols = plan.symbols.len(), "new plan");
            if (&plan.url, &plan.http_url) != (&before.url, &before.http_url) {
                let reason = CloseReason { kind: CloseKind::Rotation, detail: "the lane's URL changed".into() };
                for conn in Conn::ALL {
                    self.end(conn, &reason)?;
                }
            } else if let Some(conn) = self.intake.decoder().open().iter().next() {
                // For every open connection: the adapter tells each.
                self.take_json(Kind::Plan, conn, &plan)?;
                self.status.update(|status| status.symbols = plan.symbols.len());
            }
        }
        self.arrange();
        Ok(())
    }

    fn take_json(&mut self, kind: Kind, conn: Conn, value: &impl serde::Serialize) -> Result<(), journal::Error> {
        let bytes = serde_json::to_vec(value).expect("plans and reasons have only string keys");
        self.intake.take((kind, conn), now(), &bytes)
    }

    /// The journal is full: the ends of the connections are journaled when there is room again. Whether there were any.
    fn stopped_reading(&mut self, full: &journal::Error) -> bool {
        let mut had_any = false;
        for slot in &mut self.slots {
            if let Some(link) = slot.take(CloseKind::JournalFull) {
                tokio::spawn(link.close());
                had_any = true;
            }
            slot.state = State::Idle;
        }
        if had_any {
            error!(lane = self.name(), error = %full, "the journal cannot take more: the socket is closed and what the venue sends now is missed");
        }
        self.requests = None;
        self.intake.decoder().actions().clear();
        self.show();
        had_any
    }

    fn full(&self, full: &journal::Error) {
        self.error(format!("not reading: {full}"));
        self.status.update(|status| status.connection = Connection::JournalFull);
    }

    /// Waits for room, or for the journal to turn out lost.
    async fn until_room(&mut self) -> Result<(), journal::Error> {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                () = sleep(FULL_RETRY) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            if self.intake.has_room()? {
                info!(lane = self.name(), "the journal has room again");
                return Ok(());
            }
        }
    }

    fn error(&self, text: String) {
        self.status.update(|status| status.last_error = Some((unix_now(), text)));
    }

    fn name(&self) -> &str {
        &self.intake.lane().name
    }
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

/// A moment as Unix time in seconds.
#[expect(clippy::cast_precision_loss, reason = "a Unix time to the microsecond")]
fn seconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e9
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
/// How often a full journal is asked for room.
const FULL_RETRY: Duration = Duration::from_secs(1);

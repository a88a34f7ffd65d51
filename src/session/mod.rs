//! One lane's life: connect, subscribe, read, answer, watch, reconnect; for ever.
//!
//! A session needs no database. What it receives goes through [`intake::Intake`]: journal, decoder, queue. What
//! the adapter wants done (messages, HTTP requests, a reconnect) is done here, within the venue's limits.
//!
//! A lane has one connection, or two of the same (`redundancy: 2`): each in a [`slot`] of its own, all read by the one
//! task that owns the intake. A connection that is to end (its lifetime, a venue's notice) is *retired*: it is closed when
//! the other could go on alone, and where there is no other, one is opened for that, with `redundancy: 1` too.

use std::{mem::discriminant, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::Channel,
    ids::{Nanos, SymbolIx},
    input::{self, Kind},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
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
mod slot;
pub mod tls;
mod watchdog;

use clock::ClockSteps;
use connect::{ConnectError, Dialer, WebSocket};
use intake::Intake;
use limiter::Limiter;
use requests::{Answered, Requests};
use slot::{Event, Retiring, Slot, State};
use watchdog::Finding;

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
    clock: ClockSteps,
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
        let clock = ClockSteps::new();
        Self { intake, order, orders, stop, status, slots, turn, requests, flush_at, clock }
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

    /// Journals the end of connections that the journal believes open and that are not.
    fn bury(&mut self, reason: &CloseReason) -> Result<(), journal::Error> {
        for conn in self.intake.decoder().open().iter() {
            if !self.slots[conn.index()].is_open() {
                self.closed(conn, reason)?;
            }
        }
        Ok(())
    }

    /// Connects, reads, acts and watches until told to stop.
    async fn pump(&mut self) -> Result<(), journal::Error> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = tick.tick() => self.on_tick()?,
                () = stopped(&mut stop) => {
                    let reason = CloseReason { kind: CloseKind::Shutdown, detail: "told to stop".into() };
                    return self.stop_all(&reason).await;
                }
            }
        }
    }

    /// Sees to it that as many connections as are asked for are open or about to be, and no more.
    fn arrange(&mut self) {
        let wanted = usize::try_from(self.order.redundancy).unwrap_or(Conn::ALL.len()).clamp(1, Conn::ALL.len());
        let (link, url) = (self.order.link.clone(), self.order.plan.url.clone());
        let mut staying = self.slots.iter().filter(|slot| slot.is_staying()).count();
        for slot in &mut self.slots {
            if staying < wanted && matches!(slot.state, State::Idle) {
                slot.dial(&link, &url);
                staying += 1;
            }
        }
        let mut surplus = Vec::new();
        // Of two, the one that is not open goes, or else the second.
        for is_open in [false, true] {
            for slot in self.slots.iter_mut().rev() {
                if staying > wanted && slot.is_staying() && slot.is_open() == is_open {
                    staying -= 1;
                    if is_open {
                        surplus.push(slot.conn);
                    } else {
                        slot.state = State::Idle;
                    }
                }
            }
        }
        for conn in surplus {
            let detail = "the lane is to have one connection".into();
            self.retire(conn, CloseReason { kind: CloseKind::Rotation, detail });
        }
        self.show();
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

    fn on_refused(&mut self, conn: Conn, failure: &ConnectError) {
        let slot = &mut self.slots[conn.index()];
        let failures = slot.backoff.failures();
        slot.backoff.fail();
        slot.state = State::Idle;
        let url = &self.order.plan.url;
        warn!(lane = self.name(), %conn, url, error = %failure, failures, "cannot connect; will try again");
        self.error(format!("cannot connect: {failure}"));
        self.arrange();
    }

    fn on_open(&mut self, conn: Conn, socket: Box<WebSocket>) -> Result<(), journal::Error> {
        if self.orders.has_changed().unwrap_or_default() {
            self.on_order()?;
        }
        let Order { plan, link, .. } = self.order.clone();
        let slot = &mut self.slots[conn.index()];
        let is_current = matches!(&slot.state, State::Dialing(dial) if dial.url == plan.url);
        if !is_current {
            return Ok(()); // Meanwhile it is to go elsewhere.
        }
        info!(lane = self.intake.lane().name, %conn, url = plan.url, symbols = plan.symbols.len(), "connected");
        self.take_json(Kind::Open, conn, &plan)?;
        self.slots[conn.index()].open(socket, &link, now());
        if self.requests.is_none() {
            self.requests = Some(Requests::new(link, plan.http_url));
        }
        self.status.update(|status| status.symbols = plan.symbols.len());
        self.show();
        Ok(())
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
                self.end(conn, &reason)?;
            }
        }
        Ok(())
    }

    /// A connection is to be replaced: it ends when the other can go on alone, or after [`HANDOVER_MAX`].
    fn retire(&mut self, conn: Conn, reason: CloseReason) {
        let lane = self.intake.lane().name.clone();
        let Some(link) = self.slots[conn.index()].link().filter(|link| link.retiring.is_none()) else { return };
        info!(lane, %conn, reason = reason.kind.name(), detail = reason.detail, "connection is to be replaced");
        link.retiring = Some(Retiring { reason, deadline: Instant::now() + HANDOVER_MAX });
    }

    /// Ends connections that are to be replaced and can be, and finds those whose lifetime is over.
    fn hand_over(&mut self) -> Result<(), journal::Error> {
        let at = Instant::now();
        for conn in Conn::ALL {
            let is_ready = self.intake.decoder().is_ready(conn);
            let Some(link) = self.slots[conn.index()].link() else { continue };
            link.ready_since = if is_ready { link.ready_since.or(Some(at)) } else { None };
            if at >= link.rotate_at {
                let detail = "end of the connection's lifetime".into();
                self.retire(conn, CloseReason { kind: CloseKind::Rotation, detail });
                self.arrange();
            }
        }
        for conn in Conn::ALL {
            let other = self.slots[conn.other().index()].link().and_then(|link| link.ready_since);
            let is_covered = other.is_some_and(|since| at.duration_since(since) >= HANDOVER_OVERLAP);
            let Some(link) = self.slots[conn.index()].link() else { continue };
            let due = link.retiring.take_if(|retiring| is_covered || at >= retiring.deadline);
            if let Some(Retiring { reason, .. }) = due {
                if !is_covered {
                    warn!(lane = self.name(), %conn, "no other connection was ready in {HANDOVER_MAX:?}; closing all the same");
                }
                self.end(conn, &reason)?;
            }
        }
        Ok(())
    }

    /// A connection ended by itself. One that was to be replaced ends for the reason it was to be.
    fn gone(&mut self, conn: Conn, lost: Option<CloseReason>) -> Result<(), journal::Error> {
        let retiring = self.slots[conn.index()].link().and_then(|link| link.retiring.take());
        match retiring.map(|retiring| retiring.reason).or(lost) {
            Some(reason) => self.end(conn, &reason),
            None => Ok(()),
        }
    }

    /// Ends a connection, and begins another where one is wanted.
    fn end(&mut self, conn: Conn, reason: &CloseReason) -> Result<(), journal::Error> {
        let Some(link) = self.slots[conn.index()].take(reason.kind) else { return Ok(()) };
        tokio::spawn(link.close());
        self.closed(conn, reason)?;
        self.arrange();
        Ok(())
    }

    /// Ends all connections and begins none.
    async fn stop_all(&mut self, reason: &CloseReason) -> Result<(), journal::Error> {
        let links: Vec<_> = self.slots.iter_mut().map(|slot| (slot.conn, slot.take(reason.kind))).collect();
        let mut result = Ok(());
        let mut closing = Vec::new();
        for (conn, link) in links {
            let Some(link) = link else { continue };
            closing.push(link.close());
            result = result.and_then(|()| self.closed(conn, reason));
        }
        for slot in &mut self.slots {
            slot.state = State::Idle;
        }
        self.show();
        futures_util::future::join_all(closing).await;
        result
    }

    /// Journals the end of a connection; the adapter draws its conclusions.
    fn closed(&mut self, conn: Conn, reason: &CloseReason) -> Result<(), journal::Error> {
        info!(lane = self.name(), %conn, reason = reason.kind.name(), detail = reason.detail, "disconnected");
        self.intake.metrics().reconnect(reason.kind);
        self.status.update(|status| {
            status.reconnects += 1;
            status.last_error = Some((unix_now(), format!("{}: {}", reason.kind.name(), reason.detail)));
        });
        self.take_json(Kind::Close, conn, reason)?;
        if !self.slots.iter().any(Slot::is_open) {
            // What they were for starts anew with the next connection.
            self.requests = None;
            self.intake.decoder().actions().clear();
        }
        self.show();
        self.intake.flush()
    }

    /// Puts the connections into status and metrics.
    fn show(&mut self) {
        let open = self.slots.iter().filter(|slot| slot.is_open()).count();
        let metrics = self.intake.metrics();
        #[expect(clippy::cast_precision_loss, reason = "at most two")]
        metrics.connected.set(open as f64);
        metrics.wanted.set(f64::from(self.order.redundancy));
        if open == 0 {
            metrics.subscriptions.iter().for_each(|gauge| gauge.set(0.0));
        }
        let connections: Vec<_> = self.slots.iter().filter_map(Slot::status).collect();
        self.status.update(|status| {
            status.connection = if open > 0 { Connection::Open } else { Connection::Connecting };
            let before = std::mem::replace(&mut status.connections, connections);
            for connection in &mut status.connections {
                let known = before.iter().find(|known| known.connection == connection.connection && known.is_open);
                if let Some(known) = known.filter(|_| connection.is_open) {
                    connection.subscriptions = known.subscriptions;
                    connection.last_frame = known.last_frame;
                }
            }
            if open == 0 {
                status.subscriptions = Subscriptions::default();
                status.problems.clear();
            }
        });
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

    /// Once a second: the adapter's timers, the watchdogs, connections to be replaced, the status.
    fn on_tick(&mut self) -> Result<(), journal::Error> {
        let now = now();
        if let Some(detail) = self.clock.look() {
            let reason = CloseReason { kind: CloseKind::Rotation, detail };
            for conn in Conn::ALL {
                self.end(conn, &reason)?;
            }
        }
        if self.intake.lane().progress.ahead().is_some() {
            let detail = "the database is ahead of the journal".into();
            let reason = CloseReason { kind: CloseKind::Rotation, detail };
            for conn in Conn::ALL {
                self.end(conn, &reason)?;
            }
            self.intake.go_on_if_behind()?;
            self.bury(&reason)?;
        }
        self.intake.decoder().tick(now);
        let mut all = Subscriptions::default();
        let (mut problems, mut reasons) = (Vec::new(), Vec::new());
        for conn in Conn::ALL {
            if !self.slots[conn.index()].is_open() {
                continue;
            }
            let (counts, reason) = self.watch(conn, now, &mut problems);
            all.add(&counts);
            reasons.extend(reason.map(|reason| (conn, reason)));
            let last_frame = seconds(self.slots[conn.index()].last_frame);
            self.status.update(|status| {
                let known = status.connections.iter_mut().find(|known| known.connection == conn.number());
                if let Some(known) = known {
                    (known.subscriptions, known.last_frame) = (counts, Some(last_frame));
                }
            });
        }
        if self.slots.iter().any(Slot::is_open) {
            let last_frame = seconds(self.slots.iter().map(|slot| slot.last_frame).max().unwrap_or_default());
            let metrics = self.intake.metrics();
            let Subscriptions { live, requested, refused, stale } = all;
            for (gauge, count) in metrics.subscriptions.iter().zip([live, requested, refused, stale]) {
                gauge.set(f64::from(count));
            }
            metrics.last_frame.set(last_frame);
            problems.truncate(PROBLEMS_MAX);
            self.status.update(|status| {
                status.subscriptions = all;
                status.problems = problems;
                status.last_frame = Some(last_frame);
            });
        }
        for (conn, reason) in reasons {
            self.end(conn, &reason)?;
        }
        self.hand_over()
    }

    /// Looks at one connection: its subscriptions by state, and a reason to reconnect.
    fn watch(&mut self, conn: Conn, now: Nanos, problems: &mut Vec<String>) -> (Subscriptions, Option<CloseReason>) {
        let silence = self.order.link.limits.silence;
        let slot = &mut self.slots[conn.index()];
        let (findings, [live, requested, refused, stale]) =
            slot.watchdog.look(now, silence, slot.last_frame, self.intake.decoder().subscriptions(conn));
        let mut reason = None;
        let mut unsaid = 0;
        for finding in findings {
            let kind = discriminant(&finding);
            let (text, is_reconnect) = self.judge(conn, finding, now);
            let what = format!("{kind:?} {}", text.split(" for ").next().unwrap_or_default());
            if self.slots[conn.index()].link().is_some_and(|link| link.said.insert(what)) {
                if problems.len() < PROBLEMS_MAX {
                    warn!(lane = self.name(), %conn, "{text}");
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
        (Subscriptions { live, requested, refused, stale }, reason)
    }

    /// A finding in words, and whether it is worth a reconnect.
    fn judge(&mut self, conn: Conn, finding: Finding, now: Nanos) -> (String, bool) {
        match finding {
            Finding::ConnectionSilent(silent) => (format!("the connection is silent for {silent:.0?}"), true),
            Finding::Unanswered(symbol, channel, waited, is_due) => {
                if is_due {
                    self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                }
                (format!("{} is unanswered for {waited:.0?}", self.subscription(symbol, channel)), is_due)
            }
            Finding::Refused(symbol, channel, why) => {
                (format!("{} was refused: {why}", self.subscription(symbol, channel)), false)
            }
            Finding::Stale(symbol, channel, silent) => {
                self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                let name = self.subscription(symbol, channel);
                (format!("{name} is silent for {silent:.0?} while others move"), true)
            }
            Finding::AllSilent(silent) => {
                let all = self.intake.decoder().subscriptions(conn).list().iter();
                let all: Vec<_> = all.map(|one| (one.symbol, one.channel)).collect();
                for (symbol, channel) in all {
                    self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                }
                (format!("all subscriptions are silent for {silent:.0?}"), true)
            }
        }
    }

    fn subscription(&mut self, symbol: SymbolIx, channel: Channel) -> String {
        format!("subscription {} {}", channel.name(), self.intake.decoder().symbols().name(symbol))
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
/// Longest a connection that is to be replaced waits for the other to be ready.
const HANDOVER_MAX: Duration = Duration::from_secs(30);
/// How long both run once the new one is ready: what is still on its way on the old one arrives.
const HANDOVER_OVERLAP: Duration = Duration::from_secs(1);
/// How often a full journal is asked for room.
const FULL_RETRY: Duration = Duration::from_secs(1);

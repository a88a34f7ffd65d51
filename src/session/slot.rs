//! One of a lane's connections, from the wait for its turn to its end.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rand::RngExt;
use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason},
    conn::Conn,
    ids::Nanos,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    VenueLink,
    backoff::Backoff,
    connect::{ConnectError, WebSocket},
    limiter::Limiter,
    watchdog::Watchdog,
};
use crate::status::ConnectionStatus;

/// One connection's place in a lane.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) conn: Conn,
    pub(super) state: State,
    pub(super) backoff: Backoff,
    /// What it has learned survives reconnects.
    pub(super) watchdog: Watchdog,
    pub(super) last_frame: Nanos,
}

/// What a slot is doing.
#[derive(Debug)]
pub(super) enum State {
    /// It is not wanted.
    Idle,
    /// Connecting, or waiting to try again.
    Dialing(Dial),
    /// Open.
    Open(Box<Link>),
}

/// An attempt to connect.
pub(super) struct Dial {
    pub(super) url: String,
    attempt: Pin<Box<dyn Future<Output = Result<WebSocket, ConnectError>> + Send>>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").field("url", &self.url).finish_non_exhaustive()
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Link {
    socket: Box<WebSocket>,
    /// When it is to be replaced, because the venue ends it soon after.
    pub(super) rotate_at: Instant,
    /// It is to be closed as soon as the other connection can go on alone.
    pub(super) retiring: Option<Retiring>,
    /// Since when this connection could go on alone.
    pub(super) ready_since: Option<Instant>,
    /// Problems that were logged already.
    pub(super) said: HashSet<String>,
    sends: VecDeque<Message>,
    limit: Limiter,
}

/// Why a connection is to be replaced.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) reason: CloseReason,
    /// When it is closed whether or not the other is ready; once it is closing, when it ends whether or not the venue has
    /// answered.
    pub(super) deadline: Instant,
    /// We have said that we close it, and read what the venue had sent before it answers.
    pub(super) is_closing: bool,
}

/// What happens on a slot.
#[derive(Debug)]
pub(super) enum Event {
    /// An attempt to connect has ended.
    Dialed(Result<Box<WebSocket>, ConnectError>),
    /// The socket gave something, or its end.
    Message(Option<Result<Message, tungstenite::Error>>),
}

impl Slot {
    pub(super) fn new(conn: Conn) -> Self {
        let backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
        Self { conn, state: State::Idle, backoff, watchdog: Watchdog::default(), last_frame: Nanos(0) }
    }

    /// Begins to connect, after the delay that earlier failures ask for, within the venue's limit.
    pub(super) fn dial(&mut self, link: &Arc<VenueLink>, url: &str) {
        let (delay, link, target) = (self.backoff.delay(), link.clone(), url.to_owned());
        let attempt = Box::pin(async move {
            sleep(delay).await;
            link.connects.take(1).await;
            link.dialer.websocket(&target).await
        });
        self.state = State::Dialing(Dial { url: url.into(), attempt });
    }

    /// The connection is open.
    pub(super) fn open(&mut self, socket: Box<WebSocket>, link: &VenueLink, now: Nanos) {
        // Connections that began together do not end together.
        let used = rand::rng().random_range(LIFETIME_USED);
        let opened = Instant::now();
        self.last_frame = now;
        self.state = State::Open(Box::new(Link {
            socket,
            rotate_at: opened + link.limits.lifetime.map_or(FOREVER, |lifetime| lifetime.mul_f64(used)),
            retiring: None,
            ready_since: None,
            said: HashSet::new(),
            sends: VecDeque::new(),
            limit: Limiter::new(link.limits.messages_per_second, Duration::from_secs(1)),
        }));
    }

    /// Takes the open connection out; the slot is idle. What follows from how it ended is noted.
    pub(super) fn take(&mut self, kind: CloseKind) -> Option<Box<Link>> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Open(link) => {
                if link.ready_since.is_some_and(|since| since.elapsed() >= STEADY_AFTER) || kind == CloseKind::Rotation
                {
                    self.backoff.reset();
                } else {
                    self.backoff.fail();
                }
                Some(link)
            }
            State::Idle | State::Dialing(_) => None,
        }
    }

    /// The open connection.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Open(link) => Some(link),
            State::Idle | State::Dialing(_) => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it is open, or will be, and is to stay so.
    pub(super) fn is_staying(&self) -> bool {
        match &self.state {
            State::Idle => false,
            State::Dialing(_) => true,
            State::Open(link) => link.retiring.is_none(),
        }
    }

    /// How it stands, unless it is not wanted.
    pub(super) fn status(&self) -> Option<ConnectionStatus> {
        let (is_open, retiring) = match &self.state {
            State::Idle => return None,
            State::Dialing(_) => (false, None),
            State::Open(link) => (true, link.retiring.as_ref().map(|retiring| retiring.reason.detail.clone())),
        };
        Some(ConnectionStatus { connection: self.conn.number(), is_open, retiring, ..ConnectionStatus::default() })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            State::Idle => Poll::Pending,
            State::Dialing(dial) => dial.attempt.as_mut().poll(cx).map(|dialed| Event::Dialed(dialed.map(Box::new))),
            State::Open(link) => link.socket.poll_next_unpin(cx).map(Event::Message),
        }
    }
}

impl Link {
    /// Puts a message in line, unless we have said that we close.
    pub(super) fn say(&mut self, text: String) {
        if !self.is_closing() {
            self.sends.push_back(Message::text(text));
        }
    }

    /// Says to the venue that a connection to be replaced is closed. What the venue has sent before it answers is still
    /// read, until then.
    pub(super) fn close_and_read(&mut self, deadline: Instant) {
        self.sends.clear();
        self.sends.push_back(Message::Close(None));
        if let Some(retiring) = &mut self.retiring {
            (retiring.is_closing, retiring.deadline) = (true, deadline);
        }
    }

    /// Whether we have said that we close it.
    pub(super) fn is_closing(&self) -> bool {
        self.retiring.as_ref().is_some_and(|retiring| retiring.is_closing)
    }

    /// When the next message may go; `None` while there is none.
    pub(super) fn send_at(&self) -> Option<Instant> {
        (!self.sends.is_empty()).then(|| self.limit.next())
    }

    /// Sends the next message if it may go now; a reason to reconnect if that fails.
    pub(super) async fn send(&mut self) -> Option<CloseReason> {
        if self.sends.is_empty() || !self.limit.try_take() {
            return None;
        }
        let message = self.sends.pop_front()?;
        let detail = match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => return None,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("a message could not be sent within {SEND_TIMEOUT:?}"),
        };
        Some(CloseReason { kind: CloseKind::Lost, detail })
    }

    /// Closes it in good order, if the venue answers in time.
    pub(super) async fn close(mut self: Box<Self>) {
        // It is closed by being dropped all the same.
        drop(timeout(CLOSE_TIMEOUT, (*self.socket).close(None)).await);
    }
}

/// The next thing that happens on any slot. They take turns, beginning with `first`.
pub(super) async fn next(slots: &mut [Slot; Conn::ALL.len()], first: Conn) -> (Conn, Event) {
    poll_fn(|cx| {
        for conn in [first, first.other()] {
            if let Poll::Ready(event) = slots[conn.index()].poll(cx) {
                return Poll::Ready((conn, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// First delay after a connection failed.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
/// The cap of the delay between attempts.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// A connection on which everything asked for was there for this long was good: the next attempt is not delayed.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for a message to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the close handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The share of a connection's lifetime that is used before it is replaced.
const LIFETIME_USED: std::ops::Range<f64> = 0.9..0.95;
/// Stands for no lifetime at all.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

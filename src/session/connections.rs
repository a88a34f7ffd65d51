//! A lane's connections: as many as are wanted, each journaled from its open to its end, and replaced before the venue
//! ends it.

use std::time::Duration;

use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason},
    conn::Conn,
    input::Kind,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Order, Session,
    connect::{ConnectError, WebSocket},
    now,
    requests::Requests,
    slot::{Retiring, Slot, State},
};
use crate::{
    journal,
    status::{Connection, Subscriptions, unix_now},
};

impl Session {
    /// Journals the end of connections that the journal believes open and that are not.
    pub(super) fn bury(&mut self, reason: &CloseReason) -> Result<(), journal::Error> {
        for conn in self.intake.decoder().open().iter() {
            if !self.slots[conn.index()].is_open() {
                self.closed(conn, reason)?;
            }
        }
        Ok(())
    }

    /// Sees to it that as many connections as are asked for are open or about to be, and no more.
    pub(super) fn arrange(&mut self) {
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

    pub(super) fn on_refused(&mut self, conn: Conn, failure: &ConnectError) {
        let slot = &mut self.slots[conn.index()];
        let failures = slot.backoff.failures();
        slot.backoff.fail();
        slot.state = State::Idle;
        let url = &self.order.plan.url;
        warn!(lane = self.name(), %conn, url, error = %failure, failures, "cannot connect; will try again");
        self.error(format!("cannot connect: {failure}"));
        self.arrange();
    }

    pub(super) fn on_open(&mut self, conn: Conn, socket: Box<WebSocket>) -> Result<(), journal::Error> {
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

    /// A connection is to be replaced: it is closed when the other can go on alone, or after [`HANDOVER_MAX`], and read to
    /// its end.
    pub(super) fn retire(&mut self, conn: Conn, reason: CloseReason) {
        let lane = self.intake.lane().name.clone();
        let Some(link) = self.slots[conn.index()].link().filter(|link| link.retiring.is_none()) else { return };
        info!(lane, %conn, reason = reason.kind.name(), detail = reason.detail, "connection is to be replaced");
        link.retiring = Some(Retiring { reason, deadline: Instant::now() + HANDOVER_MAX, is_closing: false });
    }

    /// Ends connections that are to be replaced and can be, and finds those whose lifetime is over.
    pub(super) fn hand_over(&mut self) -> Result<(), journal::Error> {
        let at = Instant::now();
        for conn in Conn::ALL {
            let is_ready = self.intake.decoder().is_ready(conn, now());
            let Some(link) = self.slots[conn.index()].link() else { continue };
            link.ready_since = if is_ready { link.ready_since.or(Some(at)) } else { None };
            if at >= link.rotate_at {
                let detail = "end of the connection's lifetime".into();
                self.retire(conn, CloseReason { kind: CloseKind::Rotation, detail });
                self.arrange();
            }
        }
        for conn in Conn::ALL {
            let other = self.slots[conn.other().index()].link().filter(|other| !other.is_closing());
            let other = other.and_then(|other| other.ready_since);
            let is_covered = other.is_some_and(|since| at.duration_since(since) >= HANDOVER_OVERLAP);
            let lane = self.intake.lane().name.clone();
            let Some(link) = self.slots[conn.index()].link() else { continue };
            match &mut link.retiring {
                Some(Retiring { is_closing: true, deadline, .. }) if at >= *deadline => self.gone(conn, None)?,
                Some(Retiring { is_closing: false, deadline, .. }) if is_covered || at >= *deadline => {
                    if !is_covered {
                        warn!(lane, %conn, "no other connection was ready in {HANDOVER_MAX:?}; closing all the same");
                    }
                    link.close_and_read(at + CLOSING_MAX);
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// A connection ended by itself. One that was to be replaced ends for the reason it was to be.
    pub(super) fn gone(&mut self, conn: Conn, lost: Option<CloseReason>) -> Result<(), journal::Error> {
        let retiring = self.slots[conn.index()].link().and_then(|link| link.retiring.take());
        match retiring.map(|retiring| retiring.reason).or(lost) {
            Some(reason) => self.end(conn, &reason),
            None => Ok(()),
        }
    }

    /// Ends a connection, and begins another where one is wanted.
    pub(super) fn end(&mut self, conn: Conn, reason: &CloseReason) -> Result<(), journal::Error> {
        let Some(link) = self.slots[conn.index()].take(reason.kind) else { return Ok(()) };
        tokio::spawn(link.close());
        let other = self.slots[conn.other().index()].link().and_then(|other| other.retiring.as_mut());
        if let Some(Retiring { is_closing: false, deadline, .. }) = other {
            *deadline = Instant::now() + HANDOVER_MAX; // Its successor begins now, or begins anew.
        }
        self.closed(conn, reason)?;
        self.arrange();
        Ok(())
    }

    /// Ends all connections and begins none.
    pub(super) async fn stop_all(&mut self, reason: &CloseReason) -> Result<(), journal::Error> {
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
    pub(super) fn closed(&mut self, conn: Conn, reason: &CloseReason) -> Result<(), journal::Error> {
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
    pub(super) fn show(&mut self) {
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
}

/// Longest a connection that is to be replaced waits for the other to be ready.
const HANDOVER_MAX: Duration = Duration::from_secs(30);
/// Longest a connection that we close is read before the venue answers.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// How long both run once the new one is ready: what is still on its way on the old one arrives.
const HANDOVER_OVERLAP: Duration = Duration::from_secs(1);

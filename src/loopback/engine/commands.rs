//! What the network side asks of an engine, and what is done about it: connections that come, speak and end, HTTP requests,
//! faults.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tracing::info;

use super::{Engine, json, now_us};
use crate::loopback::{
    binance, coinbase,
    faults::{Fault, FaultKind, When},
    http::{self, Answer},
    hub::{Conn, Wire},
    kraken,
    stats::VenueStats,
    venue::Venue,
};

/// What the network side asks of an engine.
#[derive(Debug)]
pub(in crate::loopback) enum Command {
    /// A connection wants in. It is in when the answer is `Ok`; otherwise the answer is the HTTP status it is
    /// refused with.
    Open { wire: Wire, reply: oneshot::Sender<Result<(), u16>> },
    /// A client sent a text message.
    Message { conn: u64, text: String },
    /// A connection has ended.
    Gone { conn: u64, reason: String },
    /// An HTTP request.
    Http { path: String, query: String, reply: oneshot::Sender<Answer> },
    /// A fault to put in force.
    Fault(Fault),
    /// The market stands still from here on; connections and heartbeats go on.
    Pause,
    /// What has been sent so far?
    Stats(oneshot::Sender<VenueStats>),
}

impl Engine {
    pub(super) fn serve(&mut self, command: Command) {
        match command {
            Command::Open { wire, reply } => {
                let refused = self.faults.strikes(FaultKind::RefuseConnections, "", None).map(|fault| fault.status);
                let refused = refused.or_else(|| (self.hub.len() >= CONNECTIONS_MAX).then_some(503));
                if refused.is_none() {
                    self.open(wire);
                }
                // Fails only when the client has gone already.
                reply.send(refused.map_or(Ok(()), Err)).ok();
            }
            Command::Message { conn, text } => self.message(conn, &text),
            Command::Gone { conn, reason } => {
                if let Some(conn) = self.hub.slot(conn).and_then(|slot| self.hub.forget(slot)) {
                    self.note_closed(&conn, &reason);
                }
            }
            Command::Http { path, query, reply } => {
                if let Some(fault) = self.faults.strikes(FaultKind::DenyHttp, "", None) {
                    reply.send(Answer::denied(self.venue, fault.status)).ok();
                } else {
                    http::answer(self, &path, &query, reply);
                }
            }
            Command::Fault(fault) if fault.kind == FaultKind::Close => {
                if fault.when != When::Off {
                    for slot in self.hub.slots() {
                        self.cut(slot, "fault: close");
                    }
                }
            }
            Command::Fault(fault) if fault.kind == FaultKind::CloseOne => {
                if let Some(slot) = self.hub.longest_open(fault.delay).filter(|_| fault.when != When::Off) {
                    self.cut(slot, "fault: close_one");
                }
            }
            Command::Fault(fault) if fault.kind == FaultKind::Notice => {
                for slot in self.hub.slots().into_iter().filter(|_| fault.when != When::Off) {
                    binance::announce_shutdown(self, slot);
                }
            }
            Command::Fault(fault) => self.faults.set(fault),
            Command::Pause => self.is_paused = true,
            Command::Stats(reply) => {
                self.stats.finish(&self.hub, self.truth.count());
                reply.send(self.stats.clone()).ok();
            }
        }
    }

    fn open(&mut self, wire: Wire) {
        let (number, path) = (wire.number, wire.path.clone());
        self.stats.connections += 1;
        let slot = self.hub.open(wire);
        info!(venue = %self.venue, conn = number, path, "connection open");
        self.truth.note("open", Some(number), "", &format!(",\"path\":{},\"time_us\":{}", json(&path), now_us()));
        match self.venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => binance::on_open(self, slot, &path),
            Venue::Coinbase => {}
            Venue::Kraken => kraken::on_open(self, slot),
        }
    }

    fn message(&mut self, conn: u64, text: &str) {
        let Some(slot) = self.hub.slot(conn) else { return };
        let messages_max = match self.venue {
            Venue::BinanceSpot => 5,
            Venue::BinanceUsdm => 10,
            Venue::Coinbase | Venue::Kraken => 100,
        };
        if let Some(conn) = self.hub.conn(slot) {
            conn.messages += 1;
            if conn.messages > messages_max && self.options.has_limits {
                self.hub.close(slot, 1008, "Too many requests");
                return;
            }
        }
        match self.venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => binance::on_message(self, slot, text),
            Venue::Coinbase => coinbase::on_message(self, slot, text),
            Venue::Kraken => kraken::on_message(self, slot, text),
        }
    }

    pub(super) fn cut(&mut self, slot: usize, reason: &str) {
        if let Some(conn) = self.hub.cut(slot) {
            self.note_closed(&conn, reason);
        }
    }

    fn note_closed(&mut self, conn: &Conn, reason: &str) {
        let written = conn.written.load(Ordering::Relaxed);
        info!(venue = %self.venue, conn = conn.number, reason, "connection closed");
        let fields = format!(
            ",\"reason\":{},\"frames\":{},\"queued\":{},\"written\":{written},\"time_us\":{},\"before\":{}",
            json(reason),
            conn.frames,
            conn.bytes(),
            now_us(),
            self.truth.count()
        );
        self.truth.note("closed", Some(conn.number), "", &fields);
    }
}

const CONNECTIONS_MAX: usize = 1_024;

//! What clients wait for: a depth answer, which is given in the middle of its symbol's next step, and a subscription whose
//! snapshot a fault makes late.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Engine;
use crate::loopback::{
    binance, coinbase,
    faults::{Channel, FaultKind},
    http::Answer,
    kraken,
    venue::Venue,
};

/// A depth request that is answered in the middle of its symbol's next step, as venues do.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) symbol: usize,
    limit: usize,
    until: Instant,
    delay: Duration,
    reply: oneshot::Sender<Answer>,
}

/// A subscription whose snapshot is late on purpose.
#[derive(Debug)]
pub(super) struct Late {
    conn: u64,
    symbol: usize,
    channel: Channel,
    variant: u16,
    due: Instant,
}

impl Engine {
    /// Does what may wait no longer.
    pub(super) fn serve_due(&mut self, now: Instant) {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.until <= now) {
            let symbol = self.waiting[at].symbol;
            self.answer_waiting(symbol);
        }
        while let Some(at) = self.late.iter().position(|late| late.due <= now) {
            let Late { conn, symbol, channel, variant, .. } = self.late.swap_remove(at);
            if let Some(slot) = self.hub.slot(conn) {
                self.start_subscription(slot, symbol, channel, variant);
            }
        }
    }

    /// Subscribes, or will when the snapshot may come. Returns false when it is subscribed already.
    pub(in crate::loopback) fn begin_subscription(
        &mut self,
        slot: usize,
        symbol: usize,
        channel: Channel,
        variant: u16,
    ) {
        let name = self.symbol_name(symbol).to_owned();
        match self.faults.strikes(FaultKind::SlowSnapshot, &name, Some(channel)) {
            Some(fault) if channel == Channel::Book => {
                if let Some(conn) = self.hub.conn(slot).map(|conn| conn.number) {
                    let due = Instant::now() + fault.delay;
                    self.late.push(Late { conn, symbol, channel, variant, due });
                }
            }
            Some(_) | None => self.start_subscription(slot, symbol, channel, variant),
        }
    }

    fn start_subscription(&mut self, slot: usize, symbol: usize, channel: Channel, variant: u16) {
        match self.venue {
            Venue::BinanceSpot | Venue::BinanceUsdm => {}
            Venue::Coinbase => coinbase::snapshot(self, slot, symbol, channel),
            Venue::Kraken => kraken::snapshot(self, slot, symbol, channel, variant),
        }
        self.hub.subscribe(slot, symbol, channel, variant, None);
        self.note_subscription("subscribe", slot, symbol, channel);
    }

    /// Forgets subscriptions whose late snapshot has not come yet.
    pub(in crate::loopback) fn cancel_late(&mut self, slot: usize, symbol: usize, channel: Channel) {
        let Some(conn) = self.hub.conn(slot).map(|conn| conn.number) else { return };
        self.late.retain(|late| late.conn != conn || late.symbol != symbol || late.channel != channel);
    }

    /// Notes in the truth that a subscription began or ended.
    pub(in crate::loopback) fn note_subscription(&mut self, kind: &str, slot: usize, symbol: usize, channel: Channel) {
        let Some(conn) = self.hub.conn(slot).map(|conn| conn.number) else { return };
        let fields = format!(",\"channel\":\"{}\",\"before\":{}", channel.name(), self.truth.count());
        let name = self.symbol_name(symbol).to_owned();
        self.truth.note(kind, Some(conn), &name, &fields);
    }

    /// Answers a depth request in the middle of the symbol's next step, or soon.
    pub(in crate::loopback) fn answer_depth(&mut self, symbol: usize, limit: usize, reply: oneshot::Sender<Answer>) {
        let name = self.market.symbols[symbol].instrument.symbol.clone();
        let slow = self.faults.strikes(FaultKind::SlowSnapshot, &name, Some(Channel::Book));
        let delay = slow.map_or(Duration::ZERO, |fault| fault.delay);
        let until = Instant::now() + if self.is_done() { Duration::ZERO } else { DEPTH_WAIT_MAX };
        self.waiting.push(Waiting { symbol, limit, until, delay, reply });
    }

    pub(super) fn answer_waiting(&mut self, symbol: usize) {
        let now_us = self.clock_us();
        let mut at = 0;
        while at < self.waiting.len() {
            if self.waiting[at].symbol != symbol {
                at += 1;
                continue;
            }
            let Waiting { limit, delay, reply, .. } = self.waiting.swap_remove(at);
            let state = &self.market.symbols[symbol];
            let mut body = Vec::with_capacity(64 * 1024);
            binance::put_depth(&mut body, self.venue, state, limit, now_us);
            let fields = format!(",\"channel\":\"book\",\"u\":{},\"before\":{}", state.update_id, self.truth.count());
            let name = state.instrument.symbol.clone();
            self.truth.note("snapshot", None, &name, &fields);
            reply.send(Answer { delay, ..Answer::json(body) }).ok();
        }
    }
}

/// A depth request waits at most this long for its symbol to move.
const DEPTH_WAIT_MAX: Duration = Duration::from_millis(50);

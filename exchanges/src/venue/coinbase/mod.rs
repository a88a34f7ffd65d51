//! Coinbase Exchange feed: `matches`, `level2_batch` and `heartbeat`.
//!
//! Trades are proven by contiguous trade ids, anchored by `last_match` and checked every second by
//! `heartbeat`. The book is not numbered and has no checksum: a frame that could be a book frame and cannot
//! be decoded breaks the book, and nothing else can be proven. NOTES.md has the sources.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Proof, VenueSpec};
use crate::{
    adapter::{Actions, Adapter, At, CloseReason, LanePlan, Outbox},
    config::Limits,
    conn::{Conn, Conns, PerConn, Via},
    error::FrameError,
    event::{Cause, Channel, Flags, Side, Trade},
    healing::Healing,
    ids::{Micros, Nanos, SymbolIx},
    inband::text_behind,
    json::{Json, View},
    lane::{Instrument, Lane},
    levels::LevelHead,
    metadata::Source,
    plan::{spread, symbols_of},
    resync::LaneResyncs,
    subscription::Subscriptions,
    trades::TradeIds,
};

mod book;
mod history;
mod metadata;
mod subscribe;
mod wire;

use book::BookState;
use wire::{Change, Changes, Fill, Message};

/// Coinbase Exchange.
pub(super) const SPEC: VenueSpec = VenueSpec {
    name: "coinbase",
    ws_url: "wss://ws-feed.exchange.coinbase.com",
    http_url: "https://api.exchange.coinbase.com",
    channels: &[Channel::Trades, Channel::Book],
    book_depths: &[],
    limits: Limits {
        streams_per_connection: 100,
        messages_per_second: 8,
        connects: 8,
        connects_per: Duration::from_secs(1),
        http_weight_per_minute: 600,
        silence: Duration::from_secs(15),
        lifetime: None,
    },
    proof: |channel| match channel {
        Channel::Trades => Proof::Contiguous,
        Channel::Book => Proof::Unprovable,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    book_rule: "none: snapshot, then updates without a number",
    build: || Box::new(Coinbase::new()),
    plan: |config, current| spread(config, "", current),
    tag_of_url: history::tag_of_url,
    metadata: Source::Http { path: "/products", weight: 1, parse: metadata::parse },
};

/// The adapter of one lane.
struct Coinbase {
    json: Json,
    scanned: Vec<Change>,
    lane: Lane<Market>,
    subscriptions: PerConn<Subscriptions>,
    asked: PerConn<subscribe::Asked>,
    resyncs: LaneResyncs,
    healing: Healing<history::Rest>,
}

/// One product.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Market {
    book: BookState,
    trades: TradeIds,
}

impl Coinbase {
    fn new() -> Self {
        Self {
            json: Json::new(),
            scanned: Vec::new(),
            lane: Lane::default(),
            subscriptions: PerConn::default(),
            asked: PerConn::default(),
            resyncs: LaneResyncs::default(),
            healing: Healing::default(),
        }
    }

    /// A connection is gone.
    fn interrupt(&mut self, at: At, conn: Conn, cause: Cause, out: &mut Outbox) {
        let via = self.lane.conns.via(conn);
        for (symbol, market) in self.lane.markets.iter_mut() {
            if !self.lane.conns.records(Channel::Book, out.name(symbol)) {
                market.book.on_end(symbol, out);
            } else if let Some(conn) = market.book.on_close(symbol, via, cause, at.received, out) {
                self.resyncs.want(conn, symbol, at.received);
            }
            self.lane.conns.interrupt(&mut market.trades, symbol, via, cause, out);
        }
        self.lane.conns.on_close(conn);
        self.subscriptions[conn].clear();
        self.asked[conn].reset();
        self.resyncs.reset(conn);
        self.send_resyncs(at.received, out);
    }

    /// A frame could not be decoded. If it may have been a book's, that book is broken: the one it names, or
    /// all of them.
    fn on_undecodable(&mut self, at: At, bytes: &[u8], out: &mut Outbox) {
        let kind = text_behind(bytes, "\"type\":\"");
        if kind.is_some_and(|kind| !matches!(kind, "l2update" | "snapshot")) {
            return;
        }
        let via = self.lane.conns.via(at.conn);
        let product = text_behind(bytes, "\"product_id\":\"").and_then(|name| out.symbols.find(name));
        for (symbol, market) in self.lane.markets.iter_mut() {
            if product.is_none_or(|product| product == symbol)
                && let Some(conn) = market.book.on_undecodable(symbol, via, out)
            {
                if self.lane.conns.records(Channel::Book, out.name(symbol)) {
                    self.resyncs.want(conn, symbol, at.received);
                } else {
                    market.book.on_end(symbol, out); // Of what was on its way when it was taken out.
                }
            }
        }
        self.send_resyncs(at.received, out);
    }

    fn send_resyncs(&mut self, now: Nanos, out: &mut Outbox) {
        let Self { lane, subscriptions, resyncs, .. } = self;
        resyncs.send(now, &lane.conns, out, |conn, symbol, symbols, actions| {
            subscribe::resubscribe_book(now, symbol, (symbols, &mut subscriptions[conn]), actions);
        });
    }
}

impl Adapter for Coinbase {
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        if self.lane.conns.open().has(at.conn) {
            self.lane.conns.open().iter().for_each(|conn| self.interrupt(at, conn, Cause::Downtime, out));
        }
        let is_first = self.lane.conns.open().is_empty();
        if !is_first {
            self.on_plan(at, plan, out);
            self.lane.markets.iter_mut().for_each(|(_, market)| market.book.on_twin(at.conn));
        }
        self.subscriptions[at.conn].clear();
        self.asked[at.conn].reset();
        self.resyncs.reset(at.conn);
        let products = symbols_of(plan, out);
        self.lane.conns.on_open(at.conn);
        self.lane.conns.plan = Some(plan.clone());
        let Outbox { symbols, actions, .. } = out;
        let (asked, subscriptions) = (&mut self.asked[at.conn], &mut self.subscriptions[at.conn]);
        let actions = actions.of(at.conn);
        asked.subscribe(at.received, &plan.channels, &products, (symbols, subscriptions), actions);
        if is_first {
            self.healing.begin(&mut self.lane, plan, out);
        }
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        let before = self.lane.conns.plan.replace(plan.clone());
        let (old, new) = (before.as_ref().map(|plan| symbols_of(plan, out)).unwrap_or_default(), symbols_of(plan, out));
        let old_channels = before.map(|plan| plan.channels).unwrap_or_default();
        for channel in Channel::ALL {
            let (was, is) = (old_channels.contains(&channel), plan.channels.contains(&channel));
            let ended: Vec<_> = old.iter().filter(|symbol| was && !(is && new.contains(symbol))).copied().collect();
            let begun: Vec<_> = new.iter().filter(|symbol| is && !(was && old.contains(symbol))).copied().collect();
            for conn in self.lane.conns.open().iter() {
                let Outbox { symbols, actions, .. } = &mut *out;
                let (asked, subscriptions) = (&mut self.asked[conn], &mut self.subscriptions[conn]);
                let actions = actions.of(conn);
                subscribe::unsubscribe(&[channel], &ended, (symbols, subscriptions), actions);
                asked.subscribe(at.received, &[channel], &begun, (symbols, subscriptions), actions);
            }
            for symbol in ended {
                self.healing.end(&mut self.lane, (channel, symbol), out);
            }
        }
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let Self { json, scanned, lane, subscriptions, asked, healing, .. } = self;
        let (subscriptions, asked) = (&mut subscriptions[at.conn], &mut asked[at.conn]);
        let via = lane.conns.via(at.conn);
        let mut lost = None;
        let mut on_message = |message: Message<'_, '_>| match message {
            Message::Update { product, time, changes } => {
                let symbol = out.symbols.intern(product)?;
                subscriptions.delivered(Channel::Book, symbol, at.received);
                let conn = lane.markets.entry(symbol).on_update(at, via, symbol, time, changes, out)?;
                lost = conn.map(|conn| (conn, symbol));
                Ok(())
            }
            Message::Match(trade) => {
                let symbol = out.symbols.intern(trade.product)?;
                subscriptions.delivered(Channel::Trades, symbol, at.received);
                let market = lane.markets.entry(symbol);
                market.on_match(symbol, via, &trade.fill, out);
                healing.heal(symbol, &market.trades);
                Ok(())
            }
            Message::Heartbeat { product, time, last_trade_id } => {
                let symbol = out.symbols.intern(product)?;
                let market = lane.markets.entry(symbol);
                market.book.on_heartbeat(via, time);
                if let Some(last) = last_trade_id {
                    market.trades.expect(out, symbol, via, last, time);
                    healing.heal(symbol, &market.trades);
                }
                Ok(())
            }
            Message::Snapshot { product, time, bids, asks } => {
                let symbol = out.symbols.intern(product)?;
                subscriptions.delivered(Channel::Book, symbol, at.received);
                let conn = lane.markets.entry(symbol).on_snapshot(at, via, symbol, time, (bids, asks), out)?;
                lost = conn.map(|conn| (conn, symbol));
                Ok(())
            }
            Message::Subscriptions(channels) => {
                subscribe::listed(channels, &out.symbols, subscriptions);
                asked.listed(subscriptions);
                Ok(())
            }
            Message::Refusal { reason } => {
                let Outbox { symbols, actions, .. } = &mut *out;
                asked.refused(at.received, &reason, (symbols, subscriptions), actions);
                Err(FrameError::Refused { what: "a subscription".into(), reason })
            }
            Message::Other => Ok(()),
        };
        let result = match wire::scan(bytes, scanned) {
            Some((product, time)) => on_message(Message::Update { product, time, changes: Changes::Scanned(scanned) }),
            None => json.read(bytes, |root| on_message(wire::read(root)?)),
        };
        if let Some((conn, symbol)) = lost {
            if self.lane.conns.records(Channel::Book, out.name(symbol)) {
                self.resyncs.want(conn, symbol, at.received);
                self.send_resyncs(at.received, out);
            } else {
                // Of what was on its way when it was taken out.
                self.lane.markets.entry(symbol).book.on_end(symbol, out);
            }
        }
        if result.is_err() {
            self.on_undecodable(at, bytes, out);
        }
        self.healing.send(&mut self.lane, out);
        result
    }

    fn on_http(
        &mut self,
        _at: At,
        tag: &str,
        status: u16,
        body: &mut [u8],
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let Self { json, lane, healing, .. } = self;
        healing.on_answer(lane, (tag, status, body), out, |symbol, body| {
            json.read(body, |root| Ok(history::page(symbol, root)))
        })
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.interrupt(at, at.conn, reason.kind.cause(), out);
    }

    fn on_tick(&mut self, now: Nanos, actions: &mut Actions) {
        let Self { lane, subscriptions, resyncs, .. } = self;
        resyncs.on_tick(now, &lane.conns, actions, |conn, symbol, symbols, actions| {
            subscribe::resubscribe_book(now, symbol, (symbols, &mut subscriptions[conn]), actions);
        });
    }

    fn state(&self) -> serde_json::Value {
        serde_json::to_value(&self.lane).expect("a lane has only string keys and finite numbers")
    }

    fn restore(&mut self, state: serde_json::Value) -> Result<(), serde_json::Error> {
        self.lane = serde_json::from_value(state)?;
        Ok(())
    }

    fn subscriptions(&self, conn: Conn) -> &Subscriptions {
        &self.subscriptions[conn]
    }

    fn open(&self) -> Conns {
        self.lane.conns.open()
    }

    fn is_ready(&self, conn: Conn, now: Nanos) -> bool {
        let is_answered = self.subscriptions[conn].is_answered();
        is_answered && self.lane.markets.iter().all(|(_, market)| market.book.can_go_on(conn, now))
    }
}

impl Instrument for Market {
    fn trades(&mut self) -> &mut TradeIds {
        &mut self.trades
    }

    fn end(&mut self, channel: Channel, symbol: SymbolIx, out: &mut Outbox) {
        match channel {
            Channel::Trades => self.trades.end(out, symbol),
            Channel::Book => self.book.on_end(symbol, out),
            Channel::Quotes => {}
        }
    }
}

impl Market {
    /// `match` and `last_match` alike: a trade is emitted once, by its id. What a reconnect missed is named
    /// by the `last_match` that follows it.
    fn on_match(&mut self, symbol: SymbolIx, via: Via, fill: &Fill, out: &mut Outbox) {
        let Fill { trade_id, time, price, qty, side } = *fill;
        if self.trades.admit(out, symbol, via, (trade_id, trade_id), time) {
            let (flags, trade_id) = (Flags::NONE, Some(trade_id));
            out.push_trade(Trade { frame: 0, symbol, side, flags, time, price, qty, trade_id, trade_ref: None });
        }
    }

    fn on_update(
        &mut self,
        at: At,
        via: Via,
        symbol: SymbolIx,
        venue_time: Option<Micros>,
        changes: Changes<'_, '_>,
        out: &mut Outbox,
    ) -> Result<Option<Conn>, FrameError> {
        let head = LevelHead::new(at.received, symbol, None, venue_time, self.book.flags());
        let mark = out.level_mark();
        changes.push(&head, out).inspect_err(|_| out.drop_levels(mark))?;
        Ok(self.book.on_update(at, via, symbol, venue_time, mark, out))
    }

    fn on_snapshot(
        &mut self,
        at: At,
        via: Via,
        symbol: SymbolIx,
        venue_time: Option<Micros>,
        (bids, asks): (Option<View<'_, '_>>, Option<View<'_, '_>>),
        out: &mut Outbox,
    ) -> Result<Option<Conn>, FrameError> {
        let head = LevelHead::new(at.received, symbol, None, venue_time, Flags::SNAPSHOT);
        let mark = out.level_mark();
        let pushed = head.push_pairs(Side::Buy, "bids", bids, out);
        if let Err(error) = pushed.and_then(|()| head.push_pairs(Side::Sell, "asks", asks, out)) {
            out.drop_levels(mark);
            return Err(error);
        }
        Ok(self.book.on_snapshot(at, via, symbol, venue_time, mark, out))
    }
}

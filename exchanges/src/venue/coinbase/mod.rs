//! Coinbase Exchange feed: `matches`, `level2_batch` and `heartbeat`.
//!
//! Trades are proven by contiguous trade ids, anchored by `last_match` and checked every second by
//! `heartbeat`. The book is not numbered and has no checksum: a frame that could be a book frame and cannot
//! be decoded breaks the book, and nothing else can be proven. NOTES.md has the sources.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Proof, VenueSpec};
use crate::{
    adapter::{Actions, Adapter, At, CloseReason, HttpRequest, LanePlan, Outbox},
    backfill::{Backfills, NOT_RECORDED, Refusal, STATUS_OK, refused},
    by_symbol::BySymbol,
    config::Limits,
    error::FrameError,
    event::{Cause, Channel, Flags, Side, Trade},
    ids::{Micros, Nanos, SymbolIx},
    inband::{Inband, text_behind},
    json::{Items, Json, View},
    levels::LevelHead,
    metadata::Source,
    plan::{has, has_book, spread, symbols_of},
    replica::Role,
    resync::Resyncs,
    subscription::Subscriptions,
    symbols::Symbols,
    trades::TradeIds,
};

mod history;
mod metadata;
mod subscribe;
mod wire;

use wire::{Fill, Message};

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
    lane: Lane,
    subscriptions: Subscriptions,
    asked: subscribe::Asked,
    resyncs: Resyncs,
    backfills: Backfills,
    /// The lane's symbols as of the last input, for resyncs that wait for a tick.
    names: Symbols,
}

/// Everything later events depend on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Lane {
    /// The plan of the connection that is open, as far as we know.
    plan: Option<LanePlan>,
    markets: BySymbol<Market>,
}

/// One product.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Market {
    book: Inband,
    trades: TradeIds,
}

impl Coinbase {
    fn new() -> Self {
        Self {
            json: Json::new(),
            lane: Lane::default(),
            subscriptions: Subscriptions::default(),
            asked: subscribe::Asked::default(),
            resyncs: Resyncs::default(),
            backfills: Backfills::default(),
            names: Symbols::default(),
        }
    }

    fn interrupt(&mut self, cause: Cause, out: &mut Outbox) {
        for (symbol, market) in self.lane.markets.iter_mut() {
            if has_book(self.lane.plan.as_ref(), out.name(symbol)) {
                market.book.on_close(symbol, None, cause, out);
            } else {
                market.book.on_end(symbol, out);
            }
            market.trades.interrupt(cause);
        }
        self.lane.plan = None;
        self.subscriptions.clear();
        self.resyncs.reset();
    }

    /// A frame could not be decoded. If it may have been a book's, that book is broken: the one it names, or
    /// all of them.
    fn on_undecodable(&mut self, at: At, bytes: &[u8], out: &mut Outbox) {
        let kind = text_behind(bytes, "\"type\":\"");
        if kind.is_some_and(|kind| !matches!(kind, "l2update" | "snapshot")) {
            return;
        }
        let product = text_behind(bytes, "\"product_id\":\"").and_then(|name| out.symbols.find(name));
        for (symbol, market) in self.lane.markets.iter_mut() {
            if product.is_none_or(|product| product == symbol) && market.book.has_delivered() {
                market.book.on_loss(symbol, Cause::Undecodable, out);
                self.resyncs.want(symbol, at.received);
            }
        }
        self.send_resyncs(at.received, out);
    }

    fn send_resyncs(&mut self, now: Nanos, out: &mut Outbox) {
        let Outbox { symbols, actions, .. } = out;
        for symbol in self.resyncs.due(now) {
            subscribe::resubscribe_book(now, symbol, (symbols, &mut self.subscriptions), actions);
        }
        if self.resyncs.is_waiting() && self.names.len() != symbols.len() {
            self.names = symbols.clone();
        }
    }

    fn send_backfills(&mut self, out: &mut Outbox) {
        let Self { lane, backfills, .. } = self;
        let Outbox { symbols, actions, .. } = out;
        backfills.send(actions, |symbol| lane.request(symbol, symbols));
    }
}

impl Adapter for Coinbase {
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        if self.lane.plan.is_some() {
            self.interrupt(Cause::Downtime, out);
        }
        self.subscriptions.clear();
        self.asked.reset();
        self.resyncs.reset();
        let products = symbols_of(plan, out);
        self.lane.plan = Some(plan.clone());
        let Outbox { symbols, actions, .. } = out;
        let Self { asked, subscriptions, .. } = self;
        asked.subscribe(at.received, &plan.channels, &products, (symbols, subscriptions), actions);
        self.backfills.reset();
        for (symbol, market) in self.lane.markets.iter_mut().filter(|(_, market)| market.trades.has_holes()) {
            if has(Some(plan), Channel::Trades, out.name(symbol)) {
                self.backfills.want(symbol);
            } else {
                market.trades.give_up(out, symbol, NOT_RECORDED);
            }
        }
        self.send_backfills(out);
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        let before = self.lane.plan.replace(plan.clone());
        let (old, new) = (before.as_ref().map(|plan| symbols_of(plan, out)).unwrap_or_default(), symbols_of(plan, out));
        let old_channels = before.map(|plan| plan.channels).unwrap_or_default();
        for channel in Channel::ALL {
            let (was, is) = (old_channels.contains(&channel), plan.channels.contains(&channel));
            let ended: Vec<_> = old.iter().filter(|symbol| was && !(is && new.contains(symbol))).copied().collect();
            let begun: Vec<_> = new.iter().filter(|symbol| is && !(was && old.contains(symbol))).copied().collect();
            let Outbox { symbols, actions, .. } = &mut *out;
            subscribe::unsubscribe(&[channel], &ended, (symbols, &mut self.subscriptions), actions);
            self.asked.subscribe(at.received, &[channel], &begun, (symbols, &mut self.subscriptions), actions);
            for symbol in ended {
                let market = self.lane.markets.entry(symbol);
                match channel {
                    Channel::Trades => {
                        self.backfills.forget(symbol);
                        market.trades.interrupt(Cause::Downtime);
                        market.trades.give_up(out, symbol, NOT_RECORDED);
                    }
                    Channel::Book => market.book.on_end(symbol, out),
                    Channel::Quotes => {}
                }
            }
        }
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let Self { json, lane, subscriptions, asked, backfills, .. } = self;
        let result = json.read(bytes, |root| match wire::read(root)? {
            Message::Update { product, time, changes } => {
                let symbol = out.symbols.intern(product)?;
                subscriptions.delivered(Channel::Book, symbol, at.received);
                lane.markets.entry(symbol).on_update(at, symbol, time, changes, out)
            }
            Message::Match(trade) => {
                let symbol = out.symbols.intern(trade.product)?;
                subscriptions.delivered(Channel::Trades, symbol, at.received);
                let market = lane.markets.entry(symbol);
                market.on_match(symbol, &trade.fill, out);
                if market.trades.has_holes() {
                    backfills.want(symbol);
                }
                Ok(())
            }
            Message::Heartbeat { product, time, last_trade_id } => {
                let symbol = out.symbols.intern(product)?;
                if let Some(last) = last_trade_id {
                    let trades = &mut lane.markets.entry(symbol).trades;
                    trades.expect(out, symbol, last, time);
                    if trades.has_holes() {
                        backfills.want(symbol);
                    }
                }
                Ok(())
            }
            Message::Snapshot { product, time, bids, asks } => {
                let symbol = out.symbols.intern(product)?;
                subscriptions.delivered(Channel::Book, symbol, at.received);
                lane.markets.entry(symbol).on_snapshot(at, symbol, time, (bids, asks), out)
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
        });
        if result.is_err() {
            self.on_undecodable(at, bytes, out);
        }
        if self.backfills.is_due() {
            self.send_backfills(out);
        }
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
        let Some(name) = history::product_of(tag) else {
            return Err(FrameError::Unknown { head: format!("an answer to a request {tag:?} that is never made") });
        };
        let symbol = out.symbols.intern(name)?;
        let Self { json, lane, backfills, .. } = self;
        if !has(lane.plan.as_ref(), Channel::Trades, name) {
            return Ok(()); // No longer recorded.
        }
        let answer = match status {
            STATUS_OK => json.read(body, |root| history::page(symbol, root)).map_err(|error| (Refusal::Odd, error)),
            _ => Err(refused(tag, status, body)),
        };
        let (served, result) = lane.markets.entry(symbol).trades.on_answer(out, symbol, answer);
        let Outbox { symbols, actions, .. } = out;
        backfills.answered(symbol, served, actions, |symbol| lane.request(symbol, symbols));
        result
    }

    fn on_close(&mut self, _at: At, reason: &CloseReason, out: &mut Outbox) {
        self.interrupt(reason.kind.cause(), out);
    }

    fn on_tick(&mut self, now: Nanos, actions: &mut Actions) {
        for symbol in self.resyncs.due(now) {
            subscribe::resubscribe_book(now, symbol, (&self.names, &mut self.subscriptions), actions);
        }
    }

    fn state(&self) -> serde_json::Value {
        serde_json::to_value(&self.lane).expect("a lane has only string keys and finite numbers")
    }

    fn restore(&mut self, state: serde_json::Value) -> Result<(), serde_json::Error> {
        self.lane = serde_json::from_value(state)?;
        Ok(())
    }

    fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }
}

impl Lane {
    /// The request for what is missing of an instrument's trades.
    fn request(&mut self, symbol: SymbolIx, symbols: &Symbols) -> Option<HttpRequest> {
        let want = self.markets.entry(symbol).trades.want(history::PAGE_IDS)?;
        Some(history::request(symbols.name(symbol), &want))
    }
}

impl Market {
    /// `match` and `last_match` alike: a trade is emitted once, by its id. What a reconnect missed is named
    /// by the `last_match` that follows it.
    fn on_match(&mut self, symbol: SymbolIx, fill: &Fill, out: &mut Outbox) {
        let Fill { trade_id, time, price, qty, side } = *fill;
        if self.trades.admit(out, symbol, (trade_id, trade_id), time) {
            let (flags, trade_id) = (Flags::NONE, Some(trade_id));
            out.push_trade(Trade { frame: 0, symbol, side, flags, time, price, qty, trade_id, trade_ref: None });
        }
    }

    fn on_update(
        &mut self,
        at: At,
        symbol: SymbolIx,
        venue_time: Option<Micros>,
        changes: Items<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let flags = if self.book.is_live() { Flags::NONE } else { Flags::AFTER_GAP };
        let head = LevelHead::new(at, symbol, None, venue_time, flags);
        let mark = out.level_mark();
        for item in changes {
            match wire::change(item) {
                Ok((side, price, qty)) => head.push(side, price, qty, out),
                Err(error) => {
                    out.drop_levels(mark);
                    return Err(error);
                }
            }
        }
        self.book.on_update(venue_time);
        out.finish_book(mark, symbol, Role::Delta, None, None);
        Ok(())
    }

    fn on_snapshot(
        &mut self,
        at: At,
        symbol: SymbolIx,
        venue_time: Option<Micros>,
        (bids, asks): (Option<View<'_, '_>>, Option<View<'_, '_>>),
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let head = LevelHead::new(at, symbol, None, venue_time, Flags::SNAPSHOT);
        let mark = out.level_mark();
        let pushed = head.push_pairs(Side::Buy, "bids", bids, out);
        if let Err(error) = pushed.and_then(|()| head.push_pairs(Side::Sell, "asks", asks, out)) {
            out.drop_levels(mark);
            return Err(error);
        }
        self.book.on_snapshot(symbol, None, venue_time, at.received.micros(), out);
        out.finish_book(mark, symbol, Role::Snapshot { keeps_from: None, depth: None }, None, None);
        Ok(())
    }
}

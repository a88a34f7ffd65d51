//! Binance: spot, USD-M futures and COIN-M futures. One protocol, three numberings and addresses.
//!
//! This file dispatches; `wire` reads messages, `book` proves books, `snapshot` and `subscribe` decide what
//! is asked for. NOTES.md has the rules' sources and the evidence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Proof, VenueSpec};
use crate::{
    adapter::{Actions, Adapter, At, CloseKind, CloseReason, HttpRequest, LanePlan, Outbox},
    backfill::{STATUS_OK, query_value},
    config::Limits,
    conn::{Conn, Conns, PerConn, Via},
    error::{FrameError, head},
    event::{Cause, Channel, Flags, Quote, Side, Trade},
    healing::{Healing, History},
    ids::{Nanos, SymbolIx},
    json::Json,
    lane::{Instrument, Lane},
    metadata::Source,
    number,
    plan::{spread, streams_of},
    scan::Levels,
    subscription::Subscriptions,
    trades::TradeIds,
    unnumbered::Unnumbered,
};

mod book;
mod history;
mod metadata;
mod snapshot;
mod subscribe;
mod wire;

use book::{BookState, Next};
use wire::{DepthWire, Message, QuoteWire, TradeWire};

/// Binance spot.
pub(super) const SPOT: VenueSpec = VenueSpec {
    name: "binance-spot",
    ws_url: "wss://stream.binance.com:9443",
    http_url: "https://api.binance.com",
    channels: &[Channel::Trades, Channel::Book, Channel::Quotes],
    book_depths: &[100, 500, 1_000, 5_000],
    limits: Limits {
        streams_per_connection: 1_024,
        messages_per_second: 5,
        connects: 300,
        connects_per: Duration::from_secs(300),
        http_weight_per_minute: 6_000,
        silence: Duration::from_secs(60),
        lifetime: Some(Duration::from_secs(24 * 3_600)),
    },
    proof: |channel| match channel {
        Channel::Trades | Channel::Book => Proof::Contiguous,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    book_rule: "U == previous u + 1",
    build: || Box::new(Binance::new(Flavor::Spot)),
    plan: |config, current| spread(config, "/stream", current),
    tag_of_url,
    metadata: Source::Http { path: "/api/v3/exchangeInfo", weight: 20, parse: metadata::parse },
};

/// Binance USD-M futures.
pub(super) const USDM: VenueSpec = VenueSpec {
    name: "binance-usdm",
    ws_url: "wss://fstream.binance.com",
    http_url: "https://fapi.binance.com",
    channels: &[Channel::Trades, Channel::Book, Channel::Quotes],
    book_depths: &[50, 100, 500, 1_000],
    limits: Limits {
        streams_per_connection: 200,
        messages_per_second: 10,
        connects: 300,
        connects_per: Duration::from_secs(300),
        http_weight_per_minute: 2_400,
        silence: Duration::from_secs(60),
        lifetime: Some(Duration::from_secs(24 * 3_600)),
    },
    proof: |channel| match channel {
        Channel::Trades => Proof::Contiguous,
        Channel::Book => Proof::Chain,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    book_rule: "pu == previous u",
    build: || Box::new(Binance::new(Flavor::Usdm)),
    plan: |config, current| spread(config, "/public/stream", current),
    tag_of_url,
    metadata: Source::Http { path: "/fapi/v1/exchangeInfo", weight: 1, parse: metadata::parse },
};

/// Binance COIN-M futures.
pub(super) const COINM: VenueSpec = VenueSpec {
    name: "binance-coinm",
    ws_url: "wss://dstream.binance.com",
    http_url: "https://dapi.binance.com",
    build: || Box::new(Binance::new(Flavor::Coinm)),
    plan: |config, current| spread(config, "/stream", current),
    metadata: Source::Http { path: "/dapi/v1/exchangeInfo", weight: 1, parse: metadata::parse },
    ..USDM
};

/// The tag of a request, from the URL of a recorded answer.
fn tag_of_url(url: &str) -> Option<String> {
    let (path, query) = url.split_once('?')?;
    let symbol = query_value(query, "symbol")?;
    snapshot::tag_of(path, symbol).or_else(|| history::tag_of(path, symbol, query))
}

/// Which of Binance's markets a lane speaks to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flavor {
    Spot,
    Usdm,
    Coinm,
}

impl Flavor {
    /// The id that a delta says comes before it.
    fn previous_id(self, delta: &DepthWire<'_, '_>) -> Result<i64, FrameError> {
        match self {
            Self::Spot => Ok(delta.first_id.saturating_sub(1)),
            Self::Usdm | Self::Coinm => {
                delta.previous_id.ok_or_else(|| FrameError::missing("pu", "the previous update id"))
            }
        }
    }

    /// Deltas whose last id is at or above this are not older than the snapshot with this id. Spot drops
    /// `u <= lastUpdateId`, futures drop `u < lastUpdateId`.
    const fn keeps_from(self, snapshot: i64) -> i64 {
        match self {
            Self::Spot => snapshot.saturating_add(1),
            Self::Usdm | Self::Coinm => snapshot,
        }
    }

    fn stream(self, channel: Channel, symbol: &str) -> String {
        let suffix = match (channel, self) {
            (Channel::Trades, _) => "trade",
            (Channel::Book, Self::Spot) => "depth@100ms",
            (Channel::Book, Self::Usdm | Self::Coinm) => "depth@0ms",
            (Channel::Quotes, _) => "bookTicker",
        };
        format!("{}@{suffix}", symbol.to_lowercase())
    }

    const fn rest_base(self) -> &'static str {
        match self {
            Self::Spot => "/api/v3",
            Self::Usdm => "/fapi/v1",
            Self::Coinm => "/dapi/v1",
        }
    }

    /// Request weight of a snapshot of `limit` levels a side.
    const fn depth_weight(self, limit: u32) -> u32 {
        match (self, limit) {
            (Self::Spot, ..=100) => 5,
            (Self::Spot, ..=500) => 25,
            (Self::Spot, ..=1_000) => 50,
            (Self::Spot, _) => 250,
            (Self::Usdm | Self::Coinm, ..=50) => 2,
            (Self::Usdm | Self::Coinm, ..=100) => 5,
            (Self::Usdm | Self::Coinm, ..=500) => 10,
            (Self::Usdm | Self::Coinm, _) => 20,
        }
    }
}

/// The adapter of one lane.
struct Binance {
    flavor: Flavor,
    json: Json,
    scanned: Levels,
    lane: Lane<Market>,
    requests: PerConn<subscribe::Requests>,
    snapshots: snapshot::Snapshots,
    healing: Healing<Flavor>,
    subscriptions: PerConn<Subscriptions>,
}

/// One instrument.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Market {
    book: BookState,
    trades: TradeIds,
    /// Update id of the last quote.
    #[serde(default)]
    quoted: Option<i64>,
    /// Trades come as aggregates (a recording without `@trade`): ids are the aggregates'.
    is_aggregate: bool,
    #[serde(default)]
    quotes: Unnumbered,
}

impl Binance {
    fn new(flavor: Flavor) -> Self {
        Self {
            flavor,
            json: Json::new(),
            scanned: Levels::default(),
            lane: Lane::default(),
            requests: PerConn::default(),
            snapshots: snapshot::Snapshots::default(),
            healing: Healing::new(flavor),
            subscriptions: PerConn::default(),
        }
    }

    /// A connection is gone. When it was the last, books are not whole any more; trades go on by their ids.
    fn interrupt(&mut self, at: At, conn: Conn, cause: Cause, out: &mut Outbox) {
        let via = self.lane.conns.via(conn);
        let is_last = via.others().is_empty();
        let Self { flavor, lane, snapshots, .. } = self;
        for (symbol, market) in lane.markets.iter_mut() {
            let is_recorded = lane.conns.records(Channel::Book, out.name(symbol));
            if !is_recorded {
                market.book.on_end(symbol, out);
            } else if market.book.on_close(*flavor, symbol, via, cause, at.received, out) == Next::Snapshot {
                snapshots.want(*flavor, symbol, &out.symbols, &mut out.actions);
            }
            lane.conns.interrupt(&mut market.trades, symbol, via, cause, out);
            if is_last {
                market.quoted = None;
                market.quotes.on_close(out, symbol, Channel::Quotes, cause);
            }
        }
        lane.conns.on_close(conn);
        self.subscriptions[conn].clear();
        self.requests[conn].reset();
    }

    fn subscribe(&mut self, at: At, conn: Conn, streams: &[(Channel, SymbolIx)], out: &mut Outbox) {
        let Outbox { symbols, actions, .. } = out;
        let (requests, subscriptions) = (&mut self.requests[conn], &mut self.subscriptions[conn]);
        requests.subscribe(at, self.flavor, streams, (symbols, subscriptions), actions.of(conn));
        for (channel, symbol) in streams {
            if *channel == Channel::Book && !self.lane.markets.entry(*symbol).book.is_live() {
                self.snapshots.want(self.flavor, *symbol, symbols, actions);
            }
        }
    }
}

impl History for Flavor {
    type Market = Market;

    fn request(&self, name: &str, market: &mut Market) -> Option<HttpRequest> {
        // Of aggregates (a recording) the trades behind them are not known.
        let want = market.trades.want(history::PAGE_IDS).filter(|_| !market.is_aggregate)?;
        Some(history::request(*self, name, &want))
    }
}

impl Adapter for Binance {
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        if self.lane.conns.open().has(at.conn) {
            self.lane.conns.open().iter().for_each(|conn| self.interrupt(at, conn, Cause::Downtime, out));
        }
        let is_first = self.lane.conns.open().is_empty();
        if !is_first {
            self.on_plan(at, plan, out);
        }
        self.lane.conns.on_open(at.conn);
        self.lane.conns.plan = Some(plan.clone());
        self.requests[at.conn].reset();
        self.subscriptions[at.conn].clear();
        if is_first {
            self.snapshots.reset(plan.book_depth.unwrap_or(SNAPSHOT_LEVELS));
        }
        let streams = streams_of(plan, out);
        self.subscribe(at, at.conn, &streams, out);
        if is_first {
            self.healing.begin(&mut self.lane, plan, out);
        }
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        self.snapshots.set_limit(plan.book_depth.unwrap_or(SNAPSHOT_LEVELS));
        let before = self.lane.conns.plan.replace(plan.clone());
        let before = before.map(|plan| streams_of(&plan, out)).unwrap_or_default();
        let after = streams_of(plan, out);
        let ended: Vec<_> = before.iter().filter(|stream| !after.contains(stream)).copied().collect();
        let begun: Vec<_> = after.iter().filter(|stream| !before.contains(stream)).copied().collect();
        let open = self.lane.conns.open();
        for conn in open.iter() {
            let Outbox { symbols, actions, .. } = &mut *out;
            let (requests, subscriptions) = (&mut self.requests[conn], &mut self.subscriptions[conn]);
            requests.unsubscribe(self.flavor, &ended, (symbols, subscriptions), actions.of(conn));
        }
        for (channel, symbol) in ended {
            if channel == Channel::Book {
                self.snapshots.forget(symbol);
            }
            self.healing.end(&mut self.lane, (channel, symbol), out);
        }
        for conn in open.iter() {
            self.subscribe(at, conn, &begun, out);
        }
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let Self { flavor, json, scanned, lane, requests, snapshots, healing, subscriptions } = self;
        let (requests, subscriptions) = (&mut requests[at.conn], &mut subscriptions[at.conn]);
        let via = lane.conns.via(at.conn);
        let on_message = |message: Message<'_, '_>| match message {
            Message::Depth(delta) => {
                let symbol = out.symbols.intern(delta.symbol)?;
                subscriptions.delivered(Channel::Book, symbol, at.received);
                match lane.markets.entry(symbol).book.on_delta(at, via, *flavor, symbol, &delta, out)? {
                    Next::Snapshot => snapshots.want(*flavor, symbol, &out.symbols, &mut out.actions),
                    Next::Nothing => {}
                }
                Ok(())
            }
            Message::Trade(trade) => {
                let symbol = out.symbols.intern(trade.symbol)?;
                subscriptions.delivered(Channel::Trades, symbol, at.received);
                let market = lane.markets.entry(symbol);
                market.on_trade(at, via, symbol, &trade, out)?;
                healing.heal(symbol, &market.trades);
                Ok(())
            }
            Message::Quote(quote) => {
                let symbol = out.symbols.intern(quote.symbol)?;
                subscriptions.delivered(Channel::Quotes, symbol, at.received);
                lane.markets.entry(symbol).on_quote(at, symbol, &quote, out)
            }
            Message::Answer { id, refusal } => {
                let known = (&out.symbols, subscriptions);
                requests.answered(id, refusal.as_deref(), *flavor, known, &mut out.actions);
                match refusal {
                    Some(reason) => Err(FrameError::Refused { what: format!("request {id}"), reason }),
                    None => Ok(()),
                }
            }
            Message::Shutdown => {
                let detail = "the venue announced that the server shuts down".into();
                out.actions.reconnect(CloseReason { kind: CloseKind::VenueRestart, detail });
                Ok(())
            }
            Message::Other => Ok(()),
        };
        let result = match wire::scan(bytes, scanned) {
            Some(delta) => on_message(Message::Depth(delta)),
            None => json.read(bytes, |root| on_message(wire::read(root)?)),
        };
        self.healing.send(&mut self.lane, out);
        result
    }

    fn on_http(&mut self, at: At, tag: &str, status: u16, body: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        if let Some(asked) = history::asked(tag) {
            let Self { json, lane, healing, .. } = self;
            return healing.on_answer(lane, (tag, status, body), out, |symbol, body| {
                json.read(body, |root| Ok(Ok(history::page(at, symbol, asked, root)?)))
            });
        }
        let Some(name) = snapshot::symbol_of(tag) else {
            return Err(FrameError::Unknown { head: format!("an answer to a request {tag:?} that is never made") });
        };
        let symbol = out.symbols.intern(name)?;
        let Self { flavor, json, lane, snapshots, subscriptions, .. } = self;
        if !lane.conns.records(Channel::Book, name) {
            // Taken out meanwhile: a message that was on its way may have begun a book.
            lane.markets.entry(symbol).book.on_end(symbol, out);
            snapshots.forget(symbol);
            return Ok(());
        }
        let result = if status == STATUS_OK {
            json.read(body, |root| lane.markets.entry(symbol).book.on_snapshot(at, *flavor, symbol, root, out))
        } else {
            let error = FrameError::Http { tag: tag.into(), status, head: head(body) };
            if status == STATUS_BAD_REQUEST {
                let refused = error.to_string();
                subscriptions.iter_mut().for_each(|(_, own)| own.refuse(Channel::Book, symbol, &refused));
            }
            Err(error)
        };
        let serves = lane.markets.entry(symbol).book.is_live();
        snapshots.answered(*flavor, symbol, serves, &out.symbols, &mut out.actions);
        result.map(drop)
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.interrupt(at, at.conn, reason.kind.cause(), out);
    }

    /// The venue pings, with WebSocket ping frames; nothing to send by itself.
    fn on_tick(&mut self, _now: Nanos, _actions: &mut Actions) {}

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
}

impl Instrument for Market {
    fn trades(&mut self) -> &mut TradeIds {
        &mut self.trades
    }

    fn end(&mut self, channel: Channel, symbol: SymbolIx, out: &mut Outbox) {
        match channel {
            Channel::Trades => self.trades.end(out, symbol),
            Channel::Book => self.book.on_end(symbol, out),
            Channel::Quotes => {
                self.quoted = None;
                self.quotes.on_end(out, symbol, Channel::Quotes);
            }
        }
    }
}

impl Market {
    fn on_trade(
        &mut self,
        at: At,
        via: Via,
        symbol: SymbolIx,
        wire: &TradeWire<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let fields = &wire.fields;
        let price = number::price("p", wire::text("p", fields.price)?)?;
        let qty = number::qty("q", wire::text("q", fields.qty)?)?;
        let is_buyer_maker = fields.is_buyer_maker.ok_or_else(|| FrameError::missing("m", "true or false"))?;
        let venue_time = fields.time();
        if wire.is_aggregate != self.is_aggregate {
            if wire.is_aggregate && self.trades.last().is_some() {
                return Ok(()); // `@trade` has the same trades one by one.
            }
            self.is_aggregate = wire.is_aggregate;
            self.trades.give_up(out, symbol, "the stream's numbering is another from here on");
            self.trades = TradeIds::default();
        }
        let time = venue_time.unwrap_or(at.received.micros());
        if !self.trades.admit(out, symbol, via, (wire.id, wire.id), time) {
            return Ok(());
        }
        let mut flags = if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD };
        if fields.execution.is_some_and(|execution| execution != "MARKET") {
            flags = flags.with(Flags::OFF_BOOK);
        }
        let side = if is_buyer_maker { Side::Sell } else { Side::Buy };
        let trade_id = Some(wire.id);
        out.push_trade(Trade { frame: 0, symbol, side, flags, time, price, qty, trade_id, trade_ref: None });
        Ok(())
    }

    /// Quotes are numbered like the book: one at or before the last is known, or older than what is.
    fn on_quote(
        &mut self,
        at: At,
        symbol: SymbolIx,
        wire: &QuoteWire<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), FrameError> {
        let fields = &wire.fields;
        let bid = wire::quote_side(("b", fields.bid), ("B", fields.bid_qty))?;
        let ask = wire::quote_side(("a", fields.ask), ("A", fields.ask_qty))?;
        let seq = fields.update_id();
        if seq.is_some() && seq <= self.quoted {
            out.repeats.dropped += 1;
            return Ok(());
        }
        self.quoted = seq.or(self.quoted);
        let venue_time = fields.time();
        let flags = if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD };
        let time = venue_time.unwrap_or(at.received.micros());
        self.quotes.on_message(out, symbol, Channel::Quotes, time);
        out.push_quote(Quote { frame: 0, symbol, flags, time, bid, ask, seq });
        Ok(())
    }
}

/// Levels a side that a snapshot asks for when the configuration does not say.
const SNAPSHOT_LEVELS: u32 = 1_000;
/// Unknown symbols are answered so.
const STATUS_BAD_REQUEST: u16 = 400;

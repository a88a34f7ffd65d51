//! OKX v5 public feed, and OKCoin, which speaks the same protocol on its own hosts: `trades`, `books` and
//! `bbo-tbt`.
//!
//! This file dispatches; `wire` reads messages, `book` proves books, `places` says how the connections stand to each
//! other, `subscribe` decides what is asked for, `history` fetches missing trades.
//! NOTES.md has the rules' sources and the evidence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Proof, VenueSpec};
use crate::{
    adapter::{Actions, Adapter, At, CloseKind, CloseReason, LanePlan, Outbox},
    checksum::Checksum,
    config::Limits,
    conn::{Conn, Conns, PerConn, Via},
    error::FrameError,
    event::{Cause, Channel, Quote},
    healing::Healing,
    ids::{Micros, Nanos, SymbolIx},
    inband::text_behind,
    json::{Items, Json},
    lane::{Instrument, Lane},
    metadata::Source,
    plan::{spread, streams_of},
    resync::LaneResyncs,
    scan::Levels,
    subscription::Subscriptions,
    trades::TradeIds,
    unnumbered::Unnumbered,
};

pub(super) mod book;
mod history;
mod metadata;
mod places;
mod subscribe;
mod wire;

use book::{BookState, Intake, Update};
use wire::Message;

/// OKX.
pub(super) const OKX: VenueSpec = VenueSpec {
    name: "okx",
    ws_url: "wss://ws.okx.com:8443",
    http_url: "https://www.okx.com",
    channels: &[Channel::Trades, Channel::Book, Channel::Quotes],
    book_depths: &[],
    limits: Limits {
        streams_per_connection: 240,
        messages_per_second: 3,
        connects: 3,
        connects_per: Duration::from_secs(1),
        http_weight_per_minute: 600,
        silence: Duration::from_secs(30),
        lifetime: None,
    },
    proof: |channel| match channel {
        Channel::Trades => Proof::Contiguous,
        Channel::Book => Proof::Chain,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    book_rule: "seqId/prevSeqId when present; CRC32 of 25 alternating bid:ask levels on snapshot and update",
    build: || Box::new(Okx::new()),
    plan: |config, current| spread(config, "/ws/v5/public", current),
    tag_of_url: history::tag_of_url,
    metadata: Source::Http { path: "/api/v5/public/instruments?instType=SPOT", weight: 1, parse: metadata::parse },
};

/// OKCoin.
pub(super) const OKCOIN: VenueSpec =
    VenueSpec { name: "okcoin", ws_url: "wss://real.okcoin.com:8443", http_url: "https://www.okcoin.com", ..OKX };

/// The adapter of one lane.
struct Okx {
    json: Json,
    scanned: Levels,
    lane: Lane<Market>,
    checksum: Checksum,
    subscriptions: PerConn<Subscriptions>,
    resyncs: LaneResyncs,
    healing: Healing<history::Rest>,
    /// When the last frame came or the last ping was sent.
    last_sign: PerConn<Nanos>,
}

/// One instrument.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Market {
    book: BookState,
    /// In states of before [`BookState`] knew it: the connection whose book messages and quotes are taken.
    #[serde(default, skip_serializing)]
    leader: Option<Conn>,
    trades: TradeIds,
    #[serde(default)]
    quoted: Option<Quoted>,
    #[serde(default)]
    quotes: Unnumbered,
}

/// The last quote.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Quoted {
    time: Micros,
    seq: Option<i64>,
    /// The connection it came by, while that is open.
    by: Option<Conn>,
}

impl Okx {
    fn new() -> Self {
        Self {
            json: Json::new(),
            scanned: Levels::default(),
            lane: Lane::default(),
            checksum: Checksum::default(),
            subscriptions: PerConn::default(),
            resyncs: LaneResyncs::default(),
            healing: Healing::default(),
            last_sign: PerConn::default(),
        }
    }

    /// A connection is gone.
    fn interrupt(&mut self, at: At, conn: Conn, cause: Cause, out: &mut Outbox) {
        let via = self.lane.conns.via(conn);
        let Self { lane, checksum, resyncs, .. } = self;
        for (symbol, market) in lane.markets.iter_mut() {
            lane.conns.interrupt(&mut market.trades, symbol, via, cause, out);
            if lane.conns.records(Channel::Book, out.name(symbol)) {
                let mut intake = Intake { symbol, received: at.received, via, checksum, out };
                if let Some(conn) = market.book.on_close(cause, &mut intake) {
                    resyncs.want(conn, symbol, at.received);
                }
            } else {
                market.book.on_end(symbol, out);
            }
            market.on_close(symbol, via, cause, out);
        }
        self.lane.conns.on_close(conn);
        self.subscriptions[conn].clear();
        self.resyncs.reset(conn);
        self.send_resyncs(at.received, out);
    }

    /// A frame could not be decoded: books that cannot tell by their numbering are broken.
    fn on_undecodable(&mut self, at: At, bytes: &[u8], out: &mut Outbox) {
        let channel = text_behind(bytes, "\"channel\":\"");
        if channel.is_some_and(|name| subscribe::channel_of(name) != Some(Channel::Book)) {
            return;
        }
        let via = self.lane.conns.via(at.conn);
        let named = text_behind(bytes, "\"instId\":\"").and_then(|name| out.symbols.find(name));
        for (symbol, market) in self.lane.markets.iter_mut() {
            if named.is_none_or(|named| named == symbol)
                && let Some(conn) = market.book.on_undecodable(symbol, via, out)
            {
                if self.lane.conns.records(Channel::Book, out.name(symbol)) {
                    self.resyncs.want(conn, symbol, at.received);
                } else {
                    market.book.on_end(symbol, out); // Of what was on its way when it was taken out.
                }
            }
        }
    }

    fn send_resyncs(&mut self, now: Nanos, out: &mut Outbox) {
        let Self { lane, subscriptions, resyncs, .. } = self;
        resyncs.send(now, &lane.conns, out, |conn, symbol, symbols, actions| {
            subscribe::resubscribe_book(now, symbol, (symbols, &mut subscriptions[conn]), actions);
        });
    }
}

impl Adapter for Okx {
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        if self.lane.conns.open().has(at.conn) {
            self.lane.conns.open().iter().for_each(|conn| self.interrupt(at, conn, Cause::Downtime, out));
        }
        let is_first = self.lane.conns.open().is_empty();
        if !is_first {
            self.on_plan(at, plan, out);
        }
        self.subscriptions[at.conn].clear();
        self.resyncs.reset(at.conn);
        self.last_sign[at.conn] = at.received;
        let asked = streams_of(plan, out);
        self.lane.conns.on_open(at.conn);
        self.lane.conns.plan = Some(plan.clone());
        let Outbox { symbols, actions, .. } = out;
        let subscriptions = (&*symbols, &mut self.subscriptions[at.conn]);
        subscribe::subscribe(at.received, &asked, subscriptions, actions.of(at.conn));
        if is_first {
            self.healing.begin(&mut self.lane, plan, out);
        }
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        let before = self.lane.conns.plan.replace(plan.clone());
        let before = before.map(|plan| streams_of(&plan, out)).unwrap_or_default();
        let after = streams_of(plan, out);
        let ended: Vec<_> = before.iter().filter(|stream| !after.contains(stream)).copied().collect();
        let begun: Vec<_> = after.iter().filter(|stream| !before.contains(stream)).copied().collect();
        for conn in self.lane.conns.open().iter() {
            let Outbox { symbols, actions, .. } = &mut *out;
            let (subscriptions, actions) = (&mut self.subscriptions[conn], actions.of(conn));
            subscribe::unsubscribe(&ended, (symbols, subscriptions), actions);
            let subscriptions = &mut self.subscriptions[conn];
            subscribe::subscribe(at.received, &begun, (symbols, subscriptions), actions);
        }
        for (channel, symbol) in ended {
            self.healing.end(&mut self.lane, (channel, symbol), out);
        }
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        self.last_sign[at.conn] = at.received;
        if bytes == b"pong" {
            return Ok(());
        }
        let Self { json, scanned, lane, checksum, subscriptions, resyncs, healing, .. } = self;
        let subscriptions = &mut subscriptions[at.conn];
        let via = lane.conns.via(at.conn);
        let mut frame = Frame { at, via, lane, checksum, subscriptions, resyncs, healing, out };
        let result = match wire::scan(bytes, scanned) {
            Some((instrument, update)) => frame.on_scanned(instrument, update),
            None => json.read(bytes, |root| frame.on_message(wire::read(root)?)),
        };
        if result.is_err() {
            self.on_undecodable(at, bytes, out);
        }
        self.send_resyncs(at.received, out);
        self.healing.send(&mut self.lane, out);
        result
    }

    fn on_http(&mut self, at: At, tag: &str, status: u16, body: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let Self { json, lane, healing, .. } = self;
        healing.on_answer(lane, (tag, status, body), out, |symbol, body| {
            json.read(body, |root| Ok(history::page(at, symbol, root)))
        })
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.interrupt(at, at.conn, reason.kind.cause(), out);
    }

    fn on_tick(&mut self, now: Nanos, actions: &mut Actions) {
        for conn in self.lane.conns.open().iter() {
            if now.since(self.last_sign[conn]) >= PING_AFTER {
                self.last_sign[conn] = now;
                actions.of(conn).send("ping".into());
            }
        }
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
        for (_, market) in self.lane.markets.iter_mut() {
            if let Some(leader) = market.leader.take() {
                market.book.adopt(leader);
            }
        }
        Ok(())
    }

    fn subscriptions(&self, conn: Conn) -> &Subscriptions {
        &self.subscriptions[conn]
    }

    fn open(&self) -> Conns {
        self.lane.conns.open()
    }

    fn is_ready(&self, conn: Conn, _now: Nanos) -> bool {
        let is_answered = self.subscriptions[conn].is_answered();
        is_answered && self.lane.markets.iter().all(|(_, market)| market.book.can_go_on(conn))
    }
}

/// One frame being taken in.
struct Frame<'a> {
    at: At,
    via: Via,
    lane: &'a mut Lane<Market>,
    checksum: &'a mut Checksum,
    subscriptions: &'a mut Subscriptions,
    resyncs: &'a mut LaneResyncs,
    healing: &'a mut Healing<history::Rest>,
    out: &'a mut Outbox,
}

impl Frame<'_> {
    fn on_message(&mut self, message: Message<'_, '_>) -> Result<(), FrameError> {
        match message {
            Message::Push { channel, instrument, is_snapshot, data } => {
                let Some(channel) = subscribe::channel_of(channel) else { return Ok(()) };
                let name = instrument.ok_or_else(|| FrameError::missing("instId", "a string"))?;
                let symbol = self.delivered(channel, name)?;
                self.on_push(channel, symbol, is_snapshot, data)
            }
            Message::Subscribed { channel, instrument } => {
                let Some((channel, name)) = subscribe::channel_of(channel).zip(instrument) else { return Ok(()) };
                let symbol = self.out.symbols.intern(name)?;
                self.subscriptions.acknowledge(channel, symbol);
                Ok(())
            }
            Message::Refusal { reason } => {
                self.subscriptions
                    .refuse_unanswered(&reason, |symbol| reason.contains(&**self.out.symbols.name(symbol)));
                Err(FrameError::Refused { what: "a request".into(), reason })
            }
            Message::Notice { reason } => {
                self.out.actions.reconnect(CloseReason { kind: CloseKind::VenueRestart, detail: reason });
                Ok(())
            }
            Message::Other => Ok(()),
        }
    }

    fn on_scanned(&mut self, instrument: &str, update: Update<'_, '_>) -> Result<(), FrameError> {
        let symbol = self.delivered(Channel::Book, instrument)?;
        self.on_book(symbol, update)
    }

    fn delivered(&mut self, channel: Channel, name: &str) -> Result<SymbolIx, FrameError> {
        let symbol = self.out.symbols.intern(name)?;
        self.subscriptions.delivered(channel, symbol, self.at.received);
        Ok(symbol)
    }

    fn on_book(&mut self, symbol: SymbolIx, update: Update<'_, '_>) -> Result<(), FrameError> {
        let Self { at, via, checksum, out, .. } = self;
        let mut intake = Intake { symbol, received: at.received, via: *via, checksum, out };
        let book = &mut self.lane.markets.entry(symbol).book;
        if let Some(conn) = book.on_message(update, &mut intake)? {
            if self.lane.conns.records(Channel::Book, self.out.name(symbol)) {
                self.resyncs.want(conn, symbol, self.at.received);
            } else {
                book.on_end(symbol, self.out); // Of what was on its way when it was taken out.
            }
        }
        Ok(())
    }

    fn on_push(
        &mut self,
        channel: Channel,
        symbol: SymbolIx,
        is_snapshot: bool,
        mut data: Items<'_, '_>,
    ) -> Result<(), FrameError> {
        match channel {
            Channel::Book => data.try_for_each(|item| self.on_book(symbol, Update::read(is_snapshot, item)?)),
            Channel::Trades => data.try_for_each(|item| {
                let (ids, trade) = wire::trade(self.at, symbol, item)?;
                let trades = &mut self.lane.markets.entry(symbol).trades;
                if trades.admit(self.out, symbol, self.via, ids, trade.time) {
                    self.out.push_trade(trade);
                }
                self.healing.heal(symbol, trades);
                Ok(())
            }),
            Channel::Quotes => data.try_for_each(|item| {
                let quote = wire::quote(self.at, symbol, item)?;
                let market = self.lane.markets.entry(symbol);
                if market.is_news(self.at.conn, &quote) {
                    market.quotes.on_message(self.out, symbol, Channel::Quotes, quote.time);
                    self.out.push_quote(quote);
                } else {
                    self.out.repeats.dropped += 1;
                }
                Ok(())
            }),
        }
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
    /// Whether a quote is one that the other connection has not brought. Both bring them in order, by id and by time: of
    /// two with one time the higher id is newer; a lower id with a later time is of a numbering that began anew.
    fn is_news(&mut self, conn: Conn, quote: &Quote) -> bool {
        let Quote { time, seq, .. } = *quote;
        let is_news = self.quoted.is_none_or(|last| match (seq, last.seq) {
            _ if last.by == Some(conn) => true,
            (Some(seq), Some(last_seq)) => seq != last_seq && (time, seq) > (last.time, last_seq),
            (None, _) | (_, None) => time > last.time,
        });
        if is_news {
            self.quoted = Some(Quoted { time, seq, by: Some(conn) });
        }
        is_news
    }

    /// A connection ended, for quotes.
    fn on_close(&mut self, symbol: SymbolIx, via: Via, cause: Cause, out: &mut Outbox) {
        if via.others().is_empty() {
            self.quoted = None;
            self.quotes.on_close(out, symbol, Channel::Quotes, cause);
        } else if let Some(quoted) = &mut self.quoted {
            // Another one of its number may begin with what it brought.
            quoted.by = quoted.by.filter(|by| *by != via.conn);
        }
    }
}

/// A connection silent this long is asked for a sign; the venue closes one that is silent for 30 s.
const PING_AFTER: Duration = Duration::from_secs(20);

//! Kraken spot, WebSocket v2: `trade`, `book` with its checksum, `ticker` by best bid and ask. Recordings of
//! v1 are read too.
//!
//! This file dispatches; `wire` and `legacy` read the two versions, `book` keeps and proves books,
//! `subscribe` decides what is asked for. NOTES.md has the rules' sources and the evidence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Proof, VenueSpec};
use crate::{
    adapter::{Actions, Adapter, At, CloseReason, LanePlan, Outbox},
    checksum::Checksum,
    config::Limits,
    conn::{Conn, Conns, PerConn, Via},
    error::FrameError,
    event::{Cause, Channel, Flags},
    healing::Healing,
    ids::{Micros, Nanos, SymbolIx},
    inband::text_behind,
    json::{Items, Json, View},
    lane::{Instrument, Lane},
    levels::LevelHead,
    metadata::Source,
    plan::{spread, symbols_of},
    resync::LaneResyncs,
    scan::Levels,
    subscription::Subscriptions,
    trades::TradeIds,
    unnumbered::Unnumbered,
};

mod book;
mod history;
mod legacy;
mod metadata;
mod subscribe;
mod wire;

use book::{BookState, Head};
use wire::{Answer, Book, Message};

/// Kraken spot.
pub(super) const SPEC: VenueSpec = VenueSpec {
    name: "kraken",
    ws_url: "wss://ws.kraken.com",
    http_url: "https://api.kraken.com",
    channels: &[Channel::Trades, Channel::Book, Channel::Quotes],
    book_depths: &book::DEPTHS,
    limits: Limits {
        streams_per_connection: 300,
        messages_per_second: 5,
        connects: 150,
        connects_per: Duration::from_secs(600),
        http_weight_per_minute: 60,
        silence: Duration::from_secs(15),
        lifetime: None,
    },
    proof: |channel| match channel {
        Channel::Trades => Proof::Contiguous,
        Channel::Book => Proof::Checksum,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    book_rule: "no sequence; CRC32 of the top 10 on every update (v2: snapshots too)",
    build: || Box::new(Kraken::new()),
    plan: |config, current| spread(config, "/v2", current),
    tag_of_url: |_| None,
    metadata: Source::WebSocket { path: "/v2", subscribe: metadata::SUBSCRIBE, parse: metadata::parse },
};

/// The adapter of one lane.
struct Kraken {
    json: Json,
    scanned: Levels,
    lane: Lane<Market>,
    checksum: Checksum,
    subscriptions: PerConn<Subscriptions>,
    resyncs: LaneResyncs,
    healing: Healing<history::Rest>,
}

/// One pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Market {
    book: BookState,
    trades: TradeIds,
    /// Time of the last quote, and the connection it came by.
    #[serde(default)]
    quoted: Option<(Micros, Conn)>,
    #[serde(default)]
    quotes: Unnumbered,
    /// Trades of v1, which have no ids.
    #[serde(default)]
    legacy_trades: Unnumbered,
}

impl Kraken {
    fn new() -> Self {
        Self {
            json: Json::new(),
            scanned: Levels::default(),
            lane: Lane::default(),
            checksum: Checksum::default(),
            subscriptions: PerConn::default(),
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
            } else if let Some(conn) = market.book.on_close(symbol, via, cause, at.received, (&mut self.checksum, out))
            {
                self.resyncs.want(conn, symbol, at.received);
            }
            self.lane.conns.interrupt(&mut market.trades, symbol, via, cause, out);
            if via.others().is_empty() {
                market.quoted = None;
                market.quotes.on_close(out, symbol, Channel::Quotes, cause);
                market.legacy_trades.on_close(out, symbol, Channel::Trades, cause);
            }
        }
        self.lane.conns.on_close(conn);
        self.subscriptions[conn].clear();
        self.resyncs.reset(conn);
        self.send_resyncs(at.received, out);
    }

    /// A frame could not be decoded. If it may have been a book's, that book is broken: the checksum covers
    /// ten levels only and would not tell of a change below them.
    fn on_undecodable(&mut self, at: At, bytes: &[u8], out: &mut Outbox) {
        let channel = text_behind(bytes, "\"channel\":\"");
        if channel.is_some_and(|channel| channel != "book") || text_behind(bytes, "\"method\":\"").is_some() {
            return;
        }
        let via = self.lane.conns.via(at.conn);
        let named = text_behind(bytes, "\"symbol\":\"").and_then(|name| out.symbols.find(name));
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
        let depth = lane.depth();
        resyncs.send(now, &lane.conns, out, |conn, symbol, symbols, actions| {
            subscribe::resubscribe_book(now, symbol, depth, (symbols, &mut subscriptions[conn]), actions);
        });
    }
}

impl Adapter for Kraken {
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
        self.resyncs.reset(at.conn);
        let asked = symbols_of(plan, out);
        self.lane.conns.on_open(at.conn);
        self.lane.conns.plan = Some(plan.clone());
        let depth = self.lane.depth();
        let Outbox { symbols, actions, .. } = out;
        for channel in &plan.channels {
            let subscriptions = (&*symbols, &mut self.subscriptions[at.conn]);
            subscribe::subscribe(at.received, *channel, &asked, depth, subscriptions, actions.of(at.conn));
        }
        if is_first {
            self.healing.begin(&mut self.lane, plan, out);
        }
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        let depth_before = self.lane.depth();
        let before = self.lane.conns.plan.replace(plan.clone());
        let depth = self.lane.depth();
        let (old, new) = (before.as_ref().map(|plan| symbols_of(plan, out)).unwrap_or_default(), symbols_of(plan, out));
        let old_channels = before.map(|plan| plan.channels).unwrap_or_default();
        for channel in Channel::ALL {
            let is_same = channel != Channel::Book || depth == depth_before;
            let (was, is) = (old_channels.contains(&channel), plan.channels.contains(&channel));
            let stays = |symbol: &SymbolIx| was && is && is_same && old.contains(symbol) && new.contains(symbol);
            let ended: Vec<_> = old.iter().filter(|symbol| was && !stays(symbol)).copied().collect();
            let begun: Vec<_> = new.iter().filter(|symbol| is && !stays(symbol)).copied().collect();
            for conn in self.lane.conns.open().iter() {
                let Outbox { symbols, actions, .. } = &mut *out;
                let (subscriptions, actions) = (&mut self.subscriptions[conn], actions.of(conn));
                subscribe::unsubscribe(channel, &ended, depth_before, (symbols, subscriptions), actions);
                let subscriptions = &mut self.subscriptions[conn];
                subscribe::subscribe(at.received, channel, &begun, depth, (symbols, subscriptions), actions);
            }
            for symbol in ended {
                if channel == Channel::Book && begun.contains(&symbol) {
                    self.lane.markets.entry(symbol).book.on_change(symbol, Cause::Downtime, out); // Another depth.
                } else {
                    self.healing.end(&mut self.lane, (channel, symbol), out);
                }
            }
        }
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let Self { json, scanned, lane, checksum, subscriptions, resyncs, healing, .. } = self;
        let (subscriptions, via) = (&mut subscriptions[at.conn], lane.conns.via(at.conn));
        let mut frame = Frame { at, via, lane, checksum, subscriptions, resyncs, healing, out };
        let result = if let Some(book) = wire::scan(bytes, scanned) {
            frame.on_scanned(book, scanned)
        } else if let Some((depth, book)) = legacy::scan(bytes, scanned) {
            frame.on_depth(book.symbol, Some(depth)).and_then(|()| frame.on_scanned(book, scanned))
        } else {
            json.read_keeping_numbers(bytes, |root| {
                if legacy::is_legacy(root) {
                    frame.on_legacy(legacy::read(root)?)
                } else {
                    frame.on_message(wire::read(root)?)
                }
            })
        };
        if result.is_err() {
            self.on_undecodable(at, bytes, out);
        }
        self.send_resyncs(at.received, out);
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
            json.read_keeping_numbers(body, |root| Ok(history::page(symbol, root)))
        })
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.interrupt(at, at.conn, reason.kind.cause(), out);
    }

    fn on_tick(&mut self, now: Nanos, actions: &mut Actions) {
        let Self { lane, subscriptions, resyncs, .. } = self;
        let depth = lane.depth();
        resyncs.on_tick(now, &lane.conns, actions, |conn, symbol, symbols, actions| {
            subscribe::resubscribe_book(now, symbol, depth, (symbols, &mut subscriptions[conn]), actions);
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
            Channel::Quotes => {
                self.quoted = None;
                self.quotes.on_end(out, symbol, Channel::Quotes);
            }
        }
    }
}

impl Market {
    /// Whether a quote is one that the other connection has not brought: quotes have no number, and both connections
    /// bring them in the order of their times.
    fn is_news(&mut self, conn: Conn, time: Micros) -> bool {
        let is_news = self.quoted.is_none_or(|(last, by)| by == conn || time > last);
        if is_news {
            self.quoted = Some((time, conn));
        }
        is_news
    }
}

impl Lane<Market> {
    fn planned_depth(&self) -> Option<u32> {
        self.conns.plan.as_ref().map(|plan| plan.book_depth.unwrap_or(DEPTH_DEFAULT))
    }

    fn depth(&self) -> u32 {
        self.planned_depth().unwrap_or(DEPTH_DEFAULT)
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
            Message::Book { is_snapshot, mut books } => books.try_for_each(|item| {
                self.on_book(wire::book(is_snapshot, item)?, |head, out| wire::push_levels(head, item, out))
            }),
            Message::Trades { is_snapshot, trades } => self.on_trades(is_snapshot, trades),
            Message::Quotes(mut quotes) => quotes.try_for_each(|item| {
                let symbol = self.delivered(Channel::Quotes, item.need_text("symbol")?)?;
                let quote = wire::quote(self.at, symbol, item)?;
                let market = self.lane.markets.entry(symbol);
                if market.is_news(self.at.conn, quote.time) {
                    market.quotes.on_message(self.out, symbol, Channel::Quotes, quote.time);
                    self.out.push_quote(quote);
                } else {
                    self.out.repeats.dropped += 1;
                }
                Ok(())
            }),
            Message::Answer(answer) => self.on_answer(&answer),
            Message::Other => Ok(()),
        }
    }

    fn on_scanned(&mut self, book: Book<'_>, levels: &Levels) -> Result<(), FrameError> {
        self.on_book(book, |head, out| {
            levels.push(head, out);
            Ok(())
        })
    }

    /// A book is subscribed with this depth, where the venue says so.
    fn on_depth(&mut self, name: &str, depth: Option<u32>) -> Result<(), FrameError> {
        let symbol = self.out.symbols.intern(name)?;
        if let Some(depth) = depth {
            self.lane.markets.entry(symbol).book.on_depth(depth);
        }
        Ok(())
    }

    /// Takes in a book message whose levels `push` emits.
    fn on_book(
        &mut self,
        book: Book<'_>,
        push: impl FnOnce(&LevelHead, &mut Outbox) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let Book { is_snapshot, symbol, checksum, time } = book;
        let symbol = self.delivered(Channel::Book, symbol)?;
        let flags = if is_snapshot { Flags::SNAPSHOT } else { Flags::NONE };
        let levels = LevelHead::new(self.at.received, symbol, None, time, flags);
        let mark = self.out.level_mark();
        if let Err(error) = push(&levels, self.out) {
            self.out.drop_levels(mark);
            return Err(error);
        }
        self.book_message(Head { at: self.at, symbol, time, is_snapshot, checksum }, mark);
        Ok(())
    }

    fn book_message(&mut self, head: Head, mark: usize) {
        let planned = self.lane.planned_depth();
        let book = &mut self.lane.markets.entry(head.symbol).book;
        if let Some(conn) = book.on_message(head, self.via, mark, planned, self.checksum, self.out) {
            if self.lane.conns.records(Channel::Book, self.out.name(head.symbol)) {
                self.resyncs.want(conn, head.symbol, self.at.received);
            } else {
                book.on_end(head.symbol, self.out); // Of what was on its way when it was taken out.
            }
        }
    }

    /// Snapshots repeat the last trades: each is emitted once, by its id. They are taken oldest first
    /// whichever way they come.
    fn on_trades(&mut self, is_snapshot: bool, mut trades: Items<'_, '_>) -> Result<(), FrameError> {
        if !is_snapshot {
            return trades.try_for_each(|item| self.on_trade(item));
        }
        let mut items =
            trades.map(|item| Ok((item.need_int("trade_id")?, item))).collect::<Result<Vec<_>, FrameError>>()?;
        items.sort_by_key(|(id, _)| *id);
        items.into_iter().try_for_each(|(_, item)| self.on_trade(item))
    }

    fn on_trade(&mut self, item: View<'_, '_>) -> Result<(), FrameError> {
        let symbol = self.delivered(Channel::Trades, item.need_text("symbol")?)?;
        let (id, trade) = wire::trade(symbol, item)?;
        let trades = &mut self.lane.markets.entry(symbol).trades;
        if trades.admit(self.out, symbol, self.via, (id, id), trade.time) {
            self.out.push_trade(trade);
        }
        self.healing.heal(symbol, trades);
        Ok(())
    }

    fn on_answer(&mut self, answer: &Answer<'_>) -> Result<(), FrameError> {
        if let Some(reason) = answer.refusal {
            let symbols = &self.out.symbols;
            self.subscriptions.refuse_unanswered(reason, |symbol| match answer.symbol {
                Some(name) => &**symbols.name(symbol) == name,
                None => reason.contains(&**symbols.name(symbol)),
            });
            let what = format!("a subscription of {}", answer.symbol.unwrap_or("unnamed symbols"));
            return Err(FrameError::Refused { what, reason: reason.into() });
        }
        let Some(channel) = answer.channel.and_then(subscribe::channel_of).filter(|_| answer.is_subscribe) else {
            return Ok(());
        };
        let symbol = self.out.symbols.intern(answer.symbol.unwrap_or_default())?;
        self.subscriptions.acknowledge(channel, symbol);
        if let (Channel::Book, Some(depth)) = (channel, answer.depth) {
            self.lane.markets.entry(symbol).book.on_depth(depth);
        }
        Ok(())
    }

    fn on_legacy(&mut self, message: legacy::Message<'_, '_>) -> Result<(), FrameError> {
        match message {
            legacy::Message::Book { pair, depth, parts } => {
                self.on_depth(pair, depth)?;
                let parts = legacy::BookParts::read(parts)?;
                let legacy::BookParts { is_snapshot, checksum, time, .. } = parts;
                self.on_book(Book { is_snapshot, symbol: pair, checksum, time }, |head, out| parts.push(head, out))
            }
            legacy::Message::Trades { pair, mut trades } => {
                let symbol = self.delivered(Channel::Trades, pair)?;
                trades.try_for_each(|item| {
                    let trade = legacy::trade(symbol, item)?;
                    let trades = &mut self.lane.markets.entry(symbol).legacy_trades;
                    trades.on_message(self.out, symbol, Channel::Trades, trade.time);
                    self.out.push_trade(trade);
                    Ok(())
                })
            }
            legacy::Message::Subscribed { pair, depth } => self.on_depth(pair, depth),
            legacy::Message::Refusal { pair, reason } => {
                let what = format!("a subscription of {}", pair.unwrap_or("unnamed symbols"));
                Err(FrameError::Refused { what, reason: reason.into() })
            }
            legacy::Message::Other => Ok(()),
        }
    }

    fn delivered(&mut self, channel: Channel, name: &str) -> Result<SymbolIx, FrameError> {
        let symbol = self.out.symbols.intern(name)?;
        self.subscriptions.delivered(channel, symbol, self.at.received);
        Ok(symbol)
    }
}

/// Levels a side when the configuration does not say.
const DEPTH_DEFAULT: u32 = 100;

//! Bitget's WebSocket v1, retired by the venue: its recordings can be read, nothing can be recorded.
//!
//! ```text
//! {"action":"snapshot"|"update","arg":{"instType":"sp","channel":"books","instId":"EOSUSDT"},"data":[..]}
//! {"event":"subscribe","arg":{..}}
//! ```
//!
//! One name may stand for a spot pair and a contract, so a symbol here is `<instId>|<instType>`. Trades have
//! no id; the trades a subscription begins with are history that cannot be told from what was seen before,
//! and are not emitted. NOTES.md has the evidence.

use serde::{Deserialize, Serialize};

use super::{
    Proof, VenueSpec,
    okx::book::{BookState, Intake, Update},
};
use crate::{
    adapter::{Actions, Adapter, At, CloseReason, LanePlan, Outbox},
    by_symbol::BySymbol,
    checksum::Checksum,
    config::Limits,
    conn::{Conn, Conns, Via},
    error::FrameError,
    event::{Cause, Channel, Flags, Side, Trade},
    ids::{Nanos, SymbolIx},
    json::{Json, View},
    metadata::Source,
    number,
    scan::{Levels, Scan},
    subscription::Subscriptions,
    time::epoch,
    unnumbered::Unnumbered,
};

/// Bitget v1: for `tapeway normalize` and `tapeway book` alone.
pub(super) const SPEC: VenueSpec = VenueSpec {
    name: "bitget",
    ws_url: "wss://ws.bitget.com",
    http_url: "https://api.bitget.com",
    channels: &[],
    book_depths: &[],
    limits: Limits {
        streams_per_connection: 1,
        messages_per_second: 1,
        connects: 1,
        connects_per: std::time::Duration::from_secs(1),
        http_weight_per_minute: 1,
        silence: std::time::Duration::from_secs(30),
        lifetime: None,
    },
    proof: |channel| match channel {
        Channel::Trades => Proof::Unprovable,
        Channel::Book => Proof::Checksum,
        Channel::Quotes => Proof::SnapshotOnly,
    },
    build: || Box::new(Bitget::new()),
    plan: |_, _| Vec::new(),
    metadata: Source::Http { path: "/api/spot/v1/public/products", weight: 1, parse: |_| Ok(Vec::new()) },
    ..super::okx::OKX
};

/// The adapter of one lane.
struct Bitget {
    json: Json,
    scanned: Levels,
    lane: Lane,
    checksum: Checksum,
    subscriptions: Subscriptions,
    name: String,
}

/// Everything later events depend on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Lane {
    is_open: bool,
    /// Connections beside the first are open and passed over.
    #[serde(default)]
    open: Conns,
    books: BySymbol<BookState>,
    #[serde(default)]
    trades: BySymbol<Unnumbered>,
}

impl Bitget {
    fn new() -> Self {
        Self {
            json: Json::new(),
            scanned: Levels::default(),
            lane: Lane::default(),
            checksum: Checksum::default(),
            subscriptions: Subscriptions::default(),
            name: String::new(),
        }
    }

    fn interrupt(&mut self, at: At, cause: Cause, out: &mut Outbox) {
        for (symbol, book) in self.lane.books.iter_mut() {
            let checksum = &mut self.checksum;
            book.on_close(cause, &mut Intake { symbol, received: at.received, via: ALONE, checksum, out });
        }
        for (symbol, trades) in self.lane.trades.iter_mut() {
            trades.on_close(out, symbol, Channel::Trades, cause);
        }
        self.lane.is_open = false;
    }
}

impl Adapter for Bitget {
    fn on_open(&mut self, at: At, _plan: &LanePlan, out: &mut Outbox) {
        if self.lane.open.has(at.conn) || (self.lane.is_open && self.lane.open.is_empty()) {
            self.interrupt(at, Cause::Downtime, out);
            self.lane.open = Conns::NONE;
        }
        self.lane.open.insert(at.conn);
        self.lane.is_open = true;
    }

    fn on_plan(&mut self, _at: At, _plan: &LanePlan, _out: &mut Outbox) {}

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        if bytes == b"pong" {
            return Ok(());
        }
        let Self { json, scanned, lane, checksum, name, .. } = self;
        let result = match scan(bytes, scanned) {
            Some((arg, update)) => on_book(at, arg, update, (lane, checksum, name), out),
            None => json.read(bytes, |root| on_message(at, root, lane, checksum, name, out)),
        };
        if result.is_err() {
            for (symbol, book) in self.lane.books.iter_mut() {
                book.on_undecodable(symbol, ALONE, out);
            }
        }
        result
    }

    fn on_http(
        &mut self,
        _at: At,
        tag: &str,
        _status: u16,
        _body: &mut [u8],
        _out: &mut Outbox,
    ) -> Result<(), FrameError> {
        Err(FrameError::Unknown { head: format!("an answer to a request {tag:?} that is never made") })
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.lane.open.remove(at.conn);
        if self.lane.open.is_empty() {
            self.interrupt(at, reason.kind.cause(), out);
        }
    }

    fn on_tick(&mut self, _now: Nanos, _actions: &mut Actions) {}

    fn state(&self) -> serde_json::Value {
        serde_json::to_value(&self.lane).expect("a lane has only string keys and finite numbers")
    }

    fn restore(&mut self, state: serde_json::Value) -> Result<(), serde_json::Error> {
        self.lane = serde_json::from_value(state)?;
        Ok(())
    }

    fn subscriptions(&self, _conn: Conn) -> &Subscriptions {
        &self.subscriptions
    }

    fn open(&self) -> Conns {
        self.lane.open
    }
}

fn on_message(
    at: At,
    root: View<'_, '_>,
    lane: &mut Lane,
    checksum: &mut Checksum,
    name: &mut String,
    out: &mut Outbox,
) -> Result<(), FrameError> {
    if let Some(event) = root.get("event") {
        return match event.text() {
            Some("subscribe" | "unsubscribe") => Ok(()),
            Some("error") => {
                let reason = root.get("msg").map_or_else(|| "no reason given".into(), View::shown);
                Err(FrameError::Refused { what: "a request".into(), reason })
            }
            _ => Err(FrameError::Unknown { head: format!("event {:?}", event.shown()) }),
        };
    }
    let arg = root.get("arg").ok_or_else(|| FrameError::Unknown { head: "neither an event nor a push".into() })?;
    let channel = arg.need_text("channel")?;
    if !matches!(channel, "books" | "trade") {
        return Ok(()); // Tickers, candles, whole top levels.
    }
    let symbol = symbol((arg.need_text("instType")?, arg.need_text("instId")?), name, out)?;
    let is_snapshot = root.get("action").and_then(View::text) == Some("snapshot");
    let mut data = root.need_items("data")?;
    match channel {
        "trade" if is_snapshot => Ok(()),
        "trade" => data.try_for_each(|item| {
            let trade = trade(at, symbol, item)?;
            lane.trades.entry(symbol).on_message(out, symbol, Channel::Trades, trade.time);
            out.push_trade(trade);
            Ok(())
        }),
        _ => data.try_for_each(|item| {
            let book = lane.books.entry(symbol);
            let mut intake = Intake { symbol, received: at.received, via: ALONE, checksum, out };
            book.on_message(Update::read(is_snapshot, item)?, &mut intake).map(drop)
        }),
    }
}

/// Reads a frame that is one book message in the spelling it always has, and what its instrument is called; `None` for any
/// other.
#[inline]
fn scan<'a>(frame: &'a [u8], levels: &'a mut Levels) -> Option<((&'a str, &'a str), Update<'a, 'a>)> {
    let mut scan = Scan::new(frame);
    scan.step(br#"{"action":""#)?;
    let is_snapshot = scan.update_or_snapshot()?;
    scan.step(br#","arg":{"instType":""#)?;
    let kind = scan.text()?;
    scan.step(br#","channel":"books","instId":""#)?;
    let instrument = scan.text()?;
    scan.step(br#"},"data":[{"asks":["#)?;
    levels.clear();
    scan.levels(&mut levels.asks)?;
    scan.step(br#","bids":["#)?;
    scan.levels(&mut levels.bids)?;
    scan.step(br#","checksum":"#)?;
    let checksum = scan.signed()?;
    scan.step(br#","ts":""#)?;
    let time = epoch(scan.int()?);
    scan.step(br#""}]}"#)?;
    scan.end()?;
    Some(((kind, instrument), Update::scanned(is_snapshot, None, time, checksum, levels)?))
}

fn on_book(
    at: At,
    arg: (&str, &str),
    update: Update<'_, '_>,
    (lane, checksum, name): (&mut Lane, &mut Checksum, &mut String),
    out: &mut Outbox,
) -> Result<(), FrameError> {
    let symbol = symbol(arg, name, out)?;
    let mut intake = Intake { symbol, received: at.received, via: ALONE, checksum, out };
    lane.books.entry(symbol).on_message(update, &mut intake).map(drop)
}

/// An instrument's name is of its own and its kind's.
fn symbol((kind, instrument): (&str, &str), name: &mut String, out: &mut Outbox) -> Result<SymbolIx, FrameError> {
    name.clear();
    name.push_str(instrument);
    name.push('|');
    name.push_str(&kind.to_lowercase());
    out.symbols.intern(name)
}

/// `[time, price, quantity, side]`.
fn trade(at: At, symbol: SymbolIx, item: View<'_, '_>) -> Result<Trade, FrameError> {
    const RULE: &str = "time, price, size and side as strings";
    let mut items = item.items().into_iter().flatten();
    let time = items.next().and_then(View::int);
    let mut texts = items.map(View::text);
    let (Some(time), Some(Some(price)), Some(Some(qty)), Some(Some(side))) =
        (time, texts.next(), texts.next(), texts.next())
    else {
        return Err(FrameError::field("data", RULE, &item.shown()));
    };
    let venue_time = epoch(time);
    Ok(Trade {
        frame: 0,
        symbol,
        side: match side {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(FrameError::field("side", "`buy` or `sell`", other)),
        },
        flags: if venue_time.is_some() { Flags::NONE } else { Flags::VENUE_TIME_BAD },
        time: venue_time.unwrap_or(at.received.micros()),
        price: number::price("price", price)?,
        qty: number::qty("size", qty)?,
        trade_id: None,
        trade_ref: None,
    })
}

/// Nobody records it any more: a recording has one connection.
const ALONE: Via = Via { conn: Conn::FIRST, open: Conns::NONE };

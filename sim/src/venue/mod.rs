//! Model venues: each makes a market from its seed, sends it as the real venue does, and does it badly on request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tapeway_exchanges::{
    adapter::LanePlan,
    conn::{Conn, PerConn},
    event,
    top_book::OrderBooks,
    venue::{self, VenueSpec},
};

use self::market::{Changes, Step, Symbol};
use crate::rng::Rng;

mod binance;
mod coinbase;
mod kraken;
pub mod market;
mod okx;
pub mod text;

/// Which venue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Binance spot.
    BinanceSpot,
    /// Binance USD-M futures.
    BinanceUsdm,
    /// Coinbase Exchange.
    Coinbase,
    /// Kraken spot.
    Kraken,
    /// OKX.
    Okx,
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// Trades.
    Trades,
    /// Changes of the book.
    Book,
    /// Best bid and ask.
    Quotes,
    /// Heartbeats of one instrument.
    Heartbeat,
}

/// What goes wrong with frames and answers, per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The frame is not sent.
    pub drop: u64,
    /// It is sent twice.
    pub duplicate: u64,
    /// It is sent after the next one.
    pub swap: u64,
    /// It is cut in half.
    pub corrupt: u64,
    /// It carries a wrong id.
    pub wrong_id: u64,
    /// It carries a wrong checksum.
    pub wrong_checksum: u64,
    /// The connection goes silent.
    pub stall: u64,
    /// The connection is cut, with what is on its way.
    pub cut: u64,
    /// What a step changes is sent with the next one's changes, on venues whose book messages have no ids; each connection
    /// has its own pieces.
    pub batch: u64,
    /// The end of a connection is announced, where the venue does that.
    pub restart: u64,
    /// How long after that it ends, at least and at most.
    pub restart_ms: (u64, u64),
    /// An HTTP request gets no answer, or an error, or a part, or gibberish; and late.
    pub http: u64,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// One venue and the one lane that listens to it.
#[derive(Debug)]
pub struct Venue {
    /// Which.
    pub kind: Kind,
    /// Its markets.
    pub symbols: Vec<Symbol>,
    /// What goes wrong.
    pub faults: Faults,
    /// Its clock, microseconds since 1970.
    pub now_us: i64,
    /// The open connections, by the lane's number for them.
    pub sockets: PerConn<Option<Socket>>,
    /// Instruments of whose book something is missing that the venue's rules cannot prove.
    pub unprovable: BTreeSet<usize>,
    /// Instruments that were given trade ids that do not exist.
    pub lied: BTreeSet<usize>,
    /// Instruments that were not recorded for a while.
    pub left_out: BTreeSet<usize>,
    /// Connections that were opened.
    pub opened: u64,
    /// Whether every book message of an instrument is of a time of its own.
    pub has_own_times: bool,
    /// Whether it sends everything that happens.
    pub is_sound: bool,
    /// Whether it sends something twice on one connection, or not in order.
    pub sends_twice: bool,
    /// Time of the last book message, where each has its own.
    own_us: BTreeMap<usize, i64>,
    /// Rows of an answer at most.
    page_max: usize,
    rng: Rng,
}

/// One connection as the venue sees it.
#[derive(Debug, Default)]
pub struct Socket {
    subscribed: BTreeMap<(usize, Channel), bool>,
    /// Changes that wait for the next step's, by instrument.
    waiting: BTreeMap<usize, Changes>,
    /// Frames on their way.
    pub wire: VecDeque<String>,
    held: Option<String>,
    is_stalled: bool,
    /// When it ends, as announced.
    ends_us: Option<i64>,
    /// The client has closed it: nothing more is sent.
    is_closed: bool,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::BinanceSpot, Self::BinanceUsdm, Self::Coinbase, Self::Kraken, Self::Okx];
    /// Those that seeds choose from: not those that came later, so that a seed's world stays what it was.
    pub const CHOICE: [Self; 4] = [Self::BinanceSpot, Self::BinanceUsdm, Self::Coinbase, Self::Kraken];

    /// The venue of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name in the registry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BinanceSpot => "binance-spot",
            Self::BinanceUsdm => "binance-usdm",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
            Self::Okx => "okx",
        }
    }

    /// The registry's entry.
    ///
    /// # Panics
    ///
    /// If the registry has lost the venue.
    #[must_use]
    pub fn spec(self) -> &'static VenueSpec {
        venue::find(self.name()).expect("the simulated venues are in the registry")
    }

    const fn symbols(self) -> [&'static str; 3] {
        match self {
            Self::BinanceSpot | Self::BinanceUsdm => ["BTCUSDT", "ETHUSDT", "SOLUSDT"],
            Self::Coinbase => ["BTC-USD", "ETH-USD", "SOL-USD"],
            Self::Kraken => ["BTC/USD", "ETH/USD", "SOL/USD"],
            Self::Okx => ["BTC-USDT", "ETH-USDT", "SOL-USDT"],
        }
    }
}

impl Venue {
    /// A venue with so many instruments (at most three).
    #[must_use]
    pub fn new(kind: Kind, symbols: usize, mut rng: Rng) -> Self {
        let symbols = kind.symbols().into_iter().take(symbols).map(|name| Symbol::new(name, &mut rng)).collect();
        let page_max = usize::MAX;
        Self {
            kind,
            symbols,
            faults: Faults::default(),
            now_us: text::EPOCH_US,
            sockets: PerConn::default(),
            unprovable: BTreeSet::new(),
            lied: BTreeSet::new(),
            left_out: BTreeSet::new(),
            opened: 0,
            has_own_times: false,
            is_sound: false,
            sends_twice: false,
            own_us: BTreeMap::new(),
            page_max,
            rng,
        }
    }

    /// The plan of the lane.
    #[must_use]
    pub fn plan(&self, lane: &str) -> LanePlan {
        let channels = self.kind.spec().channels.to_vec();
        let depth = match self.kind {
            Kind::Kraken => Some(10),
            Kind::BinanceSpot | Kind::BinanceUsdm => Some(100),
            Kind::Coinbase | Kind::Okx => None,
        };
        debug_assert!(channels.contains(&event::Channel::Book));
        LanePlan {
            lane: lane.into(),
            url: "wss://venue.example".into(),
            http_url: "https://venue.example".into(),
            symbols: self.symbols.iter().map(|symbol| symbol.name.to_owned()).collect(),
            channels,
            book_depth: depth,
            order_books: Some(OrderBooks { every_ms: 1_000, depth: 5 }),
        }
    }

    /// A connection opens; an earlier one of its number is gone.
    pub fn open(&mut self, conn: Conn) {
        self.opened += 1;
        self.sockets[conn] = Some(Socket::default());
    }

    /// The client closes a connection: what is on its way arrives.
    pub fn close(&mut self, conn: Conn) {
        if let Some(socket) = &mut self.sockets[conn] {
            socket.wire.extend(socket.held.take());
            socket.subscribed.clear();
            socket.is_closed = true;
        }
    }

    /// All connections are gone, with what is on its way.
    pub fn hang_up(&mut self) {
        self.sockets = PerConn::default();
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut open = Conn::ALL.into_iter().filter_map(|conn| self.sockets[conn].as_ref());
        open.all(|socket| socket.wire.is_empty())
    }

    /// The client sent a message.
    pub fn message(&mut self, conn: Conn, text: &str) {
        if text == "ping" {
            return self.push(conn, "pong".into());
        }
        let Ok(message) = serde_json::from_str(text) else { return };
        match self.kind {
            Kind::BinanceSpot | Kind::BinanceUsdm => binance::on_message(self, conn, &message),
            Kind::Coinbase => coinbase::on_message(self, conn, &message),
            Kind::Kraken => kraken::on_message(self, conn, &message),
            Kind::Okx => okx::on_message(self, conn, &message),
        }
    }

    /// The market of one instrument moves, and whoever listens is told.
    pub fn step(&mut self, index: usize) {
        let Self { rng, symbols, kind, now_us, .. } = self;
        let symbol = &mut symbols[index];
        let mut step = symbol.step(rng, *now_us, !matches!(kind, Kind::BinanceUsdm | Kind::Okx));
        let is_in_pieces = self.faults.batch > 0 || self.has_waiting();
        if self.has_own_times || is_in_pieces || self.own_us.contains_key(&index) {
            // Messages that a venue makes by the clock are not of one moment.
            let last_us = self.own_us.entry(index).or_default();
            step.time_us = step.time_us.max(*last_us + 1);
            *last_us = step.time_us;
            if let Some(message) = self.symbols[index].messages.last_mut().filter(|_| !step.changes.is_empty()) {
                message.time_us = step.time_us;
            }
        }
        let mut open = Conn::ALL.into_iter().filter_map(|conn| self.sockets[conn].as_ref());
        let is_listening = open.any(|socket| socket.subscribed.values().any(|is_on| *is_on));
        if !is_listening {
            return;
        }
        let wrong_id = if self.rng.chance(self.faults.wrong_id) { 3 + self.rng.below(5) } else { 0 };
        let wrong_checksum = self.rng.chance(self.faults.wrong_checksum);
        if wrong_id > 0 {
            self.lied.insert(index);
        }
        let frames = self.frames(index, &step, (wrong_id, wrong_checksum));
        if is_in_pieces {
            return self.deliver_in_pieces(index, step, frames, wrong_checksum);
        }
        for (channel, text) in frames {
            for conn in Conn::ALL {
                if self.is_subscribed(conn, index, channel) {
                    self.deliver(conn, index, channel, text.clone());
                }
            }
        }
    }

    /// The time of a whole book: not before the last change in it.
    fn book_us(&self, index: usize) -> i64 {
        self.own_us.get(&index).map_or(self.now_us, |last_us| self.now_us.max(*last_us))
    }

    /// The messages of a step, each with its channel.
    fn frames(&self, index: usize, step: &Step, (wrong_id, wrong_checksum): (u64, bool)) -> Vec<(Channel, String)> {
        let symbol = &self.symbols[index];
        match self.kind {
            Kind::BinanceSpot | Kind::BinanceUsdm => binance::frames(self.kind, symbol, step, wrong_id),
            Kind::Coinbase => coinbase::frames(symbol, step, wrong_id),
            Kind::Kraken => kraken::frames(symbol, step, (wrong_id, wrong_checksum)),
            Kind::Okx => okx::frames(symbol, step, wrong_id),
        }
    }

    /// Sends what waits: batches are short.
    pub fn send_waiting(&mut self) {
        for conn in Conn::ALL {
            let Some(socket) = &mut self.sockets[conn] else { continue };
            for (index, changes) in std::mem::take(&mut socket.waiting) {
                let last_us = self.own_us.entry(index).or_default();
                *last_us += 1;
                let step = Step { trades: 0..0, changes, previous_id: 0, first_id: 0, last_id: 0, time_us: *last_us };
                for (channel, text) in self.frames(index, &step, (0, false)) {
                    if channel == Channel::Book {
                        self.deliver(conn, index, channel, text);
                    }
                }
            }
        }
    }

    fn has_waiting(&self) -> bool {
        let mut open = Conn::ALL.into_iter().filter_map(|conn| self.sockets[conn].as_ref());
        open.any(|socket| !socket.waiting.is_empty())
    }

    /// Sends a step's messages, its book's perhaps with the next one's, each connection as it comes.
    fn deliver_in_pieces(&mut self, index: usize, step: Step, frames: Vec<(Channel, String)>, wrong_checksum: bool) {
        let is_batched = matches!(self.kind, Kind::Coinbase | Kind::Kraken);
        for conn in Conn::ALL {
            for (channel, text) in frames.iter().filter(|(channel, _)| !is_batched || *channel != Channel::Book) {
                if self.is_subscribed(conn, index, *channel) {
                    self.deliver(conn, index, *channel, text.clone());
                }
            }
            if !is_batched || !self.is_subscribed(conn, index, Channel::Book) {
                continue;
            }
            let Some(socket) = &mut self.sockets[conn] else { continue };
            let mut changes = socket.waiting.remove(&index).unwrap_or_default();
            changes.extend(step.changes.clone());
            if self.rng.chance(self.faults.batch) {
                socket.waiting.insert(index, changes);
                continue;
            }
            let all = Step { trades: 0..0, changes, ..step.clone() };
            for (channel, text) in self.frames(index, &all, (0, wrong_checksum)) {
                if channel == Channel::Book {
                    self.deliver(conn, index, channel, text);
                }
            }
        }
    }

    /// Announces the end of connections, and ends those whose time has come.
    pub fn restart(&mut self) {
        for conn in Conn::ALL {
            let Some(socket) = &mut self.sockets[conn] else { continue };
            if socket.ends_us.is_some_and(|ends_us| ends_us <= self.now_us) {
                self.sockets[conn] = None;
            } else if self.faults.restart > 0 && socket.ends_us.is_none() && self.rng.chance(self.faults.restart) {
                let notice = match self.kind {
                    Kind::BinanceSpot | Kind::BinanceUsdm => binance::shutdown(self.now_us),
                    Kind::Okx => okx::NOTICE.into(),
                    Kind::Coinbase | Kind::Kraken => continue,
                };
                let (least, most) = self.faults.restart_ms;
                let left_us = i64::try_from(self.rng.between(least, most)).unwrap_or(i64::MAX).saturating_mul(1_000);
                socket.ends_us = Some(self.now_us.saturating_add(left_us));
                socket.push(notice);
            }
        }
    }

    /// Moves every market by at least one trade and one change of its book.
    pub fn show(&mut self) {
        for index in 0..self.symbols.len() {
            let before = (self.symbols[index].trades.len(), self.symbols[index].messages.len());
            while self.symbols[index].trades.len() == before.0 || self.symbols[index].messages.len() == before.1 {
                self.step(index);
            }
        }
    }

    /// What a venue says once a second.
    pub fn every_second(&mut self) {
        for conn in Conn::ALL {
            match self.kind {
                Kind::BinanceSpot | Kind::BinanceUsdm => {}
                Kind::Coinbase => {
                    for index in 0..self.symbols.len() {
                        if self.is_subscribed(conn, index, Channel::Heartbeat) {
                            let text = coinbase::heartbeat(&self.symbols[index], self.now_us);
                            self.deliver(conn, index, Channel::Heartbeat, text);
                        }
                    }
                }
                Kind::Kraken => self.push(conn, kraken::HEARTBEAT.into()),
                Kind::Okx => {
                    for index in 0..self.symbols.len() {
                        if self.is_subscribed(conn, index, Channel::Book) {
                            let text = okx::keep_alive(&self.symbols[index], self.now_us);
                            self.deliver(conn, index, Channel::Book, text);
                        }
                    }
                }
            }
        }
    }

    /// Answers a request; `None`: no answer comes.
    pub fn http(&mut self, path: &str) -> Option<Answer> {
        let gibberish = |status, body: &str| Some(Answer { status, body: body.into() });
        self.page_max = usize::MAX;
        if self.rng.chance(self.faults.http) {
            match self.rng.below(8) {
                0 => return None,
                1 => return gibberish(429, "{\"code\":-1003,\"msg\":\"too many\"}"),
                2 => return gibberish(500, ""),
                3 => return gibberish(503, "<html>"),
                4 => return gibberish(200, "<html>"),
                5 => return gibberish(200, "[{\"id\":"),
                6 if self.rng.chance(100) => {
                    return gibberish(401, "{\"code\":-2015,\"msg\":\"no\",\"message\":\"no\"}");
                }
                _ => self.page_max = self.rng.index(4),
            }
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let value = |key: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
        let number = |key: &str| value(key).and_then(|(_, text)| text.parse().ok());
        let is_named = |symbol: &&Symbol| match self.kind {
            Kind::BinanceSpot | Kind::BinanceUsdm => value("symbol").is_some_and(|(_, name)| name == symbol.name),
            Kind::Coinbase => path.contains(&format!("/{}/", symbol.name)),
            Kind::Kraken => {
                value("pair").is_some_and(|(_, name)| name == symbol.name.replace('/', "").replace("BTC", "XBT"))
            }
            Kind::Okx => value("instId").is_some_and(|(_, name)| name == symbol.name),
        };
        let Some(symbol) = self.symbols.iter().find(is_named) else {
            return gibberish(404, "{\"code\":-1121,\"msg\":\"Invalid symbol.\"}");
        };
        Some(match self.kind {
            Kind::BinanceSpot | Kind::BinanceUsdm => binance::http(self, path, &number, symbol),
            Kind::Coinbase => coinbase::http(self, &number, symbol),
            Kind::Kraken => kraken::http(self, &number, symbol),
            Kind::Okx => okx::http(self, &number, symbol),
        })
    }

    /// Rows of an answer at most.
    fn page(&self, asked: usize) -> usize {
        asked.min(self.page_max).min(1_000)
    }

    fn is_subscribed(&self, conn: Conn, index: usize, channel: Channel) -> bool {
        self.sockets[conn]
            .as_ref()
            .and_then(|socket| socket.subscribed.get(&(index, channel)).copied())
            .unwrap_or(false)
    }

    fn set_subscribed(&mut self, conn: Conn, index: usize, channel: Channel, is_on: bool) {
        if let Some(socket) = &mut self.sockets[conn] {
            socket.subscribed.insert((index, channel), is_on);
        }
    }

    /// Sends an answer of the venue's own, which nothing happens to.
    fn push(&mut self, conn: Conn, text: String) {
        if let Some(socket) = &mut self.sockets[conn] {
            socket.push(text);
        }
    }

    /// Sends data, or does what goes wrong with it.
    fn deliver(&mut self, conn: Conn, index: usize, channel: Channel, text: String) {
        let Faults { drop, duplicate, swap, corrupt, stall, .. } = self.faults;
        let Some(socket) = &mut self.sockets[conn] else { return };
        let rng = &mut self.rng;
        socket.is_stalled |= rng.chance(stall);
        let is_blind_book = self.kind == Kind::Coinbase && channel == Channel::Book;
        if socket.is_stalled || rng.chance(drop) {
            if is_blind_book {
                self.unprovable.insert(index);
            }
            return;
        }
        if rng.chance(swap) && socket.held.is_none() {
            if is_blind_book {
                self.unprovable.insert(index);
            }
            socket.held = Some(text);
            return;
        }
        let text = if rng.chance(corrupt) { text[..text.len() / 2].to_owned() } else { text };
        if rng.chance(duplicate) {
            socket.wire.push_back(text.clone());
        }
        socket.push(text);
    }

    /// A whole book of an instrument is on its way, with all that waited. What was missed of it before no longer matters,
    /// unless the lane has another connection, whose rows it goes on with.
    fn renew(&mut self, conn: Conn, index: usize) {
        if let Some(socket) = &mut self.sockets[conn] {
            socket.waiting.remove(&index);
        }
        if self.sockets[conn.other()].is_none() {
            self.unprovable.remove(&index);
        }
    }
}

impl Socket {
    fn push(&mut self, text: String) {
        if !self.is_closed {
            self.wire.push_back(text);
            self.wire.extend(self.held.take());
        }
    }

    /// Whether the client has closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether nothing comes any more.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.is_stalled
    }
}

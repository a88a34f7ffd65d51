//! One lane without a network: inputs in, events and actions out, as text.

use tapeway_exchanges::{
    adapter::{At, CloseKind, CloseReason, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::{Channel, Events, Flags, Note, Side},
    ids::{FramePos, Nanos, SymbolIx},
    input::{Kind, put_http},
    venue::{VenueSpec, find},
};

/// One journaled input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) received: i64,
    pub(crate) kind: Kind,
    pub(crate) conn: Conn,
    pub(crate) bytes: Vec<u8>,
}

impl Input {
    pub(crate) fn open(received: i64, plan: &LanePlan) -> Self {
        Self { received, conn: Conn::FIRST, kind: Kind::Open, bytes: serde_json::to_vec(plan).unwrap() }
    }

    pub(crate) fn plan(received: i64, plan: &LanePlan) -> Self {
        Self { received, conn: Conn::FIRST, kind: Kind::Plan, bytes: serde_json::to_vec(plan).unwrap() }
    }

    pub(crate) fn text(received: i64, text: &str) -> Self {
        Self { received, conn: Conn::FIRST, kind: Kind::Text, bytes: text.as_bytes().to_vec() }
    }

    pub(crate) fn http(received: i64, tag: &str, status: u16, body: &str) -> Self {
        let mut bytes = Vec::new();
        put_http(&mut bytes, tag, status, body.as_bytes());
        Self { received, conn: Conn::FIRST, kind: Kind::Http, bytes }
    }

    pub(crate) fn close(received: i64, kind: CloseKind) -> Self {
        let reason = CloseReason { kind, detail: "as told".into() };
        Self { received, conn: Conn::FIRST, kind: Kind::Close, bytes: serde_json::to_vec(&reason).unwrap() }
    }
}

impl Input {
    /// The same, of this connection.
    pub(crate) fn of(self, conn: Conn) -> Self {
        Self { conn, ..self }
    }
}

/// A decoder that is fed inputs and asked what came of them.
pub(crate) struct Lane {
    pub(crate) decoder: Decoder,
    clock: i64,
}

impl Lane {
    pub(crate) fn new(venue: &str) -> Self {
        Self { decoder: Decoder::new(spec(venue), FramePos::FIRST), clock: 1_700_000_000_000_000_000 }
    }

    /// Feeds one input; gives its events and actions as lines.
    pub(crate) fn feed(&mut self, input: &Input) -> Vec<String> {
        let at = At { pos: self.decoder.next(), received: Nanos(input.received), conn: input.conn };
        self.decoder.apply(at, input.kind, &mut input.bytes.clone());
        let mut lines = render(&self.decoder.swap_events(Events::default()));
        let actions = self.decoder.actions();
        lines.extend(actions.sends.iter().map(|(conn, text)| format!("send {}{text}", of(*conn))));
        for request in &actions.requests {
            let delay = request.delay.as_millis();
            lines.push(format!("get {} as {} weight {} after {delay} ms", request.path, request.tag, request.weight));
        }
        for (conn, reason) in &actions.reconnects {
            lines.push(format!("reconnect {}{} {}", of(*conn), reason.kind.name(), reason.detail));
        }
        actions.clear();
        lines
    }

    fn now(&mut self) -> i64 {
        self.clock += 1_000_000_000;
        self.clock
    }

    pub(crate) fn open(&mut self, plan: &LanePlan) -> Vec<String> {
        let now = self.now();
        self.feed(&Input::open(now, plan))
    }

    pub(crate) fn plan(&mut self, plan: &LanePlan) -> Vec<String> {
        let now = self.now();
        self.feed(&Input::plan(now, plan))
    }

    pub(crate) fn text(&mut self, text: &str) -> Vec<String> {
        let now = self.now();
        self.feed(&Input::text(now, text))
    }

    pub(crate) fn http(&mut self, tag: &str, status: u16, body: &str) -> Vec<String> {
        let now = self.now();
        self.feed(&Input::http(now, tag, status, body))
    }

    pub(crate) fn close(&mut self, kind: CloseKind) -> Vec<String> {
        let now = self.now();
        self.feed(&Input::close(now, kind))
    }

    /// Lets time pass; gives what is sent.
    pub(crate) fn tick(&mut self) -> Vec<String> {
        let now = self.now();
        self.decoder.tick(Nanos(now));
        let sends = std::mem::take(&mut self.decoder.actions().sends);
        sends.into_iter().map(|(conn, text)| format!("{}{text}", of(conn))).collect()
    }

    /// How a subscription stands.
    pub(crate) fn subscription(&self, channel: Channel, symbol: &str) -> String {
        let symbol = self.decoder.symbols().find(symbol).unwrap();
        let list = self.decoder.subscriptions(Conn::FIRST).list();
        let entry = list.iter().find(|entry| entry.channel == channel && entry.symbol == symbol);
        entry.map_or_else(|| "none".into(), |entry| format!("{:?}", entry.state))
    }

    /// The decoder as a restart makes it from its saved state.
    pub(crate) fn restart(&mut self, venue: &str) {
        let state = self.decoder.state();
        self.decoder = Decoder::restore(spec(venue), &state, self.decoder.next()).unwrap();
    }
}

pub(crate) fn spec(venue: &str) -> &'static VenueSpec {
    find(venue).unwrap()
}

/// A plan of all channels that the venue has.
pub(crate) fn plan(venue: &str, symbols: &[&str]) -> LanePlan {
    LanePlan {
        lane: format!("{venue}.0"),
        url: "ws://127.0.0.1:1".into(),
        http_url: "http://127.0.0.1:1".into(),
        symbols: symbols.iter().map(|symbol| (*symbol).into()).collect(),
        channels: spec(venue).channels.to_vec(),
        book_depth: None,
        order_books: None,
    }
}

/// Lines that are no action, without what a test about something else does not care for.
pub(crate) fn events(lines: Vec<String>) -> Vec<String> {
    let is_event = |line: &String| !["send ", "get ", "reconnect "].iter().any(|action| line.starts_with(action));
    lines.into_iter().filter(is_event).collect()
}

/// One line an event.
pub(crate) fn render(events: &Events) -> Vec<String> {
    let name = |symbol: SymbolIx| &*events.symbols[symbol.0 as usize];
    let named = |symbol: Option<SymbolIx>| symbol.map_or("*", name);
    let side = |side| match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
        Side::Unknown => "?",
    };
    let flags = |flags: Flags| flags.names().map(|name| format!(" {name}")).collect::<String>();
    let or_dash = |value: Option<i64>| value.map_or_else(|| "-".into(), |value| value.to_string());
    let pos = |frame: u32| events.pos(frame);
    let channel = |channel: Option<Channel>| channel.map_or("*", Channel::name);
    let mut lines = Vec::new();
    for note in &events.notes {
        lines.push(match note {
            Note::Gap(gap) => format!(
                "{} gap {}/{} {} {} missing {}..{} since {} until {}",
                pos(gap.frame),
                gap.id.pos,
                gap.id.ordinal,
                named(gap.symbol),
                [channel(gap.channel), gap.cause.name()].join(" "),
                or_dash(gap.first_missing),
                or_dash(gap.last_missing),
                or_dash(gap.since.map(|time| time.0)),
                or_dash(gap.until.map(|time| time.0)),
            ),
            Note::GapClosed(closed) => format!(
                "{} closed {}/{} {} {} {} {} rows last {}",
                pos(closed.frame),
                closed.id.pos,
                closed.id.ordinal,
                named(closed.symbol),
                [channel(closed.channel), closed.cause.name()].join(" "),
                closed.end.name(),
                closed.rows,
                or_dash(closed.last_missing),
            ),
            Note::Reject(reject) => format!("{} reject {}: {}", pos(reject.frame), reject.reason, reject.detail),
            Note::Session(session) => {
                let what = if session.is_open { "opened" } else { "closed" };
                format!("{} session {what}: {}", pos(session.frame), session.detail)
            }
        });
    }
    for trade in &events.trades {
        lines.push(format!(
            "{} trade {} {} {} x {} id {}{} at {}{}",
            pos(trade.frame),
            name(trade.symbol),
            side(trade.side),
            trade.price,
            trade.qty,
            or_dash(trade.trade_id),
            trade.trade_ref.as_deref().map(|text| format!(" ref {text}")).unwrap_or_default(),
            trade.time.0,
            flags(trade.flags),
        ));
    }
    for level in &events.levels {
        lines.push(format!(
            "{} level {} {} {} x {} seq {} at {}{}",
            pos(level.frame),
            name(level.symbol),
            if level.side == Side::Buy { "bid" } else { "ask" },
            level.price,
            level.qty,
            or_dash(level.seq),
            level.time.0,
            flags(level.flags),
        ));
    }
    for quote in &events.quotes {
        let half = |half: Option<_>| match half {
            Some((price, qty)) => format!("{price} x {qty}"),
            None => "none".into(),
        };
        lines.push(format!(
            "{} quote {} {} / {} seq {} at {}{}",
            pos(quote.frame),
            name(quote.symbol),
            half(quote.bid),
            half(quote.ask),
            or_dash(quote.seq),
            quote.time.0,
            flags(quote.flags),
        ));
    }
    lines
}

/// What marks an action of the second connection.
fn of(conn: Conn) -> &'static str {
    if conn == Conn::FIRST { "" } else { "(1) " }
}

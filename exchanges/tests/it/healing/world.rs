//! A venue without a network: it makes trades, loses some on the way, and serves its history by REST.

use std::collections::{BTreeMap, BTreeSet};

use tapeway_exchanges::{
    adapter::{At, CloseKind, HttpRequest, LanePlan},
    decoder::Decoder,
    event::{Events, Flags, GapClosed, Note},
    ids::{FramePos, Nanos},
};

use crate::harness::{Input, plan, render, spec};

/// A lane of one instrument, the venue behind it, and what has come of it.
pub(crate) struct World {
    pub(crate) venue: &'static str,
    pub(crate) decoder: Decoder,
    /// Requests not answered yet.
    pub(crate) asked: Vec<HttpRequest>,
    /// Ids that REST serves.
    pub(crate) history: BTreeSet<i64>,
    /// Rows of an answer at most, whatever is asked for.
    pub(crate) rows_max: usize,
    /// Emitted ids in order, and whether they were fetched.
    pub(crate) rows: Vec<(i64, bool)>,
    pub(crate) gaps: usize,
    pub(crate) ends: Vec<GapClosed>,
    pub(crate) rejects: usize,
    /// Every input so far, and what came of each.
    pub(crate) told: Vec<(Input, Vec<String>)>,
    plan: LanePlan,
}

impl World {
    pub(crate) fn new(venue: &'static str) -> Self {
        let mut world = Self {
            venue,
            decoder: Decoder::new(spec(venue), FramePos::FIRST),
            asked: Vec::new(),
            history: BTreeSet::new(),
            rows_max: usize::MAX,
            rows: Vec::new(),
            gaps: 0,
            ends: Vec::new(),
            rejects: 0,
            told: Vec::new(),
            plan: plan(venue, &[symbol(venue)]),
        };
        world.open();
        world
    }

    /// A connection opens. What was asked for on the one before is forgotten, as the session does.
    pub(crate) fn open(&mut self) {
        self.asked.clear();
        self.feed(Input::open(START_NS, &self.plan.clone()));
    }

    pub(crate) fn close(&mut self) {
        self.feed(Input::close(START_NS, CloseKind::Lost));
        self.asked.clear();
    }

    /// The process dies and another goes on from the saved state.
    pub(crate) fn restart(&mut self) {
        let state = self.decoder.state();
        self.decoder = Decoder::restore(spec(self.venue), &state, self.decoder.next()).unwrap();
        self.open();
    }

    pub(crate) fn without_symbols(&mut self) {
        self.plan.symbols = vec!["OTHER".into()];
        self.feed(Input::plan(START_NS, &self.plan.clone()));
    }

    /// A trade is made; the stream has it, REST will.
    pub(crate) fn trade(&mut self, id: i64) {
        self.history.insert(id);
        self.feed(Input::text(START_NS, &message(self.venue, id)));
    }

    /// A trade is made that the stream does not have.
    pub(crate) fn lose(&mut self, ids: impl IntoIterator<Item = i64>) {
        self.history.extend(ids);
    }

    /// Answers the oldest request as the venue does; `false` when there is none.
    pub(crate) fn answer(&mut self) -> bool {
        let Some(request) = self.take() else { return false };
        let body = rest(self.venue, &request.path, &self.history, self.rows_max);
        self.feed(Input::http(START_NS, &request.tag, 200, &body));
        true
    }

    /// Answers the oldest request with something else.
    pub(crate) fn answer_with(&mut self, status: u16, body: &str) -> bool {
        let Some(request) = self.take() else { return false };
        self.feed(Input::http(START_NS, &request.tag, status, body));
        true
    }

    /// The oldest request for trades; those for books are nobody's business here.
    pub(crate) fn take(&mut self) -> Option<HttpRequest> {
        self.asked.retain(|request| request.tag.starts_with("trades:"));
        (!self.asked.is_empty()).then(|| self.asked.remove(0))
    }

    pub(crate) fn feed(&mut self, input: Input) {
        let at = At { pos: self.decoder.next(), received: Nanos(input.received), conn: input.conn };
        self.decoder.apply(at, input.kind, &mut input.bytes.clone());
        self.asked.append(&mut self.decoder.actions().requests);
        self.decoder.actions().clear();
        let events = self.decoder.swap_events(Events::default());
        self.told.push((input, render(&events)));
        for trade in &events.trades {
            let id = trade.trade_id.unwrap();
            self.rows.push((id, trade.flags.has(Flags::BACKFILL)));
            if trade.price.to_string() == "1.0" {
                assert_eq!(trade.qty.to_string(), format!("{id}.5"), "{trade:?}");
                assert_eq!(trade.time.0, time_ms(id) * 1_000, "{trade:?}");
            }
        }
        for note in events.notes {
            match note {
                Note::Gap(_) => self.gaps += 1,
                Note::GapClosed(closed) => self.ends.push(closed),
                Note::Reject(_) => self.rejects += 1,
                Note::Session(_) => {}
            }
        }
    }

    /// The ends of gaps so far, in words.
    pub(crate) fn ends(&self) -> Vec<String> {
        let text = |end: &GapClosed| {
            let detail = end.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{} {}{detail}", end.end.name(), end.rows)
        };
        self.ends.iter().map(text).collect()
    }

    /// Ids in the order emitted.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.rows.iter().map(|(id, _)| *id).collect()
    }
}

pub(crate) fn symbol(venue: &str) -> &'static str {
    match venue {
        "coinbase" => "BTC-USD",
        "kraken" => "BTC/USD",
        "okx" => "BTC-USDT",
        "binance-coinm" => "BTCUSD_PERP",
        _ => "BTCUSDT",
    }
}

fn time_ms(id: i64) -> i64 {
    START_NS / 1_000_000 + id
}

/// RFC 3339 within one minute, which is as far as these tests go.
fn rfc3339(id: i64) -> String {
    let ms = time_ms(id) % 60_000;
    format!("2023-11-14T22:13:{:02}.{:03}000Z", ms / 1_000, ms % 1_000)
}

fn message(venue: &str, id: i64) -> String {
    let (symbol, ms, time) = (symbol(venue), time_ms(id), rfc3339(id));
    match venue {
        "coinbase" => format!(
            r#"{{"type":"match","trade_id":{id},"side":"sell","size":"{id}.5","price":"1.0","product_id":"{symbol}","sequence":1,"time":"{time}"}}"#
        ),
        "kraken" => format!(
            r#"{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","side":"buy","price":1.0,"qty":{id}.5,"ord_type":"market","trade_id":{id},"timestamp":"{time}"}}]}}"#
        ),
        "okx" => format!(
            r#"{{"arg":{{"channel":"trades","instId":"{symbol}"}},"data":[{{"instId":"{symbol}","tradeId":"{id}","px":"1.0","sz":"{id}.5","side":"buy","ts":"{ms}","count":"1"}}]}}"#
        ),
        _ => format!(
            r#"{{"stream":"x@trade","data":{{"e":"trade","E":{ms},"T":{ms},"s":"{symbol}","t":{id},"p":"1.0","q":"{id}.5","m":false}}}}"#
        ),
    }
}

/// The body that a venue with this history answers.
pub(crate) fn rest(venue: &str, path: &str, history: &BTreeSet<i64>, rows_max: usize) -> String {
    let (path, query) = path.split_once('?').unwrap();
    let query: BTreeMap<&str, &str> = query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
    let number = |key: &str| query.get(key).map(|text| text.parse::<i64>().unwrap());
    let limit = usize::try_from(number("limit").or(number("count")).unwrap()).unwrap();
    assert!((1..=1_000).contains(&limit), "{path} {query:?}");
    let limit = limit.min(rows_max);
    let list = |rows: Vec<String>| format!("[{}]", rows.join(","));
    match (venue, path.rsplit('/').next().unwrap()) {
        ("coinbase", "trades") => {
            assert_eq!(path, "/products/BTC-USD/trades");
            let page = history.range(..number("after").unwrap()).rev().take(limit);
            list(
                page.map(|id| {
                    format!(
                        r#"{{"trade_id":{id},"side":"sell","size":"{id}.5","price":"1.0","time":"{}"}}"#,
                        rfc3339(*id)
                    )
                })
                .collect(),
            )
        }
        ("kraken", "Trades") => {
            assert_eq!(query["pair"], "XBTUSD");
            let page = history.iter().filter(|id| time_ms(**id) * 1_000_000 > number("since").unwrap()).take(limit);
            let rows = page.map(|id| {
                let ms = time_ms(*id);
                format!(r#"["1.0","{id}.5",{}.{:03}0000,"b","m","",{id}]"#, ms / 1_000, ms % 1_000)
            });
            format!(r#"{{"error":[],"result":{{"XXBTZUSD":{},"last":"1"}}}}"#, list(rows.collect()))
        }
        ("okx", "history-trades") => {
            assert_eq!((path, query["instId"], query["type"]), ("/api/v5/market/history-trades", "BTC-USDT", "1"));
            assert!(limit <= 100, "{query:?}");
            let page = history.range(..number("after").unwrap()).rev().take(limit);
            let rows = page.map(|id| {
                format!(
                    r#"{{"instId":"BTC-USDT","tradeId":"{id}","px":"1.0","sz":"{id}.5","side":"buy","ts":"{}"}}"#,
                    time_ms(*id)
                )
            });
            format!(r#"{{"code":"0","msg":"","data":{}}}"#, list(rows.collect()))
        }
        (_, "historicalTrades") => {
            assert_eq!(venue, "binance-spot", "futures ask for a key");
            list(history.range(number("fromId").unwrap()..).take(limit).map(single).collect())
        }
        (_, "trades") => {
            let mut page: Vec<_> = history.iter().rev().take(limit).collect();
            page.reverse();
            list(page.into_iter().map(single).collect())
        }
        // Three at a time have one price.
        (_, "aggTrades") => {
            let span = number("startTime").unwrap()..=number("endTime").unwrap();
            assert!(span.end() - span.start() < 3_600_000);
            let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            history.iter().for_each(|id| groups.entry(id / 3).or_default().push(*id));
            let within = groups.into_values().filter(|ids| span.contains(&time_ms(ids[0]))).take(limit);
            list(
                within
                    .map(|ids| {
                        let (first, last) = (ids[0], ids[ids.len() - 1]);
                        format!(
                            r#"{{"a":{},"p":"2.0","q":"9.9","f":{first},"l":{last},"T":{},"m":false}}"#,
                            first / 3,
                            time_ms(first)
                        )
                    })
                    .collect(),
            )
        }
        other => panic!("nobody serves {other:?}"),
    }
}

fn single(id: &i64) -> String {
    format!(r#"{{"id":{id},"price":"1.0","qty":"{id}.5","quoteQty":"1","time":{},"isBuyerMaker":false}}"#, time_ms(*id))
}

/// 2023-11-14T22:13:20Z.
const START_NS: i64 = 1_700_000_000_000_000_000;

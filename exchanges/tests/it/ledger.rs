//! The gap ledger, venue by venue: what each cause is, where a missing stretch begins and ends, and how it ends.

use tapeway_exchanges::{adapter::CloseKind, event::Channel, venue::Proof};

use crate::harness::{Lane, plan, spec};

/// A venue and what it sends; ids are ignored by those that have none.
struct Venue {
    name: &'static str,
    symbol: &'static str,
    delta: fn(i64) -> String,
    /// The book as of an id, however it comes.
    snapshot: fn(&mut Lane, i64) -> Vec<String>,
    trade: fn(i64) -> String,
    quote: Option<fn(i64) -> String>,
    /// Whether the book's messages have ids.
    is_numbered: bool,
}

const VENUES: [Venue; 5] = [
    Venue {
        name: "binance-spot",
        symbol: "BTCUSDT",
        delta: |id| {
            format!(
                r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{},"s":"BTCUSDT","U":{id},"u":{id},"b":[["1.0","2.0"]],"a":[]}}}}"#,
                millis(id)
            )
        },
        snapshot: |lane, id| {
            let body = format!(r#"{{"lastUpdateId":{id},"bids":[["1.0","1.0"]],"asks":[]}}"#);
            lane.http("depth:BTCUSDT", 200, &body)
        },
        trade: |id| {
            format!(
                r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"T":{},"s":"BTCUSDT","t":{id},"p":"1.0","q":"2.0","m":true}}}}"#,
                millis(id)
            )
        },
        quote: Some(|id| {
            format!(
                r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{id},"s":"BTCUSDT","b":"1.0","B":"2.0","a":"3.0","A":"4.0"}}}}"#
            )
        }),
        is_numbered: true,
    },
    Venue {
        name: "binance-usdm",
        symbol: "BTCUSDT",
        delta: |id| {
            format!(
                r#"{{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":1,"T":{},"s":"BTCUSDT","U":{id},"u":{id},"pu":{},"b":[["1.0","2.0"]],"a":[]}}}}"#,
                millis(id),
                id - 1
            )
        },
        snapshot: |lane, id| {
            let body = format!(r#"{{"lastUpdateId":{id},"T":{},"bids":[["1.0","1.0"]],"asks":[]}}"#, millis(id));
            lane.http("depth:BTCUSDT", 200, &body)
        },
        trade: |id| {
            format!(
                r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"T":{},"s":"BTCUSDT","t":{id},"p":"1.0","q":"2.0","X":"MARKET","m":true}}}}"#,
                millis(id)
            )
        },
        quote: Some(|id| {
            format!(
                r#"{{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker","u":{id},"s":"BTCUSDT","b":"1.0","B":"2.0","a":"3.0","A":"4.0","T":{},"E":1}}}}"#,
                millis(id)
            )
        }),
        is_numbered: true,
    },
    Venue {
        name: "coinbase",
        symbol: "BTC-USD",
        delta: |id| {
            format!(
                r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1.0","2.0"]],"time":"{}"}}"#,
                iso(id)
            )
        },
        snapshot: |lane, id| {
            lane.text(&format!(
                r#"{{"type":"snapshot","product_id":"BTC-USD","bids":[["1.0","1"]],"asks":[["9.0","2"]],"time":"{}"}}"#,
                iso(id)
            ))
        },
        trade: |id| {
            format!(
                r#"{{"type":"match","trade_id":{id},"side":"sell","size":"0.1","price":"1.0","product_id":"BTC-USD","sequence":1,"time":"{}"}}"#,
                iso(id)
            )
        },
        quote: None,
        is_numbered: false,
    },
    Venue {
        name: "kraken",
        symbol: "BTC/USD",
        delta: |id| kraken_book("update", id),
        snapshot: |lane, id| lane.text(&kraken_book("snapshot", id)),
        trade: |id| {
            format!(
                r#"{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"sell","price":1.0,"qty":0.5,"ord_type":"limit","trade_id":{id},"timestamp":"{}"}}]}}"#,
                iso(id)
            )
        },
        quote: Some(|id| {
            format!(
                r#"{{"channel":"ticker","type":"update","data":[{{"symbol":"BTC/USD","bid":1.0,"bid_qty":2.0,"ask":3.0,"ask_qty":4.0,"timestamp":"{}"}}]}}"#,
                iso(id)
            )
        }),
        is_numbered: false,
    },
    Venue {
        name: "okx",
        symbol: "BTC-USDT",
        delta: |id| okx_book("update", id - 1, id),
        snapshot: |lane, id| lane.text(&okx_book("snapshot", -1, id)),
        trade: |id| {
            format!(
                r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}","px":"1.0","sz":"2","side":"sell","ts":"{}","count":"1"}}]}}"#,
                millis(id)
            )
        },
        quote: Some(|id| {
            format!(
                r#"{{"arg":{{"channel":"bbo-tbt","instId":"BTC-USDT"}},"data":[{{"asks":[["3.0","4","0","1"]],"bids":[["1.0","2","0","1"]],"ts":"{}"}}]}}"#,
                millis(id)
            )
        }),
        is_numbered: true,
    },
];

fn kraken_book(kind: &str, id: i64) -> String {
    // One level, so that the checksum after each message is that of the message: price 1.0, quantity 2.0.
    let checksum = crc32fast::hash(b"1020");
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{{"price":1.0,"qty":2.0}}],"asks":[],"checksum":{checksum},"timestamp":"{}"}}]}}"#,
        iso(id)
    )
}

fn okx_book(action: &str, previous: i64, id: i64) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[["1.0","2","0","1"]],"ts":"{}","checksum":0,"seqId":{id},"prevSeqId":{previous}}}]}}"#,
        millis(id)
    )
}

/// The venue's time of the message with an id below 1,000.
fn millis(id: i64) -> i64 {
    1_700_000_000_000 + id
}

/// The same as text: 2023-11-14T22:13:20Z is 1,700,000,000.
fn iso(id: i64) -> String {
    format!("2023-11-14T22:13:20.{id:03}Z")
}

fn micros(id: i64) -> i64 {
    millis(id) * 1_000
}

impl Venue {
    fn plan(&self) -> tapeway_exchanges::adapter::LanePlan {
        plan(self.name, &[self.symbol])
    }

    /// Every channel has delivered up to id 10, and the book is whole.
    fn live(&self) -> Lane {
        let mut lane = Lane::new(self.name);
        lane.open(&self.plan());
        (self.snapshot)(&mut lane, 9);
        let lines = lane.text(&(self.delta)(10));
        assert!(has(&lines, " level ") && !has(&lines, "AFTER_GAP"), "{}: {lines:?}", self.name);
        lane.text(&(self.trade)(10));
        if let Some(quote) = self.quote {
            lane.text(&quote(10));
        }
        lane
    }
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

/// How a connection ends, with the cause that gaps have for it. `None`: the process dies.
const ENDS: [(Option<CloseKind>, &str); 8] = [
    (Some(CloseKind::Lost), "reconnect"),
    (Some(CloseKind::Protocol), "reconnect"),
    (Some(CloseKind::Rotation), "reconnect"),
    (Some(CloseKind::Stall), "stall"),
    (Some(CloseKind::VenueRestart), "venue_restart"),
    (Some(CloseKind::Shutdown), "downtime"),
    (Some(CloseKind::JournalFull), "downtime"),
    (None, "downtime"),
];

#[test]
fn every_end_of_a_connection_has_its_cause_on_every_channel() {
    for venue in &VENUES {
        for (end, cause) in ENDS {
            let mut lane = venue.live();
            let mut lines = match end {
                Some(kind) => lane.close(kind),
                None => {
                    lane.restart(venue.name);
                    Vec::new()
                }
            };
            lines.extend(lane.open(&venue.plan()));
            lines.extend(lane.text(&(venue.trade)(13)));
            let name = venue.name;
            assert!(has(&lines, &format!("{} book {cause} missing", venue.symbol)), "{name} {end:?}: {lines:?}");
            assert!(
                has(&lines, &format!("{} trades {cause} missing 11..12", venue.symbol)),
                "{name} {end:?}: {lines:?}"
            );
            let has_quotes = has(&lines, &format!("{} quotes {cause} missing -..-", venue.symbol));
            assert_eq!(has_quotes, venue.quote.is_some(), "{name} {end:?}: {lines:?}");
        }
    }
}

#[test]
fn a_book_gap_over_a_reconnect_names_exactly_what_was_not_received_or_that_nobody_can_know() {
    for venue in &VENUES {
        let name = venue.name;
        let mut lane = venue.live();
        let lines = lane.close(CloseKind::Lost);
        let first = if venue.is_numbered { "11" } else { "-" };
        let gap = format!("book reconnect missing {first}..- since {} until -", micros(10));
        assert!(has(&lines, &gap), "{name}: {lines:?}");
        lane.open(&venue.plan());
        match name {
            // Ids 11 to 20 were not received; from 21 on they were, before the snapshot as of 22.
            "binance-spot" | "binance-usdm" => {
                assert!(has(&lane.text(&(venue.delta)(21)), "AFTER_GAP"), "{name}");
                assert!(has(&lane.text(&(venue.delta)(22)), "AFTER_GAP"), "{name}");
                let lines = (venue.snapshot)(&mut lane, 22);
                assert!(has(&lines, "book reconnect resynced 0 rows last 20"), "{name}: {lines:?}");
            }
            "okx" => {
                let lines = (venue.snapshot)(&mut lane, 20);
                assert!(has(&lines, "book reconnect resynced 0 rows last 20"), "{name}: {lines:?}");
            }
            _ => {
                let lines = (venue.snapshot)(&mut lane, 20);
                assert!(has(&lines, "book reconnect unprovable 0 rows last -"), "{name}: {lines:?}");
            }
        }
        assert!(!has(&lane.text(&(venue.delta)(23 - 2 * i64::from(name == "okx"))), "AFTER_GAP"), "{name}");
    }
}

#[test]
fn a_numbering_that_goes_on_over_a_reconnect_shows_that_nothing_was_missed() {
    for venue in VENUES.iter().filter(|venue| venue.is_numbered) {
        let name = venue.name;
        let mut lane = venue.live();
        lane.close(CloseKind::Lost);
        lane.open(&venue.plan());
        let lines = if name == "okx" {
            (venue.snapshot)(&mut lane, 10)
        } else {
            lane.text(&(venue.delta)(11));
            (venue.snapshot)(&mut lane, 11)
        };
        assert!(has(&lines, "book reconnect healed 0 rows last -"), "{name}: {lines:?}");
    }
}

#[test]
fn ids_that_begin_anew_prove_nothing_about_a_reconnect() {
    let okx = &VENUES[4];
    let mut lane = okx.live();
    lane.close(CloseKind::VenueRestart);
    lane.open(&okx.plan());
    let lines = (okx.snapshot)(&mut lane, 3);
    assert!(has(&lines, "book venue_restart resynced 0 rows last -"), "{lines:?}");
}

#[test]
fn quotes_of_a_new_connection_end_a_stretch_that_nobody_can_prove() {
    for venue in &VENUES {
        let Some(quote) = venue.quote else { continue };
        let name = venue.name;
        let mut lane = venue.live();
        lane.close(CloseKind::Stall);
        // A connection on which nothing came, and a restart, do not make two of it.
        assert!(!has(&lane.open(&venue.plan()), "quotes"), "{name}");
        assert!(!has(&lane.close(CloseKind::Lost), "quotes"), "{name}");
        lane.restart(name);
        lane.open(&venue.plan());
        let lines = lane.text(&quote(20));
        assert!(has(&lines, "quotes stall unprovable 0 rows"), "{name}: {lines:?}");
        assert!(has(&lines, " quote "), "{name}: {lines:?}");
        assert!(!has(&lane.text(&quote(21)), "closed"), "{name}");
    }
}

#[test]
fn quotes_that_are_no_longer_recorded_leave_no_gap_open() {
    for venue in VENUES.iter().filter(|venue| venue.quote.is_some()) {
        let mut lane = venue.live();
        lane.close(CloseKind::Lost);
        lane.open(&venue.plan());
        let mut less = venue.plan();
        less.channels.retain(|channel| *channel != Channel::Quotes);
        let lines = lane.plan(&less);
        assert!(has(&lines, "quotes reconnect unprovable"), "{}: {lines:?}", venue.name);
        assert!(!has(&lane.close(CloseKind::Lost), "quotes"), "{}", venue.name);
    }
}

#[test]
fn trades_without_ids_have_their_unprovable_stretches_too() {
    let v1 = |price: &str| format!(r#"[337,[["{price}","0.1","1700000000.000000","b","m",""]],"trade","XBT/USD"]"#);
    let mut lane = Lane::new("kraken");
    lane.open(&plan("kraken", &["XBT/USD"]));
    lane.text(&v1("1.0"));
    assert!(has(&lane.close(CloseKind::Lost), "XBT/USD trades reconnect missing -..-"));
    lane.open(&plan("kraken", &["XBT/USD"]));
    assert!(has(&lane.text(&v1("2.0")), "trades reconnect unprovable"));
    let bitget = r#"{"action":"update","arg":{"instType":"sp","channel":"trade","instId":"EOSUSDT"},"data":[["1700000000000","1.0","2.0","buy"]]}"#;
    let mut lane = Lane::new("bitget");
    lane.open(&plan("bitget", &["EOSUSDT"]));
    lane.text(bitget);
    assert!(has(&lane.close(CloseKind::Lost), "trades reconnect missing -..-"));
    lane.open(&plan("bitget", &["EOSUSDT"]));
    assert!(has(&lane.text(bitget), "trades reconnect unprovable"));
}

#[test]
fn a_broken_books_updates_go_on_being_recorded_and_are_marked_until_its_snapshot() {
    for venue in &VENUES {
        let name = venue.name;
        let mut lane = venue.live();
        // Ids 11 to 14 are lost, or an update cannot be read.
        let lines = if venue.is_numbered {
            lane.text(&(venue.delta)(15))
        } else {
            let text = (venue.delta)(11);
            let lines = lane.text(&text[..text.len() - 10]);
            assert!(has(&lines, " gap "), "{name}: {lines:?}");
            lane.text(&(venue.delta)(15))
        };
        assert!(has(&lines, " level ") && has(&lines, "AFTER_GAP"), "{name}: {lines:?}");
        if venue.is_numbered {
            let gap = format!("book sequence missing 11..14 since {} until {}", micros(10), micros(15));
            assert!(has(&lines, &gap), "{name}: {lines:?}");
        }
        for id in 16..20 {
            let lines = lane.text(&(venue.delta)(id));
            assert!(has(&lines, " level ") && has(&lines, "AFTER_GAP"), "{name} {id}: {lines:?}");
            assert!(!has(&lines, " gap "), "{name} {id}: {lines:?}");
        }
        let lines = (venue.snapshot)(&mut lane, 19);
        assert!(has(&lines, "resynced") && has(&lines, "SNAPSHOT"), "{name}: {lines:?}");
        assert!(!has(&lane.text(&(venue.delta)(20)), "AFTER_GAP"), "{name}");
    }
}

#[test]
fn every_venue_says_what_each_of_its_channels_proves() {
    let proof = |name: &str, channel| (spec(name).proof)(channel);
    for (name, book) in [
        ("binance-spot", Proof::Contiguous),
        ("binance-usdm", Proof::Chain),
        ("binance-coinm", Proof::Chain),
        ("coinbase", Proof::Unprovable),
        ("kraken", Proof::Checksum),
        ("okx", Proof::Chain),
        ("okcoin", Proof::Chain),
        ("bitget", Proof::Checksum),
    ] {
        assert_eq!(proof(name, Channel::Book), book, "{name}");
        let trades = if name == "bitget" { Proof::Unprovable } else { Proof::Contiguous };
        assert_eq!(proof(name, Channel::Trades), trades, "{name}");
        assert_eq!(proof(name, Channel::Quotes), Proof::SnapshotOnly, "{name}");
    }
}

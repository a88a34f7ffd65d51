//! `market_data.book_at()` against the venue's own book at random moments, in whole stretches and in broken ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tapeway::{
    journal::disk::RealDisk,
    lane::{Lane, Progress, Rows},
    queue::Queue,
    store, writer,
};
use tapeway_exchanges::{
    adapter::{At, CloseKind, CloseReason, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::{Channel, Events},
    ids::{FramePos, Nanos},
    input::{Kind, put_http},
    top_book::OrderBooks,
    venue,
};
use tokio::sync::Notify;

use crate::{
    cluster::{block_on, on_each},
    feeding::{self, feed, settings, until_committed},
};

/// Price in cents to quantity in thousandths: one side of a book.
type Ladder = BTreeMap<i64, i64>;

/// The venue's book, bids and asks.
#[derive(Clone, Default)]
struct Truth([Ladder; 2]);

/// Changed levels of bids and asks; 0 removes.
type Changes = [Vec<(i64, i64)>; 2];

impl Truth {
    fn begin() -> Self {
        Self([
            (0..40).map(|at| (10_000 - at * 3, 1_000 + at)).collect(),
            (0..40).map(|at| (10_010 + at * 3, 2_000 + at)).collect(),
        ])
    }

    /// Price levels best first, no more than the venue shows.
    fn view(&self, depth: usize) -> [Vec<(i64, i64)>; 2] {
        let [bids, asks] = &self.0;
        [
            bids.iter().rev().take(depth).map(|(p, q)| (*p, *q)).collect(),
            asks.iter().take(depth).map(|(p, q)| (*p, *q)).collect(),
        ]
    }

    /// Something happens; what a venue that shows `depth` levels sends of it. What falls out of the depth is not said.
    fn step(&mut self, rng: &mut StdRng, depth: usize) -> Changes {
        let before = self.view(depth);
        for _ in 0..rng.random_range(1..4) {
            let side = rng.random_range(0..2);
            let best = if side == 0 {
                *self.0[0].last_key_value().unwrap().0
            } else {
                *self.0[1].first_key_value().unwrap().0
            };
            let away = rng.random_range(-2..30);
            let price = if side == 0 { best - away } else { best + away };
            let other = if side == 0 {
                *self.0[1].first_key_value().unwrap().0
            } else {
                *self.0[0].last_key_value().unwrap().0
            };
            let is_crossing = if side == 0 { price >= other } else { price <= other };
            if !is_crossing {
                self.0[side].insert(price, rng.random_range(1..9_000));
            }
            if self.0[side].len() > 30 {
                let at = rng.random_range(0..self.0[side].len().min(12));
                let gone = if side == 0 {
                    *self.0[0].keys().rev().nth(at).unwrap()
                } else {
                    *self.0[1].keys().nth(at).unwrap()
                };
                self.0[side].remove(&gone);
            }
        }
        let after = self.view(depth);
        std::array::from_fn(|side| {
            let mut changes: Vec<_> =
                after[side].iter().filter(|level| !before[side].contains(level)).copied().collect();
            let gone = before[side].iter().filter(|(price, _)| !self.0[side].contains_key(price));
            changes.extend(gone.map(|(price, _)| (*price, 0)));
            changes
        })
    }
}

/// How a venue writes it.
struct Wire {
    venue: &'static str,
    symbol: &'static str,
    depth: usize,
    has_http_snapshots: bool,
}

const WIRES: [Wire; 3] = [
    Wire { venue: "binance-spot", symbol: "BTCUSDT", depth: usize::MAX, has_http_snapshots: true },
    Wire { venue: "coinbase", symbol: "BTC-USD", depth: usize::MAX, has_http_snapshots: false },
    Wire { venue: "kraken", symbol: "BTC/USD", depth: 10, has_http_snapshots: false },
];

fn price(price: i64) -> String {
    format!("{}.{:02}", price / 100, price % 100)
}

fn qty(qty: i64) -> String {
    format!("{}.{:03}", qty / 1_000, qty % 1_000)
}

fn iso(micros: i64) -> String {
    // 2025-06-01, and far less than an hour later.
    let since = micros - feeding::START;
    format!("2025-06-01T00:{:02}:{:02}.{:06}Z", since / 60_000_000, since / 1_000_000 % 60, since % 1_000_000)
}

impl Wire {
    fn pairs(levels: &[(i64, i64)]) -> String {
        let pairs: Vec<_> = levels.iter().map(|(p, q)| format!(r#"["{}","{}"]"#, price(*p), qty(*q))).collect();
        pairs.join(",")
    }

    fn checksum(truth: &Truth) -> u32 {
        let [bids, asks] = truth.view(10);
        let digits = |text: String| text.replace('.', "").trim_start_matches('0').to_owned();
        let text: String = asks.iter().chain(&bids).map(|(p, q)| digits(price(*p)) + &digits(qty(*q))).collect();
        crc32fast::hash(text.as_bytes())
    }

    fn delta(&self, id: i64, time: i64, changes: &Changes, truth: &Truth) -> String {
        let [bids, asks] = changes.each_ref().map(|side| Self::pairs(side));
        match self.venue {
            "binance-spot" => format!(
                r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{},"s":"BTCUSDT","U":{id},"u":{id},"b":[{bids}],"a":[{asks}]}}}}"#,
                time / 1_000
            ),
            "coinbase" => {
                let of = |side: usize, name: &str| {
                    changes[side]
                        .iter()
                        .map(|(p, q)| format!(r#"["{name}","{}","{}"]"#, price(*p), qty(*q)))
                        .collect::<Vec<_>>()
                };
                let all = [of(0, "buy"), of(1, "sell")].concat().join(",");
                format!(r#"{{"type":"l2update","product_id":"BTC-USD","changes":[{all}],"time":"{}"}}"#, iso(time))
            }
            _ => self.kraken("update", time, changes, truth),
        }
    }

    fn kraken(&self, kind: &str, time: i64, levels: &Changes, truth: &Truth) -> String {
        let [bids, asks] = levels.each_ref().map(|side| {
            let levels: Vec<_> =
                side.iter().map(|(p, q)| format!(r#"{{"price":{},"qty":{}}}"#, price(*p), qty(*q))).collect();
            levels.join(",")
        });
        format!(
            r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{}","bids":[{bids}],"asks":[{asks}],"checksum":{},"timestamp":"{}"}}]}}"#,
            self.symbol,
            Self::checksum(truth),
            iso(time)
        )
    }

    fn snapshot(&self, id: i64, time: i64, truth: &Truth) -> (Kind, Vec<u8>) {
        let levels = truth.view(self.depth);
        let [bids, asks] = levels.each_ref().map(|side| Self::pairs(side));
        match self.venue {
            "binance-spot" => {
                let body = format!(r#"{{"lastUpdateId":{id},"bids":[{bids}],"asks":[{asks}]}}"#);
                let mut bytes = Vec::new();
                put_http(&mut bytes, "depth:BTCUSDT", 200, body.as_bytes());
                (Kind::Http, bytes)
            }
            "coinbase" => {
                let time = iso(time);
                let text = format!(
                    r#"{{"type":"snapshot","product_id":"BTC-USD","bids":[{bids}],"asks":[{asks}],"time":"{time}"}}"#
                );
                (Kind::Text, text.into_bytes())
            }
            _ => (Kind::Text, self.kraken("snapshot", time, &levels, truth).into_bytes()),
        }
    }

    fn plan(&self) -> LanePlan {
        LanePlan {
            lane: format!("{}.0", self.venue),
            url: "ws://127.0.0.1:1".into(),
            http_url: "http://127.0.0.1:1".into(),
            symbols: vec![self.symbol.into()],
            channels: vec![Channel::Book],
            book_depth: (self.depth < 100).then(|| u32::try_from(self.depth).unwrap()),
            order_books: Some(OrderBooks { every_ms: 1_000, depth: 25 }),
        }
    }
}

/// The venue's book after each of its changes, and when the recorder's was not whole.
#[derive(Default)]
struct Story {
    states: Vec<(i64, Truth)>,
    /// From after the first, up to the second.
    broken: Vec<(i64, i64)>,
}

impl Story {
    fn at(&self, time: i64) -> Option<&Truth> {
        let is_broken = self.broken.iter().any(|(from, to)| (*from..*to).contains(&time));
        let last = self.states.partition_point(|(then, _)| *then <= time);
        if is_broken || last == 0 { None } else { Some(&self.states[last - 1].1) }
    }
}

/// Journaled inputs of a book that breaks twice, and what was true.
fn play(wire: &Wire, rng: &mut StdRng) -> (Events, Story) {
    let spec = venue::find(wire.venue).unwrap();
    let mut decoder = Decoder::new(spec, FramePos::FIRST);
    let mut story = Story::default();
    let mut input = |kind: Kind, mut bytes: Vec<u8>, time: i64| {
        let at = At { pos: decoder.next(), received: Nanos((time + 700) * 1_000), conn: Conn::FIRST };
        decoder.apply(at, kind, &mut bytes);
        decoder.actions().clear();
    };
    let open = serde_json::to_vec(&wire.plan()).unwrap();
    let (mut truth, mut time, mut id) = (Truth::begin(), feeding::START, 100);
    let mut history: Vec<(i64, Truth)> = Vec::new();
    input(Kind::Open, open.clone(), time);
    let mut broken_since = Some(0);
    // When the next snapshot comes, in steps from here.
    let mut snapshot_in = Some(8);
    for step in 0..3_000 {
        time += 1_000 * rng.random_range(1..30);
        id += 1;
        let changes = truth.step(rng, wire.depth);
        history.push((id, truth.clone()));
        story.states.push((time, truth.clone()));
        let before = story.states.iter().rev().nth(1).map_or(0, |state| state.0);
        // Lost: a stretch of frames, which the next shows; on one without numbers a frame that cannot be read does.
        let lost = step % 1_000;
        if (700..705).contains(&lost) && step < 2_000 {
            broken_since.get_or_insert(before);
            if lost == 704 {
                if wire.has_http_snapshots {
                    snapshot_in = Some(10);
                } else {
                    let cut = wire.delta(id, time, &changes, &truth);
                    input(Kind::Text, cut.as_bytes()[..cut.len() - 8].to_vec(), time);
                    snapshot_in = Some(10);
                }
            }
            continue;
        }
        if step == 2_500 {
            broken_since.get_or_insert(before);
            let reason = CloseReason { kind: CloseKind::Lost, detail: String::new() };
            input(Kind::Close, serde_json::to_vec(&reason).unwrap(), time);
            input(Kind::Open, open.clone(), time);
            snapshot_in = Some(10);
            continue;
        }
        if changes.iter().any(|side| !side.is_empty()) || wire.has_http_snapshots {
            input(Kind::Text, wire.delta(id, time, &changes, &truth).into_bytes(), time);
        }
        snapshot_in = match snapshot_in {
            Some(0) => {
                // By HTTP it is some changes old when it arrives.
                let (of, then) = history[history.len() - if wire.has_http_snapshots { 4 } else { 1 }].clone();
                let (kind, bytes) = wire.snapshot(of, time, &then);
                input(kind, bytes, time);
                // A snapshot by HTTP has no time of the venue's: its rows have that of the host.
                let since = broken_since.take().unwrap();
                story.broken.push((since, if wire.has_http_snapshots { time + 700 } else { time }));
                None
            }
            Some(left) => Some(left - 1),
            None => None,
        };
    }
    (decoder.swap_events(Events::default()), story)
}

fn lane(venue: &str) -> Arc<Lane> {
    Arc::new(Lane {
        name: format!("{venue}.0"),
        venue: venue::find(venue).unwrap(),
        journal_id: 7,
        disk: Arc::new(RealDisk),
        dir: "/nonexistent".into(),
        progress: Arc::new(Progress::default()),
        rows: Rows::default(),
        queue: Queue::new(8),
        is_behind: AtomicBool::new(false),
        writer: Arc::new(Notify::new()),
    })
}

#[test]
fn a_book_as_of_any_moment_is_the_venues_or_nothing() {
    let seed = 20_260_803;
    on_each(|cluster, flavor| {
        let database = cluster.database("book_at");
        block_on(store::prepare(&database)).unwrap();
        for wire in &WIRES {
            let mut rng = StdRng::seed_from_u64(seed);
            let (events, story) = play(wire, &mut rng);
            assert!(events.top_books.len() > 20, "{}: {} whole books", wire.venue, events.top_books.len());
            let lane = lane(wire.venue);
            let handle = writer::start(&settings(1, 10_000), &database, vec![lane.clone()]).unwrap();
            feed(&lane, events);
            until_committed(&lane);
            let until = tokio::time::Instant::now() + Duration::from_secs(60);
            assert_eq!(block_on(async { handle.stop(until).await }), []);

            let (first, last) = (story.states[0].0, story.states.last().unwrap().0);
            // Between two changes, so that which comes first is no question.
            let mut moments: Vec<i64> = (0..150).map(|_| rng.random_range(first..last) / 1_000 * 1_000 + 500).collect();
            for (from, to) in &story.broken {
                let from = (*from).max(first);
                moments.extend((0..10).map(|_| rng.random_range(from..*to) / 1_000 * 1_000 + 500));
            }
            moments.retain(|at| story.broken.iter().all(|(_, to)| !(*at < *to && *to < *at + 1_000)));
            let values: Vec<String> =
                moments.iter().enumerate().map(|(nr, at)| format!("({nr}, {at}::bigint)")).collect();
            let found = cluster.psql(
                "book_at",
                &format!(
                    "SELECT m.nr, b.side, b.level, b.price, b.qty
                     FROM (VALUES {}) m (nr, at), LATERAL market_data.book_at('{}', '{}',
                         timestamptz 'epoch' + m.at * interval '1 microsecond', 15) b
                     ORDER BY m.nr, b.side DESC, b.level",
                    values.join(", "),
                    wire.venue,
                    wire.symbol
                ),
            );
            let mut books: Vec<[Vec<String>; 2]> = vec![Default::default(); moments.len()];
            for line in found.lines() {
                let fields: Vec<&str> = line.split('|').collect();
                let side = &mut books[fields[0].parse::<usize>().unwrap()][usize::from(fields[1] == "-1")];
                side.push(format!("{} {}", fields[3], fields[4]));
                assert_eq!(
                    fields[2].parse::<usize>().unwrap(),
                    side.len(),
                    "levels are numbered from the best: {line}"
                );
            }
            let (mut whole, mut levels) = (0, 0);
            for (at, book) in moments.iter().zip(&books) {
                let told = format!("SEED={seed} {flavor:?} {} at {}", wire.venue, at - feeding::START);
                let Some(truth) = story.at(*at) else {
                    assert_eq!(book, &<[Vec<String>; 2]>::default(), "{told}: the book was broken");
                    continue;
                };
                whole += 1;
                for (found, expected) in book.iter().zip(truth.view(wire.depth.min(15))) {
                    let expected: Vec<String> =
                        expected.iter().map(|(p, q)| format!("{} {}", price(*p), qty(*q))).collect();
                    assert_eq!(found[..], expected[..found.len().min(expected.len())], "{told}");
                    levels += found.len();
                }
            }
            println!("{flavor:?} {}: {whole} whole books of {} moments, {levels} levels", wire.venue, moments.len());
            assert!(whole > 100, "{}: {whole} moments had a whole book", wire.venue);
            assert!(levels > whole * 4, "{}: {levels} levels in {whole} books", wire.venue);
        }
        let unknown = "SELECT count(*) FROM market_data.book_at('coinbase', 'BTC-USD', timestamptz '2024-01-01')";
        assert_eq!(cluster.psql("book_at", unknown), "0\n");
    });
}

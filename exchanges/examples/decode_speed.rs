//! How fast recorded frames become events, on one core: `decode_speed <venue> <recording.jsonl.zst> [rounds] [books]`.
//! With `books`, whole books are kept and written every 10 s, 200 levels a side.
//!
//! Frames are read into memory first; each is copied into the parse buffer inside the measured time, as a
//! session does. Time is the thread's own on the core. Beside it, the same frames through serde_json into borrowed types with `Decimal` levels, where
//! the venue is one of Binance's.

use std::{error::Error, hint::black_box, io::BufRead};

use rust_decimal::Decimal;
use serde::Deserialize;
use tapeway_exchanges::{
    adapter::{At, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::{Channel, Events},
    ids::{FramePos, Nanos},
    input::{Kind, put_http},
    top_book::OrderBooks,
    venue::find,
};

#[derive(Deserialize)]
struct Line {
    ts_recv_ns: i64,
    dir: String,
    raw: String,
    url: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (venue, path) = (args.next().ok_or("which venue?")?, args.next().ok_or("which recording?")?);
    let rounds = args.next().map_or(Ok(20), |text| text.parse::<u32>())?;
    let spec = find(&venue).ok_or("no such venue")?;
    let mut inputs = Vec::new();
    for line in std::io::BufReader::new(zstd::Decoder::new(std::fs::File::open(path)?)?).lines() {
        let line: Line = serde_json::from_str(&line?)?;
        match (line.dir.as_str(), line.url.as_deref().and_then(spec.tag_of_url)) {
            ("in", _) => inputs.push((line.ts_recv_ns, Kind::Text, line.raw.into_bytes())),
            ("rest", Some(tag)) => {
                let mut bytes = Vec::new();
                put_http(&mut bytes, &tag, 200, line.raw.as_bytes());
                inputs.push((line.ts_recv_ns, Kind::Http, bytes));
            }
            _ => {}
        }
    }
    let open = args.next().is_some_and(|word| word == "books").then(|| {
        let mut decoder = Decoder::new(spec, FramePos::FIRST);
        for (received, kind, bytes) in &inputs {
            let at = At { pos: decoder.next(), received: Nanos(*received), conn: Conn::FIRST };
            decoder.apply(at, *kind, &mut bytes.clone());
        }
        let plan = LanePlan {
            lane: format!("{venue}.0"),
            url: String::new(),
            http_url: String::new(),
            symbols: decoder.symbols().names().iter().map(ToString::to_string).collect(),
            channels: Channel::ALL.to_vec(),
            book_depth: None,
            order_books: Some(OrderBooks { every_ms: 10_000, depth: 200 }),
        };
        serde_json::to_vec(&plan)
    });
    if let Some(open) = open {
        inputs.insert(0, (0, Kind::Open, open?));
    }
    let bytes: usize = inputs.iter().map(|(_, _, bytes)| bytes.len()).sum();
    let (mut best, mut rows, mut state) = (f64::MAX, 0, 0);
    for _ in 0..rounds {
        let mut decoder = Decoder::new(spec, FramePos::FIRST);
        let (mut spare, mut buffer) = (Events::default(), Vec::new());
        rows = 0;
        let begin = cpu_seconds();
        for (received, kind, bytes) in &inputs {
            buffer.clear();
            buffer.extend_from_slice(bytes);
            decoder.apply(
                At { pos: decoder.next(), received: Nanos(*received), conn: Conn::FIRST },
                *kind,
                &mut buffer,
            );
            if decoder.events().rows() > 4_096 {
                spare = decoder.swap_events(spare);
                rows += black_box(&spare).rows();
            }
        }
        rows += decoder.events().rows();
        best = best.min(cpu_seconds() - begin);
        state = decoder.state().len();
    }
    println!("state {state} bytes");
    report("tapeway", inputs.len(), rows, bytes, best);
    if venue.starts_with("binance") {
        let mut best = f64::MAX;
        let mut rows = 0;
        for _ in 0..rounds {
            let begin = cpu_seconds();
            rows = inputs.iter().filter(|(_, kind, _)| *kind == Kind::Text).map(|(_, _, bytes)| typed(bytes)).sum();
            best = best.min(cpu_seconds() - begin);
        }
        report("serde_json typed", inputs.len(), rows, bytes, best);
    }
    Ok(())
}

/// Seconds this thread has had a core: other processes on the machine do not count. Linux only.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|text| text.parse::<f64>().ok());
    nanos.expect("/proc/thread-self/schedstat begins with nanoseconds") / 1e9
}

fn report(name: &str, frames: usize, rows: usize, bytes: usize, seconds: f64) {
    let (rows_s, mb_s) = (rows as f64 / seconds / 1e6, bytes as f64 / seconds / 1e6);
    println!("{name:17} {frames} frames, {rows} rows in {seconds:.4} s: {rows_s:.2} M rows/s, {mb_s:.0} MB/s");
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Depth<'a> {
    s: &'a str,
    #[serde(rename = "E")]
    event_time: i64,
    #[serde(rename = "T")]
    time: Option<i64>,
    #[serde(rename = "U")]
    first_id: i64,
    u: i64,
    pu: Option<i64>,
    b: Vec<(Decimal, Decimal)>,
    a: Vec<(Decimal, Decimal)>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Trade<'a> {
    s: &'a str,
    #[serde(rename = "T")]
    time: i64,
    t: i64,
    p: Decimal,
    q: Decimal,
    #[serde(rename = "X")]
    execution: Option<&'a str>,
    m: bool,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is what is measured")]
struct Quote<'a> {
    s: &'a str,
    #[serde(rename = "T")]
    time: Option<i64>,
    u: i64,
    b: Decimal,
    #[serde(rename = "B")]
    bid_qty: Decimal,
    a: Decimal,
    #[serde(rename = "A")]
    ask_qty: Decimal,
}

/// Chooses the type by the stream's name, which is cheaper than any of serde's ways to choose.
fn typed(bytes: &[u8]) -> usize {
    let head = &bytes[..bytes.len().min(64)];
    let has = |name: &[u8]| memchr::memmem::find(head, name).is_some();
    if has(b"@depth") {
        let depth = serde_json::from_slice::<Envelope<Depth<'_>>>(bytes).map(|envelope| envelope.data);
        black_box(&depth).as_ref().map_or(0, |depth| depth.b.len() + depth.a.len())
    } else if has(b"@trade") {
        black_box(serde_json::from_slice::<Envelope<Trade<'_>>>(bytes)).is_ok().into()
    } else {
        black_box(serde_json::from_slice::<Envelope<Quote<'_>>>(bytes)).is_ok().into()
    }
}

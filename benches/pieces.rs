//! The pieces by themselves: `cargo bench --bench pieces [-- <filter>]`. For the whole, see `tapeway bench`.
//!
//! Run without `--bench` (as `cargo test --bench pieces` does) each piece is done once: then it only has to work.

use bytes::BytesMut;
use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use rust_decimal::Decimal;
use tapeway::{
    queue::Queue,
    store::instruments::InstrumentId,
    writer::{
        numeric::put_numeric,
        order::{RowRef, Sorter},
    },
};
use tapeway_exchanges::{
    adapter::At,
    book::Book,
    conn::Conn,
    decoder::Decoder,
    event::{Events, Side},
    ids::{FramePos, Micros, Nanos},
    input::Kind,
    number,
    venue::find,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// A thousand frames of each venue's book stream, ten levels each, from bytes to events.
#[divan::bench(args = ["binance-spot", "binance-usdm", "coinbase"])]
fn decode_book_frames(bencher: Bencher<'_, '_>, venue: &str) {
    let spec = find(venue).expect("an adapter");
    let frames: Vec<String> = (1..=FRAMES).map(|number| book_frame(venue, number)).collect();
    let (mut buffer, mut spare) = (Vec::new(), Events::default());
    bencher.counter(ItemsCount::new(FRAMES * LEVELS)).bench_local(move || {
        let mut decoder = Decoder::new(spec, FramePos::FIRST);
        for frame in &frames {
            buffer.clear();
            buffer.extend_from_slice(frame.as_bytes());
            let at = At { pos: decoder.next(), received: Nanos(1_760_000_000_000_000_000), conn: Conn::FIRST };
            decoder.apply(at, Kind::Text, &mut buffer);
        }
        let chunk = decoder.swap_events(std::mem::take(&mut spare));
        assert_eq!(chunk.levels.len() as u64, FRAMES * LEVELS);
        spare = chunk;
    });
}

/// A frame as the venue documents it.
fn book_frame(venue: &str, number: u64) -> String {
    let mut levels = String::new();
    for level in 0..LEVELS / 2 {
        let comma = if level == 0 { "" } else { "," };
        levels += &format!("{comma}[\"{}.10\",\"{}.250\"]", 60_000 - level, 1 + (number + level) % 9);
    }
    match venue {
        "binance-spot" => format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1760000000123,"s":"BTCUSDT","U":{number},"u":{number},"b":[{levels}],"a":[{levels}]}}}}"#
        ),
        "binance-usdm" => format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1760000000123,"T":1760000000120,"s":"BTCUSDT","U":{number},"u":{number},"pu":{},"b":[{levels}],"a":[{levels}]}}}}"#,
            number - 1
        ),
        _ => {
            let buys = levels.replace("[\"", "[\"buy\",\"");
            let sells = levels.replace("[\"", "[\"sell\",\"");
            format!(
                r#"{{"type":"l2update","product_id":"BTC-USD","changes":[{buys},{sells}],"time":"2025-10-09T08:53:20.123456Z"}}"#
            )
        }
    }
}

/// Text of a price to a decimal.
#[divan::bench(args = ["60123.10", "0.00012345", "123456789.123456789"])]
fn parse_number(bencher: Bencher<'_, '_>, text: &str) {
    bencher.counter(BytesCount::of_str(text)).bench(|| number::decimal(divan::black_box(text)));
}

/// A decimal to the bytes of a NUMERIC field.
#[divan::bench(args = ["60123.10", "0.00012345", "123456789.123456789"])]
fn put_number(bencher: Bencher<'_, '_>, text: &str) {
    let value: Decimal = text.parse().expect("a number");
    let mut out = BytesMut::with_capacity(1 << 20);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(move || {
        if out.len() > (1 << 20) - 64 {
            out.clear();
        }
        put_numeric(&mut out, divan::black_box(value));
    });
}

/// A level near the top of a book that is `depth` levels deep on each side.
#[divan::bench(args = [20, 1_000, 10_000])]
fn set_level(bencher: Bencher<'_, '_>, depth: i64) {
    let mut book: Book = Book::default();
    let price = |ticks: i64| Decimal::new(ticks, 2);
    book.extend(Side::Buy, (0..depth).map(|level| (price(6_000_000 - level), Decimal::ONE)));
    book.extend(Side::Sell, (1..=depth).map(|level| (price(6_000_000 + level), Decimal::ONE)));
    let mut number = 0_i64;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(move || {
        number += 1;
        // Removed and set again, within ten levels of the best.
        let qty = if number % 2 == 0 { Decimal::ONE } else { Decimal::ZERO };
        book.set(Side::Buy, price(6_000_000 - (number / 2) % 10), qty);
    });
}

/// A batch of 20,000 rows put in order, rows of the instruments mixed.
#[divan::bench(args = [64, 2_000])]
fn order_rows(bencher: Bencher<'_, '_>, instruments: u32) {
    let (mut sorter, mut out) = (Sorter::default(), Vec::new());
    bencher.counter(ItemsCount::new(ROWS)).bench_local(move || {
        for row in 0..ROWS {
            let instrument = i32::try_from(row.wrapping_mul(2_654_435_761) % instruments).expect("a small number");
            sorter.push(InstrumentId(instrument + 1), Micros(i64::from(row)), RowRef { piece: 0, row });
        }
        sorter.drain_into(&mut out);
        assert_eq!(out.len(), ROWS as usize);
    });
}

/// A chunk through the queue and its memory back.
#[divan::bench]
fn queue_round(bencher: Bencher<'_, '_>) {
    let queue = Queue::new(64);
    bencher.bench_local(move || {
        let chunk = queue.spare();
        assert!(queue.push(chunk).is_ok());
        let chunk = queue.pop().expect("just pushed");
        queue.recycle(chunk);
    });
}

/// Frames of a round.
const FRAMES: u64 = 1_000;
/// Levels of a frame.
const LEVELS: u64 = 10;
/// Rows of a batch.
const ROWS: u32 = 20_000;

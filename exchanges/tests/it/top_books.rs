//! Whole books at moments: each is the book that the reader's rule rebuilds from the rows before it, on its grid, and
//! none is given for a book that is not whole; from a saved state on they are the same.

use std::collections::HashMap;

use rust_decimal::Decimal;
use tapeway_exchanges::{
    adapter::{At, CloseKind, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::{Events, Flags, Side, TopBook},
    ids::{FramePos, Micros, Nanos, SymbolIx},
    replica::{Replicas, State},
    top_book::OrderBooks,
};

use crate::{
    corpus::{RECORDINGS, corpus, read},
    harness::{Input, plan, spec},
};

const DEPTH: usize = 30;
const EVERY: i64 = 200_000;

fn with_books(venue: &str, symbols: &[&str]) -> LanePlan {
    let order_books = Some(OrderBooks { every_ms: EVERY.unsigned_abs() / 1_000, depth: u32::try_from(DEPTH).unwrap() });
    LanePlan { order_books, ..plan(venue, symbols) }
}

/// Recorded inputs on a connection of their own, with losses, repetitions, a reconnect and a death in between.
fn eventful(venue: &str, inputs: Vec<Input>) -> Vec<Input> {
    let mut names = Decoder::new(spec(venue), FramePos::FIRST);
    for input in &inputs {
        let at = At { pos: names.next(), received: Nanos(input.received), conn: Conn::FIRST };
        names.apply(at, input.kind, &mut input.bytes.clone());
    }
    let symbols: Vec<String> = names.symbols().names().iter().map(ToString::to_string).collect();
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let plan = with_books(venue, &symbols);
    let count = inputs.len();
    let mut all = vec![Input::open(1, &plan)];
    for (index, input) in inputs.into_iter().enumerate() {
        let received = input.received;
        match index % 397 {
            313 => continue,
            329 => all.push(input.clone()),
            _ => {}
        }
        all.push(input);
        if index == count / 2 {
            all.push(Input::close(received, CloseKind::Lost));
            all.push(Input::open(received, &plan));
        } else if index == count * 3 / 4 {
            all.push(Input::open(received, &plan));
        }
    }
    all
}

type Levels = Vec<(Decimal, Decimal)>;

#[test]
fn each_is_the_book_that_the_rows_before_it_make_and_none_is_of_a_broken_book() {
    let Some(corpus) = corpus() else { return };
    let mut rows = HashMap::new();
    for (venue, names) in RECORDINGS {
        for inputs in read(&corpus, venue, names[0]).into_values() {
            let inputs: Vec<_> = inputs.into_iter().map(|(_, input)| input).take(4_000).collect();
            *rows.entry(venue).or_insert(0) += check(venue, &eventful(venue, inputs));
        }
    }
    assert!(rows.values().filter(|rows| **rows > 0).count() >= 3, "hardly any venue had a whole book: {rows:?}");
    println!("whole books compared: {rows:?}");
}

fn check(venue: &str, inputs: &[Input]) -> usize {
    let mut decoder = Decoder::new(spec(venue), FramePos::FIRST);
    decoder.log_books();
    let mut replicas: Replicas<u32> = Replicas::default();
    let mut last: HashMap<SymbolIx, Micros> = HashMap::new();
    let mut compared = 0;
    for input in inputs {
        let before: HashMap<SymbolIx, (State, Levels, Levels)> = replicas
            .iter()
            .map(|(symbol, replica)| {
                let side = |side| replica.book.levels(side).take(DEPTH).collect();
                (symbol, (replica.state, side(Side::Buy), side(Side::Sell)))
            })
            .collect();
        let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
        decoder.apply(at, input.kind, &mut input.bytes.clone());
        let log = decoder.take_book_log();
        let events = decoder.swap_events(Events::default());
        for book in &events.top_books {
            let TopBook { symbol, flags, time, bids, asks, .. } = book;
            let (state, true_bids, true_asks) = &before[symbol];
            assert_eq!((*state, *flags), (State::Live, Flags::NONE), "{venue} {}", at.pos);
            assert_eq!(text(bids), text(true_bids), "{venue} {} bids", at.pos);
            assert_eq!(text(asks), text(true_asks), "{venue} {} asks", at.pos);
            let of_frame = events.levels.iter().find(|level| level.symbol == *symbol).unwrap();
            assert!(time.0 % EVERY == 0 && *time <= of_frame.time && of_frame.time.0 < time.0 + EVERY, "{venue}");
            assert!(last.insert(*symbol, *time).is_none_or(|before| before < *time), "{venue}");
            assert!(book.bids_exact.is_none_or(|exact| exact as usize <= bids.len()));
            compared += 1;
        }
        replicas.on_chunk(&events, &log, |frame| frame);
    }
    compared
}

fn text(levels: &[(Decimal, Decimal)]) -> Vec<String> {
    levels.iter().map(|(price, qty)| format!("{price}:{qty}")).collect()
}

#[test]
fn a_restored_decoder_gives_the_same_books_and_the_same_state() {
    let Some(corpus) = corpus() else { return };
    for (venue, names) in RECORDINGS {
        for inputs in read(&corpus, venue, names[0]).into_values() {
            let inputs: Vec<_> = inputs.into_iter().map(|(_, input)| input).take(1_500).collect();
            let inputs = eventful(venue, inputs);
            let mut whole = Decoder::new(spec(venue), FramePos::FIRST);
            let mut resumed = Decoder::new(spec(venue), FramePos::FIRST);
            let mut bytes = 0;
            for (index, input) in inputs.iter().enumerate() {
                if index % 41 == 0 {
                    let state = resumed.state();
                    bytes = state.len().max(bytes);
                    resumed = Decoder::restore(spec(venue), &state, resumed.next()).unwrap();
                }
                let feed = |decoder: &mut Decoder| {
                    let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
                    decoder.apply(at, input.kind, &mut input.bytes.clone());
                    format!("{:?}", decoder.swap_events(Events::default()).top_books)
                };
                assert_eq!(feed(&mut resumed), feed(&mut whole), "{venue}, input {index}");
                assert_eq!(resumed.rows_total(), whole.rows_total(), "{venue}, input {index}");
            }
            assert_eq!(resumed.state(), whole.state(), "{venue}");
            println!("{venue}: largest state {bytes} bytes with {} symbols", whole.symbols().len());
        }
    }
}

#[test]
fn switched_off_nothing_is_kept_and_nothing_given() {
    let Some(corpus) = corpus() else { return };
    let (venue, names) = RECORDINGS[0];
    for inputs in read(&corpus, venue, names[0]).into_values() {
        let mut decoder = Decoder::new(spec(venue), FramePos::FIRST);
        for (_, input) in inputs.into_iter().take(500) {
            let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
            decoder.apply(at, input.kind, &mut input.bytes.clone());
        }
        assert!(decoder.events().top_books.is_empty());
        assert!(!String::from_utf8(decoder.state()).unwrap().contains("\"books\":"));
    }
}

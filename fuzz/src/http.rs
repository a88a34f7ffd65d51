//! HTTP answers that nobody asked for, or that are none: `venue u8 | record as journaled`.
//!
//! Held as in [`crate::lane`]: the record goes into a lane that has an open connection and some state, and into a new one.

use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
    input::{Kind, put_http, split_http},
    venue::VENUES,
};

use crate::captures;

/// Runs one case.
///
/// # Panics
///
/// When a record is split into what it was not made of.
pub fn run(bytes: &[u8]) {
    let Some((number, record)) = bytes.split_first() else { return };
    if let Ok((tag, status, body)) = split_http(&mut record.to_vec()) {
        let mut again = Vec::new();
        put_http(&mut again, &tag, status, body);
        if String::from_utf8_lossy(&record[3..3 + usize::from(record[2])]).len() == usize::from(record[2]) {
            assert!(again == record || tag.contains('\u{fffd}'), "{tag:?} {status}");
        }
    }
    let spec = &VENUES[usize::from(number / 2) % VENUES.len()];
    let mut decoder = Decoder::new(spec, FramePos::FIRST);
    if number % 2 == 1 {
        CAPTURES.with(|captures| {
            for (received, kind, input) in
                captures.iter().filter(|one| one.venue == spec.name).flat_map(|one| &one.inputs)
            {
                feed(&mut decoder, *received, *kind, input);
            }
        });
    }
    feed(&mut decoder, 1_760_000_100_000_000_000, Kind::Http, record);
    let state = decoder.state();
    assert!(Decoder::restore(spec, &state, decoder.next()).expect("its own state").state() == state);
}

fn feed(decoder: &mut Decoder, received: i64, kind: Kind, bytes: &[u8]) {
    let at = At { pos: decoder.next(), received: Nanos(received), conn: Conn::FIRST };
    decoder.apply(at, kind, &mut bytes.to_vec());
    decoder.swap_events(Events::default());
    decoder.actions().clear();
}

thread_local!(static CAPTURES: Vec<captures::Capture> = captures::all());

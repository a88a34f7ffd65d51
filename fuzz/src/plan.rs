//! Plans: what a lane's journal said last, and what the planner makes of it.
//!
//! ```text
//! bytes = venue u8 | lanes_min u8 | streams u8 | symbols, by spaces | 0xFF | (a LanePlan as JSON | 0xFF)*
//! ```
//!
//! Held: every symbol is in exactly one plan, no plan has more than its connection may, the same again gives the same, and
//! a lane that opens with any plan survives the answer to it.

use std::time::Duration;

use tapeway_exchanges::{
    adapter::{At, LanePlan},
    config::{Limits, VenueConfig},
    conn::Conn,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
    input::Kind,
    venue::VENUES,
};

/// Runs one case.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(bytes: &[u8]) {
    let [number, lanes_min, streams, rest @ ..] = bytes else { return };
    let spec = &VENUES[usize::from(*number) % VENUES.len()];
    if spec.channels.is_empty() {
        return; // Nothing can be recorded there.
    }
    let mut parts = rest.split(|byte| *byte == 0xFF);
    let mut symbols: Vec<String> = Vec::new();
    for name in String::from_utf8_lossy(parts.next().unwrap_or_default()).split(' ').filter(|name| !name.is_empty()) {
        if !symbols.iter().any(|one| one == name) {
            symbols.push(name.into());
        }
    }
    let current: Vec<LanePlan> = parts.filter_map(|text| serde_json::from_slice(text).ok()).take(8).collect();
    let config = VenueConfig {
        venue: spec.name,
        symbols,
        channels: spec.channels.to_vec(),
        book_depth: spec.book_depths.first().copied(),
        order_books: None,
        lanes_min: usize::from(*lanes_min % 16),
        ws_url: spec.ws_url.into(),
        http_url: spec.http_url.into(),
        limits: Limits {
            streams_per_connection: usize::from(*streams).max(1),
            messages_per_second: 5,
            connects: 300,
            connects_per: Duration::from_secs(300),
            http_weight_per_minute: 6_000,
            silence: Duration::from_secs(60),
            lifetime: None,
        },
    };
    let plans = (spec.plan)(&config, &current);
    for name in &config.symbols {
        let count = plans.iter().filter(|plan| plan.symbols.contains(name)).count();
        assert_eq!(count, 1, "{name:?} is in {count} plans: {plans:?}");
    }
    assert_eq!(plans.iter().map(|plan| plan.symbols.len()).sum::<usize>(), config.symbols.len());
    assert_eq!((spec.plan)(&config, &plans), plans, "the same again gives the same");
    for plan in plans.iter().take(4).chain(&current) {
        let mut decoder = Decoder::new(spec, FramePos::FIRST);
        let open = serde_json::to_vec(plan).expect("a plan is plain JSON");
        feed(&mut decoder, Kind::Open, &open);
        let sends = std::mem::take(&mut decoder.actions().sends);
        for (_, send) in sends {
            assert!(serde_json::from_str::<serde_json::Value>(&send).is_ok(), "sends {send:?}");
            feed(&mut decoder, Kind::Text, send.as_bytes());
        }
        feed(
            &mut decoder,
            Kind::Plan,
            br#"{"lane":"x","url":"u","http_url":"h","symbols":[],"channels":[],"book_depth":null}"#,
        );
    }
}

fn feed(decoder: &mut Decoder, kind: Kind, bytes: &[u8]) {
    let at = At { pos: decoder.next(), received: Nanos(1_760_000_000_000_000_000), conn: Conn::FIRST };
    decoder.apply(at, kind, &mut bytes.to_vec());
    decoder.swap_events(Events::default());
}

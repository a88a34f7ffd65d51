//! No input makes a decoder panic: frames cut anywhere, with a byte changed, of another venue, or no frames
//! at all are rejects, and the lane goes on.

use proptest::prelude::*;
use tapeway_exchanges::venue::VENUES;

use crate::{
    captures,
    harness::{Input, Lane},
};

#[test]
fn a_frame_cut_anywhere_is_survived() {
    for capture in captures::all() {
        let mut lane = Lane::new(&capture.venue);
        for input in &capture.inputs {
            let step = (input.bytes.len() / 40).max(1);
            for cut in (0..input.bytes.len()).step_by(step) {
                lane.feed(&Input { bytes: input.bytes[..cut].to_vec(), ..input.clone() });
            }
            lane.feed(input);
        }
    }
}

#[test]
fn every_venue_survives_the_frames_of_every_other() {
    for spec in VENUES {
        let mut lane = Lane::new(spec.name);
        for capture in captures::all() {
            for input in &capture.inputs {
                lane.feed(input);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_is_survived(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let captures = captures::all();
        let capture = &captures[pick.index(captures.len())];
        let mut lane = Lane::new(&capture.venue);
        for input in &capture.inputs {
            let mut changed = input.clone();
            let at = at.index(changed.bytes.len());
            changed.bytes[at] = byte;
            lane.feed(&changed);
            lane.feed(input);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for spec in VENUES {
            let mut lane = Lane::new(spec.name);
            let text = Input { received: 1, conn: tapeway_exchanges::conn::Conn::FIRST, kind: tapeway_exchanges::input::Kind::Text, bytes: bytes.clone() };
            lane.feed(&text);
            lane.feed(&Input { kind: tapeway_exchanges::input::Kind::Http, ..text });
        }
    }

    /// JSON of the venues' own words in any arrangement.
    #[test]
    fn any_json_of_known_words_is_survived(text in json_of_known_words()) {
        for spec in VENUES {
            Lane::new(spec.name).text(&text);
        }
    }
}

fn json_of_known_words() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "e",
        "E",
        "T",
        "s",
        "U",
        "u",
        "pu",
        "b",
        "a",
        "B",
        "A",
        "t",
        "p",
        "q",
        "X",
        "m",
        "stream",
        "data",
        "depthUpdate",
        "trade",
        "aggTrade",
        "bookTicker",
        "id",
        "result",
        "error",
        "code",
        "msg",
        "type",
        "snapshot",
        "l2update",
        "match",
        "product_id",
        "changes",
        "bids",
        "asks",
        "buy",
        "sell",
        "time",
        "channel",
        "book",
        "symbol",
        "checksum",
        "price",
        "qty",
        "timestamp",
        "method",
        "subscribe",
        "success",
        "arg",
        "instId",
        "books",
        "action",
        "update",
        "event",
        "seqId",
        "prevSeqId",
        "tradeId",
        "as",
        "bs",
        "c",
        "1.50",
        "2026-01-01T00:00:00Z",
        "-1",
    ]);
    let leaf = prop_oneof![
        words.clone().prop_map(|word| format!("{word:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("null".into()),
        Just("true".into()),
        Just("1e400".into()),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((words.clone(), inner), 0..8).prop_map(|entries| {
                let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

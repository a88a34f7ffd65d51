//! A frame that is read in one pass because it is spelled as always gives what it gives when it is not: with a space
//! before it.

use proptest::prelude::*;
use tapeway_exchanges::input::Kind;

use crate::{
    captures,
    harness::{Input, Lane},
};

/// Feeds an input as it is to one lane and with a space before it to another.
fn feed(usual: &mut Lane, spaced: &mut Lane, input: &Input) {
    let mut other = input.clone();
    if input.kind == Kind::Text && matches!(input.bytes.first(), Some(b'{' | b'[')) {
        other.bytes.insert(0, b' ');
    }
    assert_eq!(
        without_places(usual.feed(input)),
        without_places(spaced.feed(&other)),
        "{}",
        String::from_utf8_lossy(&input.bytes)
    );
}

/// A reject shows the beginning of its frame and where reading stopped: not the same behind a space.
fn without_places(lines: Vec<String>) -> Vec<String> {
    let cut = |line: String| match line.split_once(" reject ") {
        Some((frame, what)) => format!("{frame} reject {}", what.split(':').next().unwrap_or_default()),
        None => line,
    };
    lines.into_iter().map(cut).collect()
}

#[test]
fn every_captured_frame_is_read_alike_both_ways() {
    for capture in captures::all() {
        let (mut usual, mut spaced) = (Lane::new(&capture.venue), Lane::new(&capture.venue));
        capture.inputs.iter().for_each(|input| feed(&mut usual, &mut spaced, input));
        assert_eq!(usual.decoder.state(), spaced.decoder.state(), "{}", capture.path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Bytes that are likely to make another number, another string or no JSON of a frame.
    #[test]
    fn every_changed_frame_is_read_alike_both_ways(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 1..4),
    ) {
        let captures = captures::all();
        let capture = &captures[pick.index(captures.len())];
        let (mut usual, mut spaced) = (Lane::new(&capture.venue), Lane::new(&capture.venue));
        for input in &capture.inputs {
            feed(&mut usual, &mut spaced, input);
            let mut changed = input.clone();
            if input.kind == Kind::Text {
                for (at, change) in &changes {
                    change.apply(&mut changed.bytes, at);
                }
                feed(&mut usual, &mut spaced, &changed);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Insert(u8),
    Remove,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, at: &prop::sample::Index) {
        if bytes.len() < 2 {
            return;
        }
        let at = 1 + at.index(bytes.len() - 1); // The first byte stays: only JSON is put behind a space.
        match self {
            Self::Set(byte) => bytes[at] = *byte,
            Self::Insert(byte) => bytes.insert(at, *byte),
            Self::Remove => drop(bytes.remove(at)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let byte = prop_oneof![prop::sample::select(&br#"0123456789.-+eE"\,:[]{} nul"#[..]), any::<u8>()];
    prop_oneof![byte.clone().prop_map(Change::Set), byte.prop_map(Change::Insert), Just(Change::Remove),]
}

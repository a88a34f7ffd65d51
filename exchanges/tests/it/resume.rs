//! Decoding is a function of state and input: twice the same input gives the same events, and a decoder
//! restored from the state saved before any input goes on as if nothing had happened.

use tapeway_exchanges::{
    adapter::{At, CloseKind},
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
};

use crate::{
    captures,
    corpus::{RECORDINGS, corpus, read},
    harness::{Input, plan, render, spec},
};

fn apply(decoder: &mut Decoder, input: &Input) -> Vec<String> {
    let at = At { pos: decoder.next(), received: Nanos(input.received), conn: input.conn };
    decoder.apply(at, input.kind, &mut input.bytes.clone());
    decoder.actions().clear();
    render(&decoder.swap_events(Events::default()))
}

/// Feeds `inputs` to one decoder that lives on and to one that is restored before every `every`th input.
fn assert_resumes(venue: &str, inputs: &[Input], every: usize) {
    let mut whole = Decoder::new(spec(venue), FramePos::FIRST);
    let mut resumed = Decoder::new(spec(venue), FramePos::FIRST);
    for (index, input) in inputs.iter().enumerate() {
        if index % every == 0 {
            resumed = Decoder::restore(spec(venue), &resumed.state(), resumed.next()).unwrap();
        }
        assert_eq!(apply(&mut resumed, input), apply(&mut whole, input), "{venue}, input {index}");
        assert_eq!(resumed.rows_total(), whole.rows_total(), "{venue}, input {index}");
    }
    assert_eq!(resumed.state(), whole.state(), "{venue}");
}

/// Breaks that a recording does not have: what a lane goes through in its life.
fn eventful(venue: &str, inputs: Vec<Input>) -> Vec<Input> {
    let symbols: Vec<&str> = Vec::new();
    let plan = plan(venue, &symbols);
    let mut all = vec![Input::open(1, &plan)];
    let count = inputs.len();
    for (index, input) in inputs.into_iter().enumerate() {
        let received = input.received;
        match index % 97 {
            13 => continue, // Lost on the way.
            29 => all.push(input.clone()),
            41 => all.push(Input::text(received, &String::from_utf8_lossy(&input.bytes[..input.bytes.len() / 2]))),
            _ => {}
        }
        all.push(input);
        if index == count / 3 {
            all.push(Input::close(received, CloseKind::Lost));
            all.push(Input::open(received, &plan));
        } else if index == count / 2 {
            all.push(Input::open(received, &plan)); // The process died.
        }
    }
    all
}

#[test]
fn captures_resume_from_the_state_before_any_input() {
    for capture in captures::all() {
        assert_resumes(&capture.venue, &capture.inputs, 1);
    }
}

#[test]
fn recordings_with_breaks_resume_from_the_state_before_any_input() {
    let Some(corpus) = corpus() else { return };
    for (venue, names) in RECORDINGS {
        for inputs in read(&corpus, venue, names[0]).into_values() {
            let inputs: Vec<_> = inputs.into_iter().map(|(_, input)| input).take(1_500).collect();
            assert_resumes(venue, &eventful(venue, inputs), 7);
        }
    }
}

#[test]
fn the_same_input_twice_gives_the_same_events() {
    let Some(corpus) = corpus() else { return };
    for (venue, names) in RECORDINGS {
        for inputs in read(&corpus, venue, names[0]).into_values() {
            let inputs = eventful(venue, inputs.into_iter().map(|(_, input)| input).take(3_000).collect());
            let run = || {
                let mut decoder = Decoder::new(spec(venue), FramePos::FIRST);
                inputs.iter().flat_map(|input| apply(&mut decoder, input)).collect::<Vec<_>>()
            };
            assert_eq!(run(), run(), "{venue}");
        }
    }
}

#[test]
fn a_state_of_another_venue_or_format_is_refused() {
    let state = Decoder::new(spec("kraken"), FramePos::FIRST).state();
    assert!(Decoder::restore(spec("coinbase"), &state, FramePos::FIRST).is_err());
    assert!(Decoder::restore(spec("kraken"), b"{}", FramePos::FIRST).is_err());
    let text = String::from_utf8(state).unwrap().replace("\"format\":1", "\"format\":9");
    assert!(Decoder::restore(spec("kraken"), text.as_bytes(), FramePos::FIRST).is_err());
}

//! An adapter that panics costs its frame and its connection, and nothing else: the reject and the gap say so, what
//! comes after is decoded, and replay from any state gives the same.

use serde_json::Value;
use tapeway_exchanges::{
    adapter::{Actions, Adapter, At, CloseKind, CloseReason, LanePlan, Outbox},
    conn::{Conn, Conns},
    decoder::{Decoder, StateError},
    error::FrameError,
    event::Events,
    ids::{FramePos, Nanos},
    subscription::Subscriptions,
    venue::VenueSpec,
};

use crate::{
    captures,
    harness::{Input, plan, render, spec},
};

/// Coinbase's adapter with a defect: a frame that has POISON in it makes it panic, after it has emitted what is in the
/// frame before that; a plan for the symbol POISON and a state with POISON do so too.
static POISONED: VenueSpec = VenueSpec {
    build: || Box::new(Poisoned { inner: (spec("coinbase").build)(), opens: 0 }),
    ..tapeway_exchanges::venue::VENUES[3]
};

struct Poisoned {
    inner: Box<dyn Adapter>,
    opens: u32,
}

impl Adapter for Poisoned {
    fn on_open(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        self.opens += 1;
        self.inner.on_open(at, plan, out);
        assert!(!plan.symbols.iter().any(|symbol| symbol == "POISON"), "a plan that panics");
    }

    fn on_plan(&mut self, at: At, plan: &LanePlan, out: &mut Outbox) {
        self.inner.on_plan(at, plan, out);
    }

    fn on_frame(&mut self, at: At, bytes: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        let is_poison = bytes.windows(6).any(|six| six == b"POISON");
        let result = self.inner.on_frame(at, bytes, out);
        assert!(!is_poison, "a defect of ours");
        result
    }

    fn on_http(&mut self, at: At, tag: &str, status: u16, body: &mut [u8], out: &mut Outbox) -> Result<(), FrameError> {
        self.inner.on_http(at, tag, status, body, out)
    }

    fn on_close(&mut self, at: At, reason: &CloseReason, out: &mut Outbox) {
        self.inner.on_close(at, reason, out);
    }

    fn on_tick(&mut self, now: Nanos, actions: &mut Actions) {
        actions.sends.push((Conn::FIRST, "half of something".into()));
        assert!(now.0 != 13, "a tick that panics");
    }

    fn state(&self) -> Value {
        serde_json::json!({ "inner": self.inner.state(), "opens": self.opens })
    }

    fn restore(&mut self, mut state: Value) -> Result<(), serde_json::Error> {
        assert!(state["opens"] != "POISON", "a state that panics");
        self.opens = serde_json::from_value(state["opens"].take())?;
        self.inner.restore(state["inner"].take())
    }

    fn subscriptions(&self, conn: Conn) -> &Subscriptions {
        self.inner.subscriptions(conn)
    }

    fn open(&self) -> Conns {
        self.inner.open()
    }
}

fn trade(id: i64) -> String {
    format!(
        r#"{{"type":"match","trade_id":{id},"maker_order_id":"a","taker_order_id":"b","side":"buy","size":"1.5","price":"100.0","product_id":"BTC-USD","sequence":{id},"time":"2025-10-09T08:53:20.1Z"}}"#
    )
}

fn poisoned_trade(id: i64) -> String {
    trade(id).replace("maker_order_id\":\"a", "maker_order_id\":\"POISON")
}

/// A life with two panics on one connection and one in an open.
fn inputs() -> Vec<Input> {
    let plan = plan("coinbase", &["BTC-USD"]);
    let mut poisoned = plan.clone();
    poisoned.symbols.push("POISON".into());
    let text = |at: i64, text: &str| Input::text(at * 1_000_000_000, text);
    vec![
        Input::open(1_000_000_000, &plan),
        text(2, &trade(10)),
        text(3, &trade(13)),
        text(4, &poisoned_trade(14)),
        text(5, &trade(15)),
        text(6, &poisoned_trade(16)),
        Input::close(7_000_000_000, CloseKind::Protocol),
        Input::open(8_000_000_000, &poisoned),
        Input::close(9_000_000_000, CloseKind::Protocol),
        Input::open(10_000_000_000, &plan),
        text(11, &trade(20)),
        text(12, &trade(22)),
    ]
}

fn apply(decoder: &mut Decoder, input: &Input) -> Vec<String> {
    let at = At { pos: decoder.next(), received: Nanos(input.received), conn: Conn::FIRST };
    decoder.apply(at, input.kind, &mut input.bytes.clone());
    render(&decoder.swap_events(Events::default()))
}

#[test]
fn a_panic_is_a_reject_a_gap_and_a_reconnect_and_the_lane_goes_on() {
    let mut decoder = Decoder::new(&POISONED, FramePos::FIRST);
    let mut reconnects = Vec::new();
    let mut found = Vec::new();
    for (index, input) in inputs().iter().enumerate() {
        found.push(apply(&mut decoder, input));
        for (_, reason) in decoder.actions().reconnects.drain(..) {
            reconnects.push((index, reason.kind, reason.detail));
        }
        decoder.actions().clear();
    }
    assert_eq!(
        found[2][0],
        "2 gap 2/0 BTC-USD trades sequence missing 11..12 since 1760000000100000 until 1760000000100000"
    );
    let len = poisoned_trade(14).len();
    assert_eq!(
        found[3],
        [
            format!("3 reject adapter_panic: the adapter panicked over text of {len} bytes: a defect of ours"),
            "3 closed 2/0 BTC-USD trades sequence unhealable 0 rows last -".into(),
            "3 gap 3/0 * * undecodable missing -..- since 4000000 until -".into(),
        ],
        "the trade of the frame is taken back, and the gap that nobody remembers ends"
    );
    assert!(found[4].iter().any(|line| line.contains("trade BTC-USD sell 100.0 x 1.5 id 15")), "{:?}", found[4]);
    assert_eq!(found[5].len(), 1, "the gap is open already: {:?}", found[5]);
    assert!(found[7][0].contains("adapter_panic: the adapter panicked over open"), "{:?}", found[7]);
    assert!(found[9].contains(&"9 closed 3/0 * * undecodable unhealable 0 rows last -".into()), "{:?}", found[9]);
    assert!(found[10].iter().any(|line| line.contains("id 20")), "{:?}", found[10]);
    assert!(
        found[11].iter().any(|line| line.contains("missing 21..21")),
        "numbers are followed again: {:?}",
        found[11]
    );
    let at: Vec<_> = reconnects.iter().map(|(index, kind, _)| (*index, *kind)).collect();
    assert_eq!(at, [(3, CloseKind::Protocol), (5, CloseKind::Protocol), (7, CloseKind::Protocol)]);
    assert!(reconnects[0].2.contains("a defect of ours"), "{}", reconnects[0].2);
    let rows = found.iter().flatten().filter(|line| line.contains(" trade ")).count();
    assert_eq!(decoder.rows_total(), rows as u64, "rows that were taken back are not counted");
}

#[test]
fn replay_from_any_state_meets_the_same_panics() {
    let mut whole = Decoder::new(&POISONED, FramePos::FIRST);
    let mut resumed = Decoder::new(&POISONED, FramePos::FIRST);
    for (index, input) in inputs().iter().enumerate() {
        resumed = Decoder::restore(&POISONED, &resumed.state(), resumed.next()).unwrap();
        assert_eq!(apply(&mut resumed, input), apply(&mut whole, input), "input {index}");
        assert_eq!(resumed.state(), whole.state(), "input {index}");
    }
}

#[test]
fn a_panic_on_a_tick_sends_nothing_and_asks_for_a_new_connection() {
    let mut decoder = Decoder::new(&POISONED, FramePos::FIRST);
    apply(&mut decoder, &inputs()[0]);
    decoder.actions().clear();
    let before = decoder.state();
    decoder.tick(Nanos(13));
    assert!(decoder.actions().sends.is_empty());
    let [(conn, reason)] = &decoder.actions().reconnects[..] else { panic!("{:?}", decoder.actions()) };
    assert!(*conn == Conn::FIRST && reason.detail.contains("a tick that panics"), "{reason:?}");
    assert_eq!(decoder.state(), before);
}

#[test]
fn a_state_that_panics_is_no_state() {
    let text = String::from_utf8(Decoder::new(&POISONED, FramePos::FIRST).state()).unwrap();
    let text = text.replace("\"opens\":0", "\"opens\":\"POISON\"");
    let error = Decoder::restore(&POISONED, text.as_bytes(), FramePos::FIRST).unwrap_err();
    assert!(matches!(&error, StateError::Panic { message } if message.contains("a state that panics")), "{error}");
}

/// What a capture says and how, with an earlier state's shape: one without the list of open gaps.
#[test]
fn a_state_from_before_the_list_of_open_gaps_is_read() {
    for capture in captures::all() {
        let mut decoder = Decoder::new(spec(&capture.venue), FramePos::FIRST);
        for input in &capture.inputs {
            apply(&mut decoder, input);
        }
        let mut state: Value = serde_json::from_slice(&decoder.state()).unwrap();
        state.as_object_mut().unwrap().remove("gaps");
        Decoder::restore(spec(&capture.venue), state.to_string().as_bytes(), decoder.next()).unwrap();
    }
}

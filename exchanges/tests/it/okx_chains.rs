//! A book of OKX over two connections, with everything the venue may do and the network may lose: the rows that stand
//! outside of gaps are the venue's book, change by change, none twice and none left out; and it is whole again after.

use proptest::prelude::*;
use tapeway_exchanges::{
    adapter::{At, CloseKind, LanePlan},
    conn::Conn,
    decoder::Decoder,
    event::{Channel, Events, Flags, Note},
    ids::{FramePos, Nanos},
};

use crate::harness::{Input, plan, render, spec};

const VENUE: &str = "okx";

/// The venue's messages of one book: id and the one before. Equal ids are keep-alives.
type Chain = Vec<(i64, i64)>;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The connection delivers its next message, ...
    Deliver(Conn),
    /// ... or it is lost.
    Lose(Conn),
    Close(Conn),
    /// It opens this many messages before or behind the other.
    Open(Conn, i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let conn = || any::<bool>().prop_map(|second| if second { Conn::SECOND } else { Conn::FIRST });
    let act = prop_oneof![
        80 => conn().prop_map(Act::Deliver),
        6 => conn().prop_map(Act::Lose),
        2 => conn().prop_map(Act::Close),
        6 => (conn(), -6i64..6).prop_map(|(conn, at)| Act::Open(conn, at)),
    ];
    prop::collection::vec(act, 50..300)
}

/// Ids grow, stand still, or begin anew, below all that were.
fn chain() -> impl Strategy<Value = Chain> {
    prop::collection::vec(0u8..40, 500).prop_map(|steps| {
        let (mut last, mut begin) = (1_000_000, 1_000_000);
        let mut next = |step: u8| {
            let previous = last;
            last = match step {
                0 => {
                    begin -= 10_000;
                    begin
                }
                1..4 => previous,
                _ => previous + i64::from(step % 5) + 1,
            };
            (last, previous)
        };
        steps.into_iter().map(&mut next).collect()
    })
}

/// The venue, the two connections, and the lane.
struct World {
    chain: Chain,
    whole: Decoder,
    resumed: Decoder,
    clock: i64,
    /// How many messages each connection has behind it; `None` while it is closed.
    past: [Option<usize>; 2],
    /// It has been asked for a snapshot.
    is_asked: [bool; 2],
    /// Messages it has lost.
    lost: [Vec<usize>; 2],
    /// Messages that the live rows are past; `None` while the book is not live.
    at: Option<usize>,
    gaps: Vec<String>,
    asked: usize,
    /// Most messages that any connection has had behind it.
    most: usize,
    /// Snapshots of before that.
    outrun: usize,
}

impl World {
    fn new(chain: Chain) -> Self {
        let decoder = || Decoder::new(spec(VENUE), FramePos::FIRST);
        let mut world = Self {
            chain,
            whole: decoder(),
            resumed: decoder(),
            clock: 1_700_000_000_000_000_000,
            past: [None; 2],
            is_asked: [false; 2],
            lost: [Vec::new(), Vec::new()],
            at: None,
            gaps: Vec::new(),
            asked: 0,
            most: 0,
            outrun: 0,
        };
        world.open(Conn::FIRST, 0);
        world.open(Conn::SECOND, 0);
        world
    }

    fn act(&mut self, act: Act, can_both_lack: bool) {
        match act {
            Act::Deliver(conn) => self.deliver(conn),
            Act::Lose(conn) => self.lose(conn, can_both_lack),
            Act::Close(conn) => {
                let is_covered =
                    self.past[conn.other().index()].is_some() && self.whole.is_ready(conn.other(), Nanos(0));
                if self.past[conn.index()].is_some() && (can_both_lack || is_covered) {
                    // What it alone would have brought is lost with it.
                    let is_lacked =
                        self.lost[conn.other().index()].iter().any(|at| self.at.is_none_or(|own| *at >= own));
                    if can_both_lack || !is_lacked {
                        self.past[conn.index()] = None;
                        self.feed(&Input::close(self.clock, CloseKind::Lost).of(conn));
                    }
                }
            }
            Act::Open(conn, shift) => {
                if self.past[conn.index()].is_none() {
                    let other = self.past[conn.other().index()].or(self.at).unwrap_or_default();
                    let at = i64::try_from(other).unwrap() + shift;
                    self.open(conn, usize::try_from(at.max(0)).unwrap().min(self.chain.len() - 1));
                }
            }
        }
    }

    fn open(&mut self, conn: Conn, past: usize) {
        self.past[conn.index()] = Some(past);
        self.lost[conn.index()].clear();
        self.is_asked[conn.index()] = true;
        let plan = LanePlan { channels: vec![Channel::Book], ..plan(VENUE, &["BTC-USDT"]) };
        self.feed(&Input::open(self.clock, &plan).of(conn));
    }

    fn deliver(&mut self, conn: Conn) {
        let Some(past) = self.past[conn.index()] else { return };
        if std::mem::take(&mut self.is_asked[conn.index()]) {
            let id = if past == 0 { self.chain[0].1 } else { self.chain[past - 1].0 };
            self.outrun += usize::from(past < self.most);
            return self.push(conn, "snapshot", (id, -1), past);
        }
        let Some(ids) = self.chain.get(past).copied() else { return };
        self.past[conn.index()] = Some(past + 1);
        self.most = self.most.max(past + 1);
        self.push(conn, "update", ids, past + 1);
    }

    fn lose(&mut self, conn: Conn, can_both_lack: bool) {
        let Some(past) = self.past[conn.index()] else { return };
        let other = self.past[conn.other().index()];
        let is_had = other.is_some() && self.lost[conn.other().index()].iter().all(|lost| lost.abs_diff(past) > 3);
        // What the other connection began behind it does not have.
        let is_begun = other.is_some_and(|other| other <= past) && self.whole.is_ready(conn.other(), Nanos(0));
        if past < self.chain.len() && !self.is_asked[conn.index()] && (can_both_lack || (is_had && is_begun)) {
            self.lost[conn.index()].push(past);
            self.past[conn.index()] = Some(past + 1);
        }
    }

    /// The price is the message's place in the chain.
    fn push(&mut self, conn: Conn, action: &str, (id, previous): (i64, i64), past: usize) {
        let level = if id == previous { String::new() } else { format!(r#"["{}","1"]"#, past + 1) };
        let text = format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[{level}],"ts":"{}","seqId":{id},"prevSeqId":{previous}}}]}}"#,
            1_700_000_000_000 + i64::try_from(past).unwrap()
        );
        self.feed(&Input::text(self.clock, &text).of(conn));
    }

    fn feed(&mut self, input: &Input) {
        self.clock += 50_000_000;
        let apply = |decoder: &mut Decoder| {
            let at = At { pos: decoder.next(), received: Nanos(self.clock), conn: input.conn };
            decoder.apply(at, input.kind, &mut input.bytes.clone());
            decoder.swap_events(Events::default())
        };
        self.resumed = Decoder::restore(spec(VENUE), &self.resumed.state(), self.resumed.next()).unwrap();
        let events = apply(&mut self.whole);
        assert_eq!(render(&apply(&mut self.resumed)), render(&events), "a restored decoder differs");
        assert_eq!(self.resumed.state(), self.whole.state());
        self.look(&events);
        self.whole.tick(Nanos(self.clock));
        for (conn, text) in std::mem::take(&mut self.whole.actions().sends) {
            if text.contains("unsubscribe") && self.past[conn.index()].is_some() {
                self.is_asked[conn.index()] = true;
                self.asked += 1;
            }
        }
        self.whole.actions().clear();
        self.resumed.actions().clear();
    }

    /// Follows the rows.
    fn look(&mut self, events: &Events) {
        for note in &events.notes {
            if let Note::Gap(gap) = note {
                self.gaps.push(format!("{gap:?}"));
                self.at = None;
            }
        }
        for level in &events.levels {
            if level.flags.has(Flags::AFTER_GAP) {
                assert!(self.at.is_none(), "{level:?} though the book is live");
                continue;
            }
            let place = usize::try_from(level.price.mantissa()).unwrap() - 1;
            if !level.flags.has(Flags::SNAPSHOT) {
                let at = self.at.expect("rows stand outside of gaps only behind a snapshot");
                let between = &self.chain[at..place.max(at + 1) - 1];
                assert!(place > at, "{place} came twice: the rows are past {at}");
                assert!(between.iter().all(|(id, previous)| id == previous), "between {at} and {place} is {between:?}");
            }
            self.at = Some(place);
        }
    }

    /// Both are open, nothing is lost any more, and there is time.
    fn calm(&mut self) {
        let most = self.past.iter().flatten().max().copied().unwrap_or_default();
        for conn in Conn::ALL.into_iter().filter(|conn| self.past[conn.index()].is_none()).collect::<Vec<_>>() {
            self.open(conn, most);
        }
        for _ in 0..self.chain.len() + 100 {
            self.clock += 3_000_000_000;
            Conn::ALL.into_iter().for_each(|conn| self.deliver(conn));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_both_lose_the_live_rows_are_the_venues_and_the_book_is_whole_again(chain in chain(), acts in acts()) {
        let mut world = World::new(chain);
        acts.into_iter().for_each(|act| world.act(act, true));
        world.calm();
        let last = world.chain.iter().rposition(|(id, previous)| id != previous).map(|at| at + 1);
        prop_assert!(world.at.is_some() && world.at >= last, "past {:?} of {:?}\n{:#?}", world.at, last, world.gaps);
        // A snapshot of before the last rows is asked for once more.
        let asked_max = world.gaps.len() + world.outrun;
        prop_assert!(world.asked <= asked_max, "{} asks, at most {asked_max} expected", world.asked);
    }

    #[test]
    fn what_one_connection_has_is_no_gap_whatever_the_other_loses(chain in chain(), acts in acts()) {
        let mut world = World::new(chain);
        acts.into_iter().for_each(|act| world.act(act, false));
        world.calm();
        prop_assert_eq!(&world.gaps, &Vec::<String>::new());
        prop_assert_eq!(world.asked, 0);
    }
}

//! One lane of a venue under any sequence of inputs: opens, plans, frames, answers, closes, in any order and with any
//! content.
//!
//! Held after every input, beside that nothing panics:
//!
//! - a decoder restored from the state saved before some input gives the very events of the one that lived on, and
//!   its state is what was saved; so it does when its frames begin with a space, which no frame in a venue's usual
//!   spelling does: both ways of reading one must agree;
//! - rows name frames of their chunk and symbols that are interned; rows of a kind are in frame order;
//! - prices and quantities are not negative;
//! - events, actions and the saved state do not grow beyond what the inputs' own bytes account for.

use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::{Events, Note},
    ids::{FramePos, Nanos},
    input::{Kind, put_http},
    symbols::{SYMBOL_BYTES_MAX, SYMBOLS_MAX},
    venue::{VenueSpec, find},
};

use crate::script::{self, Record, Requests};

/// Runs a script (see [`script`]) through a lane of `venue`.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(venue: &str, bytes: &[u8]) {
    let spec = find(venue).expect("a target names a venue that there is");
    let (every, records) = script::read(spec, bytes);
    let mut lane = Lane::new(spec);
    for (index, record) in records.into_iter().enumerate() {
        if index % every == every - 1 {
            lane.restore();
        }
        lane.take(record);
    }
    let state = lane.whole.state();
    assert_eq!(lane.resumed.state(), state, "the states differ at the end");
    let (len, weight) = (state.len(), lane.weight);
    assert!(len <= 4_096 + weight * 16, "a state of {len} bytes after {weight} bytes");
}

struct Lane {
    spec: &'static VenueSpec,
    whole: Decoder,
    resumed: Decoder,
    clock: i64,
    requests: Requests,
    /// Bytes of all inputs so far, with what an input costs at least.
    weight: usize,
    rows: usize,
}

impl Lane {
    fn new(spec: &'static VenueSpec) -> Self {
        Self {
            spec,
            whole: Decoder::new(spec, FramePos::FIRST),
            resumed: Decoder::new(spec, FramePos::FIRST),
            clock: 1_760_000_000_000_000_000,
            requests: Requests::default(),
            weight: 0,
            rows: 0,
        }
    }

    fn restore(&mut self) {
        let state = self.resumed.state();
        let restored = Decoder::restore(self.spec, &state, self.resumed.next());
        self.resumed = restored.expect("what a decoder saves can be restored");
        assert!(self.resumed.state() == state, "saved:\n{}", String::from_utf8_lossy(&state));
    }

    fn take(&mut self, record: Record<'_>) {
        let (kind, conn, bytes) = match record {
            Record::Clock(time) => {
                self.clock = time;
                return;
            }
            Record::Input(kind, conn, bytes) => (kind, conn, bytes),
            Record::Answer(status, body) => {
                let Some(tag) = self.requests.pop() else { return };
                let mut bytes = Vec::new();
                put_http(&mut bytes, &tag, status, body);
                (Kind::Http, Conn::FIRST, bytes)
            }
        };
        self.clock = self.clock.saturating_add(50_000_000);
        self.weight += bytes.len() + INPUT_WEIGHT;
        let at = At { pos: self.whole.next(), received: Nanos(self.clock), conn };
        self.whole.apply(at, kind, &mut bytes.clone());
        let mut spaced = bytes.clone();
        if matches!(kind, Kind::Text | Kind::Binary) && matches!(bytes.first(), Some(b'{' | b'[')) {
            spaced.insert(0, b' ');
        }
        self.resumed.apply(at, kind, &mut spaced);
        let events = self.whole.swap_events(Events::default());
        assert_same(&events, &self.resumed.swap_events(Events::default()));
        assert_eq!(self.whole.rows_total(), self.resumed.rows_total());
        assert_sound(&events);
        self.rows += events.rows() + events.notes.len();
        self.assert_bounded();
        self.whole.tick(Nanos(self.clock));
        let actions = self.whole.actions();
        let bytes_wanted: usize = actions.sends.iter().map(|(_, text)| text.len()).sum();
        assert!(bytes_wanted <= self.weight * 64, "{bytes_wanted} bytes to send after {} bytes", self.weight);
        assert!(actions.requests.len() <= self.weight, "{} requests", actions.requests.len());
        for request in actions.requests.drain(..) {
            assert!(request.tag.len() <= 255, "tag {:?}", request.tag);
            assert!(request.path.starts_with('/'), "path {:?}", request.path);
            assert!(!request.path.contains([' ', '\r', '\n']), "path {:?}", request.path);
            self.requests.push(request.tag);
        }
        actions.clear();
        self.resumed.actions().clear();
    }

    fn assert_bounded(&self) {
        assert!(self.rows <= self.weight, "{} rows and notes after {} bytes", self.rows, self.weight);
        assert!(self.whole.symbols().len() <= SYMBOLS_MAX);
        assert!(self.whole.symbols().names().iter().all(|name| name.len() <= SYMBOL_BYTES_MAX));
    }
}

fn assert_same(whole: &Events, resumed: &Events) {
    assert_eq!(whole.first, resumed.first);
    assert_eq!(whole.received, resumed.received);
    assert_eq!(whole.trades, resumed.trades);
    assert_eq!(whole.levels, resumed.levels);
    assert_eq!(whole.quotes, resumed.quotes);
    assert_eq!(whole.top_books, resumed.top_books);
    assert_eq!(without_places(&whole.notes), without_places(&resumed.notes));
    assert_eq!(whole.symbols, resumed.symbols);
    assert_eq!(whole.rows_total, resumed.rows_total);
}

/// What a reject shows of its frame, and where, is not the same in a frame that begins with a space.
fn without_places(notes: &[Note]) -> Vec<Note> {
    let mut notes = notes.to_vec();
    for note in &mut notes {
        if let Note::Reject(reject) = note {
            reject.detail.clear();
        }
    }
    notes
}

fn assert_sound(events: &Events) {
    let (frames, symbols) = (events.received.len(), events.symbols.len());
    let is_there = |frame: u32, symbol: u32| (frame as usize) < frames && (symbol as usize) < symbols;
    for trade in &events.trades {
        assert!(is_there(trade.frame, trade.symbol.0), "{trade:?}");
        assert!(!trade.price.is_sign_negative(), "{trade:?}");
        assert!(!trade.qty.is_sign_negative(), "{trade:?}");
    }
    for level in &events.levels {
        assert!(is_there(level.frame, level.symbol.0), "{level:?}");
        assert!(!level.price.is_sign_negative(), "{level:?}");
        assert!(!level.qty.is_sign_negative(), "{level:?}");
    }
    for quote in &events.quotes {
        assert!(is_there(quote.frame, quote.symbol.0), "{quote:?}");
        let halves = [quote.bid, quote.ask].into_iter().flatten();
        assert!(halves.flat_map(|(price, qty)| [price, qty]).all(|one| !one.is_sign_negative()), "{quote:?}");
    }
    assert!(events.trades.is_sorted_by_key(|trade| trade.frame));
    assert!(events.levels.is_sorted_by_key(|level| level.frame));
    assert!(events.quotes.is_sorted_by_key(|quote| quote.frame));
    for book in &events.top_books {
        assert!(is_there(book.frame, book.symbol.0), "{book:?}");
    }
    for note in &events.notes {
        let (frame, symbol) = match note {
            Note::Gap(gap) => (gap.frame, gap.symbol),
            Note::GapClosed(closed) => (closed.frame, closed.symbol),
            Note::Reject(reject) => {
                assert!(reject.detail.len() <= DETAIL_BYTES_MAX, "a detail of {} bytes", reject.detail.len());
                (reject.frame, None)
            }
            Note::Session(session) => (session.frame, None),
        };
        assert!(is_there(frame, symbol.map_or(0, |symbol| symbol.0)) || symbol.is_none(), "{note:?}");
    }
}

/// What an input may cost beside its bytes: notes about each instrument of a plan.
const INPUT_WEIGHT: usize = 64;
/// Longest text of a reject: heads of frames are cut.
const DETAIL_BYTES_MAX: usize = 2_048;

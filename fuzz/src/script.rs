//! A lane's inputs as bytes that a fuzzer changes well: no lengths, records end at a byte that text does not have.
//!
//! ```text
//! script = restore u8 | record*                  how often the decoder is restored: see RESTORE_EVERY
//! record = op u8 | rest | 0xFF
//! op     = T text | B binary: the frame as it is
//!          H http: tag | 0xFE | status u8 | body      status is an index into STATUSES
//!          A http, in answer to the oldest open request: status u8 | body
//!          O open | P plan: a LanePlan as JSON, or the number of a plan: see `plan_of`
//!          C close: a CloseReason as JSON, or the number of a kind
//!          t b o p c: the same of the lane's second connection
//!          W what time it is from here on, as text: nanoseconds since 1970
//! ```

use std::collections::VecDeque;

use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason, LanePlan},
    conn::Conn,
    input::{Kind, put_http},
    top_book::OrderBooks,
    venue::VenueSpec,
};

/// One input of a lane, read from a script.
#[derive(Debug)]
pub enum Record<'a> {
    /// An input whose bytes are in the script.
    Input(Kind, Conn, Vec<u8>),
    /// An answer to the oldest request that has none.
    Answer(u16, &'a [u8]),
    /// The clock from here on.
    Clock(i64),
}

/// Before every how many records the decoder is restored, and the records.
pub fn read<'a>(spec: &'static VenueSpec, bytes: &'a [u8]) -> (usize, Vec<Record<'a>>) {
    let Some((restore, rest)) = bytes.split_first() else { return (1, Vec::new()) };
    let records = rest.split(|byte| *byte == END).take(RECORDS_MAX);
    (
        RESTORE_EVERY[usize::from(*restore) % RESTORE_EVERY.len()],
        records.filter_map(|record| one(spec, record)).collect(),
    )
}

fn one<'a>(spec: &'static VenueSpec, record: &'a [u8]) -> Option<Record<'a>> {
    let (op, rest) = record.split_first()?;
    let conn = if op.is_ascii_lowercase() { Conn::SECOND } else { Conn::FIRST };
    Some(match op.to_ascii_uppercase() {
        b'T' => Record::Input(Kind::Text, conn, rest.to_vec()),
        b'B' => Record::Input(Kind::Binary, conn, rest.to_vec()),
        b'H' => {
            let at = rest.iter().position(|byte| *byte == TAG_END)?;
            let (status, body) = rest[at + 1..].split_first()?;
            let mut bytes = Vec::new();
            put_http(&mut bytes, &String::from_utf8_lossy(&rest[..at]), status_of(*status), body);
            Record::Input(Kind::Http, Conn::FIRST, bytes)
        }
        b'A' => {
            let (status, body) = rest.split_first()?;
            Record::Answer(status_of(*status), body)
        }
        b'O' | b'P' => {
            let kind = if op.eq_ignore_ascii_case(&b'O') { Kind::Open } else { Kind::Plan };
            match rest {
                [number] => Record::Input(kind, conn, json(&plan_of(spec, *number))),
                _ => Record::Input(kind, conn, rest.to_vec()),
            }
        }
        b'C' => match rest {
            [number] => {
                let kind = CLOSES[usize::from(*number) % CLOSES.len()];
                Record::Input(Kind::Close, conn, json(&CloseReason { kind, detail: "as told".into() }))
            }
            _ => Record::Input(Kind::Close, conn, rest.to_vec()),
        },
        b'W' => Record::Clock(std::str::from_utf8(rest).ok()?.parse().ok()?),
        _ => return None,
    })
}

/// A plan by number: bit by bit the venue's channels, and none, one or both of its two instruments.
fn plan_of(spec: &'static VenueSpec, number: u8) -> LanePlan {
    let symbols = match spec.name {
        "binance-coinm" => ["BTCUSD_PERP", "ETHUSD_PERP"],
        "coinbase" => ["BTC-USD", "ETH-USD"],
        "kraken" => ["BTC/USD", "ETH/USD"],
        "okx" | "okcoin" => ["BTC-USDT", "ETH-USDT"],
        _ => ["BTCUSDT", "ETHUSDT"],
    };
    let chosen = |shift: u32| move |index: usize| number.rotate_right(shift) >> index & 1 == 0;
    let channels = spec.channels.iter().enumerate().filter(|(index, _)| chosen(2)(*index));
    let names = symbols.iter().enumerate().filter(|(index, _)| chosen(0)(*index));
    LanePlan {
        lane: format!("{}.0", spec.name),
        url: "ws://127.0.0.1:1/ws".into(),
        http_url: "http://127.0.0.1:1".into(),
        symbols: names.map(|(_, name)| (*name).into()).collect(),
        channels: channels.map(|(_, channel)| *channel).collect(),
        book_depth: (number & 0x80 != 0).then(|| spec.book_depths.first().copied()).flatten(),
        order_books: (number & 0x40 != 0).then_some(OrderBooks { every_ms: 1_000, depth: 10 }),
    }
}

/// Writes an input into a script.
pub fn put(script: &mut Vec<u8>, kind: Kind, bytes: &[u8]) {
    match kind {
        Kind::Text => script.push(b'T'),
        Kind::Binary => script.push(b'B'),
        Kind::Open => script.push(b'O'),
        Kind::Plan => script.push(b'P'),
        Kind::Close => script.push(b'C'),
        Kind::Http => {
            let (status, tag_len) = (u16::from_le_bytes([bytes[0], bytes[1]]), usize::from(bytes[2]));
            let number = STATUSES.iter().position(|one| *one == status).unwrap_or_default();
            script.push(b'H');
            script.extend_from_slice(&bytes[3..3 + tag_len]);
            script.push(TAG_END);
            script.push(u8::try_from(number).unwrap_or_default());
            script.extend_from_slice(&bytes[3 + tag_len..]);
            script.push(END);
            return;
        }
    }
    script.extend_from_slice(bytes);
    script.push(END);
}

/// Requests that wait for an answer, oldest first; the oldest are forgotten when there are too many.
#[derive(Debug, Default)]
pub struct Requests(VecDeque<String>);

impl Requests {
    /// One more request.
    pub fn push(&mut self, tag: String) {
        if self.0.len() >= REQUESTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(tag);
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<String> {
        self.0.pop_front()
    }
}

fn status_of(number: u8) -> u16 {
    STATUSES[usize::from(number) % STATUSES.len()]
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plans and reasons are plain JSON")
}

const STATUSES: [u16; 12] = [200, 400, 403, 404, 418, 429, 451, 500, 502, 503, 0, u16::MAX];
const CLOSES: [CloseKind; 7] = [
    CloseKind::Lost,
    CloseKind::Stall,
    CloseKind::VenueRestart,
    CloseKind::Protocol,
    CloseKind::Rotation,
    CloseKind::Shutdown,
    CloseKind::JournalFull,
];
/// Ends a record; no byte of UTF-8.
const END: u8 = 0xFF;
/// Ends a tag; no byte of UTF-8.
const TAG_END: u8 = 0xFE;
const RECORDS_MAX: usize = 512;
/// To save and restore a state costs as much as a dozen small inputs: seldom is enough, and the first is what seeds say.
const RESTORE_EVERY: [usize; 8] = [5, 2, 3, 8, 13, 21, 34, 55];
const REQUESTS_MAX: usize = 16;

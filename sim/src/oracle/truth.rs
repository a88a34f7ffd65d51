//! What one frame should be stored as.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tapeway::store::table::Table;
use tapeway_exchanges::{
    event::{Events, Note},
    ids::FramePos,
};

use crate::database::{
    rows::Row,
    state::{Gap, Session},
};

/// What one frame gives.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) rows: [Vec<Row>; Table::COUNT],
    pub(super) session: Option<Session>,
    pub(super) rejects: Vec<(&'static str, String)>,
    pub(super) gaps: Vec<(u32, Gap)>,
    pub(super) ends: Vec<(FramePos, u32, Ended)>,
}

pub(super) struct Ended {
    pub(super) state: &'static str,
    pub(super) rows: i64,
    pub(super) last: Option<i64>,
    pub(super) until: Option<SystemTime>,
    pub(super) detail: Option<String>,
}

impl Truth {
    /// What one frame's events should be stored as; instruments still by index.
    pub(super) fn of(events: &Events) -> Self {
        let received = events.received[0].micros();
        let index = |symbol: tapeway_exchanges::ids::SymbolIx| i32::try_from(symbol.0).unwrap_or(i32::MAX);
        let mut truth = Self {
            rows: [
                events.trades.iter().map(|row| Row::of_trade(row, index(row.symbol), received.0)).collect(),
                events.levels.iter().map(|row| Row::of_level(row, index(row.symbol), received.0)).collect(),
                events.quotes.iter().map(|row| Row::of_quote(row, index(row.symbol), received.0)).collect(),
                events.top_books.iter().map(|row| Row::of_top_book(row, index(row.symbol), received.0)).collect(),
            ],
            ..Self::default()
        };
        let moment = |micros: i64| UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs());
        for note in &events.notes {
            match note {
                Note::Session(session) => {
                    let (is_open, detail) = (session.is_open, session.detail.clone());
                    truth.session = Some(Session { at: moment(received.0), is_open, detail });
                }
                Note::Reject(reject) => truth.rejects.push((reject.reason, reject.detail.clone())),
                Note::Gap(gap) => {
                    let stored = Gap {
                        instrument: gap.symbol.map(index),
                        channel: gap.channel.map(|channel| channel.name().to_owned()),
                        cause: gap.cause.name().into(),
                        first: gap.first_missing,
                        last: gap.last_missing,
                        since: gap.since.map(|time| moment(time.0)),
                        until: gap.until.map(|time| moment(time.0)),
                        state: "open".into(),
                        healed: 0,
                        detail: None,
                    };
                    truth.gaps.push((gap.id.ordinal, stored));
                }
                Note::GapClosed(closed) => {
                    let end = Ended {
                        state: closed.end.name(),
                        rows: i64::try_from(closed.rows).unwrap_or(i64::MAX),
                        last: closed.last_missing,
                        until: closed.until.map(|time| moment(time.0)),
                        detail: closed.detail.as_deref().map(str::to_owned),
                    };
                    truth.ends.push((closed.id.pos, closed.id.ordinal, end));
                }
            }
        }
        truth
    }
}

//! Sessions, gaps and rejects: what the journaled frames say against what the database has, column by column.

use std::collections::BTreeMap;

use tapeway_exchanges::{
    event::{Events, GapId, Note},
    ids::{Micros, Nanos},
};

use crate::cluster::Cluster;

/// What a journal says, in the form the queries print.
#[derive(Debug, Default)]
pub(super) struct Told {
    sessions: Vec<String>,
    rejects: Vec<String>,
    gaps: BTreeMap<(String, GapId), Gap>,
}

/// A gap as it stands after the frames read so far.
#[derive(Debug)]
struct Gap {
    head: String,
    last_missing: Option<i64>,
    since: Option<Micros>,
    until: Option<Micros>,
    state: &'static str,
    rows: u64,
    detail: String,
    detected: Nanos,
    closed: Option<Nanos>,
}

impl Told {
    /// Takes in the notes of a lane's next chunk.
    pub(super) fn take(&mut self, lane: &str, chunk: &Events) {
        for note in &chunk.notes {
            match note {
                Note::Session(session) => {
                    let (pos, at) = (chunk.pos(session.frame), micros(chunk.received(session.frame)));
                    self.sessions.push(format!("{lane}|{pos}|{at}|{}|{}", session.is_open, flat(&session.detail)));
                }
                Note::Reject(reject) => {
                    let (pos, at) = (chunk.pos(reject.frame), micros(chunk.received(reject.frame)));
                    self.rejects.push(format!("{lane}|{pos}|{}|{at}|{}", reject.reason, flat(&reject.detail)));
                }
                Note::Gap(gap) => {
                    let symbol = gap.symbol.map_or("", |symbol| &chunk.symbols[symbol.0 as usize]);
                    let channel = gap.channel.map_or("", |channel| channel.name());
                    let first = number(gap.first_missing);
                    let row = Gap {
                        head: format!("{symbol}|{channel}|{}|{first}", gap.cause.name()),
                        last_missing: gap.last_missing,
                        since: gap.since,
                        until: gap.until,
                        state: "open",
                        rows: 0,
                        detail: String::new(),
                        detected: chunk.received(gap.frame),
                        closed: None,
                    };
                    self.gaps.insert((lane.to_owned(), gap.id), row);
                }
                Note::GapClosed(closed) => {
                    let Some(row) = self.gaps.get_mut(&(lane.to_owned(), closed.id)) else { continue };
                    row.state = closed.end.name();
                    row.rows += closed.rows;
                    row.last_missing = closed.last_missing.or(row.last_missing);
                    row.until = closed.until.or(row.until);
                    if let Some(detail) = &closed.detail {
                        row.detail = flat(detail);
                    }
                    row.closed = Some(chunk.received(closed.frame));
                }
            }
        }
    }

    /// Panics unless the database has exactly this. Returns how many notes there are.
    pub(super) fn compare(self, (cluster, database): (&Cluster, &str), told: &str) -> usize {
        let gaps = self.gaps.into_iter().map(|((lane, id), gap)| {
            let Gap { head, last_missing, since, until, state, rows, detail, detected, closed } = gap;
            let time = |time: Option<Micros>| number(time.map(|time| time.0));
            let (last, since, until) = (number(last_missing), time(since), time(until));
            let (detected, closed) = (micros(detected), number(closed.map(micros)));
            format!(
                "{lane}|{}|{}|{head}|{last}|{since}|{until}|{state}|{rows}|{detected}|{closed}|{detail}",
                id.pos, id.ordinal
            )
        });
        let lists =
            [("sessions", SESSIONS, self.sessions), ("rejects", REJECTS, self.rejects), ("gaps", GAPS, gaps.collect())];
        let mut count = 0;
        for (table, query, mut expected) in lists {
            let mut stored: Vec<String> = cluster.psql(database, query).lines().map(str::to_owned).collect();
            expected.sort_unstable();
            stored.sort_unstable();
            count += stored.len();
            let only = |these: &[String], those: &[String]| -> Vec<String> {
                these.iter().filter(|row| those.binary_search(row).is_err()).take(5).cloned().collect()
            };
            assert!(
                expected == stored,
                "{told}: audit.{table}: {} rows expected, {} found; only expected: {:#?}; only found: {:#?}",
                expected.len(),
                stored.len(),
                only(&expected, &stored),
                only(&stored, &expected)
            );
        }
        count
    }
}

fn micros(time: Nanos) -> i64 {
    time.micros().0
}

fn number(number: Option<i64>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

/// One line, as long as the daemon writes them.
fn flat(text: &str) -> String {
    let cut = text.char_indices().map(|(at, _)| at).find(|at| *at >= 4_096).unwrap_or(text.len());
    text[..cut].replace(['\n', '\r'], " ").replace('\0', "\u{fffd}")
}

const SESSIONS: &str = "
SELECT concat_ws('|', name, frame_pos, (extract(epoch FROM at) * 1000000)::bigint,
    CASE WHEN is_open THEN 'true' ELSE 'false' END, translate(detail, E'\\n\\r', '  '))
FROM audit.sessions JOIN audit.lanes USING (lane_id)";

const REJECTS: &str = "
SELECT concat_ws('|', name, frame_pos, reason, (extract(epoch FROM received) * 1000000)::bigint,
    translate(detail, E'\\n\\r', '  '))
FROM audit.rejects JOIN audit.lanes USING (lane_id)";

const GAPS: &str = "
SELECT concat_ws('|', name, frame_pos, ordinal, coalesce(symbol, ''), coalesce(channel, ''), cause,
    coalesce(first_missing::text, ''), coalesce(last_missing::text, ''),
    coalesce((extract(epoch FROM since) * 1000000)::bigint::text, ''),
    coalesce((extract(epoch FROM until) * 1000000)::bigint::text, ''), state, healed_rows,
    (extract(epoch FROM detected_at) * 1000000)::bigint,
    coalesce((extract(epoch FROM closed_at) * 1000000)::bigint::text, ''), coalesce(translate(detail, E'\\n\\r', '  '), ''))
FROM audit.gaps JOIN audit.lanes USING (lane_id) LEFT JOIN market_data.instruments USING (instrument_id)";

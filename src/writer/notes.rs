//! Notes of a batch as columns for `unnest`: one statement a table, however many notes.
//!
//! Texts and moments are made harmless here (no NUL, bounded, within the calendar), so that a note can never be
//! what the server refuses.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tapeway_exchanges::{
    event::{Channel, GapClosed, GapId, Note},
    ids::Nanos,
};
use tokio_postgres::types::ToSql;

use super::batch::{LeftOut, Piece, Sealed, Why};
use crate::store::instruments::{InstrumentId, system_time};

/// Columns of `audit.sessions`.
#[derive(Debug, Default)]
pub struct Sessions {
    /// `lane_id`.
    pub lane: Vec<i32>,
    /// `frame_pos`.
    pub pos: Vec<i64>,
    /// `at`.
    pub at: Vec<SystemTime>,
    /// `is_open`.
    pub is_open: Vec<bool>,
    /// `detail`.
    pub detail: Vec<String>,
}

/// Columns of `audit.rejects`.
#[derive(Debug, Default)]
pub struct Rejects {
    /// `lane_id`.
    pub lane: Vec<i32>,
    /// `frame_pos`.
    pub pos: Vec<i64>,
    /// `reason`.
    pub reason: Vec<&'static str>,
    /// `detail`.
    pub detail: Vec<String>,
    /// `received`.
    pub received: Vec<SystemTime>,
}

/// Columns of `audit.gaps` for new gaps.
#[derive(Debug, Default)]
pub struct Gaps {
    /// `lane_id`.
    pub lane: Vec<i32>,
    /// `frame_pos`.
    pub pos: Vec<i64>,
    /// `ordinal`.
    pub ordinal: Vec<i32>,
    /// `venue`.
    pub venue: Vec<&'static str>,
    /// `instrument_id`.
    pub instrument: Vec<Option<i32>>,
    /// `channel`.
    pub channel: Vec<Option<&'static str>>,
    /// `cause`.
    pub cause: Vec<&'static str>,
    /// `first_missing`.
    pub first_missing: Vec<Option<i64>>,
    /// `last_missing`.
    pub last_missing: Vec<Option<i64>>,
    /// `since`.
    pub since: Vec<Option<SystemTime>>,
    /// `until`.
    pub until: Vec<Option<SystemTime>>,
    /// `state`.
    pub state: Vec<&'static str>,
    /// `detail`.
    pub detail: Vec<Option<String>>,
    /// `detected_at`.
    pub detected_at: Vec<SystemTime>,
}

/// Columns of what changes in `audit.gaps` when gaps end.
#[derive(Debug, Default)]
pub struct Ends {
    /// `lane_id`.
    pub lane: Vec<i32>,
    /// `frame_pos`.
    pub pos: Vec<i64>,
    /// `ordinal`.
    pub ordinal: Vec<i32>,
    /// `state`.
    pub state: Vec<&'static str>,
    /// `healed_rows`.
    pub rows: Vec<i64>,
    /// `last_missing`.
    pub last_missing: Vec<Option<i64>>,
    /// `until`.
    pub until: Vec<Option<SystemTime>>,
    /// `detail`.
    pub detail: Vec<Option<String>>,
    /// `closed_at`.
    pub closed_at: Vec<SystemTime>,
}

/// Columns of `audit.channels`.
#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) instrument: Vec<i32>,
    pub(super) channel: Vec<&'static str>,
    pub(super) proof: Vec<&'static str>,
    pub(super) first_seen: Vec<SystemTime>,
}

impl Channels {
    /// The channels of a batch's rows that are not among the `known`; in the order of their key, so that writers
    /// that meet the same ones wait for one another.
    pub(super) fn of(sealed: &Sealed, known: &HashSet<(InstrumentId, Channel)>) -> Self {
        let mut new = BTreeMap::new();
        for copy in &sealed.copies {
            let channel = copy.table.channel();
            for met in copy.instruments.iter().filter(|met| !known.contains(&(met.instrument, channel))) {
                let entry = new.entry((met.instrument, channel.name())).or_insert((met, channel));
                if met.received < entry.0.received {
                    *entry = (met, channel);
                }
            }
        }
        let mut channels = Self::default();
        for ((instrument, name), (met, channel)) in new {
            channels.instrument.push(instrument.0);
            channels.channel.push(name);
            channels.proof.push((met.venue.proof)(channel).name());
            channels.first_seen.push(moment(met.received));
        }
        channels
    }
}

/// Stretches of lanes that the journal no longer has: gaps seen before them may have ended in them.
#[derive(Debug, Default)]
pub struct Lost {
    /// `lane_id`.
    pub lane: Vec<i32>,
    /// The position after the last that is lost.
    pub end: Vec<i64>,
    /// When the frame after them was received.
    pub at: Vec<SystemTime>,
}

/// All notes of a batch.
#[derive(Debug, Default)]
pub struct Notes {
    /// `audit.sessions`.
    pub sessions: Sessions,
    /// `audit.rejects`.
    pub rejects: Rejects,
    /// `audit.gaps, new rows`.
    pub gaps: Gaps,
    /// `audit.gaps, changed rows`.
    pub ends: Ends,
    /// `audit.gaps`, rows that stay open because their end is lost. Comes before the ends.
    pub lost: Lost,
}

impl Notes {
    /// The notes of a batch.
    #[must_use]
    pub fn of(sealed: &Sealed) -> Self {
        let mut notes = Self::default();
        // Of several ends of one gap the last counts: an update from a list takes any one of them.
        let mut ends: HashMap<(i32, GapId), (GapClosed, SystemTime)> = HashMap::new();
        for piece in &sealed.pieces {
            for left in &piece.left_out {
                notes.left_out(piece, left);
            }
            for note in piece.notes() {
                notes.note(piece, note, &mut ends);
            }
        }
        for ((lane, id), (closed, at)) in ends {
            notes.ends.push(lane, id, &closed, at);
        }
        for refused in &sealed.refused {
            notes.rejects.lane.push(refused.lane_id.0);
            notes.rejects.pos.push(refused.pos.get().cast_signed());
            notes.rejects.reason.push(refused.reason);
            notes.rejects.detail.push(harmless(&refused.detail));
            notes.rejects.received.push(moment(refused.received));
        }
        notes
    }

    fn note(&mut self, piece: &Piece, note: &Note, ends: &mut HashMap<(i32, GapId), (GapClosed, SystemTime)>) {
        let lane = piece.lane_id.0;
        let at = |frame: u32| (piece.events.pos(frame).get().cast_signed(), moment(piece.events.received(frame)));
        match note {
            Note::Session(session) => {
                let (pos, received) = at(session.frame);
                self.sessions.lane.push(lane);
                self.sessions.pos.push(pos);
                self.sessions.at.push(received);
                self.sessions.is_open.push(session.is_open);
                self.sessions.detail.push(harmless(&session.detail));
            }
            Note::Reject(reject) => {
                let (pos, received) = at(reject.frame);
                self.rejects.lane.push(lane);
                self.rejects.pos.push(pos);
                self.rejects.reason.push(reject.reason);
                self.rejects.detail.push(harmless(&reject.detail));
                self.rejects.received.push(received);
            }
            Note::Gap(gap) => {
                let (_, received) = at(gap.frame);
                let gaps = &mut self.gaps;
                gaps.lane.push(lane);
                gaps.pos.push(gap.id.pos.get().cast_signed());
                gaps.ordinal.push(ordinal(gap.id));
                gaps.venue.push(piece.lane.venue.name);
                gaps.instrument.push(gap.symbol.map(|symbol| piece.instruments[symbol.0 as usize].0));
                gaps.channel.push(gap.channel.map(Channel::name));
                gaps.cause.push(gap.cause.name());
                gaps.first_missing.push(gap.first_missing);
                gaps.last_missing.push(gap.last_missing);
                gaps.since.push(gap.since.and_then(system_time));
                gaps.until.push(gap.until.and_then(system_time));
                gaps.state.push("open");
                gaps.detail.push(None);
                gaps.detected_at.push(received);
            }
            Note::GapClosed(closed) => {
                let (_, received) = at(closed.frame);
                let entry = ends.entry((lane, closed.id)).or_insert_with(|| {
                    let none = GapClosed { rows: 0, last_missing: None, until: None, detail: None, ..closed.clone() };
                    (none, received)
                });
                let before = &entry.0;
                let merged = GapClosed {
                    rows: before.rows + closed.rows,
                    last_missing: closed.last_missing.or(before.last_missing),
                    until: closed.until.or(before.until),
                    detail: closed.detail.clone().or_else(|| before.detail.clone()),
                    ..closed.clone()
                };
                *entry = (merged, received);
            }
        }
    }

    /// Rows left out: one reject for all. Gaps may have ended in what the journal no longer has; and what it lost is a gap.
    fn left_out(&mut self, piece: &Piece, left: &LeftOut) {
        let LeftOut { first, end, rows, why } = *left;
        let received = piece.received().first().or(piece.events.received.last()).copied().map_or(UNIX_EPOCH, moment);
        let is_gone = end <= piece.events.pos(piece.from);
        let said = match (why, is_gone) {
            (Why::Lost, _) => "were not committed and are no longer in the journal",
            (Why::Elsewhere, true) => "another daemon had committed when this journal let them go",
            (Why::Elsewhere, false) => "were received while another daemon wrote this lane",
        };
        let detail = format!("{rows} rows of the frames from {first} to before {end}, which {said}");
        self.rejects.lane.push(piece.lane_id.0);
        self.rejects.pos.push(first.get().cast_signed());
        self.rejects.reason.push(why.name());
        self.rejects.detail.push(detail.clone());
        self.rejects.received.push(received);
        if is_gone {
            self.lost.lane.push(piece.lane_id.0);
            self.lost.end.push(end.get().cast_signed());
            self.lost.at.push(received);
        }
        match why {
            Why::Lost => {}
            Why::Elsewhere => return,
        }
        let gaps = &mut self.gaps;
        gaps.lane.push(piece.lane_id.0);
        gaps.pos.push(first.get().cast_signed());
        gaps.ordinal.push(-1);
        gaps.venue.push(piece.lane.venue.name);
        gaps.instrument.push(None);
        gaps.channel.push(None);
        gaps.cause.push(why.name());
        gaps.first_missing.push(None);
        gaps.last_missing.push(None);
        gaps.since.push(None);
        gaps.until.push(Some(received));
        gaps.state.push("unhealable");
        gaps.detail.push(Some(detail));
        gaps.detected_at.push(received);
    }
}

impl Gaps {
    /// The columns as arguments of the statement.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 14] {
        [
            &self.lane,
            &self.pos,
            &self.ordinal,
            &self.venue,
            &self.instrument,
            &self.channel,
            &self.cause,
            &self.first_missing,
            &self.last_missing,
            &self.since,
            &self.until,
            &self.state,
            &self.detail,
            &self.detected_at,
        ]
    }
}

impl Ends {
    /// The columns as arguments of the statement.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.lane,
            &self.pos,
            &self.ordinal,
            &self.state,
            &self.rows,
            &self.last_missing,
            &self.until,
            &self.detail,
            &self.closed_at,
        ]
    }

    fn push(&mut self, lane: i32, id: GapId, closed: &GapClosed, at: SystemTime) {
        self.lane.push(lane);
        self.pos.push(id.pos.get().cast_signed());
        self.ordinal.push(ordinal(id));
        self.state.push(closed.end.name());
        self.rows.push(i64::try_from(closed.rows).unwrap_or(i64::MAX));
        self.last_missing.push(closed.last_missing);
        self.until.push(closed.until.and_then(system_time));
        self.detail.push(closed.detail.as_deref().map(harmless));
        self.closed_at.push(at);
    }
}

fn ordinal(id: GapId) -> i32 {
    i32::try_from(id.ordinal).unwrap_or(i32::MAX)
}

pub(super) fn moment(time: Nanos) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.micros().0.max(0).unsigned_abs())
}

/// A text that PostgreSQL takes: without NUL, and not longer than anybody reads.
fn harmless(text: &str) -> String {
    let cut = text.char_indices().map(|(at, _)| at).find(|at| *at >= TEXT_BYTES_MAX).unwrap_or(text.len());
    text[..cut].replace('\0', "\u{fffd}")
}

/// Longest text of a note.
const TEXT_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_nul() {
        let text = harmless(&format!("a\0b{}", "ü".repeat(TEXT_BYTES_MAX)));
        assert!(text.len() <= TEXT_BYTES_MAX + 4 && text.starts_with("a\u{fffd}bü"));
    }
}

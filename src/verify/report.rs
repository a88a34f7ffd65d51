//! What a run found, as text, JSON and HTML show it.

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of tapeway.
    pub version: &'static str,
    /// What the database is.
    pub server: String,
    /// First moment of the range, widened to a whole hour.
    pub from: String,
    /// First moment after it, widened to a whole hour.
    pub to: String,
    /// The worst there is.
    pub verdict: Verdict,
    /// Rows read and held against their seals.
    pub rows: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Hours of a table whose rows retention has dropped, by instrument and lane.
    pub retired_seals: u64,
    /// Rows committed before there were seals: their ids are checked, the rest is not.
    pub unsealed_rows: u64,
    /// Every instrument and channel that has rows, seals or gaps in the range.
    pub channels: Vec<ChannelReport>,
    /// Every lane of which a row was read, if no instrument was left out.
    pub lanes: Vec<LaneReport>,
    /// What is wrong or to be known, worst first; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub findings_left_out: u64,
    /// The comparison with the journal, if it was asked for.
    pub against_journal: Option<Against>,
}

/// What can be said of a channel, a day or the whole. The order is from good to bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proven: nothing is missing.
    Complete,
    /// All that was committed is there; the venue's messages are whole states, of which none is owed.
    Intact,
    /// All that was committed is there; nothing the venue sends shows whether something is missing.
    Unprovable,
    /// Something is missing, and `audit.gaps` names it.
    Gaps,
    /// Something is missing, doubled or altered that nothing names.
    Damaged,
}

impl Verdict {
    /// The name in text and HTML.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Intact => "intact",
            Self::Unprovable => "unprovable",
            Self::Gaps => "gaps",
            Self::Damaged => "DAMAGED",
        }
    }
}

impl Report {
    /// What it comes to, in words.
    #[must_use]
    pub fn headline(&self) -> String {
        let blind = self.channels.iter().filter(|channel| channel.proof == "unprovable").count();
        let blind = match blind {
            0 => String::new(),
            1 => "; of one channel nothing can be proven".into(),
            many => format!("; of {many} channels nothing can be proven"),
        };
        let what = match self.verdict {
            Verdict::Complete | Verdict::Intact | Verdict::Unprovable => "everything that can be proven is complete",
            Verdict::Gaps => "something is missing, and all of it is named",
            Verdict::Damaged => "something is missing, doubled or altered that nothing names",
        };
        format!("{what}{blind}")
    }
}

/// One instrument's channel.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelReport {
    /// The venue.
    pub venue: String,
    /// The venue's own spelling.
    pub symbol: String,
    /// The instrument's number.
    pub instrument_id: i32,
    /// `trades`, `book` or `quotes`.
    pub channel: &'static str,
    /// Class of proof that the venue allows.
    pub proof: String,
    /// The worst of its days.
    pub verdict: Verdict,
    /// Each UTC day of the range that has something to say.
    pub days: Vec<DayReport>,
}

/// One UTC day of one channel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DayReport {
    /// The day.
    pub date: String,
    /// What can be said of it.
    pub verdict: Option<Verdict>,
    /// Ids that the venue gave out, by its own numbering; only where ids are contiguous.
    pub expected: Option<u64>,
    /// Rows the writer committed, by the seals.
    pub sealed: u64,
    /// Rows there are.
    pub stored: u64,
    /// Rows fetched again or late, by the gaps.
    pub healed: u64,
    /// Ids that are missing and named by a gap.
    pub missing: u64,
    /// Stretches that were missed and not healed: open, resynced or unhealable.
    pub gaps: u64,
    /// Stretches of which nothing tells whether something was missed.
    pub unprovable: u64,
    /// Ids that are missing and named by no gap.
    pub silent: u64,
    /// Rows that were committed and are gone.
    pub lost: u64,
    /// Rows that the writer did not commit.
    pub surplus: u64,
    /// Hours in which as many rows are there as were committed, but not the same.
    pub altered_hours: u64,
    /// Ids that are there more than once.
    pub doubled: u64,
    /// Other damage: rows of unknown lanes, frames without their last row, unreadable columns.
    pub malformed: u64,
    /// Rows that came after a later one.
    pub out_of_order: u64,
    /// Times that the book became crossed; quotes with bid at or above ask.
    pub crossed: u64,
    /// Stretches in which nothing came on the channel's lanes and nothing says why.
    pub holes: u64,
    /// Their length.
    pub hole_seconds: u64,
    /// The day in slices of [`SLICE_SECONDS`]: how many rows, and what is to be known.
    #[serde(serialize_with = "strip")]
    pub strip: Vec<Slice>,
}

/// A slice of a day.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Slice {
    /// Rows.
    pub rows: u32,
    /// What is to be known of it.
    pub mark: Mark,
}

/// A strip as JSON has it: every slice's rows, and stretches of slices (begin, end) that have something to be known.
fn strip<S: Serializer>(slices: &[Slice], serializer: S) -> Result<S::Ok, S::Error> {
    let mut marks: Vec<(usize, usize, Mark)> = Vec::new();
    for (at, slice) in slices.iter().enumerate() {
        match marks.last_mut() {
            Some((_, end, mark)) if *mark == slice.mark && *end == at => *end = at + 1,
            Some(_) | None if slice.mark == Mark::Plain => {}
            Some(_) | None => marks.push((at, at + 1, slice.mark)),
        }
    }
    let mut strip = serializer.serialize_struct("strip", 3)?;
    strip.serialize_field("slice_seconds", &SLICE_SECONDS)?;
    strip.serialize_field("rows", &slices.iter().map(|slice| slice.rows).collect::<Vec<_>>())?;
    strip.serialize_field("marks", &marks)?;
    strip.end()
}

/// What is to be known of a slice. The order is from good to bad.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Outside the range.
    #[default]
    Outside,
    /// Nothing.
    Plain,
    /// Nothing came, and nothing says why.
    Hole,
    /// A gap that was healed.
    Healed,
    /// A stretch that nothing can prove.
    Unprovable,
    /// A gap that was not healed.
    Gap,
    /// The hour is damaged.
    Damaged,
}

/// One lane.
#[derive(Clone, Debug, Serialize)]
pub struct LaneReport {
    /// Its number.
    pub lane_id: i32,
    /// Its venue.
    pub venue: String,
    /// Its name.
    pub name: String,
    /// First position not committed.
    pub next_pos: i64,
    /// Rows committed since the lane began.
    pub rows_total: i64,
    /// First and last receive time of the rows read.
    pub received: Option<(String, String)>,
    /// Stretches without a row that nothing explains: begin, and seconds.
    pub holes: Vec<(String, u64)>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Missing, doubled or altered, and nothing names it.
    Damage,
    /// Missing, and named.
    Gap,
    /// To be known.
    Note,
}

/// One thing found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Fixed name of the kind.
    pub kind: &'static str,
    /// The venue, where it is one's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub venue: String,
    /// The instrument, where it is one's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub symbol: String,
    /// The table, where it is one's.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub table: &'static str,
    /// The lane, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_id: Option<i32>,
    /// When, or from when.
    pub at: String,
    /// What was found and what was expected.
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "DAMAGE",
            Severity::Gap => "gap",
            Severity::Note => "note",
        };
        write!(f, "{severity:<6} {} {}", self.kind, self.at)?;
        for part in [self.venue.as_str(), self.symbol.as_str(), self.table] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        if let Some(lane) = self.lane_id {
            write!(f, " lane {lane}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// How the database compares with the journal.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Against {
    /// Lanes found both in the journal and in the database: name, first and end position compared.
    pub lanes: Vec<(String, u64, u64)>,
    /// Lanes of the journal that the database does not know.
    pub unknown: Vec<String>,
    /// Lanes of the database that the journal does not have.
    pub absent: Vec<String>,
    /// Rows that the journaled frames give.
    pub journaled: u64,
    /// Rows in the database from the same frames.
    pub stored: u64,
    /// Rows that differ, are missing or are too many.
    pub differences: u64,
    /// Differing rows at frames of which `audit.rejects` says that rows were refused or left out.
    pub explained: u64,
}

/// Width of a slice of the strip.
pub const SLICE_SECONDS: i64 = 300;
/// Findings that are listed.
pub const FINDINGS_MAX: usize = 10_000;

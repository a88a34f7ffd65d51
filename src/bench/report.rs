//! What was measured, as lines for people or for programs.

use std::{fmt::Write as _, io::Write as _};

use serde_json::json;

/// Which stage a value belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Frames to events, on one core, without a database.
    Decode,
    /// Events to COPY bytes, on one core, without a database.
    Encode,
    /// The journal: append and sync, recover, read.
    Journal,
    /// Decoded events to the database.
    Sink,
    /// Journal to database.
    Catchup,
    /// A venue's WebSocket to the database.
    Live,
    /// The same with the database away for a while.
    Outage,
    /// A database with many rows: writing, room, questions.
    Scale,
}

impl Stage {
    /// Every stage, in the order they run.
    pub const ALL: [Self; 8] =
        [Self::Decode, Self::Encode, Self::Journal, Self::Sink, Self::Catchup, Self::Live, Self::Outage, Self::Scale];

    /// Its name on the command line and in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Journal => "journal",
            Self::Sink => "sink",
            Self::Catchup => "catchup",
            Self::Live => "live",
            Self::Outage => "outage",
            Self::Scale => "scale",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|stage| stage.name() == name);
        found.ok_or_else(|| format!("`{name}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One value: the median of its runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The stage.
    pub stage: Stage,
    /// What of the stage (a recording, a rate); empty when there is only one.
    pub of: String,
    /// What was measured.
    pub metric: &'static str,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The smallest and the largest.
    pub range: (f64, f64),
    /// How many runs.
    pub runs: usize,
}

/// Everything measured so far; each value is printed when it is known.
#[derive(Debug)]
pub struct Report {
    is_json: bool,
    measured: Vec<Measured>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub const fn new(is_json: bool) -> Self {
        Self { is_json, measured: Vec::new() }
    }

    /// Adds the median of some runs, and prints it. Without runs there is nothing to say.
    pub fn add(&mut self, stage: Stage, of: &str, metric: &'static str, unit: &'static str, runs: &[f64]) {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
        let measured = Measured {
            stage,
            of: of.into(),
            metric,
            value: median(&sorted),
            unit,
            range: (*least, *most),
            runs: sorted.len(),
        };
        let line = if self.is_json { measured.json() } else { measured.text() };
        // A reader that has closed its end has seen enough.
        drop(writeln!(std::io::stdout(), "{line}"));
        self.measured.push(measured);
    }

    /// All values, in the order they were added.
    #[must_use]
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }
}

impl Measured {
    fn json(&self) -> String {
        let mut object = json!({"stage": self.stage.name(), "metric": self.metric, "value": self.value,
            "unit": self.unit, "runs": self.runs, "min": self.range.0, "max": self.range.1});
        if !self.of.is_empty() {
            object["of"] = self.of.as_str().into();
        }
        object.to_string()
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{:<8} {:<34} {:<24} {:>12} {}",
            self.stage.name(),
            self.of,
            self.metric,
            short(self.value),
            self.unit
        );
        if self.runs > 1 {
            let (least, most) = self.range;
            write!(text, "  ({} runs, {} to {})", self.runs, short(least), short(most))
                .expect("a String takes any text");
        }
        text
    }
}

/// Four digits that matter, thousands apart.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 1_000.0 => 0,
        large if large >= 100.0 => 1,
        large if large >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (nr, digit) in whole.chars().enumerate() {
        if nr > 0 && (whole.len() - nr).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// The middle of sorted values, or between the two middle ones. Not empty.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_median_of_its_runs() {
        let mut report = Report::new(true);
        report.add(Stage::Sink, "", "ratio_to_copy", "ratio", &[0.9, 0.97, 0.98]);
        report.add(Stage::Sink, "", "rows_per_s", "rows/s", &[4.0, 1.0]);
        report.add(Stage::Sink, "", "nothing", "rows/s", &[]);
        let values: Vec<f64> = report.measured().iter().map(|measured| measured.value).collect();
        assert_eq!(values, [0.97, 2.5]);
    }

    #[test]
    fn a_line_is_one_json_object() {
        let measured = Measured {
            stage: Stage::Sink,
            of: String::new(),
            metric: "ratio_to_copy",
            value: 0.97,
            unit: "ratio",
            range: (0.9, 1.0),
            runs: 5,
        };
        let line: serde_json::Value = serde_json::from_str(&measured.json()).unwrap();
        assert_eq!(line["stage"], "sink");
        assert_eq!(line["value"], 0.97);
        assert_eq!(line["runs"], 5);
        assert_eq!(line.get("of"), None);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(short(1_234_567.8), "1,234,568");
        assert_eq!(short(-1_234.0), "-1,234");
        assert_eq!(short(0.9712), "0.971");
        assert_eq!(short(123.45), "123.5");
    }
}

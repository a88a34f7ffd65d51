//! Live progress: a bar with a line below it on a terminal, a line every few seconds elsewhere.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::histogram::Histogram;
use crate::{metrics::RECEIVE_TO_COMMIT, status::Status};

/// Shows one recording.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    length: Duration,
    shown: Option<Duration>,
    before: BTreeMap<String, u64>,
    before_at: Duration,
}

impl Progress {
    pub(super) fn new(length: Duration) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new(length.as_secs());
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len}s\n{msg}").expect("the template is fixed and right");
            bar.set_style(style);
            bar
        });
        Self { bar, length, shown: None, before: BTreeMap::new(), before_at: Duration::ZERO }
    }

    /// Shows the state `elapsed` after the start.
    pub(super) fn show(&mut self, elapsed: Duration, status: &Status, metrics: &str) {
        let seconds = (elapsed - self.before_at).as_secs_f64();
        let is_due = |shown| self.bar.is_some() || elapsed >= shown + LINE_EVERY;
        if self.shown.is_some_and(|shown| !is_due(shown) || seconds < 0.5) {
            return;
        }
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for lane in &status.lanes {
            *rows.entry(lane.venue.clone()).or_default() += lane.rows_committed;
        }
        if self.shown.is_none() {
            // Rates need a beginning.
            (self.before, self.before_at, self.shown) = (rows, elapsed, Some(elapsed));
            return;
        }
        let sum = |pick: fn(&crate::status::LaneStatus) -> u64| -> u64 { status.lanes.iter().map(pick).sum() };
        let (gaps, closed, pending) =
            (sum(|lane| lane.gaps), sum(|lane| lane.gaps_closed), sum(|lane| lane.rows_pending));
        #[expect(clippy::cast_precision_loss, reason = "shown without digits after the point")]
        let rate =
            |venue: &String, count: &u64| (count - self.before.get(venue).unwrap_or(&0).min(count)) as f64 / seconds;
        let all: f64 = rows.iter().map(|(venue, count)| rate(venue, count)).sum();
        let venues: Vec<String> =
            rows.iter().map(|(venue, count)| format!("{venue} {:.0}", rate(venue, count))).collect();
        let latency = Histogram::read(metrics, RECEIVE_TO_COMMIT);
        let [p50, p99] = [0.5, 0.99].map(|share| latency.bound(share));
        let line = format!(
            "{all:>8.0} rows/s  ({})  receive-to-commit p50 {} p99 {}  pending {pending}  gaps {gaps}, {closed} closed",
            venues.join(", "),
            millis(p50),
            millis(p99),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(elapsed.as_secs());
                bar.set_message(line);
            }
            None => println!("{:>4}s/{}s {line}", elapsed.as_secs(), self.length.as_secs()),
        }
        (self.before, self.before_at, self.shown) = (rows, elapsed, Some(elapsed));
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
            println!();
        }
    }
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("<= {:.0} ms", seconds * 1e3))
}

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

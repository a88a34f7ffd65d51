//! Live progress: a bar with a line below it on a terminal, a line every few seconds elsewhere.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::status::Status;

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
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(metrics, RECEIVE_TO_COMMIT, share));
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

/// The upper bound of the histogram bucket that holds a quantile, over all label sets; `None` without observations.
fn quantile(metrics: &str, name: &str, share: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in metrics.lines().filter(|line| line.starts_with(name)) {
        let Some((labels, count)) =
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{")?.rsplit_once("} "))
        else {
            continue;
        };
        let bound = labels.rsplit_once("le=\"").and_then(|(_, bound)| bound.trim_end_matches('"').parse::<f64>().ok());
        let (Some(bound), Ok(count)) = (bound, count.parse::<f64>()) else { continue };
        match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = buckets.last()?.1 * share;
    buckets.iter().find(|(_, count)| *count >= wanted && *count > 0.0).map(|(bound, _)| *bound)
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("<= {:.0} ms", seconds * 1e3))
}

const RECEIVE_TO_COMMIT: &str = "tapeway_receive_to_commit_seconds";
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_over_all_venues() {
        let text = "h_bucket{venue=\"a\",le=\"0.1\"} 90\nh_bucket{venue=\"a\",le=\"0.5\"} 100\nh_bucket{venue=\"a\",le=\"+Inf\"} 100\n\
                    h_bucket{venue=\"b\",le=\"0.1\"} 0\nh_bucket{venue=\"b\",le=\"0.5\"} 100\nh_bucket{venue=\"b\",le=\"+Inf\"} 100\nh_sum{venue=\"a\"} 3\n";
        assert_eq!(quantile(text, "h", 0.4), Some(0.1));
        assert_eq!(quantile(text, "h", 0.5), Some(0.5));
        assert_eq!(quantile("", "h", 0.5), None);
    }
}

//! A histogram as `/metrics` prints it: what it says between two readings.

/// Counts at or below each bound, over all label sets, by rising bound; the last is everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// The histogram called `name` in the text of `/metrics`; empty if it is not there.
    pub(crate) fn read(metrics: &str, name: &str) -> Self {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in metrics.lines() {
            let Some((labels, count)) =
                line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{")?.rsplit_once("} "))
            else {
                continue;
            };
            let bound = labels.rsplit_once("le=\"").and_then(|(_, bound)| bound.trim_end_matches('"').parse().ok());
            let (Some(bound), Ok(count)) = (bound, count.parse::<f64>()) else { continue };
            let bound: f64 = bound;
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(buckets)
    }

    /// What was observed since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| earlier.0.iter().find(|(known, _)| known.total_cmp(&bound).is_eq());
        let counts =
            self.0.iter().map(|(bound, count)| (*bound, count - before(*bound).map_or(0.0, |before| before.1)));
        Self(counts.collect())
    }

    /// The upper bound of the bucket that holds a quantile; `None` without observations.
    pub(crate) fn bound(&self, share: f64) -> Option<f64> {
        let wanted = self.0.last()?.1 * share;
        self.0.iter().find(|(_, count)| *count >= wanted && *count > 0.0).map(|(bound, _)| *bound)
    }

    /// A quantile, as if observations lay evenly within a bucket; the last finite bound for what is beyond it. `None`
    /// without observations.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.0.last()?.1 * share;
        let (mut bound_before, mut count_before) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && *count > 0.0 {
                let within = (wanted - count_before) / (count - count_before);
                let width = bound - bound_before;
                return Some(if width.is_finite() { bound_before + width * within } else { bound_before });
            }
            (bound_before, count_before) = (*bound, *count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "h_bucket{venue=\"a\",le=\"0.1\"} 90\nh_bucket{venue=\"a\",le=\"0.5\"} 100\n\
        h_bucket{venue=\"a\",le=\"+Inf\"} 100\nh_bucket{venue=\"b\",le=\"0.1\"} 0\n\
        h_bucket{venue=\"b\",le=\"0.5\"} 100\nh_bucket{venue=\"b\",le=\"+Inf\"} 100\nh_sum{venue=\"a\"} 3\n";

    #[test]
    fn the_bound_of_a_quantile_is_its_buckets_over_all_venues() {
        let histogram = Histogram::read(TEXT, "h");
        assert_eq!(histogram.bound(0.4), Some(0.1));
        assert_eq!(histogram.bound(0.5), Some(0.5));
        assert_eq!(Histogram::read("", "h").bound(0.5), None);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_in_proportion() {
        let histogram = Histogram::read(TEXT, "h");
        assert_eq!(histogram.quantile(0.45), Some(0.1));
        assert_eq!(histogram.quantile(1.0), Some(0.5));
        let middle = histogram.quantile((90.0 + 55.0) / 200.0).unwrap();
        assert!((middle - 0.3).abs() < 1e-9, "{middle}");
    }

    #[test]
    fn what_was_before_does_not_count() {
        let before = Histogram(vec![(0.1, 5.0), (1.0, 9.0), (f64::INFINITY, 9.0)]);
        let now = Histogram(vec![(0.1, 5.0), (1.0, 19.0), (f64::INFINITY, 20.0)]);
        let since = now.since(&before);
        assert_eq!(since.bound(0.5), Some(1.0));
        assert_eq!(since.quantile(1.0), Some(1.0), "beyond the last bound nothing is known");
    }
}

//! Silence: of a whole connection, of one subscription while its siblings move, and of all subscriptions while only
//! pings and heartbeats come.
//!
//! What is normal is learned per subscription: the longest and the mean silence between deliveries, seen once a
//! second. A subscription is stale when it has been silent for much longer than that, and at least
//! [`Limits::silence`](tapeway_exchanges::config::Limits), while another subscription of the lane has delivered since.
//! All subscriptions that have delivered enough to know them are silent together: the connection is dead in all but
//! name. A stale subscription, or one that is not answered, costs a reconnect once; each further time the silence must
//! be twice as long, so that a halted instrument does not take its lane down again and again.

use std::{collections::HashMap, time::Duration};

use tapeway_exchanges::{
    event::Channel,
    ids::{Nanos, SymbolIx},
    subscription::{Subscription, SubscriptionState, Subscriptions},
};

/// Watches one lane. What it has learned survives reconnects.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    normal: HashMap<(SymbolIx, Channel), Normal>,
}

/// What is wrong with a connection or one of its subscriptions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Finding {
    /// Nothing at all has arrived for this long.
    ConnectionSilent(Duration),
    /// The venue has neither acknowledged nor delivered; asking once more, on a new connection, is due or not.
    Unanswered(SymbolIx, Channel, Duration, bool),
    /// The venue refused it, because.
    Refused(SymbolIx, Channel, String),
    /// Silent for this long while a sibling moves.
    Stale(SymbolIx, Channel, Duration),
    /// Every subscription that usually delivers is silent, the liveliest for this long.
    AllSilent(Duration),
}

/// Subscriptions by state, in the order of the metric's label values: live, requested, refused, stale.
pub(super) type Counts = [u32; 4];

#[derive(Clone, Copy, Debug, Default)]
struct Normal {
    last: Option<Nanos>,
    deliveries: u32,
    mean: Duration,
    longest: Duration,
    strikes: u32,
    /// When the last strike was.
    struck: Option<Nanos>,
}

impl Watchdog {
    /// Looks at a connection. `silence` is the venue's longest normal silence, `last` when the connection last
    /// received anything. Findings come in the order of the subscriptions; counts are of all of them.
    pub(super) fn look(
        &mut self,
        now: Nanos,
        silence: Duration,
        last: Nanos,
        subscriptions: &Subscriptions,
    ) -> (Vec<Finding>, Counts) {
        let mut findings = Vec::new();
        let mut counts = Counts::default();
        if now.since(last) > silence {
            findings.push(Finding::ConnectionSilent(now.since(last)));
        }
        let newest = subscriptions.list().iter().filter_map(|subscription| subscription.last).max();
        let (mut known, mut over) = (0, 0);
        for subscription in subscriptions.list() {
            let (slot, finding) = self.judge(now, silence, newest, subscription);
            counts[slot] += 1;
            findings.extend(finding);
            let limit =
                self.normal.get(&(subscription.symbol, subscription.channel)).and_then(|one| one.limit(silence));
            if let (Some(limit), Some(last)) = (limit, subscription.last) {
                known += 1;
                over += u32::from(now.since(last) > limit);
            }
        }
        if let Some(newest) = newest.filter(|_| known > 0 && known == over) {
            findings.push(Finding::AllSilent(now.since(newest)));
        }
        (findings, counts)
    }

    /// The lane is reconnected for this subscription: be slower to do it again.
    pub(super) fn strike(&mut self, symbol: SymbolIx, channel: Channel, now: Nanos) {
        let normal = self.normal.entry((symbol, channel)).or_default();
        normal.strikes = (normal.strikes + 1).min(STRIKES_MAX);
        normal.struck = Some(now);
    }

    fn judge(
        &mut self,
        now: Nanos,
        silence: Duration,
        newest: Option<Nanos>,
        subscription: &Subscription,
    ) -> (usize, Option<Finding>) {
        let Subscription { channel, symbol, state, requested, last, answers_at_once } = subscription;
        let normal = self.normal.entry((*symbol, *channel)).or_default();
        if normal.struck.is_some_and(|struck| now.since(struck) > FORGIVEN_AFTER) {
            (normal.strikes, normal.struck) = (0, None);
        }
        let Some(last) = *last else {
            normal.last = None;
            let waited = now.since(*requested);
            let is_due = waited > ASK_AGAIN_AFTER.max(silence) * (1 << normal.strikes);
            return match state {
                SubscriptionState::Refused(reason) => {
                    (REFUSED, Some(Finding::Refused(*symbol, *channel, reason.clone())))
                }
                SubscriptionState::Requested if waited > ANSWER_TIMEOUT => {
                    (REQUESTED, Some(Finding::Unanswered(*symbol, *channel, waited, is_due)))
                }
                SubscriptionState::Requested => (REQUESTED, None),
                SubscriptionState::Live if *answers_at_once && waited > ANSWER_TIMEOUT.max(silence) => {
                    (STALE, Some(Finding::Unanswered(*symbol, *channel, waited, is_due)))
                }
                SubscriptionState::Live => (LIVE, None),
            };
        };
        normal.learn(last);
        let silent = now.since(last);
        let has_sibling_moved = newest.is_some_and(|newest| newest.since(last) > silent / 2);
        if has_sibling_moved && normal.limit(silence).is_some_and(|limit| silent > limit) {
            return (STALE, Some(Finding::Stale(*symbol, *channel, silent)));
        }
        (LIVE, None)
    }
}

impl Normal {
    fn learn(&mut self, last: Nanos) {
        let Some(before) = self.last.replace(last) else { return };
        if before == last {
            return;
        }
        let gap = last.since(before);
        self.deliveries = self.deliveries.saturating_add(1);
        let weight = 1.0 / f64::from(self.deliveries.min(MEAN_OVER));
        self.mean = self.mean.mul_f64(1.0 - weight) + gap.mul_f64(weight);
        self.longest = self.longest.mul_f64(LONGEST_DECAY).max(gap);
    }

    /// How long it may be silent; `None` while too little of it has been seen.
    fn limit(&self, silence: Duration) -> Option<Duration> {
        let is_known = self.deliveries >= DELIVERIES_MIN;
        is_known.then(|| (self.mean * MEANS).max(self.longest * LONGESTS).max(silence) * (1 << self.strikes))
    }
}

const LIVE: usize = 0;
const REQUESTED: usize = 1;
const REFUSED: usize = 2;
const STALE: usize = 3;

/// A subscription without an answer for this long is an error that is shown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A subscription without an answer for this long is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Strikes are forgotten this long after the last.
const FORGIVEN_AFTER: Duration = Duration::from_secs(12 * 3_600);
/// Deliveries seen before silence can mean anything.
const DELIVERIES_MIN: u32 = 10;
/// The mean is over about this many deliveries.
const MEAN_OVER: u32 = 200;
/// Silence of this many means is not chance ...
const MEANS: u32 = 30;
/// ... if it is also this many times the longest seen.
const LONGESTS: u32 = 3;
/// How the memory of the longest silence fades, a delivery.
const LONGEST_DECAY: f64 = 0.9995;
/// Doublings of the limit at most.
const STRIKES_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(5);
    const BUSY: SymbolIx = SymbolIx(0);
    const QUIET: SymbolIx = SymbolIx(1);

    fn at(seconds: i64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    fn subscribed() -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        for symbol in [BUSY, QUIET] {
            subscriptions.request(Channel::Trades, symbol, at(0), false);
        }
        subscriptions
    }

    /// Runs both for `until` seconds, then only the first; returns the first finding and its second.
    fn first_finding(watchdog: &mut Watchdog, every: i64, until: i64) -> Option<(i64, Finding)> {
        let mut subscriptions = subscribed();
        for symbol in [BUSY, QUIET] {
            subscriptions.acknowledge(Channel::Trades, symbol);
        }
        for second in 1..4_000 {
            subscriptions.delivered(Channel::Trades, BUSY, at(second));
            if second < until && second % every == 0 {
                subscriptions.delivered(Channel::Trades, QUIET, at(second));
            }
            let (findings, _) = watchdog.look(at(second), SILENCE, at(second), &subscriptions);
            if let Some(finding) = findings.into_iter().next() {
                return Some((second, finding));
            }
        }
        None
    }

    #[test]
    fn a_subscription_that_stops_while_its_sibling_moves_is_stale() {
        let (second, finding) = first_finding(&mut Watchdog::default(), 1, 100).unwrap();
        assert!(matches!(finding, Finding::Stale(QUIET, Channel::Trades, _)), "{finding:?}");
        assert!((120..150).contains(&second), "found at second {second}");
    }

    #[test]
    fn one_that_is_slow_by_nature_is_given_its_time() {
        let (second, _) = first_finding(&mut Watchdog::default(), 20, 1_000).unwrap();
        assert!(second > 1_500, "found at second {second}");
    }

    #[test]
    fn a_strike_doubles_the_patience() {
        let mut watchdog = Watchdog::default();
        watchdog.strike(QUIET, Channel::Trades, at(0));
        let (second, _) = first_finding(&mut watchdog, 1, 100).unwrap();
        assert!((155..190).contains(&second), "found at second {second}");
    }

    #[test]
    fn a_subscription_nobody_answers_is_found() {
        let (findings, counts) = Watchdog::default().look(at(11), SILENCE, at(11), &subscribed());
        assert_eq!(findings[0], Finding::Unanswered(BUSY, Channel::Trades, Duration::from_secs(11), false));
        assert_eq!(counts, [0, 2, 0, 0]);
    }

    #[test]
    fn one_that_stays_unanswered_is_asked_for_again_later_and_later() {
        let mut watchdog = Watchdog::default();
        let mut first_due = || {
            (11..4_000).find(|second| {
                let (findings, _) = watchdog.look(at(*second), SILENCE, at(*second), &subscribed());
                let is_due = findings.contains(&Finding::Unanswered(
                    BUSY,
                    Channel::Trades,
                    Duration::from_secs(second.unsigned_abs()),
                    true,
                ));
                if is_due {
                    watchdog.strike(BUSY, Channel::Trades, at(*second));
                }
                is_due
            })
        };
        assert_eq!([first_due(), first_due(), first_due()], [Some(31), Some(61), Some(121)]);
    }

    #[test]
    fn a_connection_on_which_only_pings_come_is_found() {
        let mut watchdog = Watchdog::default();
        let mut subscriptions = subscribed();
        let found = (1..400).find(|second| {
            if *second < 100 {
                subscriptions.delivered(Channel::Trades, BUSY, at(*second));
                subscriptions.delivered(Channel::Trades, QUIET, at(*second));
            }
            let (findings, _) = watchdog.look(at(*second), SILENCE, at(*second), &subscriptions);
            findings.iter().any(|finding| matches!(finding, Finding::AllSilent(_)))
        });
        assert!(found.is_some_and(|second| (120..150).contains(&second)), "{found:?}");
    }

    #[test]
    fn strikes_are_forgotten_in_the_end() {
        let mut watchdog = Watchdog::default();
        for _ in 0..4 {
            watchdog.strike(QUIET, Channel::Trades, at(-100_000));
        }
        let (second, _) = first_finding(&mut watchdog, 1, 100).unwrap();
        assert!((120..150).contains(&second), "found at second {second}");
    }

    #[test]
    fn a_connection_that_is_silent_as_a_whole_is_found() {
        let (findings, _) = Watchdog::default().look(at(7), SILENCE, at(1), &Subscriptions::default());
        assert_eq!(findings, [Finding::ConnectionSilent(Duration::from_secs(6))]);
    }
}

//! What can go wrong on request, and for which frames.
//!
//! A fault is written `kind=drop&venue=binance-spot&symbol=BTCUSDT&channel=book&p=0.001`, the same on the command
//! line, in `POST /loopback/fault?...` and in [`Fault::from_str`]. Besides `kind` everything is optional:
//!
//! | key | meaning |
//! | --- | --- |
//! | `venue`, `symbol`, `channel` | only there; `channel` is `trades`, `book`, `quotes` or `heartbeat` |
//! | `count=N` | the next N times (1 where nothing is said, for faults of single frames, `close`, `close_one`, `notice`) |
//! | `p=0.01` | each time with this probability, from the seed |
//! | `state=on`, `state=off` | always, and never again (`on` where nothing is said, for the other kinds) |
//! | `delay_ms`, `status` | of `slow_snapshot` and `close_one` (1000) and of `deny_http`, `refuse_connections` (429, 503) |
//!
//! A frame's fault hits every connection that would have got the frame.

use std::{str::FromStr, time::Duration};

use super::{rng::Rng, venue::Venue};

/// One fault to inject.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only on this venue.
    pub venue: Option<Venue>,
    /// Only for this symbol, as the venue spells it.
    pub symbol: Option<String>,
    /// Only on this channel.
    pub channel: Option<Channel>,
    /// How often.
    pub when: When,
    /// How late a slow snapshot is.
    pub delay: Duration,
    /// HTTP status of a refusal.
    pub status: u16,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultKind {
    /// The frame is not sent.
    Drop,
    /// The frame is sent twice.
    Duplicate,
    /// The frame is sent after the next one of its symbol and channel.
    Swap,
    /// The frame is cut off in the middle of its JSON.
    Corrupt,
    /// The frame carries a wrong checksum (Kraken books).
    Checksum,
    /// The subscription goes silent.
    Stall,
    /// All connections are cut without a close frame.
    Close,
    /// One connection is: the one open longest, if another has as much subscribed and has been open for `delay`.
    CloseOne,
    /// All connections are told that the server shuts down (Binance); they go on.
    Notice,
    /// New connections are refused with `status`.
    RefuseConnections,
    /// Subscriptions are answered with the venue's error.
    RefuseSubscriptions,
    /// Snapshots come late by `delay`.
    SlowSnapshot,
    /// HTTP requests are answered with `status`.
    DenyHttp,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// The next so many times.
    Count(u32),
    /// Each time with this probability.
    Chance(f64),
    /// Always.
    On,
    /// Never again: takes back earlier faults of the kind, within the scope given.
    Off,
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Channel {
    /// Trades.
    Trades,
    /// Binance aggregate trades.
    AggTrades,
    /// Order book changes.
    Book,
    /// Best bid and ask.
    Quotes,
    /// Heartbeats of one instrument (Coinbase).
    Heartbeat,
}

/// What happens to one frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Sent,
    Dropped,
    Duplicated,
    Swapped,
    Corrupted,
    WrongChecksum,
    Stalled,
}

/// The faults in force on one venue.
#[derive(Debug)]
pub(super) struct Faults {
    list: Vec<Fault>,
    rng: Rng,
}

impl Faults {
    /// None yet.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self { list: Vec::new(), rng: Rng::new(seed ^ 0xFA17, stream) }
    }

    /// Puts a fault into force, or takes some back.
    pub(super) fn set(&mut self, fault: Fault) {
        let scopes = |known: &Fault| {
            known.kind == fault.kind
                && (fault.symbol.is_none() || known.symbol == fault.symbol)
                && (fault.channel.is_none() || known.channel == fault.channel)
        };
        if fault.when == When::Off {
            self.list.retain(|known| !scopes(known));
        } else if self.list.len() < FAULTS_MAX {
            self.list.push(fault);
        }
    }

    /// Decides what happens to a frame.
    pub(super) fn fate(&mut self, symbol: &str, channel: Channel) -> Fate {
        if self.list.is_empty() {
            return Fate::Sent;
        }
        let fates = [
            (FaultKind::Stall, Fate::Stalled),
            (FaultKind::Drop, Fate::Dropped),
            (FaultKind::Corrupt, Fate::Corrupted),
            (FaultKind::Swap, Fate::Swapped),
            (FaultKind::Duplicate, Fate::Duplicated),
        ];
        for (kind, fate) in fates {
            if self.strikes(kind, symbol, Some(channel)).is_some() {
                return fate;
            }
        }
        if channel == Channel::Book && self.strikes(FaultKind::Checksum, symbol, Some(channel)).is_some() {
            return Fate::WrongChecksum;
        }
        Fate::Sent
    }

    /// The fault of this kind that strikes now, if one does. Uses up one of its times.
    pub(super) fn strikes(&mut self, kind: FaultKind, symbol: &str, channel: Option<Channel>) -> Option<Fault> {
        let Self { list, rng } = self;
        let mut hit = None;
        list.retain_mut(|fault| {
            let is_in_scope = fault.kind == kind
                && fault
                    .symbol
                    .as_deref()
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(symbol) || symbol.is_empty())
                && fault.channel.is_none_or(|wanted| channel.is_none_or(|channel| channel.is_of(wanted)));
            if hit.is_some() || !is_in_scope {
                return true;
            }
            match fault.when {
                When::Count(left) => {
                    hit = Some(fault.clone());
                    fault.when = When::Count(left.saturating_sub(1));
                    left > 1
                }
                When::Chance(p) => {
                    hit = rng.chance(p).then(|| fault.clone());
                    true
                }
                When::On => {
                    hit = Some(fault.clone());
                    true
                }
                When::Off => false,
            }
        });
        hit
    }
}

impl Fault {
    /// A fault everywhere, as often as is usual for its kind.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        let (when, status) = match kind {
            FaultKind::Drop
            | FaultKind::Duplicate
            | FaultKind::Swap
            | FaultKind::Corrupt
            | FaultKind::Checksum
            | FaultKind::Close
            | FaultKind::CloseOne
            | FaultKind::Notice => (When::Count(1), 0),
            FaultKind::Stall | FaultKind::RefuseSubscriptions | FaultKind::SlowSnapshot => (When::On, 0),
            FaultKind::RefuseConnections => (When::On, 503),
            FaultKind::DenyHttp => (When::On, 429),
        };
        Self { kind, venue: None, symbol: None, channel: None, when, delay: Duration::from_secs(1), status }
    }

    /// Only on this venue.
    #[must_use]
    pub fn on(self, venue: Venue) -> Self {
        Self { venue: Some(venue), ..self }
    }

    /// Only for this symbol.
    #[must_use]
    pub fn symbol(self, symbol: &str) -> Self {
        Self { symbol: Some(symbol.into()), ..self }
    }

    /// Only on this channel.
    #[must_use]
    pub fn channel(self, channel: Channel) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// This often.
    #[must_use]
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

impl Channel {
    /// The name in the truth file and in faults.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::AggTrades => "agg_trades",
            Self::Book => "book",
            Self::Quotes => "quotes",
            Self::Heartbeat => "heartbeat",
        }
    }

    fn is_of(self, wanted: Self) -> bool {
        self == wanted || self == Self::AggTrades && wanted == Self::Trades
    }
}

impl Fate {
    /// The name in the truth file; `None` for a frame that went out as it should.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Sent => None,
            Self::Dropped => Some("drop"),
            Self::Duplicated => Some("duplicate"),
            Self::Swapped => Some("swap"),
            Self::Corrupted => Some("corrupt"),
            Self::WrongChecksum => Some("checksum"),
            Self::Stalled => Some("stall"),
        }
    }
}

impl FaultKind {
    /// The name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Swap => "swap",
            Self::Corrupt => "corrupt",
            Self::Checksum => "checksum",
            Self::Stall => "stall",
            Self::Close => "close",
            Self::CloseOne => "close_one",
            Self::Notice => "notice",
            Self::RefuseConnections => "refuse_connections",
            Self::RefuseSubscriptions => "refuse_subscriptions",
            Self::SlowSnapshot => "slow_snapshot",
            Self::DenyHttp => "deny_http",
        }
    }

    const ALL: [Self; 13] = [
        Self::Drop,
        Self::Duplicate,
        Self::Swap,
        Self::Corrupt,
        Self::Checksum,
        Self::Stall,
        Self::Close,
        Self::CloseOne,
        Self::Notice,
        Self::RefuseConnections,
        Self::RefuseSubscriptions,
        Self::SlowSnapshot,
        Self::DenyHttp,
    ];
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        let pairs = super::query::pairs(text);
        let kind = pairs.iter().find(|(key, _)| key == "kind").map_or("", |(_, value)| value.as_str());
        let bad = |key: &str, value: &str, rule| BadFault { key: key.into(), value: value.into(), rule };
        let kind = FaultKind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| bad("kind", kind, "one of the fault kinds"))?;
        let mut fault = Self::new(kind);
        for (key, value) in &pairs {
            let bad = |rule| bad(key, value, rule);
            match key.as_str() {
                "kind" => {}
                "venue" => fault.venue = Some(value.parse().map_err(|_| bad("a loopback venue"))?),
                "symbol" => fault.symbol = Some(value.clone()),
                "channel" => fault.channel = Some(channel(value).ok_or_else(|| bad("a channel"))?),
                "count" => fault.when = When::Count(value.parse().map_err(|_| bad("a whole number"))?),
                "p" => fault.when = When::Chance(value.parse().map_err(|_| bad("a probability"))?),
                "state" if value == "on" => fault.when = When::On,
                "state" if value == "off" => fault.when = When::Off,
                "delay_ms" => {
                    fault.delay = Duration::from_millis(value.parse().map_err(|_| bad("whole milliseconds"))?);
                }
                "status" => fault.status = value.parse().map_err(|_| bad("an HTTP status"))?,
                _ => return Err(bad("a known key with a known value")),
            }
        }
        match fault.when {
            When::Chance(p) if !(0.0..=1.0).contains(&p) => Err(bad("p", &p.to_string(), "within 0..=1")),
            When::Chance(_) | When::Count(_) | When::On | When::Off => Ok(fault),
        }
    }
}

/// A fault request that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("fault: `{key}={value}` should be {rule}")]
pub struct BadFault {
    key: String,
    value: String,
    rule: &'static str,
}

fn channel(name: &str) -> Option<Channel> {
    let all = [Channel::Trades, Channel::AggTrades, Channel::Book, Channel::Quotes, Channel::Heartbeat];
    all.into_iter().find(|channel| channel.name() == name)
}

/// Faults in force at once on one venue; further ones are ignored.
const FAULTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_kind_scope_and_how_often() {
        let fault: Fault = "kind=drop&venue=kraken&symbol=BTC%2FUSD&channel=book&p=0.25".parse().unwrap();
        assert_eq!(fault.venue, Some(Venue::Kraken));
        assert_eq!(fault.symbol.as_deref(), Some("BTC/USD"));
        assert_eq!(fault.when, When::Chance(0.25));
        assert_eq!("kind=stall".parse::<Fault>().unwrap().when, When::On);
        assert_eq!("kind=swap&count=3".parse::<Fault>().unwrap().when, When::Count(3));
        for wrong in ["kind=melt", "kind=drop&p=2", "kind=drop&sybmol=X", "kind=drop&count=x", "venue=kraken"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_counted_fault_strikes_that_often_within_its_scope() {
        let mut faults = Faults::new(1, 0);
        faults.set("kind=drop&symbol=BTCUSDT&channel=book&count=2".parse().unwrap());
        assert_eq!(faults.fate("ETHUSDT", Channel::Book), Fate::Sent);
        assert_eq!(faults.fate("BTCUSDT", Channel::Trades), Fate::Sent);
        assert_eq!(faults.fate("BTCUSDT", Channel::Book), Fate::Dropped);
        assert_eq!(faults.fate("BTCUSDT", Channel::Book), Fate::Dropped);
        assert_eq!(faults.fate("BTCUSDT", Channel::Book), Fate::Sent);
    }

    #[test]
    fn a_probability_strikes_about_as_often_and_the_same_way_for_one_seed() {
        let run = |seed| -> Vec<Fate> {
            let mut faults = Faults::new(seed, 0);
            faults.set("kind=duplicate&p=0.1".parse().unwrap());
            (0..10_000).map(|_| faults.fate("X", Channel::Trades)).collect()
        };
        let hits = run(4).iter().filter(|fate| **fate == Fate::Duplicated).count();
        assert!((800..1_200).contains(&hits), "{hits}");
        assert_eq!(run(4), run(4));
    }

    #[test]
    fn a_standing_fault_ends_when_it_is_taken_back() {
        let mut faults = Faults::new(1, 0);
        faults.set("kind=stall&symbol=A".parse().unwrap());
        assert_eq!(faults.fate("A", Channel::Quotes), Fate::Stalled);
        faults.set("kind=stall&state=off".parse().unwrap());
        assert_eq!(faults.fate("A", Channel::Quotes), Fate::Sent);
    }
}

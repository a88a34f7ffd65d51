//! What a key may hold: how its text is read, its bounds, and how both are put in words.

use std::{net::SocketAddr, time::Duration};

use hyper::Uri;
use tracing_subscriber::EnvFilter;

/// What a key may hold. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A whole number, or `auto`.
    CountOrAuto { min: u64, max: u64 },
    /// Bytes, e.g. `64MiB`.
    Size { min: u64, max: u64 },
    /// A time, e.g. `10ms`.
    Span { min: Duration, max: Duration },
    /// A time, or `never`.
    SpanOrNever { min: Duration, max: Duration },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// One of a few words, or a list of numbers below `end`.
    ChoiceOrNumbers { words: &'static [&'static str], end: u64, len_max: usize },
    /// IP address and port.
    Address,
    /// A file or folder; a relative one begins at the folder of the file that names it.
    Path,
    /// A `tracing` filter.
    Filter,
    /// A URL with one of these schemes, without user, password, query or fragment.
    Url(&'static [&'static str]),
    /// Text that is never shown.
    Secret,
    /// A list of names.
    Names { len_max: usize },
}

/// A value that its key's kind has accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    Count(u64),
    Size(u64),
    Span(Duration),
    /// `auto`, `never`, a choice.
    Word(&'static str),
    Address(SocketAddr),
    Text(String),
    Names(Vec<Name>),
    Numbers(Vec<u64>),
}

/// One entry of a list of names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Name {
    pub(super) text: String,
    /// As written, ready for a message.
    pub(super) shown: String,
    pub(super) line: usize,
}

impl Kind {
    /// Reads a single value; `None` if it is not one of this kind.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Flag => match text {
                "true" => Some(Value::Flag(true)),
                "false" => Some(Value::Flag(false)),
                _ => None,
            },
            Self::Count { min, max } => within(number(text)?, min, max).map(Value::Count),
            Self::CountOrAuto { min, max } => match text {
                "auto" => Some(Value::Word("auto")),
                _ => within(number(text)?, min, max).map(Value::Count),
            },
            Self::Size { min, max } => within(size(text)?, min, max).map(Value::Size),
            Self::Span { min, max } => within(span(text)?, min, max).map(Value::Span),
            Self::SpanOrNever { min, max } => match text {
                "never" => Some(Value::Word("never")),
                _ => within(span(text)?, min, max).map(Value::Span),
            },
            Self::Choice(words) | Self::ChoiceOrNumbers { words, .. } => {
                words.iter().copied().find(|word| *word == text).map(Value::Word)
            }
            Self::Address => text.parse().ok().map(Value::Address),
            Self::Path => is_path(text).then(|| Value::Text(text.to_owned())),
            Self::Filter => is_filter(text).then(|| Value::Text(text.to_owned())),
            Self::Url(schemes) => is_url(text, schemes).then(|| Value::Text(text.trim_end_matches('/').to_owned())),
            Self::Secret => (!text.is_empty() && !text.contains('\0')).then(|| Value::Text(text.to_owned())),
            Self::Names { .. } => None,
        }
    }

    /// What is allowed, in words that follow "allowed".
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::CountOrAuto { min, max } => format!("auto or a whole number from {min} to {max}"),
            Self::Size { min, max } => {
                format!("a size from {} to {} (B, KiB, MiB, GiB, TiB)", show_size(min), show_size(max))
            }
            Self::Span { min, max } => {
                format!("a time from {} to {} (ms, s, m, h, d)", show_span(min), show_span(max))
            }
            Self::SpanOrNever { min, max } => {
                format!("never or a time from {} to {} (ms, s, m, h, d)", show_span(min), show_span(max))
            }
            Self::Choice(words) => words.join(" or "),
            Self::ChoiceOrNumbers { words, end, len_max } => {
                format!("{} or a list of at most {len_max} numbers below {end}", words.join(" or "))
            }
            Self::Address => "an IP address and port such as 127.0.0.1:9464".into(),
            Self::Path => "the path of a file or folder".into(),
            Self::Filter => {
                "error, warn, info, debug, trace or off, or a list such as info,tapeway::journal=debug".into()
            }
            Self::Url(schemes) => {
                let examples: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host[:port][/path]")).collect();
                examples.join(" or ")
            }
            Self::Secret => "text that is not empty".into(),
            Self::Names { len_max } => format!("a list of at most {len_max} names"),
        }
    }

    /// Whether the value may not be shown.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret)
    }
}

fn within<T: PartialOrd>(value: T, min: T, max: T) -> Option<T> {
    (min <= value && value <= max).then_some(value)
}

/// A whole number; `_` may group digits.
fn number(text: &str) -> Option<u64> {
    let is_plain =
        text.bytes().all(|b| b.is_ascii_digit() || b == b'_') && text.starts_with(|c: char| c.is_ascii_digit());
    if is_plain { text.replace('_', "").parse().ok() } else { None }
}

/// A number directly followed by one of `units`, each of which is worth so many of the smallest.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
    let (amount, unit) = text.split_at(digits);
    let (_, worth) = units.iter().find(|(name, _)| *name == unit)?;
    number(amount)?.checked_mul(*worth)
}

fn size(text: &str) -> Option<u64> {
    measured(text, &SIZES)
}

fn span(text: &str) -> Option<Duration> {
    measured(text, &SPANS).map(Duration::from_millis)
}

/// A size in the largest unit that gives a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    shown(bytes, &SIZES, "0B")
}

/// A time in the largest unit that gives a whole number; below a millisecond it is cut off.
pub(super) fn show_span(span: Duration) -> String {
    shown(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), &SPANS, "0s")
}

fn shown(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let largest = units.iter().rev().find(|(_, worth)| value.is_multiple_of(*worth));
    match largest {
        Some((name, worth)) if value > 0 => format!("{}{name}", value / worth),
        Some(_) | None => zero.into(),
    }
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0') && text.len() <= PATH_BYTES_MAX
}

/// The filter syntax takes any word for the name of a module, so that `inof` would silence everything. Here
/// each part is a level, or names one after `=`.
fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| LEVELS.contains(&word);
    let parts_are_said = text.split(',').all(|part| part.rsplit_once('=').map_or(is_level(part), |(_, l)| is_level(l)));
    parts_are_said && EnvFilter::try_new(text).is_ok()
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let has_scheme = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    has_scheme && has_host && !has_user && uri.query().is_none() && !text.contains('#')
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Bytes in each unit, smallest first.
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Milliseconds in each unit, smallest first.
const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest path, as Linux has it.
const PATH_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod values {
    use proptest::prelude::*;

    use super::*;

    const TIME: Kind = Kind::Span { min: Duration::from_millis(1), max: Duration::from_secs(86_400 * 30) };
    const SIZE: Kind = Kind::Size { min: 1, max: 1 << 50 };

    #[test]
    fn times_have_a_unit() {
        assert_eq!(TIME.parse("10ms"), Some(Value::Span(Duration::from_millis(10))));
        assert_eq!(TIME.parse("24h"), Some(Value::Span(Duration::from_secs(86_400))));
        assert_eq!(TIME.parse("7d"), Some(Value::Span(Duration::from_secs(7 * 86_400))));
        for text in
            ["10", "ms", "1.5s", "-1s", "1 s", "1S", "99999999999999999999d", "18446744073709551615d", "31d", "0s", ""]
        {
            assert_eq!(TIME.parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        assert_eq!(SIZE.parse("64MiB"), Some(Value::Size(64 << 20)));
        assert_eq!(SIZE.parse("1_000B"), Some(Value::Size(1_000)));
        for text in ["64MB", "64", "64 MiB", "MiB", "_1B", ""] {
            assert_eq!(SIZE.parse(text), None, "{text}");
        }
    }

    #[test]
    fn counts_are_whole_and_within_bounds() {
        let kind = Kind::Count { min: 2, max: 20_000 };
        assert_eq!(kind.parse("20_000"), Some(Value::Count(20_000)));
        for text in ["1", "20001", "2.0", "+2", "0x2", "two", "", "99999999999999999999"] {
            assert_eq!(kind.parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_filter_with_a_misspelt_level_is_refused() {
        for text in ["info", "off", "info,tapeway::journal=debug", "tapeway=trace"] {
            assert!(Kind::Filter.parse(text).is_some(), "{text}");
        }
        for text in ["inof", "tapeway", "info,", "", "tapeway=loud"] {
            assert_eq!(Kind::Filter.parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_a_host_and_no_more() {
        let kind = Kind::Url(&["wss", "ws"]);
        assert_eq!(kind.parse("wss://a.example/"), Some(Value::Text("wss://a.example".into())));
        assert!(kind.parse("ws://127.0.0.1:8080/path").is_some());
        for text in
            ["https://a.example", "a.example", "wss://", "wss://u:p@a.example", "wss://a/?x=1", "wss://a/#x", ""]
        {
            assert_eq!(kind.parse(text), None, "{text}");
        }
    }

    #[test]
    fn flags_are_not_guessed() {
        for text in ["yes", "on", "True", "1", ""] {
            assert_eq!(Kind::Flag.parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0u64..1 << 50, bytes in 0u64..1 << 62) {
            prop_assert_eq!(span(&show_span(Duration::from_millis(millis))), Some(Duration::from_millis(millis)));
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-9_a-zA-Z:/@#?=,.-]{0,40}") {
            let span = (Duration::ZERO, Duration::MAX);
            for kind in [
                Kind::Flag,
                Kind::CountOrAuto { min: 0, max: u64::MAX },
                Kind::Size { min: 0, max: u64::MAX },
                Kind::SpanOrNever { min: span.0, max: span.1 },
                Kind::ChoiceOrNumbers { words: &["auto"], end: 1, len_max: 1 },
                Kind::Address,
                Kind::Path,
                Kind::Filter,
                Kind::Url(&["wss"]),
                Kind::Secret,
                Kind::Names { len_max: 1 },
            ] {
                drop(kind.parse(&text));
            }
        }
    }
}

//! One `exchanges/<venue>.yaml` held against what the venue offers.

use std::{collections::HashMap, path::Path};

use tapeway_exchanges::{config::Limits, event::Channel, top_book::OrderBooks, venue::VenueSpec};

use super::{
    SymbolPattern, Venue,
    keys::SYMBOL_ENTRY_BYTES_MAX,
    kind::Name,
    problem::Problems,
    read::{of_file, small},
    values::{Values, nearest},
};

/// The venue that `values` describe; `None` if it is not enabled, or not one at all.
pub(super) fn read(
    file: &Path,
    values: &Values<'_>,
    registry: &'static [VenueSpec],
    problems: &mut Problems,
) -> Option<Venue> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    // A venue without channels is there for recordings alone.
    let live = registry.iter().filter(|spec| !spec.channels.is_empty());
    let Some(spec) = live.clone().find(|spec| spec.name == name) else {
        let names: Vec<&str> = live.map(|spec| spec.name).collect();
        let near = nearest(&name, &names).map(|name| format!("; the nearest is {name}")).unwrap_or_default();
        problems.add(of_file(file, format!("the venue {name}"), format!("{}{near}", names.join(", "))));
        return None;
    };
    let is_enabled = values.flag("enabled");
    let symbols = symbols(values, is_enabled, problems);
    let channels = channels(values, spec, problems);
    let book_depth = book_depth(values, spec, problems);
    let limits = limits(values, spec.limits);
    is_enabled.then(|| Venue {
        spec,
        symbols,
        book_depth,
        order_books: order_books(values, &channels),
        channels,
        lanes_min: small(values.count("lanes")),
        redundancy: u32::try_from(values.count("redundancy")).expect("the bounds in the list of keys fit"),
        ws_url: values.text("ws_url").unwrap_or_else(|| spec.ws_url.to_owned()),
        http_url: values.text("http_url").unwrap_or_else(|| spec.http_url.to_owned()),
        limits,
    })
}

fn symbols(values: &Values<'_>, is_enabled: bool, problems: &mut Problems) -> Vec<SymbolPattern> {
    let names = values.names("symbols");
    if names.is_empty() && is_enabled && values.are_right(&["symbols"]) {
        let found = if values.is_given("symbols") { "an empty list" } else { "nothing" };
        problems.add(values.problem("symbols", found, "at least one symbol or pattern, or `enabled: false`"));
    }
    let mut patterns = Vec::with_capacity(names.len());
    for name in once(values, "symbols", names, problems) {
        let is_symbol = (1..=SYMBOL_ENTRY_BYTES_MAX).contains(&name.text.len())
            && name.text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        if !is_symbol {
            let allowed = format!("1 to {SYMBOL_ENTRY_BYTES_MAX} bytes without spaces");
            problems.add(values.problem_at("symbols", name.line, name.shown, allowed));
        } else if name.text.contains(['*', '?']) {
            patterns.push(SymbolPattern::Glob(name.text));
        } else {
            patterns.push(SymbolPattern::Exact(name.text));
        }
    }
    patterns
}

fn channels(values: &Values<'_>, spec: &VenueSpec, problems: &mut Problems) -> Vec<Channel> {
    let offered: Vec<&str> = spec.channels.iter().map(|channel| channel.name()).collect();
    let is_given = values.is_given("channels");
    let names = values.names("channels");
    if names.is_empty() {
        problems.add(values.problem("channels", "an empty list", offered.join(", ")));
    }
    let mut channels = Vec::with_capacity(names.len());
    for name in once(values, "channels", names, problems) {
        match spec.channels.iter().find(|channel| channel.name() == name.text) {
            Some(channel) => channels.push(*channel),
            // The default asks for what most venues have; a venue without it is not the file's fault.
            None if !is_given => {}
            None => problems.add(values.problem_at("channels", name.line, name.shown, offered.join(", "))),
        }
    }
    channels
}

/// The names without repetitions, each of which is a problem.
fn once(values: &Values<'_>, path: &str, names: Vec<Name>, problems: &mut Problems) -> Vec<Name> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        if let Some(line) = first.get(&name.text) {
            let found = format!("{} a second time (first on line {line})", name.shown);
            problems.add(values.problem_at(path, name.line, found, "it once"));
        } else {
            first.insert(name.text.clone(), name.line);
            kept.push(name);
        }
    }
    kept
}

fn book_depth(values: &Values<'_>, spec: &VenueSpec, problems: &mut Problems) -> Option<u32> {
    let depth = u32::try_from(values.count_opt("book_depth")?).expect("the bounds in the list of keys fit");
    if !spec.book_depths.contains(&depth) {
        let depths: Vec<_> = spec.book_depths.iter().map(ToString::to_string).collect();
        let allowed = match depths.as_slice() {
            [] => format!("no book_depth: {} gives no choice", spec.name),
            some => some.join(", "),
        };
        problems.add(values.problem("book_depth", depth.to_string(), allowed));
    }
    Some(depth)
}

/// `None` for never, and where no books are recorded.
fn order_books(values: &Values<'_>, channels: &[Channel]) -> Option<OrderBooks> {
    let every = values.span_opt("order_books.every")?;
    let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let depth = u32::try_from(values.count("order_books.depth")).expect("the bounds in the list of keys fit");
    channels.contains(&Channel::Book).then_some(OrderBooks { every_ms, depth })
}

fn limits(values: &Values<'_>, own: Limits) -> Limits {
    let count = |key: &str| values.count_opt(key);
    let count_u32 =
        |key: &str| count(key).map(|value| u32::try_from(value).expect("the bounds in the list of keys fit"));
    Limits {
        streams_per_connection: count("limits.streams_per_connection").map_or(own.streams_per_connection, small),
        messages_per_second: count_u32("limits.messages_per_second").unwrap_or(own.messages_per_second),
        connects: count_u32("limits.connects").unwrap_or(own.connects),
        connects_per: values.span_opt("limits.connects_per").unwrap_or(own.connects_per),
        http_weight_per_minute: count_u32("limits.http_weight_per_minute").unwrap_or(own.http_weight_per_minute),
        silence: values.span_opt("limits.silence").unwrap_or(own.silence),
        lifetime: if values.is_given("limits.lifetime") { values.span_opt("limits.lifetime") } else { own.lifetime },
    }
}

//! Spreading symbols over lanes within a venue's limits.

use crate::{
    adapter::{LanePlan, Outbox},
    config::VenueConfig,
    event::Channel,
    ids::SymbolIx,
};

/// One plan a lane. A symbol in `current` keeps its lane as long as that lane may hold it; new symbols go
/// to the emptiest lane. Lanes are `<venue>.<index>`; a lane without symbols is left out.
///
/// `path` is put behind the configured WebSocket URL unless that URL brings a path of its own.
#[must_use]
pub fn spread(config: &VenueConfig, path: &str, current: &[LanePlan]) -> Vec<LanePlan> {
    let per_symbol = config.channels.len().max(1);
    let symbols_max = (config.limits.streams_per_connection / per_symbol).max(1);
    let needed = config.symbols.len().div_ceil(symbols_max).max(config.lanes_min.min(config.symbols.len()));
    let mut lanes = kept(config, current, symbols_max);
    lanes.resize_with(lanes.len().max(needed), Vec::new);
    for symbol in &config.symbols {
        if lanes.iter().any(|lane| lane.contains(&symbol.as_str())) {
            continue;
        }
        match lanes.iter_mut().filter(|lane| lane.len() < symbols_max).min_by_key(|lane| lane.len()) {
            Some(emptiest) => emptiest.push(symbol),
            None => lanes.push(vec![symbol]),
        }
    }
    let url = endpoint(&config.ws_url, path);
    let plan = |(index, symbols): (usize, Vec<&str>)| LanePlan {
        lane: format!("{}.{index}", config.venue),
        url: url.clone(),
        http_url: config.http_url.clone(),
        symbols: symbols.into_iter().map(Into::into).collect(),
        channels: config.channels.clone(),
        book_depth: config.book_depth,
        order_books: config.order_books,
    };
    lanes.into_iter().enumerate().filter(|(_, symbols)| !symbols.is_empty()).map(plan).collect()
}

/// The plan's symbols, interned. One that cannot be is a reject.
pub(crate) fn symbols_of(plan: &LanePlan, out: &mut Outbox) -> Vec<SymbolIx> {
    let mut found = Vec::with_capacity(plan.symbols.len());
    for name in &plan.symbols {
        match out.symbols.intern(name) {
            Ok(symbol) => found.push(symbol),
            Err(error) => out.push_reject(&error),
        }
    }
    found
}

/// What the plan asks for, symbol by symbol.
pub(crate) fn streams_of(plan: &LanePlan, out: &mut Outbox) -> Vec<(Channel, SymbolIx)> {
    let symbols = symbols_of(plan, out).into_iter();
    symbols.flat_map(|symbol| plan.channels.iter().map(move |channel| (*channel, symbol))).collect()
}

/// The channels of a symbol that the plan does not ask for.
pub(crate) fn left_out<'a>(plan: &'a LanePlan, name: &str) -> impl Iterator<Item = Channel> + use<'a> {
    let is_in = plan.symbols.iter().any(|symbol| symbol == name);
    Channel::ALL.into_iter().filter(move |channel| !is_in || !plan.channels.contains(channel))
}

/// Whether the open connection's plan asks for a symbol's book. Without a plan (a recording) all are meant.
pub(crate) fn has_book(plan: Option<&LanePlan>, name: &str) -> bool {
    has(plan, Channel::Book, name)
}

/// Whether the open connection's plan asks for a symbol's channel. Without a plan (a recording) all are meant.
pub(crate) fn has(plan: Option<&LanePlan>, channel: Channel, name: &str) -> bool {
    plan.is_none_or(|plan| plan.channels.contains(&channel) && plan.symbols.iter().any(|symbol| symbol == name))
}

/// `base` with `path` behind it, unless `base` has a path already.
#[must_use]
pub fn endpoint(base: &str, path: &str) -> String {
    let host = base.split_once("://").map_or(base, |(_, rest)| rest);
    match host.trim_end_matches('/').contains('/') {
        true => base.into(),
        false => format!("{}{path}", base.trim_end_matches('/')),
    }
}

/// Symbols that stay, by lane index.
fn kept<'a>(config: &'a VenueConfig, current: &[LanePlan], symbols_max: usize) -> Vec<Vec<&'a str>> {
    let mut lanes: Vec<Vec<&str>> = Vec::new();
    for plan in current {
        let Some(index) = lane_index(config.venue, &plan.lane).filter(|index| *index < LANES_MAX) else { continue };
        if lanes.len() <= index {
            lanes.resize_with(index + 1, Vec::new);
        }
        let still = plan.symbols.iter().filter_map(|name| config.symbols.iter().find(|symbol| *symbol == name));
        for symbol in still.take(symbols_max) {
            if !lanes.iter().any(|lane| lane.contains(&symbol.as_str())) {
                lanes[index].push(symbol);
            }
        }
    }
    lanes
}

fn lane_index(venue: &str, lane: &str) -> Option<usize> {
    lane.strip_prefix(venue)?.strip_prefix('.')?.parse().ok()
}

/// Highest lane index that an earlier plan may name and one: far above what any address may connect.
const LANES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Limits;

    fn config(symbols: &[&str], lanes_min: usize, streams_per_connection: usize) -> VenueConfig {
        let connects_per = Duration::from_secs(300);
        let limits = Limits {
            streams_per_connection,
            messages_per_second: 5,
            connects: 300,
            connects_per,
            http_weight_per_minute: 6_000,
            silence: Duration::from_secs(60),
            lifetime: None,
        };
        VenueConfig {
            venue: "acme",
            symbols: symbols.iter().map(|symbol| (*symbol).into()).collect(),
            channels: vec![Channel::Trades, Channel::Book],
            book_depth: None,
            order_books: None,
            lanes_min,
            ws_url: "wss://acme.example:9443/".into(),
            http_url: "https://acme.example".into(),
            limits,
        }
    }

    fn shape(plans: &[LanePlan]) -> Vec<(&str, Vec<&str>)> {
        plans.iter().map(|plan| (&*plan.lane, plan.symbols.iter().map(|symbol| &**symbol).collect())).collect()
    }

    #[test]
    fn symbols_are_spread_evenly_over_as_many_lanes_as_the_limits_ask_for() {
        let plans = spread(&config(&["A", "B", "C", "D", "E"], 1, 4), "/stream", &[]);
        assert_eq!(shape(&plans), [("acme.0", vec!["A", "D"]), ("acme.1", vec!["B", "E"]), ("acme.2", vec!["C"])]);
        assert_eq!(plans[0].url, "wss://acme.example:9443/stream");
    }

    #[test]
    fn there_are_never_more_lanes_than_symbols() {
        assert_eq!(spread(&config(&["A", "B"], 9, 100), "", &[]).len(), 2);
        assert!(spread(&config(&[], 9, 100), "", &[]).is_empty());
    }

    #[test]
    fn symbols_keep_their_lane_when_others_come_and_go() {
        let before = spread(&config(&["A", "B", "C", "D"], 2, 100), "", &[]);
        assert_eq!(shape(&before), [("acme.0", vec!["A", "C"]), ("acme.1", vec!["B", "D"])]);
        let after = spread(&config(&["D", "X", "B", "C"], 2, 100), "", &before);
        assert_eq!(shape(&after), [("acme.0", vec!["C", "X"]), ("acme.1", vec!["B", "D"])]);
    }

    #[test]
    fn the_same_configuration_gives_the_same_plan() {
        let config = config(&["A", "B", "C", "D", "E"], 2, 6);
        let before = spread(&config, "", &[]);
        assert_eq!(spread(&config, "", &before), before);
    }

    #[test]
    fn a_url_with_a_path_of_its_own_is_taken_as_it_is() {
        assert_eq!(endpoint("ws://127.0.0.1:9000/spot/ws", "/stream"), "ws://127.0.0.1:9000/spot/ws");
        assert_eq!(endpoint("ws://127.0.0.1:9000", "/stream"), "ws://127.0.0.1:9000/stream");
    }
}

//! The commands around the daemon: what they print, and their exit status.

use std::fs;

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::{all_of, tapeway};

#[test]
fn check_says_what_is_there_and_what_would_run() {
    let Some(world) = World::new(Setup::default()) else { return };
    let (is_good, text) = check(&world, &[]);
    assert!(is_good, "{text}");
    assert!(text.contains("configuration  ok: ") && text.contains("database       PostgreSQL 1"), "{text}");
    assert!(text.contains("permissions      sufficient") && text.contains("in all         4 lanes"), "{text}");
    for venue in Venue::ALL {
        let streams = if venue == Venue::Coinbase { 4 } else { 6 };
        let line = format!("{:<14} 2 symbols, {streams} streams, 1 lanes", venue.name());
        assert!(text.contains(&line), "{line}: {text}");
        assert!(text.contains(&format!("  {}.0  {}", venue.name(), world.venues.ws_url(venue))), "{text}");
    }
    assert!(!world.journal().exists(), "check starts and makes nothing");
    assert_eq!(world.psql("SELECT to_regclass('audit.gaps') IS NULL"), "t");
}

#[test]
fn check_fails_with_the_database_down_and_still_says_the_rest() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    world.proxy.down();
    let (is_good, text) = check(&world, &[]);
    assert!(!is_good && text.contains("database       NOT REACHED: "), "{text}");
    assert!(text.contains("binance-spot   2 symbols, 6 streams, 1 lanes"), "{text}");
}

#[test]
fn check_finds_symbols_the_venue_does_not_have_and_resolves_patterns() {
    let Some(world) = World::new(Setup { venues: vec![Venue::Kraken, Venue::BinanceSpot], ..Setup::default() }) else {
        return;
    };
    let wrong = ["BTC/USD".to_owned(), "BTC/USB".to_owned()];
    world.write_venue(Venue::Kraken, &wrong, "");
    world.write_venue(Venue::BinanceSpot, &["*USDT".to_owned()], "");
    let (is_good, text) = check(&world, &[]);
    assert!(!is_good && text.contains("symbol BTC/USB is NOT in the venue's instrument list"), "{text}");
    assert!(!text.contains("symbol BTC/USD is NOT"), "{text}");
    assert!(
        text.contains("binance-spot   2 symbols, 6 streams, 1 lanes") && text.contains("BTCUSDT ETHUSDT"),
        "{text}"
    );
    // Nobody is asked, so nothing is known against it.
    let (is_good, text) = check(&world, &["--offline"]);
    assert!(is_good && !text.contains("NOT"), "{text}");
}

#[test]
fn check_fails_when_a_venue_does_not_answer() {
    let Some(world) = World::new(Setup { venues: vec![Venue::BinanceSpot], ..Setup::default() }) else { return };
    let file = world.venue_file(Venue::BinanceSpot);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&world.venues.http_url(Venue::BinanceSpot), "http://127.0.0.1:1")).unwrap();
    let (is_good, text) = check(&world, &[]);
    assert!(!is_good && text.contains("instrument list NOT REACHED: 127.0.0.1:1: "), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_with_every_problem_at_once() {
    let Some(world) = World::new(Setup { venues: vec![Venue::Kraken], ..Setup::default() }) else { return };
    let kraken = fs::read_to_string(world.venue_file(Venue::Kraken)).unwrap();
    fs::write(world.venue_file(Venue::Kraken), format!("{kraken}book_depth: 11\nlane: 2\n")).unwrap();
    fs::write(world.config().join("exchanges/krakn.yaml"), "enabled: true\nsymbols: [A]\n").unwrap();
    world.write_main("shutdown_deadline: soon");
    for command in ["run", "check", "migrate"] {
        let output = tapeway(&[command, "--config", world.config().to_str().unwrap()]);
        let text = all_of(&output);
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert!(text.starts_with("tapeway: 4 problems in the configuration"), "{command}: {text}");
        let expected = [
            ("tapeway.yaml:1", "shutdown_deadline"),
            ("kraken.yaml", "book_depth"),
            ("kraken.yaml", "lane"),
            ("krakn.yaml", "the nearest is kraken"),
        ];
        for (file, words) in expected {
            assert!(text.lines().any(|line| line.contains(file) && line.contains(words)), "{words}: {text}");
        }
    }
    let missing = tapeway(&["run", "--config", "/nonexistent/tapeway.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(all_of(&missing).contains("/nonexistent/tapeway.yaml"), "{}", all_of(&missing));
}

#[test]
fn status_without_a_daemon_says_so() {
    let output = tapeway(&["status", "--url", "http://127.0.0.1:1"]);
    let text = all_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no daemon answers at http://127.0.0.1:1/status") && text.contains("tapeway run"), "{text}");
}

/// Help is read in a terminal: every command says what it does, every option what it is.
#[test]
fn every_command_explains_itself() {
    let help = all_of(&tapeway(&["--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 9, "{help}");
    for command in commands.iter().filter(|command| **command != "help") {
        let output = tapeway(&[command, "--help"]);
        let text = all_of(&output);
        assert!(output.status.success() && text.contains(&format!("Usage: tapeway {command}")), "{text}");
        let first = text.lines().next().unwrap();
        assert!(first.len() > 12 && !first.starts_with("Usage"), "{command} does not say what it does: {text}");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("--")) {
            let described = line.trim().split("  ").filter(|part| !part.is_empty()).count() > 1
                || lines.get(at + 1).is_some_and(|next| next.starts_with("          "));
            assert!(described, "{command}: an option without a word: {line}");
        }
    }
    assert_eq!(tapeway(&["fly"]).status.code(), Some(2));
}

fn check(world: &World, more: &[&str]) -> (bool, String) {
    let config = world.config().display().to_string();
    let arguments: Vec<&str> = ["check", "--config", &config].into_iter().chain(more.iter().copied()).collect();
    let output = tapeway(&arguments);
    (output.status.success(), all_of(&output))
}

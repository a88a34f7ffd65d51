//! `tapeway verify` finds whatever is done to a recorded database, names it, and finds nothing where nothing was done.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tapeway::loopback::{self, Options, Rate, Venue};

use crate::{
    cluster::{Cluster, Flavor, on_each},
    process::{self, Daemon, tapeway},
    proof::gaps,
};

mod damages;

use damages::{Damage, QUOTE, TABLES, TRADE, damages, level};

#[test]
fn every_planted_damage_is_found_and_named_and_nothing_else_is() {
    on_each(|cluster, flavor| {
        let recorded = Recorded::new(cluster, flavor, "verify");
        let clean = recorded.verify(&["--accept-gaps"]);
        assert_eq!(clean.status, 0, "{flavor:?}: {:#}", clean.report["findings"]);
        assert!(clean.report["rows"].as_u64().unwrap() > 5_000, "{flavor:?}: hardly anything was recorded");
        assert!(clean.findings().iter().all(|finding| finding["severity"] != "damage"), "{flavor:?}");
        let strict = recorded.verify(&[]);
        assert_eq!(strict.status, 3, "{flavor:?}: a killed daemon leaves gaps: {:#}", strict.report["findings"]);
        recorded.agrees_with_its_counts(&clean);
        recorded.save();
        let list = damages();
        assert!(list.len() >= 20);
        for Damage { name, sql, kind, place } in &list {
            recorded.psql(sql);
            let found = recorded.verify(&["--accept-gaps"]);
            assert_eq!(found.status, 4, "{flavor:?}: {name}: {:#}", found.report["findings"]);
            let is_named = |finding: &&Value| {
                finding["severity"] == "damage" && finding["kind"] == *kind && finding["table"] == *place
            };
            let named = found.findings().into_iter().find(|finding| is_named(finding));
            assert!(named.is_some(), "{flavor:?}: {name}: no {kind} of {place} in {:#}", found.report["findings"]);
            if *kind == "rows_lost" {
                recorded.page_shows(&found);
            }
            recorded.restore();
        }
        let again = recorded.verify(&["--accept-gaps"]);
        assert_eq!(again.status, 0, "{flavor:?}: {:#}", again.report["findings"]);
        println!("{flavor:?}: {} damages found, {} rows", list.len(), clean.report["rows"]);
    });
}

#[test]
fn against_the_journal_every_row_that_differs_is_named_with_its_field() {
    on_each(|cluster, flavor| {
        let recorded = Recorded::new(cluster, flavor, "against");
        let journal = recorded.journal();
        let arguments = ["--accept-gaps", "--against-journal", &journal];
        let clean = recorded.verify(&arguments);
        assert_eq!(clean.status, 0, "{flavor:?}: {:#}", clean.report["findings"]);
        let compared = &clean.report["against_journal"];
        assert_eq!(compared["journaled"], clean.report["rows"], "{flavor:?}: {compared:#}");
        assert_eq!(compared["stored"], clean.report["rows"], "{flavor:?}: {compared:#}");
        assert_eq!(compared["differences"], 0);
        recorded.psql(&format!(
            "UPDATE market_data.trades SET price = price + 1, qty = qty * 2 WHERE {TRADE};
             DELETE FROM market_data.quotes WHERE {QUOTE};
             INSERT INTO market_data.book_deltas SELECT * FROM market_data.book_deltas WHERE {}",
            level()
        ));
        let found = recorded.verify(&arguments);
        assert_eq!(found.status, 4, "{flavor:?}");
        assert_eq!(found.report["against_journal"]["differences"], 3, "{flavor:?}: {:#}", found.report);
        let detail = |kind: &str, table: &str| {
            let of = |finding: &&Value| finding["kind"] == kind && finding["table"] == table;
            let list: Vec<&Value> = found.findings().into_iter().filter(of).collect();
            let [one] = list.as_slice() else { panic!("{flavor:?}: {kind} {table}: {list:?}") };
            one["detail"].as_str().unwrap().to_owned()
        };
        let altered = detail("journal_altered", "trades");
        assert!(altered.contains("price is ") && altered.contains("; qty is "), "{altered}");
        assert!(detail("journal_missing", "quotes").contains("not there, expected time "));
        assert!(detail("journal_surplus", "book_deltas").contains("no frame gives time "));
    });
}

/// A database that a daemon has filled, and its journal.
struct Recorded<'a> {
    cluster: &'a Cluster,
    database: &'static str,
    url: String,
    folder: tempfile::TempDir,
}

/// What `tapeway verify` said.
struct Verified {
    status: i32,
    report: Value,
}

impl Verified {
    fn findings(&self) -> Vec<&Value> {
        self.report["findings"].as_array().unwrap().iter().collect()
    }
}

impl<'a> Recorded<'a> {
    /// Records loopback venues for some seconds, with a killed daemon in between.
    fn new(cluster: &'a Cluster, flavor: Flavor, database: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("tapeway-verify-").tempdir().unwrap();
        let venues = loopback::start(Options {
            symbols: SYMBOLS,
            rate: Rate::RowsPerSecond(ROWS_PER_SECOND),
            is_lossless: true,
            faults: vec!["kind=drop&channel=trades&p=0.01".parse().unwrap()],
            ..Options::default()
        })
        .unwrap();
        let url = cluster.database(database).url.expose().to_owned();
        let config = write_config(folder.path(), &url, &venues);
        let mut daemon = Daemon::start(folder.path(), &config);
        daemon.until_ready();
        let rows = |table: &str| {
            let sql = format!("SELECT count(DISTINCT instrument_id) FROM market_data.{table}");
            cluster.psql(database, &sql).trim().parse::<usize>().unwrap()
        };
        let instruments = SYMBOLS * Venue::ALL.len();
        process::wait(process::PATIENCE, "trades of all", || rows("trades") == instruments);
        process::wait(process::PATIENCE, "books of all", || rows("book_deltas") == instruments);
        std::thread::sleep(Duration::from_secs(1));
        daemon.kill();
        daemon.restart();
        daemon.until_ready();
        let sessions = || cluster.psql(database, "SELECT count(*) FROM audit.sessions WHERE is_open").trim().to_owned();
        let lanes = || cluster.psql(database, "SELECT 2 * count(*) FROM audit.lanes").trim().to_owned();
        process::wait(process::PATIENCE, "every lane connected again", || sessions() == lanes());
        std::thread::sleep(Duration::from_secs(2));
        venues.pause();
        daemon.until_drained();
        gaps::until_settled(cluster, database);
        daemon.until_drained();
        daemon.stop();
        venues.stop().unwrap();
        println!("{flavor:?}: recorded");
        Self { cluster, database, url, folder }
    }

    fn psql(&self, sql: &str) -> String {
        self.cluster.psql(self.database, sql).trim().to_owned()
    }

    fn journal(&self) -> String {
        self.folder.path().join("journal").display().to_string()
    }

    fn verify(&self, more: &[&str]) -> Verified {
        let mut arguments = vec!["verify", "--from", "yesterday", "--to", "tomorrow", "--database-url", &self.url];
        arguments.extend(["--format", "json", "--quiet"]);
        arguments.extend(more);
        let output = tapeway(&arguments);
        let status = output.status.code().unwrap();
        assert!([0, 3, 4].contains(&status), "{}", process::all_of(&output));
        Verified { status, report: serde_json::from_slice(&output.stdout).unwrap() }
    }

    /// The page is one file, says what was found and has a strip for every channel and day.
    fn page_shows(&self, verified: &Verified) {
        let path = self.folder.path().join("report.html");
        let arguments = ["verify", "--from", "yesterday", "--to", "tomorrow", "--database-url", &self.url, "--quiet"];
        let out = ["--format", "html", "--out", path.to_str().unwrap()];
        let output = tapeway(&[arguments.as_slice(), &out].concat());
        assert_eq!(output.status.code(), Some(verified.status), "{}", process::all_of(&output));
        let page = fs::read_to_string(&path).unwrap();
        for elsewhere in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(elsewhere), "the page needs something from elsewhere: {elsewhere}");
        }
        let channels = verified.report["channels"].as_array().unwrap();
        let days: usize = channels.iter().map(|channel| channel["days"].as_array().unwrap().len()).sum();
        assert_eq!(page.matches("<svg ").count(), days);
        assert!(page.contains("<rect class=\"damaged\""), "no strip shows the damage");
        let text = tapeway(&arguments);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.ends_with("DAMAGED: something is missing, doubled or altered that nothing names; of 2 channels nothing can be proven\n"), "{text}");
        for channel in channels {
            let symbol = channel["symbol"].as_str().unwrap();
            assert!(page.contains(symbol) && text.contains(symbol), "{symbol}");
        }
    }

    /// Keeps a copy of every table that is damaged.
    fn save(&self) {
        let copies: String = TABLES
            .iter()
            .map(|table| format!("CREATE TABLE saved.{} AS TABLE {table};", table.replace('.', "_")))
            .collect();
        self.psql(&format!("CREATE SCHEMA saved; {copies}"));
    }

    /// Puts back what differs from the copies.
    fn restore(&self) {
        let back: String = TABLES
            .iter()
            .map(|table| {
                let copy = table.replace('.', "_");
                format!("DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE saved.{copy};")
            })
            .collect();
        self.psql(&back);
    }

    /// What the report counts is what the tables hold.
    fn agrees_with_its_counts(&self, verified: &Verified) {
        let channels = verified.report["channels"].as_array().unwrap();
        let sum = |channel: &str, of: &str| -> u64 {
            let days = channels.iter().filter(|one| one["channel"] == channel).flat_map(|one| one["days"].as_array());
            days.flatten().map(|day| day[of].as_u64().unwrap_or(0)).sum()
        };
        let count = |sql: &str| self.psql(sql).parse::<u64>().unwrap();
        for (channel, table) in [("trades", "trades"), ("book", "book_deltas"), ("quotes", "quotes")] {
            let rows = count(&format!("SELECT count(*) FROM market_data.{table}"));
            assert_eq!((sum(channel, "stored"), sum(channel, "sealed")), (rows, rows), "{table}");
        }
        let expected = count(
            "SELECT sum(n) FROM (SELECT max(trade_id) - min(trade_id) + 1 AS n FROM market_data.trades GROUP BY instrument_id) t",
        );
        assert_eq!(sum("trades", "expected"), expected);
        assert_eq!(sum("trades", "stored") + sum("trades", "missing"), expected, "ids that were given out");
        let healed = count("SELECT sum(healed_rows) FROM audit.gaps");
        assert!(healed > 0, "nothing was healed");
        let unprovable = channels.iter().filter(|one| one["venue"] == "coinbase" && one["channel"] == "book");
        for channel in unprovable {
            assert_eq!(channel["proof"], "unprovable");
            assert_ne!(channel["verdict"], "complete");
        }
    }
}

fn write_config(folder: &Path, database: &str, venues: &loopback::Server) -> PathBuf {
    let config = folder.join("config");
    fs::create_dir_all(config.join("exchanges")).unwrap();
    let main = format!(
        "journal:\n  dir: {}\n  free_bytes_min: 0B\nwriter:\n  pin: off\n  threads: 1\n\
         database:\n  url: {database}\nhttp:\n  listen: 127.0.0.1:0\n",
        folder.join("journal").display(),
    );
    fs::write(config.join("tapeway.yaml"), main).unwrap();
    for venue in Venue::ALL {
        let symbols = venue.symbols(SYMBOLS).join("\", \"");
        let channels = if venue == Venue::Coinbase { "[trades, book]" } else { "[trades, book, quotes]" };
        let text = format!(
            "enabled: true\nsymbols: [\"{symbols}\"]\nchannels: {channels}\nws_url: {}\nhttp_url: {}\n\
             limits:\n  connects: 1_000\n",
            venues.ws_url(venue),
            venues.http_url(venue),
        );
        fs::write(config.join(format!("exchanges/{}.yaml", venue.name())), text).unwrap();
    }
    config
}

/// Instruments on each venue.
const SYMBOLS: usize = 2;
/// Rows a second over all venues.
const ROWS_PER_SECOND: f64 = 3_000.0;

//! What the reader accepts and the exact words with which it refuses. A venue called `acme` stands for all.

use std::{fs, path::PathBuf, time::Duration};

use proptest::prelude::*;
use tapeway_exchanges::{
    config::Limits,
    event::Channel,
    venue::{VENUES, VenueSpec},
};
use tempfile::TempDir;

use super::{
    Config, Pin, Problems, SymbolPattern, keys, keys::Key, problem::Problems as Noted, read::load, reference,
    values::Values,
};

static REGISTRY: &[VenueSpec] =
    &[acme("acme", &[10, 100]), acme("acme-spot", &[]), VenueSpec { channels: &[], ..acme("acme-old", &[]) }];

/// What a venue of ours is, with a name and offers that no change of ours touches.
const fn acme(name: &'static str, book_depths: &'static [u32]) -> VenueSpec {
    VenueSpec {
        name,
        ws_url: "wss://ws.acme.example",
        http_url: "https://api.acme.example",
        channels: &[Channel::Trades, Channel::Book],
        book_depths,
        limits: Limits {
            streams_per_connection: 200,
            messages_per_second: 5,
            connects: 300,
            connects_per: Duration::from_secs(300),
            http_weight_per_minute: 1_200,
            silence: Duration::from_secs(60),
            lifetime: Some(Duration::from_secs(86_400)),
        },
        ..VENUES[0]
    }
}

/// A folder with `tapeway.yaml` and what a test adds.
struct Files(TempDir);

const URL: &str = "database: {url: postgresql://u@h/db}\n";

impl Files {
    fn new(main: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("tapeway.yaml"), main).unwrap();
        fs::create_dir(dir.path().join("exchanges")).unwrap();
        Self(dir)
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.0.path().join(name), text).unwrap();
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        load(self.0.path(), &environment, REGISTRY)
    }

    /// Every problem as printed, without the folder's name.
    fn problems(&self) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let problems = self.load().unwrap_err();
        problems.list().iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "DB" => Some("postgresql://u:hunter2@h/db".into()),
        "ROWS" => Some("500".into()),
        "LEAK" => Some("hunter2".into()),
        _ => None,
    }
}

/// The problems of `main` alone, after a good `database.url` at its end.
fn main_problems(main: &str) -> Vec<String> {
    Files::new(&format!("{main}\n{URL}")).problems()
}

/// The problems of `acme.yaml` alone.
fn venue_problems(text: &str) -> Vec<String> {
    Files::new(URL).with("exchanges/acme.yaml", text).problems()
}

mod accepted {
    use super::*;

    #[test]
    fn a_database_url_alone_is_enough() {
        let config = Files::new(URL).load().unwrap();
        assert_eq!(config.database.url.expose(), "postgresql://u@h/db");
        assert_eq!(config.journal.sync_interval, Duration::from_millis(10));
        assert_eq!(config.journal.segment_bytes_max, 64 << 20);
        assert_eq!(config.writer.threads, None);
        assert_eq!(config.writer.pin, Pin::Auto);
        assert_eq!(config.http.listen, "127.0.0.1:9464".parse().unwrap());
        assert!(config.http.listen.ip().is_loopback());
        assert_eq!(
            config.database.tables.keys().collect::<Vec<_>>(),
            ["book_deltas", "order_books", "quotes", "trades"]
        );
        assert_eq!(config.database.tables["trades"].drop_after, None);
        assert!(config.venues.is_empty());
    }

    #[test]
    fn values_replace_defaults() {
        let main = "
            journal: {dir: j, sync_interval: 5ms, compress: false, bytes_max: 1GiB, keep_for: 7d}
            writer: {threads: 3, pin: [2, 3], batch_rows_max: 5_000}
            database:
              url: postgresql://u@h/db
              tables: {trades: {drop_after: 30d}}
              columnstore: off
            logging: {level: 'info,tapeway=debug', format: json}
            shutdown_deadline: 0s";
        let files = Files::new(main);
        let config = files.load().unwrap();
        assert_eq!(config.journal.dir, files.0.path().join("j"));
        assert_eq!(config.journal.keep_for, Duration::from_secs(7 * 86_400));
        assert!(!config.journal.is_compressed);
        assert_eq!(config.writer.threads, Some(3));
        assert_eq!(config.writer.pin, Pin::Cores(vec![2, 3]));
        assert_eq!(config.writer.batch_rows_max, 5_000);
        assert_eq!(config.database.tables["trades"].drop_after, Some(Duration::from_secs(30 * 86_400)));
        assert!(!config.database.is_columnstore_wanted);
        assert!(config.logging.is_json);
        assert_eq!(config.shutdown_deadline, Duration::ZERO);
    }

    #[test]
    fn a_section_whose_keys_are_all_commented_out_is_empty() {
        let config = Files::new(&format!("journal:\n  # dir: x\n{URL}")).load().unwrap();
        assert_eq!(config.journal.dir, PathBuf::from("/var/lib/tapeway/journal"));
    }

    #[test]
    fn variables_and_files_give_secrets() {
        let config = Files::new("database: {url: '${DB}'}\nwriter: {batch_rows_max: '${ROWS}', chunk_rows_max: 1}");
        let config = config.load().unwrap();
        assert_eq!(config.database.url.expose(), "postgresql://u:hunter2@h/db");
        assert_eq!(config.writer.batch_rows_max, 500);
        let files = Files::new("database: {url_file: url, password_file: password}");
        let config = files.with("url", "postgresql://u@h/db\n").with("password", "p@ss\n").load().unwrap();
        assert_eq!(config.database.url.expose(), "postgresql://u:p%40ss@h/db");
        assert!(!format!("{config:?}").contains("p%40ss"));
    }

    #[test]
    fn an_enabled_venue_with_its_own_limits() {
        let text = "
            enabled: true
            symbols: [BTC-USD, '*-EUR']
            channels: [book]
            book_depth: 100
            lanes: 2
            ws_url: ws://127.0.0.1:9001/
            limits: {messages_per_second: 1, lifetime: never}";
        let config = Files::new(URL).with("exchanges/acme.yaml", text).load().unwrap();
        let [venue] = &config.venues[..] else { panic!("one venue") };
        assert_eq!(venue.spec.name, "acme");
        assert_eq!(venue.symbols, [SymbolPattern::Exact("BTC-USD".into()), SymbolPattern::Glob("*-EUR".into())]);
        assert_eq!(venue.channels, [Channel::Book]);
        assert_eq!(venue.book_depth, Some(100));
        assert_eq!(venue.lanes_min, 2);
        assert_eq!(venue.ws_url, "ws://127.0.0.1:9001");
        assert_eq!(venue.http_url, "https://api.acme.example");
        assert_eq!((venue.limits.messages_per_second, venue.limits.connects), (1, 300));
        assert_eq!(venue.limits.lifetime, None);
    }

    #[test]
    fn a_venue_that_is_not_enabled_is_left_out() {
        let files = Files::new(URL).with("exchanges/acme.yaml", "symbols: [BTC-USD]").with("exchanges/notes.txt", "x");
        assert!(files.load().unwrap().venues.is_empty());
    }

    #[test]
    fn the_file_can_be_named_instead_of_its_folder() {
        let files = Files::new(URL);
        let file = files.0.path().join("tapeway.yaml");
        assert!(load(&file, &environment, REGISTRY).is_ok());
    }
}

mod refused {
    use super::*;

    #[test]
    fn everything_at_once_over_all_files_in_file_and_line_order() {
        let main = "journal:\n  dri: x\n  segment_bytes_max: 64MB\nwriter: {threads: many}";
        let venue = "enabled: maybe\nsymbols: [A B]\nchannels: [trades, funding]";
        let files = Files::new(main).with("exchanges/acme.yaml", venue).with("exchanges/amce.yaml", "");
        assert_eq!(
            files.problems(),
            [
                "exchanges/acme.yaml:1: enabled: found `maybe`, allowed true or false",
                "exchanges/acme.yaml:2: symbols: found `A B`, allowed 1 to 64 bytes without spaces",
                "exchanges/acme.yaml:3: channels: found `funding`, allowed trades, book",
                "exchanges/amce.yaml: found the venue amce, allowed acme, acme-spot; the nearest is acme",
                "tapeway.yaml:1: database.url: found nothing, allowed postgresql://user@host:port/name or \
                 host=... user=... dbname=..., or a database.url_file",
                "tapeway.yaml:2: journal.dri: found an unknown key, allowed dir, segment_bytes_max, sync_interval, \
                 keep_for, bytes_max, free_bytes_min, compress; the nearest is dir",
                "tapeway.yaml:3: journal.segment_bytes_max: found `64MB`, allowed a size from 1MiB to 4GiB \
                 (B, KiB, MiB, GiB, TiB)",
                "tapeway.yaml:4: writer.threads: found `many`, allowed auto or a whole number from 1 to 64",
            ]
        );
        let printed = files.load().unwrap_err().to_string();
        assert!(printed.starts_with("8 problems in the configuration\n  /"), "{printed}");
    }

    #[test]
    fn a_key_given_twice() {
        assert_eq!(
            main_problems("journal:\n  dir: a\n  dir: b\njournal: {}"),
            [
                "tapeway.yaml:3: journal.dir: found the key a second time (first on line 2), allowed it once",
                "tapeway.yaml:4: journal: found the key a second time (first on line 1), allowed it once",
            ]
        );
    }

    #[test]
    fn an_unknown_section() {
        assert_eq!(
            main_problems("storage: {dir: x}\njuornal: 1"),
            [
                "tapeway.yaml:1: storage: found an unknown key, allowed journal, writer, database, http, logging, \
                 shutdown_deadline, ca_file",
                "tapeway.yaml:2: juornal: found an unknown key, allowed journal, writer, database, http, logging, \
                 shutdown_deadline, ca_file; the nearest is journal",
            ]
        );
    }

    #[test]
    fn shapes_that_do_not_fit() {
        assert_eq!(
            main_problems("http: 127.0.0.1:1\nlogging: [info]\njournal:\n  dir:\n  keep_for: [1h]\n  compress: {a: b}"),
            [
                "tapeway.yaml:1: http: found a single value, allowed a group of keys: listen",
                "tapeway.yaml:2: logging: found a list, allowed a group of keys: level, format",
                "tapeway.yaml:4: journal.dir: found no value, allowed the path of a file or folder",
                "tapeway.yaml:5: journal.keep_for: found a list, allowed a time from 0s to 3650d (ms, s, m, h, d)",
                "tapeway.yaml:6: journal.compress: found a group of keys, allowed true or false",
            ]
        );
        assert_eq!(
            Files::new("- a").problems(),
            ["tapeway.yaml:1: found a list, allowed a group of keys: journal, writer, database, http, logging, \
              shutdown_deadline, ca_file"]
        );
    }

    #[test]
    fn values_out_of_bounds_or_of_another_kind() {
        assert_eq!(
            main_problems(
                "journal: {sync_interval: 11s}\nwriter:\n  batch_rows_max: 0\n  pin: [1, x]\n  batch_age_max: 5\n\
                 http: {listen: localhost}\nlogging: {level: inof, format: xml}"
            ),
            [
                "tapeway.yaml:1: journal.sync_interval: found `11s`, allowed a time from 1ms to 10s (ms, s, m, h, d)",
                "tapeway.yaml:3: writer.batch_rows_max: found `0`, allowed a whole number from 1 to 100000",
                "tapeway.yaml:4: writer.pin: found `x`, allowed a whole number from 0 to 1023",
                "tapeway.yaml:5: writer.batch_age_max: found `5`, allowed a time from 1ms to 1m (ms, s, m, h, d)",
                "tapeway.yaml:6: http.listen: found `localhost`, allowed an IP address and port such as 127.0.0.1:9464",
                "tapeway.yaml:7: logging.format: found `xml`, allowed text or json",
                "tapeway.yaml:7: logging.level: found `inof`, allowed error, warn, info, debug, trace or off, or a \
                 list such as info,tapeway::journal=debug",
            ]
        );
        assert_eq!(
            main_problems("writer: {pin: []}"),
            [
                "tapeway.yaml:1: writer.pin: found an empty list, allowed auto or off or a list of at most 64 numbers below 1024"
            ]
        );
    }

    #[test]
    fn values_that_contradict_each_other() {
        assert_eq!(
            main_problems("journal: {segment_bytes_max: 1GiB, bytes_max: 3GiB}\nwriter: {batch_rows_max: 10}"),
            [
                "tapeway.yaml:1: journal.bytes_max: found 3GiB, allowed at least 4GiB (four times \
                 journal.segment_bytes_max)",
                "tapeway.yaml:2: writer.chunk_rows_max: found 1024, allowed at most 10 (writer.batch_rows_max)",
            ]
        );
        let main = "database:\n  url: postgresql://u@h/db\n  tables:\n    trades:\n      drop_after: 1h\n  candles:\n    \
                    refresh_every: 4h";
        assert_eq!(
            Files::new(main).problems(),
            [
                "tapeway.yaml:4: database.tables.trades.compress_after: found 2h, allowed never or less than 1h \
                 (database.tables.trades.drop_after)",
                "tapeway.yaml:5: database.tables.trades.drop_after: found 1h, allowed at least 1d \
                 (database.tables.trades.chunk_interval)",
                "tapeway.yaml:6: database.candles.refresh_window: found 3h, allowed at least 4h \
                 (database.candles.refresh_every)",
                "tapeway.yaml:6: database.candles.refresh_window: found 3h, allowed at most 1h \
                 (database.tables.trades.drop_after)",
            ]
        );
    }

    #[test]
    fn a_wrong_value_is_one_problem_and_not_also_a_missing_or_contradicting_one() {
        let main = "journal: {bytes_max: lots, segment_bytes_max: 4GiB}\ndatabase: {url: [x]}";
        let files = Files::new(main).with("exchanges/acme.yaml", "enabled: true\nsymbols: BTC-USD");
        assert_eq!(
            files.problems(),
            [
                "exchanges/acme.yaml:2: symbols: found `BTC-USD`, allowed a list of at most 10000 names",
                "tapeway.yaml:1: journal.bytes_max: found `lots`, allowed a size from 16MiB to 1024TiB \
                 (B, KiB, MiB, GiB, TiB)",
                "tapeway.yaml:2: database.url: found a list, allowed text that is not empty",
            ]
        );
    }

    #[test]
    fn a_variable_that_is_not_set() {
        assert_eq!(
            main_problems("\njournal: {dir: '${JOURNAL}/x'}\nhttp: {listen: '${A'}"),
            [
                "tapeway.yaml:2: journal.dir: found ${JOURNAL}, which is not set in the environment, allowed a \
                 variable that is set, or ${JOURNAL:-a default}",
                "tapeway.yaml:3: http.listen: found `${` without `}`, allowed ${NAME} or ${NAME:-default}, or $${ \
                 for the two characters",
            ]
        );
    }

    #[test]
    fn files_for_secrets_that_are_missing_empty_or_one_too_many() {
        let main = "database:\n  url_file: nothing\n  password_file: empty\n  ca_file: gone.pem";
        assert_eq!(
            Files::new(main).with("empty", "\n").problems(),
            [
                "tapeway.yaml:2: database.url_file: found `nothing`, no such file, allowed a file that can be read",
                "tapeway.yaml:3: database.password_file: found `empty`, which holds no text, allowed a file that \
                 holds the secret and nothing else",
                "tapeway.yaml:4: database.ca_file: found `gone.pem`, no such file, allowed a file that can be read",
            ]
        );
        let main = "database:\n  url: postgresql://u:p@h/db\n  url_file: x\n  password: y";
        assert_eq!(
            Files::new(main).problems(),
            ["tapeway.yaml:3: database.url_file: found database.url as well, allowed one of the two"]
        );
        let main = "database:\n  url: postgresql://u:p@h/db\n  password: y";
        assert_eq!(
            Files::new(main).problems(),
            [
                "tapeway.yaml:2: database.url: found a URL with a password, and database.password, allowed one of the two"
            ]
        );
    }

    #[test]
    fn secrets_are_never_shown() {
        for main in [
            "database: {url: 'mysql://u:hunter2@h/db'}",
            "database: {url: '${LEAK}'}",
            "database: {url: 'postgresql://h/db', password: hunter2}",
            "database: {url: ['postgresql://u:hunter2@h/db']}",
            "database: {urll: 'postgresql://u:hunter2@h/db'}",
            "database: 'postgresql://u:hunter2@h/db'",
            "'postgresql://u:hunter2@h/db': x",
            "http: {listen: 'postgresql://u:hunter2@h/db'}",
            "http: {listen: '${LEAK}'}",
            "writer: {pin: ['${LEAK}']}",
            "journal: {dir: hunter2}\ndatabase: {url_file: '${LEAK}\0'}",
        ] {
            let files =
                Files::new(main).with("exchanges/acme.yaml", "symbols: ['${LEAK} ']\nws_url: 'wss://u:hunter2@h'");
            let problems = files.problems();
            assert!(problems.len() >= 3, "{problems:?}");
            assert!(!problems.join("\n").contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn a_venue_file_against_what_the_venue_offers() {
        let text = "enabled: true\nsymbols:\n  - A\n  - B*\n  - A\nchannels: [quotes, trades, trades]\nbook_depth: 50\n\
                    lanes: 65\nws_url: https://x\nlimits:\n  lifetime: forever\n  weight: 1";
        assert_eq!(
            venue_problems(text),
            [
                "exchanges/acme.yaml:5: symbols: found `A` a second time (first on line 3), allowed it once",
                "exchanges/acme.yaml:6: channels: found `quotes`, allowed trades, book",
                "exchanges/acme.yaml:6: channels: found `trades` a second time (first on line 6), allowed it once",
                "exchanges/acme.yaml:7: book_depth: found 50, allowed 10, 100",
                "exchanges/acme.yaml:8: lanes: found `65`, allowed a whole number from 1 to 64",
                "exchanges/acme.yaml:9: ws_url: found `https://x`, allowed wss://host[:port][/path] or \
                 ws://host[:port][/path]",
                "exchanges/acme.yaml:11: limits.lifetime: found `forever`, allowed never or a time from 10s to 365d \
                 (ms, s, m, h, d)",
                "exchanges/acme.yaml:12: limits.weight: found an unknown key, allowed streams_per_connection, \
                 messages_per_second, connects, connects_per, http_weight_per_minute, silence, lifetime",
            ]
        );
        assert_eq!(
            venue_problems("enabled: true\nchannels: []"),
            [
                "exchanges/acme.yaml:1: symbols: found nothing, allowed at least one symbol or pattern, or \
                 `enabled: false`",
                "exchanges/acme.yaml:2: channels: found an empty list, allowed trades, book",
            ]
        );
        let files = Files::new(URL).with("exchanges/acme-spot.yaml", "book_depth: 10");
        assert_eq!(
            files.problems(),
            ["exchanges/acme-spot.yaml:1: book_depth: found 10, allowed no book_depth: acme-spot gives no choice"]
        );
        let files = Files::new(URL).with("exchanges/acme-old.yaml", "");
        assert_eq!(files.problems(), ["exchanges/acme-old.yaml: found the venue acme-old, allowed acme, acme-spot"]);
        let files = Files::new(URL).with("exchanges/acme.yml", "");
        assert_eq!(files.problems(), ["exchanges/acme.yml: found the ending .yml, allowed the ending .yaml"]);
    }

    #[test]
    fn what_is_not_yaml_that_we_take() {
        for (text, problem) in [
            ("a: &x 1", "tapeway.yaml:1: found an anchor, allowed the value without it"),
            ("a: !x 1", "tapeway.yaml:1: found a tag, allowed the value without it"),
            ("---\na: 1\n---\nb: 1", "tapeway.yaml:3: found a second document, allowed one document a file"),
            ("? [a]\n: b", "tapeway.yaml:1: found a list as a key, allowed a name"),
        ] {
            assert_eq!(Files::new(text).problems(), [problem]);
        }
        let broken = Files::new("journal:\n  dir: [\n").problems();
        assert!(broken[0].starts_with("tapeway.yaml:3: found broken YAML ("), "{broken:?}");
        let deep = Files::new(&"[".repeat(100)).problems();
        assert_eq!(deep[0], "tapeway.yaml:1: found too many levels inside each other, allowed at most 16");
    }

    #[test]
    fn files_that_cannot_be_read() {
        let files = Files::new(URL);
        let problems = load(&files.0.path().join("other.yaml"), &environment, REGISTRY).unwrap_err();
        assert!(
            problems.list()[0]
                .to_string()
                .ends_with("/other.yaml: found no such file, allowed a file that can be read")
        );
        assert_eq!(problems.list().len(), 1);
        fs::write(files.0.path().join("tapeway.yaml"), b"a: \xff").unwrap();
        assert_eq!(files.problems(), ["tapeway.yaml: found bytes that are not UTF-8, allowed a file that can be read"]);
        fs::write(files.0.path().join("tapeway.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
        assert_eq!(files.problems(), ["tapeway.yaml: found more than 1MiB, allowed a file that can be read"]);
    }
}

mod any_text {
    use super::*;

    /// Text that is half made of what these files are made of, so that it gets past the first line.
    fn yaml() -> impl Strategy<Value = String> {
        let paths = keys::DAEMON.iter().chain(keys::VENUE).flat_map(|key| key.path.split('.'));
        let words: Vec<String> = paths.map(str::to_owned).collect();
        let piece = prop_oneof![
            4 => prop::sample::select(words),
            4 => prop::sample::select(vec![": ", ":\n  ", "\n", "\n    ", "- ", "[", "]", "{", "}", ", ", "'", "\"", "${", "}"])
                .prop_map(str::to_owned),
            2 => "[0-9]{1,20}(ms|s|d|MiB|TiB)?",
            1 => "\\PC{0,8}",
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn is_read_or_refused_without_a_panic(main in yaml(), venue in yaml()) {
            let files = Files::new(&main).with("exchanges/acme.yaml", &venue);
            if let Err(problems) = files.load() {
                prop_assert!(!problems.list().is_empty());
            }
        }
    }
}

/// The files and the page that the project ships say what the reader knows: no more, no less, nothing else.
mod shipped {
    use super::*;

    fn text(path: &str) -> String {
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    fn read(path: &'static str, keys: &'static [Key]) -> Values<'static> {
        let mut problems = Noted::default();
        let values = Values::read(std::path::Path::new(path), &text(path), keys, &|_| None, &mut problems);
        problems.into_result().unwrap();
        values
    }

    fn defaults() -> Values<'static> {
        Values::read(std::path::Path::new(""), "", keys::DAEMON, &|_| None, &mut Noted::default())
    }

    #[test]
    fn the_reference_page_lists_exactly_the_keys() {
        let page = text("docs/configuration.md");
        assert!(page.ends_with(&reference()), "docs/configuration.md must end with:\n\n{}", reference());
    }

    #[test]
    fn tapeway_yaml_holds_every_key_at_its_default() {
        let path = "config/tapeway.yaml";
        let (values, text, empty) = (read(path, keys::DAEMON), text(path), defaults());
        for key in keys::DAEMON {
            let name = key.path.rsplit_once('.').map_or(key.path, |(_, name)| name);
            match key.default {
                Some(_) => assert_eq!(values.value(key.path), empty.value(key.path), "{}", key.path),
                None if key.path == "database.url" => assert!(values.is_given(key.path)),
                None => assert!(text.contains(&format!("# {name}: ")), "{} is not shown", key.path),
            }
            assert!(key.default.is_none() || values.is_given(key.path), "{} is not there", key.path);
        }
    }

    #[test]
    fn the_settings_of_the_compose_file_are_settings() {
        let values = read("deploy/compose/tapeway.yaml", keys::DAEMON);
        assert_eq!(values.file("database.password_file"), Some("/run/secrets/database_password".into()));
        assert!(!values.address("http.listen").ip().is_loopback());
    }

    #[test]
    fn every_venue_has_a_file_and_all_of_them_load() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
        let config = load(&folder, &|_| None, VENUES).unwrap();
        assert!(config.venues.len() >= 4, "{config:?}");
        assert_eq!(venue_files().len(), live_venues().count());
    }

    /// Each key is there, live or behind a `#`; and what is behind a `#` would be right without it.
    #[test]
    fn venue_files_show_every_key_with_a_value_that_is_allowed() {
        for spec in live_venues() {
            let text = text(&format!("config/exchanges/{}.yaml", spec.name));
            for key in keys::VENUE {
                let name = key.path.rsplit_once('.').map_or(key.path, |(_, name)| name);
                assert!(text.contains(name), "{}: {}", spec.name, key.path);
            }
            assert!(text.contains(&format!("# ws_url: {}\n", spec.ws_url)), "{}", spec.name);
            assert!(text.contains(&format!("# http_url: {}\n", spec.http_url)), "{}", spec.name);
            let files = Files::new(URL).with(&format!("exchanges/{}.yaml", spec.name), &without_marks(&text));
            assert!(
                load(files.0.path(), &|_| None, VENUES).is_ok(),
                "{}: {:?}",
                spec.name,
                load(files.0.path(), &|_| None, VENUES)
            );
        }
    }

    /// The text with the `#` taken from before every key of which there is no live line.
    fn without_marks(text: &str) -> String {
        let key_of = |line: &str| {
            keys::VENUE.iter().find_map(|key| {
                let name = key.path.rsplit_once('.').map_or(key.path, |(_, name)| name);
                line.trim_start().starts_with(&format!("{name}:")).then_some(name)
            })
        };
        let live: Vec<_> = text.lines().filter_map(key_of).collect();
        let lines = text.lines().map(|line| {
            let bare = line.replacen("# ", "", 1);
            let is_choice =
                line.trim_start().starts_with("# ") && key_of(&bare).is_some_and(|key| !live.contains(&key));
            if is_choice { bare + "\n" } else { format!("{line}\n") }
        });
        lines.collect()
    }

    /// Venues that can be recorded, and not only read from recordings.
    fn live_venues() -> impl Iterator<Item = &'static VenueSpec> {
        VENUES.iter().filter(|spec| !spec.channels.is_empty())
    }

    fn venue_files() -> Vec<PathBuf> {
        let entries = fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/exchanges")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

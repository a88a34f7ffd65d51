//! The store: migrating and reconciling can be done again, and by several at once, with the same result.

use std::time::Duration;

use rust_decimal::Decimal;
use tapeway::{
    config::{Database, TablePolicy},
    store::{self, Layout, instruments},
};
use tapeway_exchanges::{
    ids::Micros,
    metadata::{Instrument, InstrumentKind},
    symbols::Symbol,
};

use crate::cluster::{Cluster, Flavor, block_on, connect, on_each};

const DAY: Duration = Duration::from_secs(86_400);

fn with_policy(database: &Database, policy: TablePolicy) -> Database {
    let mut database = database.clone();
    for table in ["trades", "book_deltas", "quotes", "order_books"] {
        database.tables.insert(table.into(), policy);
    }
    database
}

#[test]
fn migrating_twice_and_from_several_at_once_gives_one_schema() {
    on_each(|cluster, flavor| {
        let database = cluster.database("twice");
        block_on(async {
            let (a, b, c) =
                tokio::join!(store::prepare(&database), store::prepare(&database), store::prepare(&database));
            let found = a.unwrap();
            assert_eq!(found, b.unwrap());
            assert_eq!(found, c.unwrap());
            let (layout, is_timescale) = match flavor {
                Flavor::Plain => (Layout::Partitioned, false),
                Flavor::Timescale => (Layout::Hypertable, true),
            };
            assert_eq!(found.layout, Some(layout));
            assert_eq!(found.timescaledb.is_some(), is_timescale);
            assert_eq!(found.direct_compress(true), is_timescale);
            assert!(!found.direct_compress(false));
        });
        let before = cluster.psql("twice", "SELECT version, name, checksum FROM audit.migrations ORDER BY 1");
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/migrations")).unwrap().count();
        assert_eq!(before.lines().count(), files, "every file in the folder is one that is applied");
        let jobs = jobs(cluster, flavor);
        block_on(store::prepare(&database)).unwrap();
        assert_eq!(cluster.psql("twice", "SELECT version, name, checksum FROM audit.migrations ORDER BY 1"), before);
        assert_eq!(self::jobs(cluster, flavor), jobs, "policies that are right are left alone, job numbers and all");
        let candles = cluster.psql("twice", "SELECT count(*) FROM pg_views WHERE schemaname = 'aggregates'");
        assert_eq!(candles.trim(), "7");
    });
}

fn jobs(cluster: &Cluster, flavor: Flavor) -> String {
    match flavor {
        Flavor::Plain => partitions(cluster, "twice"),
        Flavor::Timescale => cluster.psql(
            "twice",
            "SELECT job_id, proc_name, hypertable_name, schedule_interval, config FROM timescaledb_information.jobs
             WHERE job_id >= 1000 ORDER BY 1",
        ),
    }
}

fn partitions(cluster: &Cluster, database: &str) -> String {
    cluster.psql(
        database,
        "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits
         JOIN pg_class child ON child.oid = inhrelid
         JOIN pg_class parent ON parent.oid = inhparent AND parent.relkind = 'p'
         ORDER BY 1",
    )
}

#[test]
fn old_sessions_and_rejects_are_dropped_and_gaps_never() {
    on_each(|cluster, _| {
        let mut database = cluster.database("audit");
        let capabilities = block_on(store::prepare(&database)).unwrap();
        cluster.psql(
            "audit",
            "INSERT INTO audit.sessions SELECT 1, n, now() - n * interval '1 hour', true, 'url' FROM generate_series(1, 30000) n;
             INSERT INTO audit.rejects SELECT 1, n, 'field', 'why', now() - n * interval '1 hour' FROM generate_series(1, 30000) n;
             INSERT INTO audit.gaps (lane_id, frame_pos, ordinal, venue, cause, detected_at)
                 SELECT 1, n, 0, 'acme', 'downtime', now() - n * interval '1 hour' FROM generate_series(1, 30000) n",
        );
        let counts = || {
            ["sessions", "rejects", "gaps"]
                .map(|table| cluster.psql("audit", &format!("SELECT count(*) FROM audit.{table}")).trim().to_owned())
        };
        let maintain = |database: &Database| {
            block_on(async { store::policies::maintain(&connect(database).await, &capabilities, database).await })
                .unwrap();
        };
        maintain(&database);
        assert_eq!(counts(), ["30000", "30000", "30000"], "never, if nothing is said");
        database.audit_drop_after = Some(Duration::from_secs(48 * 3_600 + 60));
        maintain(&database);
        assert_eq!(counts(), ["48", "48", "30000"]);
        maintain(&database);
        assert_eq!(counts(), ["48", "48", "30000"]);
    });
}

#[test]
fn changed_policies_are_made_true_on_timescaledb() {
    let Some(cluster) = Cluster::start(Flavor::Timescale) else { return };
    let policy =
        |chunk, compress, drop| TablePolicy { chunk_interval: chunk, compress_after: compress, drop_after: drop };
    let database = cluster.database("policies");
    let read = || {
        let jobs = cluster.psql(
            "policies",
            "SELECT proc_name, coalesce(config ->> 'compress_after', config ->> 'drop_after')::interval
             FROM timescaledb_information.jobs WHERE hypertable_name = 'trades' ORDER BY 1",
        );
        let width = cluster.psql(
            "policies",
            "SELECT time_interval FROM timescaledb_information.dimensions WHERE hypertable_name = 'trades'",
        );
        (jobs.trim().to_owned(), width.trim().to_owned())
    };
    block_on(store::prepare(&with_policy(&database, policy(DAY, Some(DAY * 2), None)))).unwrap();
    assert_eq!(read(), ("policy_compression|48:00:00".into(), "1 day".into()));
    block_on(store::prepare(&with_policy(&database, policy(DAY / 2, Some(DAY), Some(DAY * 30))))).unwrap();
    assert_eq!(read(), ("policy_compression|24:00:00\npolicy_retention|720:00:00".into(), "12:00:00".into()));
    block_on(store::prepare(&with_policy(&database, policy(DAY / 2, None, None)))).unwrap();
    assert_eq!(read(), (String::new(), "12:00:00".into()));
    let settings = cluster.psql(
        "policies",
        "SELECT segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings
         WHERE hypertable = 'market_data.trades'::regclass",
    );
    assert_eq!(settings.trim(), "instrument_id|\"time\"");
    let refreshes = cluster.psql(
        "policies",
        "SELECT schedule_interval, config ->> 'start_offset' FROM timescaledb_information.jobs
         WHERE proc_name = 'policy_refresh_continuous_aggregate' ORDER BY job_id",
    );
    assert_eq!(refreshes.lines().count(), 7);
    assert_eq!(refreshes.lines().next(), Some("00:01:00|02:00:00"));
    let mut faster = database.clone();
    faster.candles_refresh_every = Duration::from_secs(30);
    block_on(store::prepare(&faster)).unwrap();
    let fast = cluster.psql(
        "policies",
        "SELECT count(*) FROM timescaledb_information.jobs
         WHERE proc_name = 'policy_refresh_continuous_aggregate' AND schedule_interval = '30 s'",
    );
    assert_eq!(fast.trim(), "7");
}

#[test]
fn partitions_are_made_ahead_and_dropped_past_retention() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let keep = TablePolicy { chunk_interval: DAY, compress_after: None, drop_after: None };
    let database = with_policy(&cluster.database("parts"), keep);
    block_on(store::prepare(&database)).unwrap();
    let ahead =
        cluster.psql("parts", "SELECT count(*) FROM pg_inherits WHERE inhparent = 'market_data.trades'::regclass");
    assert_eq!(ahead.trim(), "5", "yesterday, today and three days ahead");
    cluster.psql(
        "parts",
        "CREATE TABLE market_data.trades_old PARTITION OF market_data.trades
         FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00')",
    );
    block_on(store::prepare(&database)).unwrap();
    assert!(partitions(&cluster, "parts").contains("trades_old"), "without retention nothing is dropped");
    let drop = TablePolicy { chunk_interval: DAY / 4, drop_after: Some(DAY * 10), ..keep };
    block_on(store::prepare(&with_policy(&database, drop))).unwrap();
    let after = partitions(&cluster, "parts");
    assert!(!after.contains("trades_old"), "{after}");
    // Narrower partitions go where there are none yet; the old ones stay.
    cluster.psql(
        "parts",
        "INSERT INTO market_data.trades SELECT now() + n * interval '1 hour', now(), 1, 1, 1, 0, NULL, NULL, 0, 1, 1
         FROM generate_series(-20, 70) n",
    );
}

#[test]
fn a_user_without_rights_is_told_so() {
    on_each(|cluster, _| {
        let database = cluster.database("rights");
        block_on(store::prepare(&database)).unwrap();
        cluster.psql("rights", "CREATE ROLE reader LOGIN");
        let mut weak = database.clone();
        weak.url = tapeway::config::Secret::new(weak.url.expose().replace("postgres@", "reader@"));
        block_on(async {
            let connection = connect(&weak).await;
            let found = store::Capabilities::read(&connection).await.unwrap();
            assert_eq!((found.can_create, found.can_insert), (false, Some(false)));
        });
    });
}

fn listed(symbol: &str, tick: &str) -> Instrument {
    Instrument {
        symbol: symbol.into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        kind: InstrumentKind::Future,
        expiry: Some(Micros(1_800_000_000_000_000)),
        price_tick: Some(tick.parse().unwrap()),
        qty_step: Some(Decimal::new(1, 8)),
        contract_size: None,
        listed: None,
        is_trading: true,
    }
}

#[test]
fn instruments_get_one_number_each_and_their_history_is_kept() {
    on_each(|cluster, _| {
        let database = cluster.database("instruments");
        block_on(async {
            store::prepare(&database).await.unwrap();
            let (first, second) = tokio::join!(connect(&database), connect(&database));
            let names: Vec<Symbol> = (0..300).map(|nr| format!("S{nr}").into()).collect();
            let reversed: Vec<Symbol> = names.iter().rev().cloned().collect();
            let (a, b) = tokio::join!(
                instruments::register(&first, "acme", &names),
                instruments::register(&second, "acme", &reversed)
            );
            let (a, mut b) = (a.unwrap(), b.unwrap());
            b.reverse();
            assert_eq!(a, b, "two daemons give one symbol one number");
            assert_eq!(a.iter().collect::<std::collections::HashSet<_>>().len(), 300);
            let other = instruments::register(&first, "other", &names[..1]).await.unwrap();
            assert_ne!(other[0], a[0], "a symbol of another venue is another instrument");

            let list = [listed("S0", "0.10"), listed("S1", "0.5"), listed("never recorded", "1")];
            let changed = instruments::enrich(&first, "acme", &list).await.unwrap();
            assert_eq!((changed.changed, changed.delisted), (2, 0));
            let again = instruments::enrich(&first, "acme", &list).await.unwrap();
            assert_eq!((again.changed, again.delisted), (0, 0));
            let later = instruments::enrich(&first, "acme", &[listed("S0", "0.01")]).await.unwrap();
            assert_eq!((later.changed, later.delisted), (1, 1));
        });
        let now = cluster.psql(
            "instruments",
            "SELECT symbol, price_tick, is_trading, delisted IS NOT NULL, base, quote, kind, extract(epoch FROM expiry)::bigint
             FROM market_data.instruments WHERE base IS NOT NULL ORDER BY 1",
        );
        assert_eq!(now, "S0|0.01|t|f|BTC|USDT|future|1800000000\nS1|0.5|f|t|BTC|USDT|future|1800000000\n");
        let history = cluster.psql(
            "instruments",
            "SELECT symbol, h.price_tick, h.is_trading, valid_to IS NULL FROM market_data.instruments_history h
             JOIN market_data.instruments USING (instrument_id) ORDER BY 1, valid_from",
        );
        assert_eq!(history, "S0|0.10|t|f\nS0|0.01|t|t\nS1|0.5|t|f\nS1|0.5|f|t\n");
    });
}

/// A certificate authority and a server certificate for `name` by it, as PEM: authority, certificate, key.
fn certificates(name: &str) -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {name}"));
    let ca_pem = params.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca_pem, certificate.pem(), key.serialize_pem())
}

/// libpq's table of sslmode: what is encrypted, what is checked.
#[test]
fn sslmode_means_what_libpq_means_by_it() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let plain = cluster.database("tls");
    let try_with = |mode: &str, host: &str, ca_file: Option<&std::path::Path>| {
        let mut database = plain.clone();
        let url = format!("postgresql://postgres@{host}:{}/tls?sslmode={mode}", cluster.port);
        database.url = tapeway::config::Secret::new(url);
        database.ca_file = ca_file.map(Into::into);
        block_on(async {
            let connection = store::Connector::new(&database, "test")?.connect().await?;
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok::<bool, store::Error>(connection.query_one("ssl", sql, &[]).await?.get(0))
        })
    };
    assert!(!try_with("prefer", "127.0.0.1", None).unwrap(), "a server without TLS is taken by prefer");
    assert!(try_with("require", "127.0.0.1", None).is_err(), "and refused by require");

    let (authority, certificate, key) = certificates("localhost");
    cluster.serve_tls(&certificate, &key);
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
    std::fs::write(&right, authority).unwrap();
    std::fs::write(&wrong, certificates("localhost").0).unwrap();
    assert!(!try_with("disable", "localhost", None).unwrap());
    assert!(try_with("prefer", "127.0.0.1", None).unwrap());
    assert!(try_with("require", "127.0.0.1", None).unwrap());
    assert!(try_with("verify-ca", "127.0.0.1", Some(&right)).unwrap(), "the name does not matter to verify-ca");
    assert!(try_with("verify-full", "localhost", Some(&right)).unwrap());
    let of = |result: Result<bool, store::Error>| result.unwrap_err().to_string();
    assert!(of(try_with("verify-full", "127.0.0.1", Some(&right))).contains("certificate"));
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = of(try_with(mode, "localhost", Some(&wrong)));
        assert!(error.contains("certificate"), "{mode}: {error}");
    }
    assert!(of(try_with("verify-full", "localhost", Some(&folder.path().join("none.pem")))).contains("none.pem"));
    std::fs::write(&wrong, "not a certificate").unwrap();
    assert!(of(try_with("verify-full", "localhost", Some(&wrong))).contains("no certificate found"));
}

#[test]
fn settings_that_a_recorder_feels_are_named_with_what_they_should_be() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let named = |settings: &str| {
        cluster.append_settings(settings);
        cluster.stop();
        cluster.up();
        let database = cluster.database("advised");
        let list = block_on(async { store::advice::read(&connect(&database).await, false).await.unwrap() });
        list.into_iter().map(|advice| format!("{} {}", advice.setting, advice.found)).collect::<Vec<_>>()
    };
    let good = "fsync = on\nfull_page_writes = on\nshared_buffers = 256MB\nmax_wal_size = 4GB\nwal_compression = pglz";
    assert!(named(good).is_empty());
    let bad = "full_page_writes = off\nshared_buffers = 255MB\nmax_wal_size = 4095MB\nwal_compression = off";
    let expected = ["full_page_writes off", "shared_buffers 255MB", "max_wal_size 4095MB", "wal_compression off"]
        .map(String::from);
    assert_eq!(named(bad), expected);
}

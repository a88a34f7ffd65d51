//! The dashboard on the real thing: loopback venues, the daemon, TimescaleDB or PostgreSQL, and Prometheus.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use tapeway::{
    loopback::{self, Fault, Options, Venue},
    store,
};
use tempfile::TempDir;

use super::{dashboard, prometheus::Prometheus};
use crate::{
    cluster::{Cluster, Flavor, block_on},
    process::Daemon,
};

/// Every query runs. Those that need no rare event also give series, with the labels their legends show.
#[test]
fn every_dashboard_query_runs_on_a_recording_daemon() {
    let Some(cluster) = Cluster::start(Flavor::Timescale).or_else(|| Cluster::start(Flavor::Plain)) else { return };
    let fault = |text: &str| text.parse::<Fault>().unwrap();
    let faults = vec![fault("kind=drop&channel=trades&p=0.02"), fault("kind=drop&channel=book&p=0.005")];
    let options = Options { symbols: 2, faults, ..Options::default() };
    let venues = loopback::start(options).unwrap();
    let folder = TempDir::new().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(folder.path(), address, &cluster, &venues);
    let mut daemon = Daemon::start(folder.path(), folder.path());
    let Some(prometheus) = Prometheus::start(address) else { return };
    // Committed rows say that everything before them works; a closed connection makes the rest move.
    let committed = prometheus.until_some_while("sum(tapeway_rows_committed_total) > 0", || daemon.is_running());
    assert!(committed.is_some(), "the daemon ended");
    venues.fault(&fault("kind=close&count=1"));
    dashboard::every_query_runs(&prometheus, |query| RARE.iter().all(|name| !query.expr.contains(name)));
    for query in dashboard::sql_queries() {
        let rows = cluster.psql("ops", &query.sql);
        assert!(!rows.trim().is_empty(), "{} shows nothing: {}", query.panel, query.sql);
    }
    drop(daemon);
    venues.stop().unwrap();
}

/// What a healthy run need not show.
const RARE: [&str; 7] = [
    "ALERTS",
    "tapeway_rows_rejected_total",
    "tapeway_decode_errors_total",
    "tapeway_journal_segments_removed_total",
    "tapeway_journal_torn_bytes_total",
    "tapeway_database_reconnects_total",
    "tapeway_direct_compress_warnings_total",
];

fn configure(folder: &Path, listen: SocketAddr, cluster: &Cluster, venues: &loopback::Server) {
    let database = cluster.database("ops");
    block_on(store::prepare(&database)).unwrap();
    let url = database.url.expose();
    let main = format!(
        "journal: {{dir: journal, free_bytes_min: 0B}}\nhttp: {{listen: '{listen}'}}\ndatabase: {{url: '{url}'}}\n"
    );
    fs::write(folder.join("tapeway.yaml"), main).unwrap();
    fs::create_dir(folder.join("exchanges")).unwrap();
    for (venue, symbols) in [(Venue::BinanceSpot, "'*'"), (Venue::Kraken, "BTC/USD, ETH/USD")] {
        let (name, ws_url, http_url) = (venue.name(), venues.ws_url(venue), venues.http_url(venue));
        let text = format!(
            "enabled: true\nsymbols: [{symbols}]\nchannels: [trades, book, quotes]\nws_url: {ws_url}\nhttp_url: {http_url}\n"
        );
        fs::write(folder.join(format!("exchanges/{name}.yaml")), text).unwrap();
    }
}

//! `tapeway bench` works in all its stages, at sizes that mean nothing, and leaves no trace.

use std::process::{Command, Output};

use serde_json::Value;
use tapeway::store;

use crate::cluster::{Cluster, Flavor, block_on};

fn bench(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    // The private PostgreSQL below it runs as another user.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapeway"));
    let output = command.args(["bench", "--smoke"]).args(arguments).env("TMPDIR", folder.path()).output().unwrap();
    let left: Vec<_> = folder.path().read_dir().unwrap().flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_stage_says_what_it_should() {
    if Cluster::start(Flavor::Plain).is_none() {
        return;
    }
    let lines = lines(&bench(&["--json"]));
    for (stage, metric) in [
        ("decode", "rows_per_s"),
        ("decode", "frames_per_s"),
        ("decode", "ratio_to_serde_json"),
        ("encode", "rows_per_s"),
        ("journal", "append_mb_per_s"),
        ("journal", "recover_ms"),
        ("sink", "rows_per_s"),
        ("sink", "ratio_to_copy"),
        ("catchup", "rows_per_s"),
        ("catchup", "ratio_to_copy"),
        ("live", "rows_per_s"),
        ("live", "commit_p50_ms"),
        ("live", "commit_p99_ms"),
        ("live", "cpu_cores"),
        ("live", "rss_mib"),
    ] {
        let is_it = |line: &&Value| line["stage"] == stage && line["metric"] == metric;
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("no {stage} {metric} in {lines:#?}"));
        assert!(line["value"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(line["runs"], 1, "{line}");
        assert!(line["unit"].is_string(), "{line}");
    }
}

#[test]
fn a_grown_database_is_measured_and_emptied_again() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = cluster.database("bench");
    block_on(store::prepare(&database)).unwrap();
    let lines = lines(&bench(&["scale", "--json", "--database-url", database.url.expose()]));
    for metric in ["rows_per_s", "latest_trades_p99_ms", "candles_p99_ms", "bytes_per_row", "row_store_bytes_per_row"] {
        let line = lines.iter().find(|line| line["metric"] == metric);
        let line = line.unwrap_or_else(|| panic!("no {metric} in {lines:#?}"));
        assert!(line["stage"] == "scale" && line["value"].as_f64().unwrap() > 0.0, "{line}");
    }
    let left = "SELECT (SELECT count(*) FROM market_data.book_deltas) + (SELECT count(*) FROM audit.lanes)";
    assert_eq!(cluster.psql("bench", left).trim(), "0");
}

#[test]
fn a_database_with_data_is_refused_and_another_is_left_as_it_was() {
    let Some(cluster) = Cluster::start(Flavor::Plain) else { return };
    let database = cluster.database("bench");
    let url = database.url.expose();
    let options = ["catchup", "--json", "--database-url", url];

    assert!(!lines(&bench(&options)).is_empty());
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('audit', 'market_data', 'aggregates')";
    assert_eq!(cluster.psql("bench", schemas).trim(), "0", "what it has made is gone");

    block_on(store::prepare(&database)).unwrap();
    cluster.psql("bench", "INSERT INTO audit.lanes (venue, name, journal_id) VALUES ('a', 'a.0', gen_random_uuid())");
    let refused = bench(&options);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("has tapeway data (1 lanes)"), "{said}");
    assert_eq!(cluster.psql("bench", "SELECT count(*) FROM audit.lanes").trim(), "1");

    assert!(!lines(&bench(&[&options[..], &["--force"]].concat())).is_empty());
    assert_eq!(cluster.psql("bench", "SELECT count(*) FROM audit.lanes").trim(), "0", "--force deletes");
    assert_eq!(cluster.psql("bench", schemas).trim(), "3", "the schema was there before");
}

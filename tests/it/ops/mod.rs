//! What ships beside the daemon is true: alerts fire and do not, have a section in `docs/operating.md`, and every
//! query of the dashboard runs, on names that the daemon exports.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

mod daemon;
pub(crate) mod dashboard;
mod exposition;
pub(crate) mod prometheus;
mod sql;

#[test]
fn prometheus_accepts_its_configuration_and_rules() {
    let Some(output) = promtool(&["check", "config", "prometheus/prometheus.yml"]) else { return };
    assert!(output.status.success(), "{}", all_of(&output));
    assert!(all_of(&output).contains("SUCCESS: 1 rule files found"), "{}", all_of(&output));
}

#[test]
fn every_alert_test_passes() {
    let files = files("prometheus/tests");
    assert!(!files.is_empty());
    for file in files {
        let Some(output) = promtool(&["test", "rules", &file.to_string_lossy()]) else { return };
        assert!(output.status.success(), "{}: {}", file.display(), all_of(&output));
    }
}

/// An alert without a test that fires may never fire; one without a test that does not may always.
#[test]
fn every_alert_has_a_test_that_fires_and_one_that_does_not_and_a_section() {
    let rules = text("prometheus/rules/tapeway.yml");
    let tests: String = files("prometheus/tests").iter().map(text).collect();
    let page = text("docs/operating.md");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in &alerts {
        let runs: Vec<&str> = tests
            .split(&format!("alertname: {alert}\n"))
            .skip(1)
            .map(|rest| rest.split("alertname:").next().unwrap())
            .collect();
        assert!(runs.iter().any(|run| run.contains("exp_labels")), "no test in which {alert} fires");
        assert!(runs.iter().any(|run| run.contains("exp_alerts: []")), "no test in which {alert} does not fire");
        assert!(page.contains(&format!("\n### {alert}\n")), "docs/operating.md has no section on {alert}");
        let runbook = format!("runbook: docs/operating.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} does not point to its section");
    }
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### Tapeway")).collect();
    assert_eq!(sections.len(), alerts.len(), "a section of docs/operating.md is about no alert: {sections:?}");
}

/// docs/exactly-once.md names a test for each of its claims, as `file::test`.
#[test]
fn every_test_named_in_the_argument_exists() {
    let page = text("docs/exactly-once.md");
    let named: BTreeSet<(&str, &str)> = page.split('`').filter_map(|word| word.split_once(".rs::")).collect();
    assert!(named.len() >= 15, "{named:?}");
    for (file, test) in named {
        let path = format!("{file}.rs");
        assert!(root().join(&path).exists(), "docs/exactly-once.md names {path}, which does not exist");
        let is_there = text(&path).contains(&format!("fn {test}("));
        assert!(is_there, "docs/exactly-once.md names the test {test}, which {path} does not have");
    }
}

#[test]
fn every_metric_named_outside_the_code_is_exported_and_every_exported_one_is_looked_at() {
    let exported: BTreeSet<String> = exposition::metrics().into_iter().map(|metric| metric.name).collect();
    let rules = names(&text("prometheus/rules/tapeway.yml"));
    let tests: BTreeSet<String> = files("prometheus/tests").iter().flat_map(|file| names(&text(file))).collect();
    let panels: BTreeSet<String> =
        dashboard::prometheus_queries().iter().flat_map(|query| names(&query.expr)).collect();
    assert!(!panels.is_empty() && !rules.is_empty());
    for (place, used) in [("rules", &rules), ("tests", &tests), ("dashboards", &panels)] {
        let unknown: Vec<_> = used.iter().filter(|name| !is_exported(name, &exported)).collect();
        assert!(unknown.is_empty(), "prometheus {place} use names that src/metrics does not export: {unknown:?}");
    }
    let watched: BTreeSet<&String> = rules.union(&panels).collect();
    let idle: Vec<_> = exported.iter().filter(|name| !watched.iter().any(|used| base(used) == *name)).collect();
    assert!(idle.is_empty(), "on no dashboard and in no alert: {idle:?}");
}

#[test]
fn dashboards_are_json_with_unique_ids_and_known_data_sources() {
    for file in files("grafana/dashboards") {
        let json: Value = serde_json::from_str(&text(&file)).unwrap();
        let panels = json["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}: panel ids repeat", file.display());
        let provisioned = text("grafana/provisioning/datasources/tapeway.yml");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let uid = panel["datasource"]["uid"].as_str().unwrap();
            assert!(provisioned.contains(&format!("uid: {uid}\n")), "{}: no data source {uid}", panel["title"]);
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{} has no description", panel["title"]);
        }
    }
}

#[test]
fn yaml_files_are_yaml_and_compose_publishes_to_this_machine_only() {
    let mut yaml = files("grafana/provisioning/datasources");
    yaml.extend(files("grafana/provisioning/dashboards"));
    yaml.push("compose.yaml".into());
    for file in yaml {
        let text = text(&file);
        for event in saphyr_parser::Parser::new_from_iter(text.chars()) {
            event.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    let compose = text("compose.yaml");
    let ports: Vec<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
    assert!(ports.len() >= 4, "{ports:?}");
    assert!(ports.iter().all(|ports| ports.starts_with("[\"127.0.0.1:")), "{ports:?}");
}

/// Metric names in a text, without those of histograms' parts.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("tapeway_"));
    words.map(str::to_owned).collect()
}

/// The metric that a series belongs to: a histogram is scraped as three.
fn base(series: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
}

fn is_exported(series: &str, exported: &BTreeSet<String>) -> bool {
    exported.contains(series) || exported.contains(base(series))
}

/// Runs `promtool` in the root of the project; `None` after saying so when it is not installed.
fn promtool(args: &[&str]) -> Option<Output> {
    match Command::new("promtool").args(args).current_dir(root()).output() {
        Ok(output) => Some(output),
        Err(_) => {
            println!("SKIPPED: promtool not installed");
            None
        }
    }
}

fn all_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder of the project, by name.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is part of the project");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    files
}

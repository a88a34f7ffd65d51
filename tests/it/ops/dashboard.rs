//! The queries of every dashboard, with Grafana's variables put in.

use serde_json::Value;

use super::{files, prometheus::Prometheus, text};

/// One PromQL query of a panel.
#[derive(Debug)]
pub(crate) struct PanelQuery {
    /// The dashboard's file and the panel's title.
    pub(crate) panel: String,
    /// Ready to send.
    pub(crate) expr: String,
    /// Labels that the panel's legend shows.
    pub(crate) labels: Vec<String>,
}

/// One SQL query of a panel or of a variable.
#[derive(Debug)]
pub(crate) struct SqlQuery {
    pub(crate) panel: String,
    pub(crate) sql: String,
}

/// Every PromQL query of every dashboard.
pub(crate) fn prometheus_queries() -> Vec<PanelQuery> {
    let mut queries = Vec::new();
    for (dashboard, json) in dashboards() {
        for annotation in json["annotations"]["list"].as_array().into_iter().flatten() {
            let panel = format!("{dashboard}: annotation {}", annotation["name"]);
            queries.push(PanelQuery { panel, expr: string(annotation, "expr").to_owned(), labels: Vec::new() });
        }
        for (panel, target) in targets(&json) {
            if let Some(expr) = target["expr"].as_str() {
                let expr = expr.replace("$venue", ".*").replace("$__rate_interval", "10s");
                assert!(!has_variable(&expr), "{panel}: a variable this test does not know: {expr}");
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                let labels = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
                let labels = labels.map(|(label, _)| label.trim().to_owned()).collect();
                queries.push(PanelQuery { panel: format!("{dashboard}: {panel}"), expr, labels });
            }
        }
    }
    queries
}

/// Every SQL query of every dashboard.
pub(crate) fn sql_queries() -> Vec<SqlQuery> {
    let mut queries = Vec::new();
    for (dashboard, json) in dashboards() {
        let variables = json["templating"]["list"].as_array().into_iter().flatten();
        for variable in variables.filter(|variable| variable["datasource"]["uid"] == "timescaledb") {
            let panel = format!("{dashboard}: variable {}", variable["name"]);
            queries.push(SqlQuery { panel, sql: string(variable, "query").to_owned() });
        }
        for (panel, target) in targets(&json) {
            if let Some(sql) = target["rawSql"].as_str() {
                let sql = sql.replace("${venue:regex}", ".*").replace("${instrument:sqlstring}", "'1'");
                let sql = time_filter(&sql);
                assert!(!has_variable(&sql), "{panel}: a variable this test does not know: {sql}");
                queries.push(SqlQuery { panel: format!("{dashboard}: {panel}"), sql });
            }
        }
    }
    queries
}

/// Runs every PromQL query: each succeeds. Where `is_data_expected` says so for a query, it also gives series, and
/// they have the labels that the legend shows. Waits for data as long as Prometheus may need to scrape.
pub(crate) fn every_query_runs(prometheus: &Prometheus, is_data_expected: impl Fn(&PanelQuery) -> bool) {
    for query in prometheus_queries() {
        let series = if is_data_expected(&query) {
            prometheus.until_some(&query.expr)
        } else {
            prometheus.query(&query.expr).unwrap_or_else(|error| panic!("{}: {error}", query.panel))
        };
        for one in series {
            let missing: Vec<_> = query.labels.iter().filter(|label| one["metric"][label.as_str()].is_null()).collect();
            assert!(missing.is_empty(), "{}: its legend shows {missing:?}, its series are {one}", query.panel);
        }
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let read = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, serde_json::from_str(&text(file)).expect("a dashboard is JSON"))
    };
    files("grafana/dashboards").iter().map(read).collect()
}

/// Each target with its panel's title.
fn targets(dashboard: &Value) -> Vec<(&str, &Value)> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let of = |panel| {
        let targets: &Vec<Value> = panel_targets(panel);
        targets.iter().map(move |target| (string(panel, "title"), target))
    };
    panels.filter(|panel| panel["type"] != "row").flat_map(of).collect()
}

fn panel_targets(panel: &Value) -> &Vec<Value> {
    panel["targets"].as_array().unwrap_or_else(|| panic!("{} has no query", panel["title"]))
}

fn string<'j>(json: &'j Value, key: &str) -> &'j str {
    json[key].as_str().unwrap_or_else(|| panic!("{key} is not text in {json}"))
}

/// Whether a `$name` or `${name}` is left.
fn has_variable(query: &str) -> bool {
    query.split('$').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{'))
}

/// `$__timeFilter(column)` as Grafana writes it.
fn time_filter(sql: &str) -> String {
    let mut parts = sql.split("$__timeFilter(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (column, rest) = part.split_once(')').expect("a time filter has a column");
        out.push_str(&format!("{column} BETWEEN now() - interval '1 hour' AND now(){rest}"));
    }
    out
}

//! The text of `src/metrics.rs` as a list of metrics, and a scrape target that serves all of them.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Instant, SystemTime},
};

use super::{files, text};

/// One metric as the source declares it.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    kind: Kind,
    labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every `pub const NAME: &str = "tapeway_..."` of the metrics' files, with the labels its doc names (`Labels: venue,
/// lane.`) and the kind it is described as.
pub(super) fn metrics() -> Vec<Metric> {
    let source: String = files("src/metrics").iter().map(text).collect();
    let mut doc = String::new();
    let mut found = Vec::new();
    for line in source.lines() {
        if let Some(more) = line.strip_prefix("///") {
            doc.push_str(more);
            continue;
        }
        let constant = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": &str = \"tapeway_"));
        if let Some((constant, rest)) = constant {
            let name = format!("tapeway_{}", rest.trim_end_matches("\";"));
            found.push(Metric { name, kind: kind(&source, constant), labels: labels(&doc) });
        }
        doc.clear();
    }
    assert!(found.len() >= 20, "src/metrics is not written as this test reads it: {found:?}");
    found
}

/// What follows `Label: ` or `Labels: ` in a doc, without what stands in brackets.
fn labels(doc: &str) -> Vec<String> {
    let Some((_, list)) = doc.split_once("Labels: ").or_else(|| doc.split_once("Label: ")) else { return Vec::new() };
    let mut depth = 0;
    let outside = list.chars().filter(|c| {
        depth += i32::from(*c == '(') - i32::from(*c == ')');
        depth == 0 && !matches!(c, ')' | '`' | ' ')
    });
    let list: String = outside.take_while(|c| *c != '.').collect();
    list.split(',').map(str::to_owned).collect()
}

fn kind(source: &str, constant: &str) -> Kind {
    let source: String = source.split_whitespace().collect(); // A long description stands on lines of its own.
    let is = |what: &str| source.contains(&format!("describe_{what}!({constant},"));
    match (is("counter"), is("gauge"), is("histogram")) {
        (true, false, false) => Kind::Counter,
        (false, true, false) => Kind::Gauge,
        (false, false, true) => Kind::Histogram,
        other => panic!("{constant} is described as other than one of counter, gauge, histogram: {other:?}"),
    }
}

/// A target that serves every metric until the process ends: counters that grow, gauges, histograms.
pub(super) fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let started = Instant::now();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A scrape that is broken off is the scraper's affair.
            drop(stream.and_then(|stream| answer(stream, &exposition(started))));
        }
    });
    address
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn exposition(started: Instant) -> String {
    let mut out = String::new();
    let count = 1 + started.elapsed().as_millis() / 10;
    for metric in metrics() {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("{label}=\"{}\"", value(label))).collect();
        let labels = labels.join(",");
        let name = &metric.name;
        let lines = match metric.kind {
            Kind::Counter => format!("# TYPE {name} counter\n{name}{{{labels}}} {count}\n"),
            Kind::Gauge if name.contains("timestamp") => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
                format!("# TYPE {name} gauge\n{name}{{{labels}}} {now}\n")
            }
            Kind::Gauge => format!("# TYPE {name} gauge\n{name}{{{labels}}} 1\n"),
            Kind::Histogram => {
                let comma = if labels.is_empty() { "" } else { "," };
                format!(
                    "# TYPE {name} histogram\n{name}_bucket{{{labels}{comma}le=\"1\"}} {count}\n\
                     {name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {count}\n\
                     {name}_count{{{labels}}} {count}\n"
                )
            }
        };
        out.write_str(&lines).expect("writing to a String cannot fail");
    }
    out
}

fn value(label: &str) -> &str {
    match label {
        "venue" => "binance-spot",
        "lane" => "binance-spot.0",
        "state" => "live",
        other => other,
    }
}

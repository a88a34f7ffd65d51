//! The end of the demo: what is in the database, whether it is what was sent, and how to look further.

use std::path::Path;

use super::{
    cluster::{Cluster, ClusterError},
    truth::Comparison,
};
use crate::status::Status;

/// Prints it. `kept` names the folder and its configuration when they stay.
///
/// # Errors
///
/// The database cannot be asked.
pub(super) fn print(
    cluster: &Cluster,
    status: &Status,
    sent: u64,
    comparison: &Comparison,
    kept: Option<(&Path, &Path)>,
) -> Result<(), ClusterError> {
    for (title, sql) in QUERIES {
        println!("\n{title}\n  {}", sql.replace('\n', "\n  "));
        print!("{}", cluster.psql("tapeway", sql)?);
    }
    let gaps: u64 = status.lanes.iter().map(|lane| lane.gaps).sum();
    let closed: u64 = status.lanes.iter().map(|lane| lane.gaps_closed).sum();
    let Comparison { equal, missing, doubled, invented, examples } = comparison;
    println!("rows streamed by venues   {sent}");
    println!("gaps found / ended        {gaps} / {closed}  (frames withheld and a wrong checksum, on purpose)");
    let again = equal.saturating_sub(sent);
    println!("stored once               {equal}  ({again} more than streamed: withheld trades, fetched again)");
    println!("missing, doubled, made up {missing}, {doubled}, {invented}");
    for example in examples {
        println!("  {example}");
    }
    let verdict = if comparison.is_equal() { "EQUAL: the database is exactly what was sent" } else { "NOT EQUAL" };
    println!("{verdict}");
    match kept {
        Some((dir, config)) => {
            println!("\nkept        {}", dir.display());
            println!("database    psql {}", cluster.url());
            println!(
                "daemon      tapeway run --config {}   then http://<http.listen>/status and /metrics",
                config.display()
            );
            println!("stop        {}", cluster.stop_command());
        }
        None => println!(
            "\n(run with --keep to leave the database running and look around; status and metrics were at the URL above)"
        ),
    }
    Ok(())
}

const QUERIES: [(&str, &str); 5] = [
    (
        "rows by venue and table",
        "SELECT i.venue, count(*) FILTER (WHERE k = 't') AS trades, count(*) FILTER (WHERE k = 'l') AS book_deltas,\n       count(*) FILTER (WHERE k = 'q') AS quotes\nFROM (SELECT instrument_id, 't' AS k FROM market_data.trades\n      UNION ALL SELECT instrument_id, 'l' FROM market_data.book_deltas\n      UNION ALL SELECT instrument_id, 'q' FROM market_data.quotes) r\nJOIN market_data.instruments i USING (instrument_id) GROUP BY 1 ORDER BY 1",
    ),
    ("the last trades", "SELECT * FROM market_data.ticks ORDER BY time DESC LIMIT 5"),
    (
        "candles",
        "SELECT i.venue, i.symbol, c.bucket, c.open, c.high, c.low, c.close, c.volume, c.trades\nFROM aggregates.ohlcv_1m c JOIN market_data.instruments i USING (instrument_id)\nORDER BY c.bucket DESC, 1, 2 LIMIT 5",
    ),
    (
        "what was missed",
        "SELECT g.venue, i.symbol, g.channel, g.cause, g.first_missing, g.last_missing, g.state\nFROM audit.gaps g LEFT JOIN market_data.instruments i USING (instrument_id)\nWHERE g.cause <> 'downtime' -- from the end of the demo on\nORDER BY g.detected_at LIMIT 10",
    ),
    (
        "how far each lane is committed",
        "SELECT l.name, w.next_pos, w.rows_total, w.rejected FROM audit.watermarks w JOIN audit.lanes l USING (lane_id) ORDER BY 1",
    ),
];

//! `tapeway status`: what a running daemon is doing, as a table.

use std::process::ExitCode;

use super::Failure;
use crate::{
    session::{connect::Dialer, http, tls},
    status::{Connection, ConnectionStatus, LaneStatus, Status, Subscriptions, unix_now},
};

/// Ask a running daemon.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the daemon's HTTP endpoint is.
    #[arg(long, default_value = "http://127.0.0.1:9464")]
    url: String,
    /// Print the JSON of /status instead.
    #[arg(long)]
    json: bool,
    /// Print nothing; exit 0 if the daemon is alive (for health checks).
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dialer = Dialer::new(tls::client_config(None)?);
    let path = if args.quiet { "/livez" } else { "/status" };
    let url = format!("{}{path}", args.url.trim_end_matches('/'));
    let answer = runtime
        .block_on(http::get(&dialer, &url))
        .map_err(|error| Failure(format!("no daemon answers at {url} ({error}); is `tapeway run` running?")))?;
    if answer.status != 200 {
        return Err(Failure(format!("{url} answered {}", answer.status)));
    }
    if args.json {
        println!("{}", String::from_utf8_lossy(&answer.body));
    } else if !args.quiet {
        print!("{}", table(&serde_json::from_slice(&answer.body)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// The status as text.
fn table(status: &Status) -> String {
    let mut text = format!(
        "tapeway {}  up {}  journal {}  {}\n",
        status.version,
        duration(status.uptime_seconds),
        bytes(status.journal_bytes),
        if status.not_ready.is_empty() { "ready" } else { "NOT READY" },
    );
    for reason in &status.not_ready {
        text += &format!("  ! {reason}\n");
    }
    for writer in &status.writers {
        text += &format!(
            "writer {}: database {}, direct compress {}\n",
            writer.writer,
            if writer.is_database_up { "up" } else { "DOWN" },
            if writer.is_direct_compress_on { "on" } else { "off" },
        );
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(status.lanes.iter().map(lane_row));
    text += &aligned(&rows);
    let mut venues: Vec<_> = status.lanes.iter().map(|lane| (&lane.venue, &lane.proof)).collect();
    venues.dedup_by_key(|(venue, _)| *venue);
    for (venue, proof) in venues.into_iter().filter(|(_, proof)| !proof.is_empty()) {
        let proof: Vec<String> = proof.iter().map(|(channel, class)| format!("{channel} {class}")).collect();
        text += &format!("  {venue} proves: {}\n", proof.join(", "));
    }
    for lane in &status.lanes {
        for connection in lane.connections.iter().filter(|_| lane.connections.len() > 1) {
            text += &format!("  {}: {}\n", lane.lane, connection_line(connection));
        }
        for problem in &lane.problems {
            text += &format!("  {}: {problem}\n", lane.lane);
        }
        if let Some((at, error)) = &lane.last_error {
            text += &format!("  {}: {} ago: {error}\n", lane.lane, duration(unix_now() - at));
        }
    }
    text
}

/// One of a lane's connections.
fn connection_line(connection: &ConnectionStatus) -> String {
    let ConnectionStatus { connection: number, is_open, retiring, subscriptions, last_frame } = connection;
    if !is_open {
        return format!("connection {number} connecting");
    }
    let Subscriptions { live, requested, refused, stale } = subscriptions;
    let silent = last_frame.map_or_else(|| "-".into(), |at| duration(unix_now() - at));
    let retiring = retiring.as_ref().map(|why| format!(", to be replaced: {why}")).unwrap_or_default();
    format!("connection {number} open, {live}/{} live, silent {silent}{retiring}", live + requested + refused + stale)
}

const HEADINGS: [&str; 10] =
    ["lane", "state", "symbols", "live/asked", "frames", "pending", "rows", "rejected", "gaps open/all", "silent"];

fn lane_row(lane: &LaneStatus) -> [String; HEADINGS.len()] {
    let subscriptions = lane.subscriptions;
    let asked = subscriptions.live + subscriptions.requested + subscriptions.refused + subscriptions.stale;
    let state = match lane.connection {
        Connection::Idle => "idle",
        Connection::Connecting => "connecting",
        Connection::Open => "open",
        Connection::JournalFull => "JOURNAL FULL",
        Connection::Stopped => "stopped",
    };
    let open = lane.connections.iter().filter(|connection| connection.is_open).count();
    let twins = match lane.connections.len() {
        0 | 1 => String::new(),
        wanted => format!(" {open}/{wanted}"),
    };
    [
        lane.lane.clone(),
        match (lane.is_standby, lane.is_behind) {
            (true, _) => format!("{state}{twins}, standby"),
            (false, true) => format!("{state}{twins}, behind"),
            (false, false) => format!("{state}{twins}"),
        },
        lane.symbols.to_string(),
        format!("{}/{asked}", subscriptions.live),
        lane.appended.to_string(),
        (lane.appended.saturating_sub(lane.committed)).to_string(),
        lane.rows_committed.to_string(),
        lane.rows_rejected.to_string(),
        format!("{}/{}", lane.gaps.saturating_sub(lane.gaps_closed), lane.gaps),
        lane.last_frame.map_or_else(|| "-".into(), |at| duration(unix_now() - at)),
    ]
}

/// Columns as wide as their widest cell; numbers are easier to compare right-aligned, names left.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn duration(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 60.0 => format!("{seconds:.1}s"),
        seconds if seconds < 3_600.0 => format!("{:.0}m{:02.0}s", (seconds / 60.0).floor(), seconds % 60.0),
        seconds => format!("{:.0}h{:02.0}m", (seconds / 3_600.0).floor(), (seconds % 3_600.0 / 60.0).floor()),
    }
}

fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let bytes = bytes as f64;
    match bytes {
        b if b < 1024.0 * 1024.0 => format!("{:.1} KiB", b / 1024.0),
        b if b < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", b / (1024.0 * 1024.0)),
        b => format!("{:.1} GiB", b / (1024.0 * 1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_why_it_is_not_ready_and_lines_up() {
        let proof = [("book".into(), "checksum".into()), ("trades".into(), "contiguous".into())].into();
        let venue = "kraken".into();
        let lane =
            LaneStatus { lane: "kraken.0".into(), venue, proof, appended: 12, committed: 9, ..LaneStatus::default() };
        let status =
            Status { not_ready: vec!["lane kraken.0: not started".into()], lanes: vec![lane], ..Status::default() };
        let text = table(&status);
        assert!(text.contains("NOT READY") && text.contains("! lane kraken.0: not started"), "{text}");
        assert!(text.contains("  kraken proves: book checksum, trades contiguous\n"), "{text}");
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("lane") || line.starts_with("kraken")).collect();
        let end = lines[0].find("pending").unwrap() + "pending".len();
        assert_eq!(lines[1].as_bytes()[end - 1], b'3', "{text}");
    }
}

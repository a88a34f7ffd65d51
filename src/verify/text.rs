//! The report as text.

use std::fmt::Write as _;

use super::report::{DayReport, Report};

/// The report for a terminal: a line a channel and day, then what was found.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for channel in &report.channels {
        for day in &channel.days {
            rows.push(cells(&[&channel.venue, &channel.symbol, channel.channel, &channel.proof], day));
        }
    }
    let mut text = format!(
        "tapeway {} verify  {} to {}  {}\n{} rows read in {:.1} s",
        report.version, report.from, report.to, report.server, report.rows, report.seconds
    );
    if report.unsealed_rows > 0 {
        push(&mut text, format_args!(", {} of them older than the seals", report.unsealed_rows));
    }
    if report.retired_seals > 0 {
        push(&mut text, format_args!(", {} seals of rows past retention", report.retired_seals));
    }
    text.push_str("\n\n");
    text += &aligned(&rows);
    if !report.lanes.is_empty() {
        text.push('\n');
    }
    for lane in &report.lanes {
        let (first, last) = lane.received.clone().unwrap_or_default();
        push(
            &mut text,
            format_args!(
                "lane {} {}: {} frames, {} rows since it began; here from {first} to {last}, {} holes\n",
                lane.lane_id,
                lane.name,
                lane.next_pos,
                lane.rows_total,
                lane.holes.len()
            ),
        );
    }
    if let Some(against) = &report.against_journal {
        push(
            &mut text,
            format_args!(
                "\njournal: {} rows from the frames of {} lanes, {} in the database, {} differ",
                against.journaled,
                against.lanes.len(),
                against.stored,
                against.differences
            ),
        );
        if against.explained > 0 {
            push(&mut text, format_args!(" and {} more are explained by audit.rejects", against.explained));
        }
        text.push('\n');
        if !against.unknown.is_empty() {
            push(&mut text, format_args!("journal only: {}\n", against.unknown.join(", ")));
        }
        if !against.absent.is_empty() {
            push(&mut text, format_args!("database only, not compared: {}\n", against.absent.join(", ")));
        }
    }
    if !report.findings.is_empty() {
        text.push('\n');
    }
    for finding in &report.findings {
        push(&mut text, format_args!("{finding}\n"));
    }
    if report.findings_left_out > 0 {
        push(&mut text, format_args!("and {} more\n", report.findings_left_out));
    }
    push(&mut text, format_args!("\n{}: {}\n", report.verdict.name(), report.headline()));
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes any text");
}

const HEADINGS: [&str; 18] = [
    "venue",
    "symbol",
    "channel",
    "proof",
    "day",
    "verdict",
    "expected",
    "stored",
    "healed",
    "missing",
    "gaps",
    "unprovable",
    "silent",
    "lost",
    "altered",
    "doubled",
    "disorder/crossed",
    "holes",
];

fn cells(names: &[&str; 4], day: &DayReport) -> [String; HEADINGS.len()] {
    let [venue, symbol, channel, proof] = names.map(str::to_owned);
    let count = |count: u64| if count == 0 { "-".to_owned() } else { count.to_string() };
    let altered = match (day.surplus, day.altered_hours + day.malformed) {
        (0, 0) => "-".into(),
        (surplus, 0) => format!("+{surplus}"),
        (0, altered) => altered.to_string(),
        (surplus, altered) => format!("+{surplus} {altered}"),
    };
    let holes = if day.holes == 0 { "-".into() } else { format!("{} ({} s)", day.holes, day.hole_seconds) };
    [
        venue,
        symbol,
        channel,
        proof,
        day.date.clone(),
        day.verdict.map_or("-", super::Verdict::name).into(),
        day.expected.map_or_else(|| "-".into(), |expected| expected.to_string()),
        day.stored.to_string(),
        count(day.healed),
        count(day.missing),
        count(day.gaps),
        count(day.unprovable),
        count(day.silent),
        count(day.lost),
        altered,
        count(day.doubled),
        format!("{}/{}", day.out_of_order, day.crossed),
        holes,
    ]
}

/// Columns as wide as their widest cell: names to the left, numbers to the right.
fn aligned(rows: &[[String; HEADINGS.len()]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column < NAMES {
                push(&mut line, format_args!("{cell:<width$}  "));
            } else {
                push(&mut line, format_args!("{cell:>width$}  "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Columns that are names.
const NAMES: usize = 6;

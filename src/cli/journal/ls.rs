//! `tapeway journal ls`.

use std::{
    io::{Write, stdout},
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use super::{Folder, Stop};
use crate::journal::{
    Error, Identity, Scan, SegmentFile,
    disk::{Disk, RealDisk},
};

/// One line a lane. Reads the newest segment of each from end to end, for its end.
pub(super) fn run(folder: &Folder) -> Result<ExitCode, Stop> {
    let mut rows = vec![HEADINGS.map(String::from)];
    let mut bytes_total = 0;
    for dir in folder.lanes()? {
        if let Some((row, bytes)) = row(&dir)? {
            rows.push(row);
            bytes_total += bytes;
        }
    }
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = stdout().lock();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    writeln!(out, "{} lanes, {}", rows.len() - 1, size(bytes_total))?;
    Ok(ExitCode::SUCCESS)
}

fn row(dir: &Path) -> Result<Option<([String; HEADINGS.len()], u64)>, Error> {
    let Some(identity) = Identity::read(&RealDisk, dir)? else { return Ok(None) };
    let segments = SegmentFile::list(&RealDisk, dir)?;
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let compressed = segments.iter().filter(|segment| segment.is_compressed).count();
    let (mut end, mut age) = ("-".to_owned(), "-".to_owned());
    if let Some(newest) = segments.last() {
        end = Scan::of(&RealDisk, newest, identity.journal_id, false)?.end.to_string();
        age = span(SystemTime::now().duration_since(newest.modified).unwrap_or_default());
    }
    let row = [
        identity.lane,
        identity.venue,
        format!("{:032x}", identity.journal_id),
        segments.first().map_or_else(|| "-".into(), |segment| segment.first.to_string()),
        end,
        segments.len().to_string(),
        compressed.to_string(),
        size(bytes),
        age,
        notes(dir)?,
    ];
    Ok(Some((row, bytes)))
}

fn notes(dir: &Path) -> Result<String, Error> {
    let entries = RealDisk.list(dir).map_err(|source| Error::Io { action: "list", path: dir.into(), source })?;
    let count = |mark: &str| entries.iter().filter(|entry| entry.name.contains(mark)).count();
    let notes = [("SUSPECT", "failed syncs"), (".torn-", "torn tails"), (".cut-", "cut tails")];
    let found = notes.into_iter().map(|(mark, text)| (count(mark), text)).filter(|(count, _)| *count > 0);
    Ok(found.map(|(count, text)| format!("{count} {text}")).collect::<Vec<_>>().join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

fn span(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

const HEADINGS: [&str; 10] =
    ["LANE", "VENUE", "JOURNAL ID", "FIRST", "END", "SEGMENTS", "COMPRESSED", "BYTES", "WRITTEN", "NOTES"];

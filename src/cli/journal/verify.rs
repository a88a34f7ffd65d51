//! `tapeway journal verify`.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use super::{Folder, Stop, name};
use crate::journal::{self, disk::RealDisk};

/// Reads everything; one line a lane, and one for everything that is wrong.
pub(super) fn run(folder: &Folder) -> Result<ExitCode, Stop> {
    let mut out = stdout().lock();
    let mut is_whole = true;
    for dir in folder.lanes()? {
        let lane = name(&dir);
        let report = match journal::verify(&RealDisk, &dir) {
            Ok(Some(report)) => report,
            Ok(None) => continue,
            Err(error) => {
                is_whole = false;
                writeln!(out, "{lane}: {error}")?;
                continue;
            }
        };
        let (first, end) = report.range().unwrap_or_default();
        let (records, segments) = (report.records(), report.segments.len());
        let verdict = if report.is_whole() { "whole" } else { "DAMAGED" };
        writeln!(out, "{lane}: {verdict}: {records} records in {segments} segments, positions {first} to {end}")?;
        if !report.has_identity_file {
            writeln!(out, "  lane.id is missing or damaged; the next start writes it from a segment")?;
        }
        for (segment, damage) in report.heads() {
            writeln!(
                out,
                "  {}: {damage}; its records are read, catch-up begins a segment earlier",
                segment.path.display()
            )?;
        }
        for hole in &report.holes {
            writeln!(out, "  {hole}")?;
        }
        if let Some((segment, scan, damage)) = report.tail() {
            let bytes = segment.bytes.saturating_sub(scan.offset);
            let (path, offset) = (segment.path.display(), scan.offset);
            writeln!(
                out,
                "  {path}: byte {offset}: {damage}: {bytes} bytes never synced: a torn tail, or being written"
            )?;
        }
        is_whole &= report.is_whole();
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

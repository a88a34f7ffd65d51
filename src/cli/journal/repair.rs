//! `tapeway journal repair`.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use super::{Folder, Stop, name};
use crate::journal::{self, Lock, disk::RealDisk};

/// Says what it did, and what nothing can bring back.
pub(super) fn run(folder: &Folder) -> Result<ExitCode, Stop> {
    let _lock = Lock::take(&folder.dir()?)?;
    let mut out = stdout().lock();
    for dir in folder.lanes()? {
        let lane = name(&dir);
        let Some(repaired) = journal::repair(&RealDisk, &dir)? else { continue };
        if repaired.is_identity_written {
            writeln!(out, "{lane}: lane.id written from a segment's head")?;
        }
        for cut in &repaired.cuts {
            let (path, bytes, offset, damage) = (cut.path.display(), cut.bytes, cut.offset, cut.damage);
            match &cut.saved {
                Some(saved) => {
                    writeln!(out, "{path}: {damage}: {bytes} bytes from byte {offset} on moved to {}", saved.display())?
                }
                None => {
                    writeln!(out, "{path}: {damage}: {bytes} bytes from byte {offset} on left: no room to keep them")?
                }
            }
        }
        for (path, damage) in &repaired.left {
            writeln!(out, "{}: {damage}: left, since a compressed segment cannot be cut", path.display())?;
        }
        for hole in &repaired.holes {
            writeln!(out, "lost: {hole}")?;
        }
        if !repaired.is_identity_written && repaired.cuts.is_empty() && repaired.left.is_empty() {
            writeln!(out, "{lane}: nothing to repair")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! Puts a lane's folder in order by hand, without a daemon. What is cut off is kept beside the segment; nothing
//! is deleted, and nothing that is lost comes back.

use std::path::Path;

use super::{
    disk::Disk,
    error::{Damage, Error, Hole},
    identity::Identity,
    recover::{self, Cut},
    verify,
};

/// What [`repair`] did and what it could not do.
#[derive(Debug)]
pub struct Repaired {
    /// Who the folder belongs to.
    pub identity: Identity,
    /// Whether `lane.id` was written anew.
    pub is_identity_written: bool,
    /// Tails that were cut off, with the files that keep them.
    pub cuts: Vec<Cut>,
    /// Compressed segments with a damaged tail, which stay as they are.
    pub left: Vec<(std::path::PathBuf, Damage)>,
    /// Frames that cannot be read; nothing brings them back.
    pub holes: Vec<Hole>,
}

/// Repairs a lane's folder; the caller holds the journal's [`Lock`](super::Lock). `None` when it is no lane's
/// folder.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Foreign`] for a segment of another lane or version.
pub fn repair(disk: &dyn Disk, dir: &Path) -> Result<Option<Repaired>, Error> {
    let Some(report) = verify(disk, dir)? else { return Ok(None) };
    if !report.has_identity_file {
        report.identity.write(disk, dir)?;
    }
    let (mut cuts, mut left) = (Vec::new(), Vec::new());
    for (segment, scan) in &report.segments {
        match scan.tail {
            Some(damage) if segment.is_compressed => left.push((segment.path.clone(), damage)),
            Some(damage) => cuts.push(recover::cut(disk, &segment.path, scan.offset, damage, "cut")?),
            None => {}
        }
    }
    let is_identity_written = !report.has_identity_file;
    Ok(Some(Repaired { identity: report.identity, is_identity_written, cuts, left, holes: report.holes }))
}

//! Reads a lane's whole folder and says what is in it and what is wrong with it. Changes nothing.

use std::{io, path::Path};

use tapeway_exchanges::ids::FramePos;

use super::{
    disk::Disk,
    error::{Damage, Error, Hole},
    identity::Identity,
    recover::{self, Scan},
    segment::SegmentFile,
};

/// What a lane's folder holds.
#[derive(Debug)]
pub struct LaneReport {
    /// Who the folder belongs to.
    pub identity: Identity,
    /// Whether `lane.id` says so, or only the segments do.
    pub has_identity_file: bool,
    /// Every segment and what is in it, oldest first.
    pub segments: Vec<(SegmentFile, Scan)>,
    /// Frames that cannot be read: damage inside segments and positions between them.
    pub holes: Vec<Hole>,
}

impl LaneReport {
    /// First position held and the first after the last, if there is a segment.
    #[must_use]
    pub fn range(&self) -> Option<(FramePos, FramePos)> {
        let (first, _) = self.segments.first()?;
        let (_, last) = self.segments.last()?;
        Some((first.first, last.end))
    }

    /// Intact records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|(_, scan)| scan.records).sum()
    }

    /// Segments whose head or state is damaged.
    pub fn heads(&self) -> impl Iterator<Item = (&SegmentFile, Damage)> {
        self.segments.iter().filter_map(|(segment, scan)| scan.head.map(|damage| (segment, damage)))
    }

    /// What stands behind the last record of the newest segment: a torn tail, or a write under way.
    #[must_use]
    pub fn tail(&self) -> Option<(&SegmentFile, &Scan, Damage)> {
        let (segment, scan) = self.segments.last()?;
        scan.tail.map(|damage| (segment, scan, damage))
    }

    /// Whether everything that was made durable can be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.has_identity_file && self.holes.is_empty() && self.heads().next().is_none()
    }
}

/// Reads every segment of a lane's folder. `None` when it is no lane's folder. May be called while a daemon
/// writes there: segments that retention removes or compresses meanwhile are left out.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Foreign`] for a segment of another lane or version.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Option<LaneReport>, Error> {
    let Some((identity, has_identity_file)) = recover::told(disk, dir)? else { return Ok(None) };
    let files = SegmentFile::list(disk, dir)?;
    let mut report = LaneReport { identity, has_identity_file, segments: Vec::new(), holes: Vec::new() };
    for (index, file) in files.iter().enumerate() {
        let successor = files.get(index + 1).map(|next| next.first);
        let scan = match Scan::of(disk, file, report.identity.journal_id, successor.is_some()) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            scan => scan?,
        };
        report.holes.extend(scan.holes.iter().cloned());
        if let Some(next) = successor.filter(|next| scan.end < *next) {
            let damage = scan.tail.unwrap_or(Damage::Missing);
            let (path, offset, first) = (file.path.clone(), scan.offset, scan.end);
            report.holes.push(Hole { path, offset, first, next, damage });
        }
        report.segments.push((file.clone(), scan));
    }
    Ok(Some(report))
}

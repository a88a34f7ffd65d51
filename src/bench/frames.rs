//! Frames in memory: what `decode` and `journal` work on.

use std::path::{Path, PathBuf};

use tapeway_exchanges::{
    conn::Conn,
    ids::{FramePos, Nanos},
    input::Kind,
    venue::{VenueSpec, find},
};

use super::{BenchError, failed, material::Material, progress};
use crate::{journal::Reader, recording::Recording};

/// One session's inputs.
pub(super) struct Frames {
    /// Where they come from.
    pub(super) name: String,
    /// The venue.
    pub(super) spec: &'static VenueSpec,
    /// In order.
    pub(super) inputs: Vec<Input>,
}

/// A frame, an HTTP answer, or the plan of a connection that opened.
pub(super) struct Input {
    /// The decoder's number in the recording: one for each connection.
    pub(super) decoder: u64,
    /// The lane's connection.
    pub(super) conn: Conn,
    pub(super) received: Nanos,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

impl Frames {
    /// Everything that was recorded from the loopback venues, a lane each.
    ///
    /// # Errors
    ///
    /// As the journal has them.
    pub(super) fn of_material(material: &Material) -> Result<Vec<Self>, BenchError> {
        let mut all = Vec::new();
        for lane in material.lanes()? {
            let mut reader = Reader::open(&lane.dir, FramePos::FIRST)?;
            let mut inputs = Vec::new();
            while let Some(record) = reader.next(&lane.progress)? {
                let (received, kind, bytes) = (record.received, record.kind, record.bytes.to_vec());
                inputs.push(Input { decoder: 0, conn: record.conn, received, kind, bytes });
            }
            all.push(Self { name: format!("{} (loopback)", lane.venue.name), spec: lane.venue, inputs });
        }
        Ok(all)
    }

    /// The recordings named: files `<venue>/<name>.jsonl[.zst]`, or folders of a corpus, of which every recording of a
    /// venue that has an adapter is taken.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or its folder is no venue's name.
    pub(super) fn of_recordings(paths: &[PathBuf]) -> Result<Vec<Self>, BenchError> {
        let mut all = Vec::new();
        for path in paths {
            if path.is_dir() {
                for file in corpus_files(path)? {
                    all.extend(Self::read(&file)?);
                }
            } else {
                let read = Self::read(path)?;
                let unknown = || std::io::Error::other("its folder is not the name of a venue with an adapter");
                all.push(read.ok_or_else(|| failed(path)(unknown()))?);
            }
        }
        Ok(all)
    }

    /// One recording; `None` if there is no adapter for its venue.
    fn read(path: &Path) -> Result<Option<Self>, BenchError> {
        let venue = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let Some((venue, spec)) = venue.and_then(|venue| Some((venue, find(venue)?))) else { return Ok(None) };
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file = file.split(".jsonl").next().unwrap_or(file);
        let mut inputs = Vec::new();
        let mut bad = 0;
        Recording::open(path)?.inputs(spec, |input| {
            match input {
                Ok(input) => inputs.push(Input {
                    decoder: input.conn,
                    conn: Conn::FIRST,
                    received: input.received,
                    kind: input.kind,
                    bytes: input.bytes.to_vec(),
                }),
                Err(_) => bad += 1,
            }
            Ok::<_, BenchError>(())
        })?;
        if bad > 0 {
            progress!("{}: {bad} lines are no recorded frames", path.display());
        }
        Ok(Some(Self { name: format!("{venue}/{file}"), spec, inputs }))
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.bytes.len() as u64).sum()
    }
}

/// Recordings below `<corpus>/frames/<venue>/`, by name; single messages left out.
fn corpus_files(corpus: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let mut files = Vec::new();
    let folder = corpus.join("frames");
    for venue in std::fs::read_dir(&folder).map_err(failed(&folder))?.flatten() {
        let folder = venue.path();
        for entry in std::fs::read_dir(&folder).map_err(failed(&folder))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.contains(".jsonl") && !SINGLES.iter().any(|part| name.contains(part)) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Parts of names of files that hold single messages or altered sessions.
const SINGLES: [&str; 3] = ["singles", "fixtures", "fault_"];

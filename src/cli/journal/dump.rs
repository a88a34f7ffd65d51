//! `tapeway journal dump`: frames as lines of JSON.
//!
//! ```text
//! ndjson  {"pos":7,"received_ns":1,"kind":"text","raw":".."}          raw_b64 when it is no UTF-8
//!         {"pos":8,"received_ns":1,"kind":"http","tag":"..","status":200,"raw":".."}
//!         {"hole":{"first":9,"next":12,"damage":".."}}
//! corpus  {"ts_recv_ns":1,"conn":0,"dir":"in","raw":".."}             what `tapeway normalize` reads
//!         {"ts_recv_ns":1,"conn":0,"dir":"rest","tag":"..","status":200,"raw":".."}
//!         {"ts_recv_ns":1,"conn":0,"dir":"out","note":"open","raw":".."}  opens, closes, plans: ignored there
//! ```
//!
//! In the corpus form `conn` counts the connections from the first frame dumped on.

use std::{
    io::{BufWriter, Write, stdout},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use tapeway_exchanges::{
    conn::Conn,
    ids::FramePos,
    input::{Kind, split_http},
};

use super::{Failure, Folder, Stop, name};
use crate::journal::{Error, Identity, Reader, Record, Scan, SegmentFile, disk::RealDisk};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// First position; the first there is when absent.
    #[arg(long)]
    from: Option<u64>,
    /// Position to stop before; the end when absent.
    #[arg(long)]
    to: Option<u64>,
    /// What to print of each frame.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// Position, time, kind and bytes.
    Ndjson,
    /// What `tapeway normalize` and `tapeway book` read.
    Corpus,
}

#[derive(Default, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pos: Option<FramePos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts_recv_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_b64: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Stop> {
    let lanes = args.folder.lanes()?;
    let [dir] = lanes.as_slice() else {
        let names: Vec<String> = lanes.iter().map(|dir| name(dir)).collect();
        return Err(Failure(format!("--lane is needed, one of: {}", names.join(", "))).into());
    };
    let Some((first, end)) = range(dir)? else { return Ok(ExitCode::SUCCESS) };
    let from = args.from.map_or(first, FramePos::new);
    let to = args.to.map_or(end, FramePos::new).min(end);
    let mut out = BufWriter::with_capacity(OUTPUT_BYTES, stdout().lock());
    let mut reader = Reader::open(dir, from)?;
    let mut opens: u64 = 0;
    // The number that each of the lane's connections has in the dump.
    let mut numbers = [0; Conn::ALL.len()];
    loop {
        match reader.next_before(to) {
            Ok(Some(record)) if record.pos < from => {}
            Ok(Some(record)) => {
                if record.kind == Kind::Open {
                    numbers[record.conn.index()] = opens;
                    opens += 1;
                }
                let number = numbers[record.conn.index()];
                put(&mut out, args.format, record, number)?;
            }
            Ok(None) => break,
            Err(Error::Hole(hole)) => {
                eprintln!("tapeway: {hole}");
                if args.format == Format::Ndjson {
                    let (first, next, damage) = (hole.first, hole.next, hole.damage.to_string());
                    let hole = serde_json::json!({"hole": {"first": first, "next": next, "damage": damage}});
                    writeln!(out, "{hole}")?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// First position held and the first after the last; `None` for a lane without segments.
fn range(dir: &Path) -> Result<Option<(FramePos, FramePos)>, Stop> {
    let disk = Arc::new(RealDisk);
    let lane = || Failure(format!("{}: no lane's folder", dir.display()));
    let identity = Identity::read(disk.as_ref(), dir)?.ok_or_else(lane)?;
    let segments = SegmentFile::list(disk.as_ref(), dir)?;
    let (Some(oldest), Some(newest)) = (segments.first(), segments.last()) else { return Ok(None) };
    let end = Scan::of(disk.as_ref(), newest, identity.journal_id, false)?.end;
    Ok(Some((oldest.first, end)))
}

fn put(out: &mut impl Write, format: Format, record: Record<'_>, conn: u64) -> Result<(), Stop> {
    let Record { pos, received, kind, conn: of, bytes } = record;
    let mut line = match format {
        Format::Ndjson => {
            let (pos, received_ns, kind) = (Some(pos), Some(received.0), Some(kind.name()));
            let conn = (of != Conn::FIRST).then(|| of.number().into());
            Line { pos, received_ns, kind, conn, ..Line::default() }
        }
        Format::Corpus => {
            let (dir, note) = match kind {
                Kind::Text | Kind::Binary => ("in", None),
                Kind::Http => ("rest", None),
                Kind::Open | Kind::Plan | Kind::Close => ("out", Some(kind.name())),
            };
            Line { ts_recv_ns: Some(received.0), conn: Some(conn), dir: Some(dir), note, ..Line::default() }
        }
    };
    let body: &[u8] = if kind == Kind::Http {
        let (tag, status, body) = split_http(bytes).map_err(|error| Failure(format!("position {pos}: {error}")))?;
        (line.tag, line.status) = (Some(tag), Some(status));
        body
    } else {
        bytes
    };
    match std::str::from_utf8(body) {
        Ok(text) if kind != Kind::Binary => line.raw = Some(text),
        Ok(_) | Err(_) => line.raw_b64 = Some(STANDARD.encode(body)),
    }
    serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

const OUTPUT_BYTES: usize = 1 << 20;

//! `tapeway book`: the final order books of recorded frames, as one JSON object.
//!
//! A book that is not live at the end is never printed as if it were right: its `bids` and `asks` are empty,
//! and what it held when it was last whole stands under `bids_unproven` and `asks_unproven`.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::Serialize;
use serde_json::{Value, json};
use tapeway_exchanges::{
    book::Book,
    event::{Channel, Gap, Note, Side},
    replica::{Replica, Replicas, State},
    symbols::Symbol,
    venue::{Proof, VenueSpec},
};

use super::{Failure, normalize::venue};
use crate::recording::{Item, Recording, path_or_stdin};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The venue whose frames these are.
    #[arg(long, value_parser = venue)]
    venue: &'static VenueSpec,
    /// Most levels a side to print.
    #[arg(long, default_value_t = 50, value_name = "N")]
    depth: usize,
    /// Recorded frames, one JSON object a line, plain or zstd; standard input when absent or `-`.
    file: Option<PathBuf>,
}

/// What one connection of the recording came to.
#[derive(Default)]
struct Connection {
    replicas: Replicas<u64>,
    names: Vec<Symbol>,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let path = path_or_stdin(args.file);
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    let mut undecodable = Vec::new();
    Recording::open(&path)?.decode::<Failure>(args.venue, |item| {
        let decoded = match item {
            Item::Decoded(decoded) => decoded,
            Item::Bad { line, error } => return Err(Failure(format!("{}: line {line}: {error}", path.display()))),
        };
        let connection = connections.entry(decoded.conn).or_default();
        connection.replicas.on_chunk(decoded.events, decoded.books, |_| decoded.line);
        if connection.names.len() != decoded.symbols.len() {
            connection.names = decoded.symbols.names().to_vec();
        }
        if decoded.events.notes.iter().any(|note| matches!(note, Note::Reject(_))) {
            undecodable.push(decoded.line);
        }
        Ok(())
    })?;
    let output = output(args.venue, &path.display().to_string(), args.depth, &connections, &undecodable);
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &output)?;
    out.write_all(b"\n")?;
    Ok(ExitCode::SUCCESS)
}

/// The whole, in the shape of the corpus's `final_books`.
#[derive(Serialize)]
struct Output {
    sequence_rule: &'static str,
    connection_gaps: Vec<Value>,
    symbols: BTreeMap<String, Value>,
    undecodable_frames: Vec<u64>,
    frames_file: String,
}

fn output(
    venue: &'static VenueSpec,
    file: &str,
    depth: usize,
    connections: &BTreeMap<u64, Connection>,
    undecodable: &[u64],
) -> Output {
    let mut symbols = BTreeMap::new();
    let mut connection_gaps = Vec::new();
    for (conn, connection) in connections {
        for (symbol, replica) in connection.replicas.iter() {
            let name = connection.names[symbol.0 as usize].to_string();
            let key = if symbols.contains_key(&name) { format!("{name} (conn {conn})") } else { name };
            symbols.insert(key, book(venue, replica, depth));
        }
        connection_gaps.extend(connection.replicas.connection_gaps.iter().map(|(line, found)| gap(*line, found)));
    }
    let undecodable_frames = undecodable.to_vec();
    Output { sequence_rule: venue.book_rule, connection_gaps, symbols, undecodable_frames, frames_file: file.into() }
}

fn book(venue: &VenueSpec, replica: &Replica<u64>, depth: usize) -> Value {
    let (bids, asks) = (side(&replica.book, Side::Buy, depth), side(&replica.book, Side::Sell, depth));
    let total = |side| replica.book.levels(side).len();
    let is_live = replica.state == State::Live;
    let mut book = json!({
        "state": replica.state.name(),
        "bids": if is_live { bids.clone() } else { Vec::new() },
        "asks": if is_live { asks.clone() } else { Vec::new() },
        "levels_total": { "bids": total(Side::Buy), "asks": total(Side::Sell) },
        "snapshots": replica.snapshots,
        "deltas_applied": replica.deltas_applied,
        "deltas_ignored_old": replica.deltas_ignored_old,
        "deltas_before_snapshot": replica.deltas_before_snapshot,
        "deltas_stale": replica.deltas_stale,
        "last_book_frame": replica.last_book_frame,
        "gap_count": replica.gaps.len(),
        "gaps": replica.gaps.iter().map(|(line, found)| gap(*line, found)).collect::<Vec<_>>(),
        "crossed": replica.book.is_crossed(),
    });
    if !is_live {
        book["bids_unproven"] = json!(bids);
        book["asks_unproven"] = json!(asks);
    }
    if replica.checked > 0 || (venue.proof)(Channel::Book) == Proof::Checksum {
        book["checksums"] = json!({
            "checked": replica.checked,
            "matched": replica.checked - replica.mismatched.len() as u64,
            "mismatched_frames": replica.mismatched,
        });
    }
    book
}

fn side(book: &Book, side: Side, depth: usize) -> Vec<[String; 2]> {
    book.levels(side).take(depth).map(|(price, qty)| [price.to_string(), qty.to_string()]).collect()
}

fn gap(line: u64, gap: &Gap) -> Value {
    json!({
        "at_line": line,
        "cause": gap.cause.name(),
        "first_missing": gap.first_missing,
        "last_missing": gap.last_missing,
    })
}

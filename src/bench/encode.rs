//! Events to COPY bytes on one core: ordering and encoding of batches as the writer makes them.

use std::sync::Arc;

use tapeway_exchanges::event::Events;

use super::{
    BenchError, Options, Report, Stage,
    copy::piece,
    float,
    material::{Material, writer_config},
    process::thread_cpu_seconds,
};
use crate::{
    lane::Lane,
    store::instruments::InstrumentId,
    writer::{
        batch::Piece,
        encode::{Encoder, Poison, Scratch},
    },
};

/// Measures.
///
/// # Errors
///
/// As the journal has them.
pub(super) fn run(options: &Options, material: &Material, report: &mut Report) -> Result<(), BenchError> {
    let mut chunks: Vec<(usize, Arc<Lane>, Events)> = Vec::new();
    material.each_chunk(|nr, lane, events| {
        chunks.push((nr, lane.clone(), events));
        Ok(())
    })?;
    let config = writer_config();
    let group = config.batch_rows_max.div_ceil(config.chunk_rows_max);
    let rows: u64 = chunks.iter().map(|(_, _, events)| events.rows() as u64).sum();
    let (mut rates, mut bytes_a_row) = (Vec::new(), Vec::new());
    let mut scratch = Scratch::default();
    for _ in 0..options.runs {
        let (mut seconds, mut bytes) = (0.0, 0);
        for group in chunks.chunks(group) {
            let pieces: Vec<Piece> = group.iter().map(numbered).collect();
            let begin = thread_cpu_seconds();
            let (sealed, back) = Encoder::new(pieces, scratch, None, Poison::default()).finish();
            seconds += thread_cpu_seconds() - begin;
            scratch = back;
            bytes += sealed.copies.iter().flat_map(|copy| &copy.blocks).map(|block| block.len() as u64).sum::<u64>();
        }
        rates.push(float(rows) / seconds);
        bytes_a_row.push(float(bytes) / float(rows));
    }
    report.add(Stage::Encode, "", "rows_per_s", "rows/s", &rates);
    report.add(Stage::Encode, "", "bytes_per_row", "bytes", &bytes_a_row);
    Ok(())
}

/// A copy of a chunk whose instruments have numbers, each lane's after the one before.
fn numbered((nr, lane, events): &(usize, Arc<Lane>, Events)) -> Piece {
    let first = i32::try_from(nr * events.symbols.len() + 1).unwrap_or(1);
    let instruments = (first..).map(InstrumentId).take(events.symbols.len()).collect();
    piece(lane, *nr, events.clone(), instruments)
}

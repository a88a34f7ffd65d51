//! Catch-up: events of a lane from a position on, read from its journal.
//!
//! Restart, a slow database, a full queue and a database restored from an older backup all come here. The
//! adapter's state at the head of the segment and the frames since then give the very events the live path
//! gave, because both go through [`Decoder::apply`].

use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
};
use tracing::{error, warn};

use crate::{
    journal::{self, Hole, Reader},
    lane::Lane,
    metrics,
};

/// Reads one lane's journal forward.
#[derive(Debug)]
pub struct Replay {
    reader: Reader,
    decoder: Decoder,
    /// Frames that the reader could not read and the decoder has not yet been told of.
    hole: Option<Hole>,
    /// When the last frame read was received: the nearest there is for one that is lost.
    received: Nanos,
}

impl Replay {
    /// Prepares to give the events of all frames from `from` on.
    ///
    /// # Errors
    ///
    /// [`journal::Error::Gone`] when the journal begins later than `from`; other errors as the disk has them.
    pub fn open(lane: &Lane, from: FramePos) -> Result<Self, journal::Error> {
        let reader = Reader::open_on(lane.disk.clone(), &lane.dir, from)?;
        let decoder = decoder_at_head(lane, &reader);
        let received = reader.created();
        let mut replay = Self { reader, decoder, hole: None, received };
        let mut spare = Events::default();
        while replay.decoder.next() < from && replay.step(lane)? {
            if replay.decoder.events().rows() > DISCARD_ROWS {
                spare = replay.decoder.swap_events(spare);
            }
        }
        replay.decoder.swap_events(spare);
        Ok(replay)
    }

    /// The next chunk of at least one and about `rows_max` rows' worth of frames, built in `spare`'s memory;
    /// gives `spare` back when nothing more is appended yet.
    ///
    /// # Errors
    ///
    /// As the disk has them; the replay is of no further use.
    pub fn next_chunk(
        &mut self,
        lane: &Lane,
        rows_max: usize,
        spare: Events,
    ) -> Result<Result<Events, Events>, journal::Error> {
        while self.decoder.events().rows() < rows_max && self.decoder.events().received.len() < FRAMES_MAX {
            if !self.step(lane)? {
                break;
            }
        }
        if self.decoder.events().is_empty() {
            return Ok(Err(spare));
        }
        Ok(Ok(self.decoder.swap_events(spare)))
    }

    /// Position of the next frame to read.
    pub fn pos(&self) -> FramePos {
        self.decoder.next()
    }

    /// The decoder as it stands after the frames read so far.
    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Decodes one frame, or says of one that it is lost; `false` at the appended end.
    fn step(&mut self, lane: &Lane) -> Result<bool, journal::Error> {
        let pos = self.decoder.next();
        if let Some(hole) = self.hole.take_if(|hole| pos < hole.next) {
            let detail = if pos == hole.first { hole.to_string() } else { format!("as position {}", hole.first) };
            self.decoder.lose(At { pos, received: self.received, conn: Conn::FIRST }, detail);
            self.hole = Some(hole);
            return Ok(true);
        }
        self.hole = None;
        match self.reader.next(&lane.progress) {
            Ok(Some(record)) => {
                self.received = record.received;
                let at = At { pos: record.pos, received: record.received, conn: record.conn };
                self.decoder.apply(at, record.kind, record.bytes);
                self.decoder.actions().clear();
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(journal::Error::Hole(hole)) => {
                error!(lane = lane.name, %hole, frames = hole.frames(), "journaled frames are lost");
                metrics::JournalLane::new(&lane.name).count_recovery(0, hole.frames());
                self.hole = Some(hole);
                self.step(lane)
            }
            Err(error) => Err(error),
        }
    }
}

fn decoder_at_head(lane: &Lane, reader: &Reader) -> Decoder {
    let Some(state) = reader.state() else { return Decoder::new(lane.venue, reader.pos()) };
    Decoder::restore(lane.venue, state, reader.pos()).unwrap_or_else(|error| {
        warn!(lane = lane.name, pos = %reader.pos(), %error, "starting without the saved adapter state: gaps before here cannot be proven");
        Decoder::new(lane.venue, reader.pos())
    })
}

/// Rows decoded only to be thrown away before their memory is reused.
const DISCARD_ROWS: usize = 8_192;
/// Frames in one chunk, whatever they hold.
const FRAMES_MAX: usize = 8_192;

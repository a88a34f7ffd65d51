//! Recorded frames in the corpus format: one JSON object a line, plain or zstd, decoded by one decoder a
//! connection.
//!
//! ```text
//! {"ts_recv_ns":1,"conn":0,"dir":"in","raw":"..."}            a frame
//! {"ts_recv_ns":1,"conn":0,"dir":"in","raw_b64":"..."}        a binary frame
//! {"ts_recv_ns":1,"conn":0,"dir":"rest","url":"...","raw":..} an HTTP answer at that point of the session
//! {"ts_recv_ns":1,"conn":0,"dir":"out","raw":"..."}           sent by the recorder: ignored
//! ```
//!
//! What `tapeway journal dump --format corpus` writes has the adapter's `tag` and the `status` instead of `url`.
//!
//! A recording has no opens and closes, so adapters see frames on a connection they were never told of, and
//! decode them all the same.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
    input::{Kind, put_http},
    replica::BookMessage,
    symbols::Symbols,
    venue::VenueSpec,
};

/// A recording being read.
pub struct Recording {
    name: String,
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    next: u64,
}

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("{name}: {source}")]
    Io {
        /// The file, or `standard input`.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line is longer than any recorded frame.
    #[error("{name}: line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// The file, or `standard input`.
        name: String,
        /// 0-based index of the line.
        line: u64,
    },
}

/// One line of a recording.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    ts_recv_ns: i64,
    #[serde(default)]
    conn: u64,
    dir: Direction,
    raw: Option<String>,
    raw_b64: Option<String>,
    url: Option<String>,
    tag: Option<String>,
    status: Option<u16>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Direction {
    In,
    Out,
    Rest,
}

/// What one line of a recording came to.
#[derive(Debug)]
pub enum Item<'a> {
    /// A frame or an HTTP answer.
    Decoded(Decoded<'a>),
    /// No line of this format.
    Bad {
        /// 0-based index of the line.
        line: u64,
        /// What is wrong with it.
        error: String,
    },
}

/// One line that a decoder is to be given.
#[derive(Debug)]
pub struct Input<'a> {
    /// 0-based index of the line.
    pub line: u64,
    /// The connection's number in the recording.
    pub conn: u64,
    /// When it was received.
    pub received: Nanos,
    /// What the bytes are.
    pub kind: Kind,
    /// The bytes; may be edited.
    pub bytes: &'a mut [u8],
}

/// A line that is not of this format.
#[derive(Debug)]
pub struct Bad {
    /// 0-based index of the line.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}

/// One input and its events.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// 0-based index of the line.
    pub line: u64,
    /// The connection's number in the recording.
    pub conn: u64,
    /// Events of this line alone.
    pub events: &'a Events,
    /// Book messages of this line.
    pub books: &'a [BookMessage],
    /// The connection's symbols so far.
    pub symbols: &'a Symbols,
}

impl Recording {
    /// Opens a file, or standard input for `-`; zstd is recognised by its first bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: no such file, or no right to read it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "standard input".into() } else { path.display().to_string() };
        let wrap = |source| Error::Io { name: name.clone(), source };
        let input: Box<dyn Read> =
            if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(wrap)?) };
        let mut input = BufReader::new(input);
        let is_zstd = input.fill_buf().map_err(wrap)?.starts_with(&ZSTD_MAGIC);
        let input: Box<dyn BufRead> = if is_zstd {
            Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(input).map_err(wrap)?))
        } else {
            Box::new(input)
        };
        Ok(Self { name, input, line: Vec::new(), next: 0 })
    }

    /// Decodes every line in order and hands what it came to to `each`.
    ///
    /// # Errors
    ///
    /// [`Error`] of reading, as `E`; or the first error of `each`.
    pub fn decode<E: From<Error>>(
        self,
        venue: &'static VenueSpec,
        mut each: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut decoders: BTreeMap<u64, Decoder> = BTreeMap::new();
        let mut spare = Events::default();
        self.inputs(venue, |input| {
            let Input { line, conn, received, kind, bytes } = match input {
                Ok(input) => input,
                Err(Bad { line, error }) => return each(Item::Bad { line, error }),
            };
            let decoder = decoders.entry(conn).or_insert_with(|| {
                let mut decoder = Decoder::new(venue, FramePos::FIRST);
                decoder.log_books();
                decoder
            });
            decoder.apply(At { pos: decoder.next(), received, conn: Conn::FIRST }, kind, bytes);
            decoder.actions().clear();
            let books = decoder.take_book_log();
            let events = decoder.swap_events(std::mem::take(&mut spare));
            let symbols = decoder.symbols();
            each(Item::Decoded(Decoded { line, conn, events: &events, books: &books, symbols }))?;
            spare = events;
            Ok(())
        })
    }

    /// Hands every line that a decoder is to be given to `each`, in order, and what is wrong with the others.
    ///
    /// # Errors
    ///
    /// [`Error`] of reading, as `E`; or the first error of `each`.
    pub fn inputs<E: From<Error>>(
        mut self,
        venue: &'static VenueSpec,
        mut each: impl FnMut(Result<Input<'_>, Bad>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut http = Vec::new();
        while let Some(index) = self.read_line()? {
            let bad = |error| Err(Bad { line: index, error });
            let line = match serde_json::from_slice::<Line>(&self.line) {
                Ok(line) => line,
                Err(error) => {
                    each(bad(format!("not a recorded frame: {error}")))?;
                    continue;
                }
            };
            let (kind, mut bytes) = match (line.dir, line.raw, line.raw_b64) {
                (Direction::Out, _, _) => continue,
                (_, Some(raw), _) => (Kind::Text, raw.into_bytes()),
                (_, None, Some(text)) => match STANDARD.decode(&text) {
                    Ok(bytes) => (Kind::Binary, bytes),
                    Err(error) => {
                        each(bad(format!("`raw_b64` is not base64: {error}")))?;
                        continue;
                    }
                },
                (_, None, None) => {
                    each(bad("not a recorded frame: neither `raw` nor `raw_b64`".into()))?;
                    continue;
                }
            };
            let (conn, received) = (line.conn, Nanos(line.ts_recv_ns));
            if line.dir == Direction::Rest {
                let tag = line.tag.or_else(|| line.url.as_deref().and_then(venue.tag_of_url));
                let Some(tag) = tag else { continue };
                http.clear();
                put_http(&mut http, &tag, line.status.unwrap_or(STATUS_OK), &bytes);
                each(Ok(Input { line: index, conn, received, kind: Kind::Http, bytes: &mut http }))?;
            } else {
                each(Ok(Input { line: index, conn, received, kind, bytes: &mut bytes }))?;
            }
        }
        Ok(())
    }

    /// Reads the next line; gives its index.
    fn read_line(&mut self) -> Result<Option<u64>, Error> {
        self.line.clear();
        let limited = &mut (&mut self.input).take(LINE_BYTES_MAX + 1);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| Error::Io { name: self.name.clone(), source })?;
        if read == 0 {
            return Ok(None);
        }
        let line = self.next;
        if read as u64 > LINE_BYTES_MAX {
            return Err(Error::LineTooLong { name: self.name.clone(), line });
        }
        self.next += 1;
        Ok(Some(line))
    }
}

/// `-` or a path, as commands take it.
#[must_use]
pub fn path_or_stdin(path: Option<PathBuf>) -> PathBuf {
    path.unwrap_or_else(|| "-".into())
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Longest line read: a book of every level of the largest venue is a few megabytes.
const LINE_BYTES_MAX: u64 = 256 << 20;
const STATUS_OK: u16 = 200;

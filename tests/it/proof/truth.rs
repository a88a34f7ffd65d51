//! What the venues made, compact: of each instrument's trades and books the ids (or moments), eight bytes each, in a file
//! of their own. A truth file of an hour has gigabytes; it is read while it grows and given back to the disk.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate};
use serde::Deserialize;

/// What a stream's numbers are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// Trades by id.
    Trades,
    /// Book messages by their last id.
    Books,
    /// Book messages that have no id, by time in microseconds.
    Moments,
}

/// One instrument's trades or book messages, in the order they were made.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Stream {
    pub(crate) venue: String,
    pub(crate) symbol: String,
    pub(crate) kind: Kind,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) id: i64,
    /// It was withheld on purpose, as if it had been lost on the way.
    pub(crate) is_dropped: bool,
}

/// All streams, in a folder.
#[derive(Debug)]
pub(crate) struct Truth {
    folder: PathBuf,
}

impl Truth {
    /// Of a truth file that is complete.
    pub(crate) fn of(path: &Path, folder: &Path) -> Self {
        Follower::new(path, folder).run(&AtomicBool::new(true))
    }

    /// As it was written by an earlier run.
    pub(crate) fn kept(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// All streams.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        let names = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut streams: Vec<Stream> = names.map(|name| Stream::of(&name)).collect();
        streams.sort();
        streams
    }

    /// What a stream holds.
    pub(crate) fn read(&self, stream: &Stream) -> impl Iterator<Item = Made> {
        let mut file = BufReader::new(File::open(self.folder.join(stream.file_name())).unwrap());
        std::iter::from_fn(move || {
            let mut bytes = [0; 8];
            file.read_exact(&mut bytes).ok()?;
            let number = i64::from_le_bytes(bytes);
            Some(Made { id: number >> 1, is_dropped: number & 1 == 1 })
        })
    }
}

impl Stream {
    fn file_name(&self) -> String {
        let kind = match self.kind {
            Kind::Trades => "trades",
            Kind::Books => "books",
            Kind::Moments => "moments",
        };
        format!("{}~{}~{kind}", self.venue, self.symbol.replace('/', "%"))
    }

    fn of(file_name: &str) -> Self {
        let mut parts = file_name.split('~');
        let mut next = || parts.next().unwrap_or_else(|| panic!("{file_name} is no stream")).to_owned();
        let (venue, symbol, kind) = (next(), next().replace('%', "/"), next());
        let kind = match kind.as_str() {
            "trades" => Kind::Trades,
            "books" => Kind::Books,
            "moments" => Kind::Moments,
            other => panic!("{file_name}: {other} is no kind"),
        };
        Self { venue, symbol, kind }
    }
}

/// Reads a truth file while it grows.
#[derive(Debug)]
pub(crate) struct Tail {
    is_complete: Arc<AtomicBool>,
    thread: JoinHandle<Truth>,
}

impl Tail {
    pub(crate) fn start(path: &Path, folder: &Path) -> Self {
        let is_complete = Arc::new(AtomicBool::new(false));
        let follower = Follower::new(path, folder);
        let flag = is_complete.clone();
        Self { is_complete, thread: std::thread::spawn(move || follower.run(&flag)) }
    }

    /// The file is complete; reads the rest.
    pub(crate) fn finish(self) -> Truth {
        self.is_complete.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    venue: &'a str,
    #[serde(default)]
    symbol: &'a str,
    kind: &'a str,
    id: Option<i64>,
    u: Option<i64>,
    #[serde(default)]
    time_us: i64,
    fault: Option<&'a str>,
}

struct Follower {
    file: File,
    folder: PathBuf,
    streams: BTreeMap<(String, String), [Option<BufWriter<File>>; 3]>,
}

impl Follower {
    fn new(path: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Self { file, folder: folder.into(), streams: BTreeMap::new() }
    }

    fn run(mut self, is_complete: &AtomicBool) -> Truth {
        let mut buf = vec![0; READ_BYTES];
        let (mut held, mut consumed, mut given_back) = (0, 0_u64, 0_u64);
        loop {
            let is_last = is_complete.load(Ordering::SeqCst);
            let read = self.file.read(&mut buf[held..]).unwrap();
            if read == 0 {
                if is_last {
                    break;
                }
                std::thread::sleep(POLL);
                continue;
            }
            let end = held + read;
            let whole = buf[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in buf[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.line(line);
            }
            buf.copy_within(whole..end, 0);
            held = end - whole;
            assert!(held < buf.len(), "a line of the truth file is longer than {READ_BYTES} bytes");
            consumed += whole as u64;
            if consumed - given_back >= GIVE_BACK_BYTES {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // A file system that cannot do it needs the room instead.
                fallocate(&self.file, flags, 0, consumed).ok();
                given_back = consumed;
            }
        }
        assert_eq!(held, 0, "the truth file does not end with a whole line");
        for file in self.streams.into_values().flatten().flatten() {
            file.into_inner().unwrap();
        }
        Truth { folder: self.folder }
    }

    fn line(&mut self, text: &[u8]) {
        let line: Line<'_> = serde_json::from_slice(text).unwrap();
        let (kind, id) = match (line.kind, line.id, line.u) {
            ("trade", Some(id), _) => (Kind::Trades, id),
            ("book", _, Some(u)) if has_levels(text) => (Kind::Books, u),
            ("book", _, None) if has_levels(text) => (Kind::Moments, line.time_us),
            _ => return,
        };
        let is_dropped = matches!(line.fault, Some("drop"));
        let number = (id << 1) | i64::from(is_dropped);
        let streams = match self.streams.get_mut(&(line.venue.to_owned(), line.symbol.to_owned())) {
            Some(streams) => streams,
            None => self.streams.entry((line.venue.into(), line.symbol.into())).or_default(),
        };
        let folder = &self.folder;
        let file = streams[kind as usize].get_or_insert_with(|| {
            let stream = Stream { venue: line.venue.into(), symbol: line.symbol.into(), kind };
            BufWriter::new(File::create(folder.join(stream.file_name())).unwrap())
        });
        file.write_all(&number.to_le_bytes()).unwrap();
    }
}

fn has_levels(line: &[u8]) -> bool {
    let has = |empty: &str| memchr::memmem::find(line, empty.as_bytes()).is_none();
    has("\"bids\":[]") || has("\"asks\":[]")
}

const READ_BYTES: usize = 4 << 20;
/// How often the end of the file is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Bytes read before their room is given back to the disk.
const GIVE_BACK_BYTES: u64 = 256 << 20;

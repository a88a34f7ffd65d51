//! A segment file: its name, its head, and the list of a lane's segments.
//!
//! ```text
//! head = magic "TAPEWAYJ" | version u16 | zero u16 | state_len u32 | journal_id u128 | first_pos u64 |
//!        created_ns i64 | venue_len u8 | lane_len u8 | venue | lane | crc32c u32 |
//!        state[state_len] | state crc32c u32
//! name = first_pos in 20 digits + ".seg", ".seg.zst" once compressed
//! ```
//!
//! A segment is sealed when a later one exists: it was synced before the later one was made, and is never
//! opened for writing again.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tapeway_exchanges::ids::{FramePos, Nanos};

use super::{
    disk::Disk,
    error::{Damage, Error},
    identity::Identity,
};

/// One segment file of a lane.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Position of its first record.
    pub first: FramePos,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last written: when it was sealed, once it is.
    pub modified: SystemTime,
}

impl SegmentFile {
    /// A lane's segments, oldest first. One that is there both plain and compressed (a crash between the two
    /// steps) is listed plain.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Self>, Error> {
        let entries = disk.list(dir).map_err(Error::io("list", dir))?;
        let mut segments: Vec<Self> = entries
            .into_iter()
            .filter_map(|entry| {
                let (first, is_compressed) = parse_name(&entry.name)?;
                let path = dir.join(&entry.name);
                Some(Self { first, path, is_compressed, bytes: entry.bytes, modified: entry.modified })
            })
            .collect();
        segments.sort_by_key(|segment| (segment.first, segment.is_compressed));
        segments.dedup_by_key(|segment| segment.first);
        Ok(segments)
    }

    /// Index of the segment that holds `pos` or would hold it next: the last that begins at or before it.
    pub(crate) fn holding(segments: &[Self], pos: FramePos) -> Option<usize> {
        segments.partition_point(|segment| segment.first <= pos).checked_sub(1)
    }

    /// Where the plain segment beginning at `first` lies.
    pub(crate) fn path(dir: &Path, first: FramePos) -> PathBuf {
        dir.join(format!("{:020}.seg", first.get()))
    }
}

/// What a segment begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// The lane's folder it was written in.
    pub identity: Identity,
    /// Position of its first record.
    pub first: FramePos,
    /// When it was made, by the host clock.
    pub created: Nanos,
    /// Adapter state before the first record; `None` when none was saved (or it is damaged).
    pub state: Option<Vec<u8>>,
    /// Whether a state was saved and fails its checksum.
    pub is_state_damaged: bool,
}

impl Head {
    /// Appends the head.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`]: the state is longer than [`STATE_BYTES_MAX`].
    pub(crate) fn put(
        buf: &mut Vec<u8>,
        identity: &Identity,
        first: FramePos,
        created: Nanos,
        state: &[u8],
    ) -> Result<(), Error> {
        let too_long = || Error::TooLong { what: "an adapter state", len: state.len(), max: STATE_BYTES_MAX };
        let state_len = u32::try_from(state.len()).ok().filter(|_| state.len() <= STATE_BYTES_MAX);
        let state_len = state_len.ok_or_else(too_long)?;
        let start = buf.len();
        buf.extend_from_slice(MAGIC);
        buf.extend_from_slice(&VERSION.to_le_bytes());
        buf.extend_from_slice(&0u16.to_le_bytes());
        buf.extend_from_slice(&state_len.to_le_bytes());
        buf.extend_from_slice(&identity.journal_id.to_le_bytes());
        buf.extend_from_slice(&first.get().to_le_bytes());
        buf.extend_from_slice(&created.0.to_le_bytes());
        identity.put_names(buf);
        buf.extend_from_slice(&crc32c::crc32c(&buf[start..]).to_le_bytes());
        buf.extend_from_slice(state);
        buf.extend_from_slice(&crc32c::crc32c(state).to_le_bytes());
        Ok(())
    }

    /// Reads a head through `read`, which gives exactly so many of the next bytes.
    ///
    /// # Errors
    ///
    /// The outer: what `read` gave, and [`io::ErrorKind::Unsupported`] for another version. The inner:
    /// the head is damaged; how far it was read then is of no meaning.
    pub(crate) fn read(mut read: impl FnMut(usize) -> io::Result<Option<Vec<u8>>>) -> io::Result<Result<Self, Damage>> {
        let Some(mut head) = read(FIXED_BYTES)? else { return Ok(Err(Damage::Head)) };
        let names = usize::from(head[FIXED_BYTES - 2]) + usize::from(head[FIXED_BYTES - 1]);
        let Some(rest) = read(names + 4)? else { return Ok(Err(Damage::Head)) };
        head.extend_from_slice(&rest);
        let (body, crc) = head.split_at(FIXED_BYTES + names);
        if !body.starts_with(MAGIC) || crc32c::crc32c(body).to_le_bytes() != *crc {
            return Ok(Err(Damage::Head));
        }
        let version = u16::from_le_bytes([body[8], body[9]]);
        if version != VERSION {
            let text = format!("segment version {version}, this version of tapeway reads {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let eight = |at: usize| <[u8; 8]>::try_from(&body[at..at + 8]).expect("eight bytes");
        let state_len = u32::from_le_bytes(body[12..16].try_into().expect("four bytes")) as usize;
        let journal_id = u128::from_le_bytes(body[16..32].try_into().expect("sixteen bytes"));
        let Some((venue, lane, _)) = Identity::split_names(&body[FIXED_BYTES - 2..]) else {
            return Ok(Err(Damage::Head));
        };
        let state = if state_len <= STATE_BYTES_MAX { read(state_len + 4)? } else { None };
        let state = state.and_then(|mut state| {
            let crc = state.split_off(state_len);
            (crc32c::crc32c(&state).to_le_bytes() == *crc).then_some(state)
        });
        let is_state_damaged = state.is_none();
        Ok(Ok(Self {
            identity: Identity { journal_id, venue, lane },
            first: FramePos::new(u64::from_le_bytes(eight(32))),
            created: Nanos(i64::from_le_bytes(eight(40))),
            state: state.filter(|state| !state.is_empty()),
            is_state_damaged,
        }))
    }
}

fn parse_name(name: &str) -> Option<(FramePos, bool)> {
    let (digits, is_compressed) = match name.strip_suffix(".zst") {
        Some(plain) => (plain.strip_suffix(".seg")?, true),
        None => (name.strip_suffix(".seg")?, false),
    };
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok().map(|first| (FramePos::new(first), is_compressed))).flatten()
}

/// The longest adapter state a segment holds.
pub const STATE_BYTES_MAX: usize = 256 << 20;

const MAGIC: &[u8; 8] = b"TAPEWAYJ";
const VERSION: u16 = 1;
/// Bytes of the head up to and with the two name lengths.
const FIXED_BYTES: usize = 50;

//! One record: a frame as it lies in a segment.
//!
//! ```text
//! len u32 | crc u32 | pos u32 | behind u32 | received_ns i64 | origin u8 | bytes[len]
//! ```
//!
//! Little-endian. `crc` is the CRC-32C over `len` and everything after `crc`, begun from the segment's
//! [`seed`], so that a record of another journal or segment never passes. `pos` is the low half of the
//! position: a lost, doubled or moved record shows, and reading can find its place again behind damage.
//! `behind` is how many frames before this one were not yet synced when it was written: the record *proves* that
//! everything before `position - behind` was durable, which tells corruption from an unsynced tail.

use tapeway_exchanges::{
    ids::{FramePos, Nanos},
    input::Origin,
};

use super::error::Damage;

/// What precedes the bytes of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// Bytes after the header.
    pub(crate) len: usize,
    /// Frames before this one that were not synced when it was written.
    pub(crate) behind: u32,
    /// When the frame was received.
    pub(crate) received: Nanos,
    /// What the bytes are and which connection they came from.
    pub(crate) origin: Origin,
}

/// What every checksum of a segment begins from.
pub(crate) fn seed(journal_id: u128, first: FramePos) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&journal_id.to_le_bytes()), &first.get().to_le_bytes())
}

/// Appends one record.
pub(crate) fn put(
    buf: &mut Vec<u8>,
    seed: u32,
    (pos, behind): (FramePos, u32),
    (origin, received): (Origin, Nanos),
    bytes: &[u8],
) {
    let start = buf.len();
    let len = u32::try_from(bytes.len()).expect("a record is at most RECORD_BYTES_MAX long");
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[8..12].copy_from_slice(&low(pos).to_le_bytes());
    header[12..16].copy_from_slice(&behind.to_le_bytes());
    header[16..24].copy_from_slice(&received.0.to_le_bytes());
    header[24] = origin.byte();
    buf.extend_from_slice(&header);
    buf.extend_from_slice(bytes);
    let crc = checksum(seed, &buf[start..]);
    buf[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a header that should be of the frame at `pos`.
///
/// # Errors
///
/// [`Damage::Fields`]: no record at `pos` begins so.
pub(crate) fn header(bytes: &[u8; HEADER_BYTES], pos: FramePos) -> Result<Header, Damage> {
    let len = u32_at(bytes, 0) as usize;
    let origin = Origin::from_byte(bytes[24]).ok_or(Damage::Fields)?;
    if len > RECORD_BYTES_MAX || u32_at(bytes, 8) != low(pos) || u64::from(u32_at(bytes, 12)) > pos.get() {
        return Err(Damage::Fields);
    }
    let received = i64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    Ok(Header { len, behind: u32_at(bytes, 12), received: Nanos(received), origin })
}

/// Whether a whole record (header and bytes) passes its checksum.
pub(crate) fn is_intact(seed: u32, record: &[u8]) -> bool {
    record.len() >= HEADER_BYTES && u32_at(record, 4) == checksum(seed, record)
}

/// The first intact record in `bytes` whose position is `pos` or later: its offset and its position.
pub(crate) fn find(bytes: &[u8], seed: u32, pos: FramePos) -> Option<(usize, FramePos)> {
    // Each record lost takes at least a header's room, so a later position is close or it is none of ours.
    let ahead_max = u32::try_from(bytes.len() / HEADER_BYTES).unwrap_or(u32::MAX);
    (0..bytes.len().saturating_sub(HEADER_BYTES - 1)).find_map(|at| {
        let head: &[u8; HEADER_BYTES] = bytes[at..].first_chunk()?;
        let ahead = u32_at(head, 8).wrapping_sub(low(pos));
        if ahead > ahead_max {
            return None;
        }
        let found = FramePos::new(pos.get().checked_add(u64::from(ahead))?);
        let header = header(head, found).ok()?;
        let record = bytes.get(at..at + HEADER_BYTES + header.len)?;
        is_intact(seed, record).then_some((at, found))
    })
}

fn checksum(seed: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &record[..4]), &record[8..])
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(pos: FramePos) -> u32 {
    pos.get() as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Bytes before a record's own.
pub(crate) const HEADER_BYTES: usize = 25;

/// The longest frame: a WebSocket message of 64 MiB, or an HTTP answer of that with its tag. Longer ones are
/// refused by [`LaneJournal::append`](super::LaneJournal::append).
pub const RECORD_BYTES_MAX: usize = 65 << 20;

#[cfg(test)]
mod tests {
    use tapeway_exchanges::input::Kind;

    use super::*;

    const POS: FramePos = FramePos::new(u32::MAX as u64 + 7);

    fn one(pos: FramePos, bytes: &[u8]) -> Vec<u8> {
        let mut buf = Vec::new();
        put(&mut buf, 99, (pos, 3), (Kind::Text.into(), Nanos(-5)), bytes);
        buf
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let record = one(POS, b"{\"e\":1}");
        let found = header(record.first_chunk().unwrap(), POS).unwrap();
        assert_eq!(found, Header { len: 7, behind: 3, received: Nanos(-5), origin: Kind::Text.into() });
        assert!(is_intact(99, &record));
        assert!(!is_intact(98, &record), "a record of another segment must not pass");
    }

    #[test]
    fn every_single_bit_flip_is_seen() {
        let record = one(POS, b"some frame");
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_same = header(flipped.first_chunk().unwrap(), POS)
                .is_ok_and(|header| header.len == 10 && is_intact(99, &flipped));
            assert!(!is_same, "bit {bit} flipped unseen");
        }
    }

    #[test]
    fn the_place_is_found_again_behind_damage() {
        let mut bytes = vec![0xAB; 300];
        bytes.extend(one(POS.plus(2), b"found"));
        assert_eq!(find(&bytes, 99, POS), Some((300, POS.plus(2))));
        assert_eq!(find(&bytes, 99, POS.plus(3)), None, "an earlier position is not what was asked for");
        assert_eq!(find(&bytes, 98, POS), None);
    }
}

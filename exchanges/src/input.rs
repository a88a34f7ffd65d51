//! Journaled inputs: the kinds, and the bytes of those that are not plain WebSocket payloads.
//!
//! ```text
//! Text, Binary   the WebSocket payload as received
//! Open, Plan     JSON of LanePlan
//! Close          JSON of CloseReason
//! Http           status u16 LE | tag_len u8 | tag | body
//! ```

use thiserror::Error;

use crate::conn::Conn;

/// What a journal record holds. The number is on disk and never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// A WebSocket text message.
    Text = 1,
    /// A WebSocket binary message.
    Binary = 2,
    /// A connection opened; the plan it opened with.
    Open = 3,
    /// The plan changed on an open connection.
    Plan = 4,
    /// An HTTP answer.
    Http = 5,
    /// The connection closed; why.
    Close = 6,
}

impl Kind {
    /// The kind behind a number on disk.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Text,
            2 => Self::Binary,
            3 => Self::Open,
            4 => Self::Plan,
            5 => Self::Http,
            6 => Self::Close,
            _ => return None,
        })
    }

    /// The number on disk.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The name in `tapeway journal dump`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Open => "open",
            Self::Plan => "plan",
            Self::Http => "http",
            Self::Close => "close",
        }
    }
}

/// What an input is and which of the lane's connections it came from, as one byte on disk: the kind in the low half,
/// the connection's number in the high one. A lane with one connection writes what it always wrote.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Origin {
    /// What the bytes are.
    pub kind: Kind,
    /// The connection. An HTTP answer belongs to the lane and counts as of [`Conn::FIRST`].
    pub conn: Conn,
}

impl Origin {
    /// The origin behind a byte on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(Self { kind: Kind::from_byte(byte & KIND_BITS)?, conn: Conn::new(byte >> CONN_SHIFT)? })
    }

    /// The byte on disk.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.kind.byte() | self.conn.number() << CONN_SHIFT
    }
}

/// Of the first connection.
impl From<Kind> for Origin {
    fn from(kind: Kind) -> Self {
        Self { kind, conn: Conn::FIRST }
    }
}

impl From<(Kind, Conn)> for Origin {
    fn from((kind, conn): (Kind, Conn)) -> Self {
        Self { kind, conn }
    }
}

const KIND_BITS: u8 = 0x0F;
const CONN_SHIFT: u32 = 4;

/// Appends an HTTP answer in its journaled form. `tag` is cut to 255 bytes.
pub fn put_http(buf: &mut Vec<u8>, tag: &str, status: u16, body: &[u8]) {
    let tag = &tag.as_bytes()[..tag.len().min(usize::from(u8::MAX))];
    buf.extend_from_slice(&status.to_le_bytes());
    buf.push(u8::try_from(tag.len()).expect("cut to 255"));
    buf.extend_from_slice(tag);
    buf.extend_from_slice(body);
}

/// Splits a journaled HTTP answer into tag, status and body.
///
/// # Errors
///
/// [`MalformedHttp`]: the record was not written by [`put_http`].
pub fn split_http(bytes: &mut [u8]) -> Result<(String, u16, &mut [u8]), MalformedHttp> {
    let len = bytes.len();
    let (&[s0, s1, tag_len], _) = bytes.split_first_chunk::<3>().ok_or(MalformedHttp { len })?;
    let body_at = 3 + usize::from(tag_len);
    if len < body_at {
        return Err(MalformedHttp { len });
    }
    let (head, body) = bytes.split_at_mut(body_at);
    let tag = String::from_utf8_lossy(&head[3..]).into_owned();
    Ok((tag, u16::from_le_bytes([s0, s1]), body))
}

/// A journaled HTTP answer too short to hold its own tag.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("an http record of {len} bytes is too short for its status and tag")]
pub struct MalformedHttp {
    /// Bytes found.
    pub len: usize,
}

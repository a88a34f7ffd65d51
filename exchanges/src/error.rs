//! What can be wrong with a frame, and what to do about it.

use thiserror::Error;

/// Why a frame made no events, or not all of them. Carries no payload: the journal has it, at a
/// known position.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum FrameError {
    /// The bytes are not the format the venue speaks.
    #[error("not valid JSON at byte {at}: {what}; frame begins {head:?}")]
    Syntax {
        /// Byte offset in the frame where parsing stopped.
        at: usize,
        /// What the parser found.
        what: String,
        /// First bytes of the frame.
        head: String,
    },
    /// A field is missing or is not what the venue documents.
    #[error("field `{field}` should be {rule}, found {found:?}")]
    Field {
        /// The venue's name of the field.
        field: &'static str,
        /// What the field must be.
        rule: &'static str,
        /// What was there, cut to a readable length; `missing` when there was nothing.
        found: String,
    },
    /// Well-formed, but no documented message of this feed.
    #[error("not a documented message: {head:?}")]
    Unknown {
        /// First bytes of the frame.
        head: String,
    },
    /// The venue answered an HTTP request with an error.
    #[error("HTTP request `{tag}` answered {status}: {head:?}")]
    Http {
        /// The request's tag.
        tag: String,
        /// The HTTP status.
        status: u16,
        /// First bytes of the body.
        head: String,
    },
    /// The venue refused something that was asked of it.
    #[error("the venue refused {what}: {reason:?}")]
    Refused {
        /// What was asked.
        what: String,
        /// What the venue said.
        reason: String,
    },
    /// The lane already knows as many symbols as it may.
    #[error("symbol {name:?} is one more than a lane may know")]
    TooManySymbols {
        /// The symbol that did not fit.
        name: String,
    },
}

impl FrameError {
    /// A field that is not what it should be; `found` is cut to a readable length.
    #[must_use]
    pub fn field(field: &'static str, rule: &'static str, found: &str) -> Self {
        Self::Field { field, rule, found: head(found.as_bytes()) }
    }

    /// A field that is not there.
    #[must_use]
    pub fn missing(field: &'static str, rule: &'static str) -> Self {
        Self::Field { field, rule, found: "missing".into() }
    }

    /// Short fixed name for metric labels and `audit.rejects.reason`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::Field { .. } => "field",
            Self::Unknown { .. } => "unknown_message",
            Self::Http { .. } => "http_status",
            Self::Refused { .. } => "refused",
            Self::TooManySymbols { .. } => "too_many_symbols",
        }
    }
}

/// The first bytes of a frame as text for an error message.
#[must_use]
pub fn head(bytes: &[u8]) -> String {
    let cut = bytes.len().min(HEAD_BYTES_MAX);
    let mut text = String::from_utf8_lossy(&bytes[..cut]).into_owned();
    if bytes.len() > cut {
        text.push('…');
    }
    text
}

/// How much of a frame an error message shows.
pub(crate) const HEAD_BYTES_MAX: usize = 120;

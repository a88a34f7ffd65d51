//! JSON frames as a flat tape that is walked in place: no tree, no copy, no allocation once warm.
//!
//! simd-json turns a bare number into an integer or a float, which loses digits and trailing zeros. For
//! venues that send prices as bare numbers, [`Json::read_keeping_numbers`] first puts every bare number
//! between quotes (in a buffer of its own), so that its text arrives as it was written.

use simd_json::{Buffers, Node, StaticNode, Tape};

use crate::error::{FrameError, HEAD_BYTES_MAX, head};

/// A parser whose memory is reused from frame to frame.
pub(crate) struct Json {
    buffers: Buffers,
    tape: Tape<'static>,
    quoted: Vec<u8>,
    /// What the frame began with, for an error message: parsing edits it.
    first: [u8; HEAD_BYTES_MAX + 1],
}

impl Json {
    pub(crate) fn new() -> Self {
        Self { buffers: Buffers::default(), tape: Tape(Vec::new()), quoted: Vec::new(), first: [0; HEAD_BYTES_MAX + 1] }
    }

    /// Parses `bytes` and hands its root to `walk`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Syntax`]: not JSON. Otherwise what `walk` returns.
    #[inline]
    pub(crate) fn read<R>(
        &mut self,
        bytes: &mut [u8],
        walk: impl for<'t, 'i> FnOnce(View<'t, 'i>) -> Result<R, FrameError>,
    ) -> Result<R, FrameError> {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let kept = match bytes.first_chunk() {
            Some(first) => {
                self.first = *first; // Of a fixed size: no call.
                self.first.len()
            }
            None => {
                self.first[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
        };
        let result = match simd_json::fill_tape(bytes, &mut self.buffers, &mut tape) {
            Ok(()) if tape.0.is_empty() => Err(FrameError::Unknown { head: String::new() }),
            Ok(()) => walk(View(&tape.0)),
            Err(error) => {
                drop(tape);
                return Err(syntax_error(bytes, &error, head(&self.first[..kept])));
            }
        };
        if tape.0.capacity() <= TAPE_NODES_KEPT {
            self.tape = tape.reset();
        }
        result
    }

    /// As [`read`](Self::read), with every bare number given as the text the venue wrote.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); `at` counts in the quoted text.
    pub(crate) fn read_keeping_numbers<R>(
        &mut self,
        bytes: &[u8],
        walk: impl for<'t, 'i> FnOnce(View<'t, 'i>) -> Result<R, FrameError>,
    ) -> Result<R, FrameError> {
        let mut quoted = std::mem::take(&mut self.quoted);
        quote_numbers(bytes, &mut quoted);
        let result = self.read(&mut quoted, walk);
        if quoted.capacity() <= QUOTED_BYTES_KEPT {
            self.quoted = quoted;
        }
        result
    }
}

/// One JSON value: the first node of the slice; what follows belongs to it or to its neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'t, 'i>(&'t [Node<'i>]);

impl<'t, 'i> View<'t, 'i> {
    /// The text of a string.
    #[inline]
    pub(crate) fn text(self) -> Option<&'i str> {
        match self.0.first() {
            Some(Node::String(text)) => Some(text),
            _ => None,
        }
    }

    /// An integer, bare or as text.
    #[inline]
    pub(crate) fn int(self) -> Option<i64> {
        match self.0.first() {
            Some(Node::Static(StaticNode::I64(value))) => Some(*value),
            Some(Node::Static(StaticNode::U64(value))) => i64::try_from(*value).ok(),
            Some(Node::String(text)) => text.parse().ok(),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn bool(self) -> Option<bool> {
        match self.0.first() {
            Some(Node::Static(StaticNode::Bool(value))) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        matches!(self.0.first(), Some(Node::Static(StaticNode::Null)))
    }

    /// Keys and values of an object; nothing for any other value.
    #[inline]
    pub(crate) fn entries(self) -> Entries<'t, 'i> {
        match self.0.first() {
            Some(Node::Object { len, .. }) => Entries { left: *len, nodes: &self.0[1..] },
            _ => Entries { left: 0, nodes: &[] },
        }
    }

    /// Elements of an array; `None` for any other value.
    #[inline]
    pub(crate) fn items(self) -> Option<Items<'t, 'i>> {
        match self.0.first() {
            Some(Node::Array { len, .. }) => Some(Items { left: *len, nodes: &self.0[1..] }),
            _ => None,
        }
    }

    /// The value behind a key of an object.
    #[inline]
    pub(crate) fn get(self, key: &str) -> Option<Self> {
        self.entries().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The two texts an array begins with: price and quantity of a level.
    #[inline]
    pub(crate) fn pair(self) -> Option<(&'i str, &'i str)> {
        match self.0 {
            [Node::Array { len, .. }, Node::String(first), Node::String(second), ..] if *len >= 2 => {
                Some((first, second))
            }
            _ => None,
        }
    }

    /// The text behind a key.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: missing, or no text.
    pub(crate) fn need_text(self, field: &'static str) -> Result<&'i str, FrameError> {
        let value = self.get(field).ok_or_else(|| FrameError::missing(field, "a string"))?;
        value.text().ok_or_else(|| FrameError::field(field, "a string", &value.shown()))
    }

    /// The integer behind a key.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: missing, or no integer.
    pub(crate) fn need_int(self, field: &'static str) -> Result<i64, FrameError> {
        let value = self.get(field).ok_or_else(|| FrameError::missing(field, "an integer"))?;
        value.int().ok_or_else(|| FrameError::field(field, "an integer", &value.shown()))
    }

    /// The array behind a key.
    ///
    /// # Errors
    ///
    /// [`FrameError::Field`]: missing, or no array.
    pub(crate) fn need_items(self, field: &'static str) -> Result<Items<'t, 'i>, FrameError> {
        let value = self.get(field).ok_or_else(|| FrameError::missing(field, "an array"))?;
        value.items().ok_or_else(|| FrameError::field(field, "an array", &value.shown()))
    }

    /// What the value is, for an error message.
    pub(crate) fn shown(self) -> String {
        match self.0.first() {
            Some(Node::String(text)) => (*text).into(),
            Some(Node::Static(value)) => value.to_string(),
            Some(Node::Array { len, .. }) => format!("an array of {len}"),
            Some(Node::Object { len, .. }) => format!("an object of {len} keys"),
            None => "nothing".into(),
        }
    }
}

/// Iterates over an object.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'t, 'i> {
    left: usize,
    nodes: &'t [Node<'i>],
}

impl<'t, 'i> Iterator for Entries<'t, 'i> {
    type Item = (&'i str, View<'t, 'i>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let [Node::String(key), rest @ ..] = self.nodes else { return None };
        let value = View(rest);
        self.nodes = rest.get(width(rest)..)?;
        Some((key, value))
    }
}

/// Iterates over an array.
#[derive(Clone, Debug)]
pub(crate) struct Items<'t, 'i> {
    left: usize,
    nodes: &'t [Node<'i>],
}

impl<'t, 'i> Iterator for Items<'t, 'i> {
    type Item = View<'t, 'i>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let value = View(self.nodes);
        self.nodes = self.nodes.get(width(self.nodes)..)?;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_, '_> {}

/// Nodes of the value that a slice begins with.
#[inline]
fn width(nodes: &[Node<'_>]) -> usize {
    match nodes.first() {
        Some(Node::Array { count, .. } | Node::Object { count, .. }) => count + 1,
        Some(Node::String(_) | Node::Static(_)) => 1,
        None => 0,
    }
}

/// What is wrong with a frame, said by a parser that is slower and knows better where it stopped.
#[cold]
fn syntax_error(bytes: &[u8], error: &simd_json::Error, head: String) -> FrameError {
    match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Err(error) => FrameError::Syntax { at: error.column(), what: error.to_string(), head },
        Ok(_) => FrameError::Syntax { at: error.index(), what: error.to_string(), head },
    }
}

/// Copies `bytes` into `quoted` with quotes around every bare number.
fn quote_numbers(bytes: &[u8], quoted: &mut Vec<u8>) {
    quoted.clear();
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let taken = match byte {
            b'"' => string_bytes(rest),
            b'-' | b'0'..=b'9' => {
                let len = rest.iter().position(|byte| !is_number_byte(*byte)).unwrap_or(rest.len());
                quoted.push(b'"');
                quoted.extend_from_slice(&rest[..len]);
                quoted.push(b'"');
                rest = &rest[len..];
                continue;
            }
            _ => rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9')).unwrap_or(rest.len()),
        };
        quoted.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
}

/// Bytes of the string that `text` begins with, quotes included; all of it when the string does not end.
fn string_bytes(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(step) = memchr::memchr2(b'"', b'\\', &text[at.min(text.len())..]) {
        at += step;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

const fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

/// Nodes whose memory is kept from frame to frame; a deep snapshot needs more, for itself alone.
const TAPE_NODES_KEPT: usize = 65_536;
/// Bytes of quoted text whose memory is kept from frame to frame.
const QUOTED_BYTES_KEPT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = Vec::new();
        quote_numbers(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bare_numbers_keep_their_digits() {
        assert_eq!(quoted(r#"{"a":1.50,"b":[-2e-5,3],"c":null}"#), r#"{"a":"1.50","b":["-2e-5","3"],"c":null}"#);
    }

    #[test]
    fn numbers_inside_strings_stay_as_they_are() {
        let text = r#"{"a1":"2 \" 3","b":"\\","c":"4"}"#;
        assert_eq!(quoted(text), text);
    }

    #[test]
    fn a_string_that_does_not_end_is_copied_whole() {
        assert_eq!(quoted(r#"{"a":"12"#), r#"{"a":"12"#);
        assert_eq!(quoted(r#"{"a":"12\"#), r#"{"a":"12\"#);
    }

    #[test]
    fn values_are_found_behind_nested_neighbours() {
        let mut json = Json::new();
        let mut bytes = br#"{"a":{"x":[1,[2,3]]},"b":["p","q","r"],"c":7,"d":"8"}"#.to_vec();
        json.read(&mut bytes, |root| {
            assert_eq!(root.get("b").and_then(View::pair), Some(("p", "q")));
            assert_eq!(root.need_int("c"), Ok(7));
            assert_eq!(root.need_int("d"), Ok(8));
            assert_eq!(root.get("a").and_then(|a| a.get("x")).and_then(View::items).unwrap().len(), 2);
            assert_eq!(root.need_text("c").unwrap_err().to_string(), "field `c` should be a string, found \"7\"");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_error_says_where_and_shows_the_frames_head() {
        let error = Json::new().read(&mut br#"{"a":[1,2"#.to_vec(), |_| Ok(())).unwrap_err();
        assert!(matches!(&error, FrameError::Syntax { head, .. } if head == r#"{"a":[1,2"#), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut json = Json::new();
            drop(json.read_keeping_numbers(&bytes, |_| Ok(())));
            drop(json.read(&mut bytes.clone(), |_| Ok(())));
        }

        /// A valid document stays valid, and no bare number is left.
        #[test]
        fn quoting_leaves_no_number_behind(numbers in proptest::collection::vec(-1.0e9..1.0e9f64, 0..9)) {
            let text = serde_json::to_string(&numbers).unwrap();
            let back: Vec<String> = serde_json::from_str(&quoted(&text)).unwrap();
            prop_assert_eq!(back.len(), numbers.len());
        }
    }
}

//! Instrument lists: `venue u8 | body`, and the URL of a recording: the body as text.
//!
//! Held: no panic; an instrument has a name; no more instruments than bytes.

use tapeway_exchanges::{
    metadata::{Source, drop_unnamed},
    venue::VENUES,
};

/// Runs one case.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(bytes: &[u8]) {
    let Some((number, body)) = bytes.split_first() else { return };
    let spec = &VENUES[usize::from(*number) % VENUES.len()];
    let mut list = match spec.metadata {
        Source::Http { parse, .. } => parse(&mut body.to_vec()).ok(),
        Source::WebSocket { parse, .. } => parse(&mut body.to_vec()).ok().flatten(),
    };
    if let Some(list) = &mut list {
        drop_unnamed(list);
    }
    for one in list.iter().flatten() {
        assert!(!one.symbol.is_empty(), "{one:?}");
    }
    assert!(list.map_or(0, |list| list.len()) <= body.len());
    if let Ok(url) = std::str::from_utf8(body) {
        if let Some(tag) = (spec.tag_of_url)(url) {
            assert!(tag.len() <= url.len() + 64, "{tag:?}");
        }
    }
}

//! Saved states that were not saved so: `venue u8 | state as JSON`. The head of a segment has a checksum, so this
//! takes a defect of ours, or an older version of us.
//!
//! Held: refused, or restored; a restored one saves itself again and survives a capture. An adapter may panic over it: the
//! decoder catches that, so here it counts as survived.

use std::{panic, sync::Once};

use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::Events,
    guard,
    ids::{FramePos, Nanos},
    venue::VENUES,
};

use crate::captures;

/// Runs one case.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(bytes: &[u8]) {
    HOOK.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !guard::is_guarded() {
                abort(info);
            }
        }));
    });
    let Some((number, state)) = bytes.split_first() else { return };
    let spec = &VENUES[usize::from(*number) % VENUES.len()];
    let Ok(mut decoder) = Decoder::restore(spec, state, FramePos::new(1_000)) else { return };
    drop(decoder.state());
    CAPTURES.with(|captures| {
        for (received, kind, input) in captures.iter().filter(|one| one.venue == spec.name).flat_map(|one| &one.inputs)
        {
            let at = At { pos: decoder.next(), received: Nanos(*received), conn: Conn::FIRST };
            decoder.apply(at, *kind, &mut input.clone());
            decoder.swap_events(Events::default());
            decoder.actions().clear();
        }
    });
    drop(decoder.state());
}

static HOOK: Once = Once::new();

thread_local!(static CAPTURES: Vec<captures::Capture> = captures::all());

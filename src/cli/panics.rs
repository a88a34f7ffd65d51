//! What a panic does to the process.

use std::{panic, process};

use tapeway_exchanges::guard;
use tracing::error;

/// From here on a panic ends the process at once, as a defect of ours must: a thread that died alone would leave a
/// daemon that looks well and records nothing. The exception is a panic inside an adapter: the decoder catches it and
/// makes it a reject, because the frame would be met again after every restart.
pub(super) fn end_the_process() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if guard::is_guarded() {
            error!(at = info.location().map(ToString::to_string), "an adapter panicked; audit.rejects names the frame");
            return;
        }
        say(info);
        process::abort();
    }));
}

//! Catching an adapter's panic, so that one frame cannot end the recording of all others.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `call`; what it panicked with, as text, if it did.
///
/// # Errors
///
/// The panic's message, cut to a readable length. What `call` was changing is as the panic left it.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|panic| message(&*panic))
}

/// Whether this thread is inside an adapter, whose panics become rejects. For a panic hook that treats all others as
/// the end of the process.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic without a message");
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Longest message kept of a panic.
const MESSAGE_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_the_thread_is_no_longer_guarded() {
        assert_eq!(guarded(|| assert_eq!(1, 1)), Ok(()));
        assert_eq!(guarded(|| panic!("as told")), Err::<(), _>("as told".into()));
        let index = 7;
        let found = guarded(|| [1, 2, 3][std::hint::black_box(index)]).unwrap_err();
        assert_eq!(found, "index out of bounds: the len is 3 but the index is 7");
        assert!(guarded(is_guarded).unwrap() && !is_guarded());
        assert_eq!(guarded(|| panic!("{}", "ü".repeat(900))).map(|()| 0).unwrap_err().chars().count(), 401);
    }
}

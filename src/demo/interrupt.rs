//! Ctrl-C and SIGTERM, heard from the beginning: nothing that the demo starts is left behind.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Asks to stop; each is heard once, also one that came while nobody listened.
#[derive(Debug)]
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// The system refuses a handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when asked to stop.
    pub(super) async fn heard(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

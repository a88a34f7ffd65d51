//! A thread that does one thing at an interval until it is stopped.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// A thread that does one thing at an interval. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Worker {
    signal: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that calls `act` every `interval`, and once more when it is stopped.
    ///
    /// # Errors
    ///
    /// The system gives no more threads.
    pub(crate) fn start(name: &str, interval: Duration, mut act: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let signal = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&signal);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let is_stopped = {
                    let stop = theirs.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let waited = theirs.1.wait_timeout_while(stop, interval, |is_stopped| !*is_stopped);
                    *waited.unwrap_or_else(PoisonError::into_inner).0
                };
                act();
                if is_stopped {
                    return;
                }
            }
        })?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        *self.signal.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a journal thread panicked");
        }
    }
}

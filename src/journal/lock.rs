//! One daemon a journal: a lock on the folder that the system takes back when the process ends.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use rustix::fs::FlockOperation;

use super::error::Error;

/// The right to write to a journal; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another process (or this one) has it; [`Error::Io`].
    pub fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("LOCK");
        let open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(Error::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::Locked { dir: dir.into(), pid });
            }
            Err(error) => return Err(Error::io("lock", path)(error.into())),
        }
        let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(Error::io("write", path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a child being started at this moment holds it open until its `exec`.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "the journal's lock was not given back; the end of the process does that");
        }
    }
}

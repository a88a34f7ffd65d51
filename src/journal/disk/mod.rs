//! What the journal needs of a disk, so that a simulated one can stand in for the real one.
//!
//! The rules the journal relies on, and the simulated disk takes to their limit:
//! - written bytes survive the death of the process, and survive a power cut only after [`File::sync`];
//! - a power cut may keep any of the unsynced pages and lose any others;
//! - a name made, changed or removed survives a power cut only after [`Disk::sync_dir`];
//! - after a failed sync the unsynced bytes may be gone although they can still be read, and a later sync that
//!   succeeds does not bring them back.

use std::{fmt::Debug, io, path::Path, sync::Arc, time::SystemTime};

mod real;
pub mod sim;

pub use real::RealDisk;

/// A disk with folders and files.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder and its parents, and makes their names durable; no error if it is there.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// What a folder holds, in no order.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such folder; others as the disk has them.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Makes an empty file, emptying one that is there, open for reading and writing.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such file; others as the disk has them.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such file; others as the disk has them.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Those who have it open can still read it.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a power cut.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes free for us on the file system of `dir`.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// The clock that stamps files.
    fn now(&self) -> SystemTime;

    /// A number that no folder of any disk has been given before.
    fn unique(&self) -> u128;
}

/// An open file.
pub trait File: Debug + Send + Sync {
    /// Reads from `offset`; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`; may write less than asked.
    ///
    /// # Errors
    ///
    /// As the disk has them; `StorageFull` or `QuotaExceeded` when there is no room.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length survive a power cut (`fdatasync`).
    ///
    /// # Errors
    ///
    /// As the disk has them. What is on the disk is unknown then, and stays unknown if a later call succeeds.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn bytes(&self) -> io::Result<u64>;

    /// Sets the time of last modification.
    ///
    /// # Errors
    ///
    /// As the disk has them.
    fn set_modified(&self, time: SystemTime) -> io::Result<()>;
}

/// One name in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name, without the folder. Names that are no UTF-8 are none of ours and left out.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Last modified.
    pub modified: SystemTime,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
///
/// As [`File::write_at`]; an unknown part of `bytes` may have been written.
pub(crate) fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a whole small file, at most `bytes_max`.
///
/// # Errors
///
/// As [`Disk::open`] and [`File::read_at`]; `FileTooLarge` when there is more.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = usize::try_from(file.bytes()?).ok().filter(|len| *len <= bytes_max);
    let mut bytes = vec![0; len.ok_or(io::ErrorKind::FileTooLarge)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Makes a file that is either wholly there or not at all: temporary name, sync, rename, folder synced.
///
/// # Errors
///
/// As the disk has them; the temporary file may be left, which recovery removes.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let file = disk.create(&temporary)?;
    write_all_at(file.as_ref(), bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The name a file has until it is whole.
pub(crate) fn temporary(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

/// Whether the error says that there is no room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Ends the name of a file that is not whole yet.
pub(crate) const TEMPORARY_SUFFIX: &str = ".new";

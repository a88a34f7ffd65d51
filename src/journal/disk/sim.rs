//! A disk in memory that does what a disk may do at its worst: it loses what was not synced, page by page and
//! name by name, tears writes, fails syncs (and forgets the bytes, as Linux does) and fills up.
//!
//! Everything random comes from the seed it was made with.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Disk, Entry, File};

/// A simulated disk; a clone is the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World {
            rng: StdRng::seed_from_u64(seed),
            boots: 0,
            inodes: BTreeMap::new(),
            inode_next: 0,
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
            dirs: BTreeSet::new(),
            bytes_max: u64::MAX,
            syncs_to_fail: 0,
            writes_to_fail: 0,
            is_lying: false,
            clock: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Cuts the power: unsynced pages and names are kept or lost as the seed has it. Open files are dead.
    pub fn power_cut(&self) {
        let mut world = self.world();
        let world = &mut *world;
        world.boots += 1;
        let kept = world.rng.random_range(0..=world.changes.len());
        for change in world.changes.drain(..).take(kept) {
            change.apply(&mut world.names_durable);
        }
        world.names = world.names_durable.clone();
        for inode in world.inodes.values_mut() {
            inode.power_cut(&mut world.rng);
        }
    }

    /// Kills the process: open files are dead, the operating system keeps everything.
    pub fn kill(&self) {
        self.world().boots += 1;
    }

    /// The next `count` syncs of files fail and forget what they should have synced.
    pub fn fail_syncs(&self, count: u32) {
        self.world().syncs_to_fail = count;
    }

    /// The next `count` writes fail.
    pub fn fail_writes(&self, count: u32) {
        self.world().writes_to_fail = count;
    }

    /// From now on every sync of a file says that it has synced, and has not.
    pub fn lie_about_syncs(&self) {
        self.world().is_lying = true;
    }

    /// Gives the disk room for so many bytes in all.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.world().bytes_max = bytes_max;
    }

    /// Moves the clock that stamps files.
    pub fn advance(&self, time: Duration) {
        self.world().clock += time;
    }

    /// The clock that stamps files.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.world().clock
    }

    /// Bytes in all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.world().used()
    }

    /// Changes bytes behind the journal's back: bit rot.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut world = self.world();
        let number = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = world.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        change(&mut inode.now);
        inode.durable.clone_from(&inode.now);
        inode.dirty.clear();
        Ok(())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, number: u64, boot: u64) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), number, boot })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.world().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let world = self.world();
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let files = world.names.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, number)| {
            let inode = &world.inodes[number];
            Entry { name: name(path), bytes: inode.now.len() as u64, modified: inode.modified, is_dir: false }
        });
        let dirs = world.dirs.iter().filter(|path| path.parent() == Some(dir)).map(|path| Entry {
            name: name(path),
            bytes: 0,
            modified: world.clock,
            is_dir: true,
        });
        Ok(files.chain(dirs).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        let number = world.inode_next;
        world.inode_next += 1;
        let modified = world.clock;
        world.inodes.insert(number, Inode { modified, ..Inode::default() });
        world.change(Change::Link(path.to_owned(), number));
        Ok(self.handle(number, world.boots))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let world = self.world();
        let number = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(number, world.boots))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let (ours, others) =
            std::mem::take(&mut world.changes).into_iter().partition(|change| change.path().parent() == Some(dir));
        world.changes = others;
        ours.into_iter().for_each(|change: Change| change.apply(&mut world.names_durable));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let world = self.world();
        Ok(world.bytes_max.saturating_sub(world.used()))
    }

    fn now(&self) -> SystemTime {
        self.now()
    }

    fn unique(&self) -> u128 {
        self.world().rng.random()
    }
}

#[derive(Debug)]
struct World {
    rng: StdRng,
    boots: u64,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    /// Changes of names not yet durable, in order.
    changes: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    bytes_max: u64,
    syncs_to_fail: u32,
    writes_to_fail: u32,
    is_lying: bool,
    clock: SystemTime,
}

impl World {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn used(&self) -> u64 {
        self.names.values().map(|number| self.inodes[number].now.len() as u64).sum()
    }
}

#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, number) => {
                names.insert(path.clone(), *number);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path) => path,
        }
    }
}

#[derive(Debug)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Pages of `now` that the next sync writes.
    dirty: BTreeSet<usize>,
    modified: SystemTime,
}

impl Default for Inode {
    fn default() -> Self {
        Self { now: Vec::new(), durable: Vec::new(), dirty: BTreeSet::new(), modified: SystemTime::UNIX_EPOCH }
    }
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / PAGE_BYTES..to.div_ceil(PAGE_BYTES));
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.persist(page);
        }
    }

    fn persist(&mut self, page: usize) {
        let from = (page * PAGE_BYTES).min(self.durable.len());
        let to = (from + PAGE_BYTES).min(self.durable.len()).min(self.now.len()).max(from);
        self.durable[from..to].copy_from_slice(&self.now[from..to]);
    }

    /// The length is anything between the synced and the written one; dirty pages come through whole, torn or
    /// not at all.
    fn power_cut(&mut self, rng: &mut StdRng) {
        let (low, high) = (self.durable.len().min(self.now.len()), self.durable.len().max(self.now.len()));
        self.durable.resize(rng.random_range(low..=high), 0);
        for page in std::mem::take(&mut self.dirty) {
            match rng.random_range(0..4) {
                0 => {}
                1 => {
                    let from = (page * PAGE_BYTES).min(self.durable.len());
                    let to = (from + rng.random_range(0..PAGE_BYTES)).min(self.durable.len()).min(self.now.len());
                    if from < to {
                        self.durable[from..to].copy_from_slice(&self.now[from..to]);
                    }
                }
                _ => self.persist(page),
            }
        }
        self.now.clone_from(&self.durable);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: u64,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut World, u64) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.world();
        if world.boots != self.boot {
            return Err(io::Error::other("the process that had this file open is gone"));
        }
        act(&mut world, self.number)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|world, number| {
            let bytes = &world.inodes[&number].now;
            let from = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            let mut count = buf.len().min(bytes.len() - from);
            if count > 1 && world.rng.random_ratio(1, 4) {
                count = world.rng.random_range(1..=count);
            }
            buf[..count].copy_from_slice(&world.inodes[&number].now[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|world, number| {
            if world.writes_to_fail > 0 {
                world.writes_to_fail -= 1;
                return Err(io::Error::other("simulated write error"));
            }
            let from = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let len = world.inodes[&number].now.len();
            let room = usize::try_from(world.bytes_max.saturating_sub(world.used())).unwrap_or(usize::MAX);
            let mut count = bytes.len().min(len.saturating_sub(from).saturating_add(room));
            if count == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if count > 1 && world.rng.random_ratio(1, 4) {
                count = world.rng.random_range(1..=count);
            }
            let modified = world.clock;
            let inode = world.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
            if inode.now.len() < from + count {
                inode.now.resize(from + count, 0);
            }
            inode.now[from..from + count].copy_from_slice(&bytes[..count]);
            inode.touch(from, from + count);
            inode.modified = modified;
            Ok(count)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|world, number| {
            let inode = world.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let from = inode.now.len().min(len);
            inode.now.resize(len, 0);
            inode.touch(from, len);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|world, number| {
            let inode = world.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
            if world.syncs_to_fail > 0 {
                world.syncs_to_fail -= 1;
                inode.dirty.clear();
                return Err(io::Error::other("simulated sync error"));
            }
            if !world.is_lying {
                inode.sync();
            }
            Ok(())
        })
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(|world, number| Ok(world.inodes[&number].now.len() as u64))
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.with(|world, number| {
            world.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?.modified = time;
            Ok(())
        })
    }
}

/// What a power cut keeps or loses as one piece; small, to make damage likely.
const PAGE_BYTES: usize = 64;

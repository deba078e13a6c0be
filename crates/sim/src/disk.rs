//! A disk in memory that crashes, tears and fails where a test says.
//!
//! Every file has what the programs see and what a power cut would leave. Writes reach the second only by a sync;
//! names only by a sync of their directory. At a power cut each write since the last sync survives whole, in part
//! (by sectors of 512 bytes) or not at all, in any order, as a seeded generator says. After a sync that failed, what
//! it should have written is still seen and counts as clean, so that no later sync writes it: as on Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keepwatch_journal::disk::{Access, Disk, DiskFile};

const SECTOR: usize = 512;

/// What an injected failure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space left on the device.
    NoSpace,
    /// Input/output error.
    Io,
}

impl Fault {
    fn error(self) -> io::Error {
        // ENOSPC and EIO of Linux.
        io::Error::from_raw_os_error(match self {
            Fault::NoSpace => 28,
            Fault::Io => 5,
        })
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    /// Changes of names since they were durable, in order.
    name_changes: Vec<NameChange>,
    /// Operations that change something, so far.
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    power_cut_at: Option<u64>,
    is_off: bool,
    is_full: bool,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl SimDisk {
    /// An empty disk with one directory.
    #[must_use]
    pub fn with_dir(dir: &Path) -> SimDisk {
        let disk = SimDisk::default();
        disk.lock().dirs.insert(dir.to_owned());
        disk
    }

    /// How many operations have changed something: writes, syncs, names, lengths.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Makes the changing operation with this number (from 1) fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.lock().faults.insert(operation, fault);
    }

    /// Makes every write fail for want of space, as long as it stays full; names can be made and removed.
    pub fn fill_up(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Cuts the power just before the changing operation with this number: it and all later ones fail.
    pub fn cut_power_at(&self, operation: u64) {
        self.lock().power_cut_at = Some(operation);
    }

    /// Cuts the power, lets chance decide what of the unsynced survives, and turns it on again. Files that are open
    /// belong to a program that is gone.
    pub fn restart(&self, seed: u64) {
        let mut chance = Chance(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut state = self.lock();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                change.survive(&mut inode.durable, &mut chance);
            }
            inode.seen = inode.durable.clone();
        }
        for change in std::mem::take(&mut state.name_changes) {
            // Any of them may be lost: nothing orders names but a sync of their directory.
            if chance.below(2) == 0 {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.faults.clear();
        state.power_cut_at = None;
        state.is_off = false;
    }

    /// The program is gone and another one starts; the machine stays on, and nothing that was seen is lost.
    pub fn restart_program_only(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.power_cut_at = None;
    }

    /// What programs see of a file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|inode| state.inodes[*inode].seen.clone())
    }

    /// Puts a file there, durable at once.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { seen: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// All files that are seen.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation that changes something, and fails it if its time has come.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.power_cut_at.is_some_and(|at| self.operations >= at) {
            self.is_off = true;
        }
        if self.is_off {
            return Err(Fault::Io.error());
        }
        self.faults.remove(&self.operations).map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn make_names_durable(&mut self, dir: &Path) {
        // Syncing a directory takes along what came before in others, as journaling file systems do.
        let touches = |change: &NameChange| change.paths().iter().any(|path| path.parent() == Some(dir));
        let until = self.name_changes.iter().rposition(touches).map_or(0, |last| last + 1);
        for change in self.name_changes.drain(..until).collect::<Vec<_>>() {
            change.apply(&mut self.durable_names);
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    fn paths(&self) -> Vec<&Path> {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => vec![path],
            NameChange::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write(content, *offset, bytes),
            Change::Resize(len) => content.resize(*len, 0),
        }
    }

    fn survive(&self, content: &mut Vec<u8>, chance: &mut Chance) {
        match (chance.below(4), self) {
            (0, _) => {}
            (1, _) | (_, Change::Resize(_)) => self.apply(content),
            (_, Change::Write { offset, bytes }) => {
                let mut start = 0;
                while start < bytes.len() {
                    // Sectors lie on the file's grid, not on the write's.
                    let end = (start + SECTOR - (offset + start) % SECTOR).min(bytes.len());
                    if chance.below(2) == 0 {
                        write(content, offset + start, &bytes[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.lock();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below = state.names.keys().chain(&state.dirs).filter(|path| path.parent() == Some(dir));
        Ok(below.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.lock().find(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, access }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.operate()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Link(path.to_owned(), inode));
        Ok(Box::new(SimFile { disk: self.clone(), inode, access: Access::ReadWrite }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.find(from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.find(path)?;
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.make_names_durable(dir);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    access: Access,
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.operate()?;
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.is_full && !matches!(change, Change::Resize(_)) {
            return Err(Fault::NoSpace.error());
        }
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let seen = &state.inodes[self.inode].seen;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        let len = into.len().min(seen.len() - start);
        into[..len].copy_from_slice(&seen[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let change = |bytes: &[u8]| Change::Write { offset, bytes: bytes.to_vec() };
        match self.change(change(bytes)) {
            Err(error) => {
                // A write that fails may have written some of it.
                let mut state = self.disk.lock();
                if !state.is_off && self.access == Access::ReadWrite {
                    let part = change(&bytes[..bytes.len() / 2]);
                    let inode = &mut state.inodes[self.inode];
                    part.apply(&mut inode.seen);
                    inode.unsynced.push(part);
                }
                Err(error)
            }
            done => done,
        }
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let seen = self.size()?;
        let len = usize::try_from(len.max(seen)).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(Change::Resize(len))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Resize(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let result = state.operate();
        if state.is_off {
            return result;
        }
        let inode = &mut state.inodes[self.inode];
        for (index, change) in std::mem::take(&mut inode.unsynced).iter().enumerate() {
            // A sync that failed has written some of it, and forgets the rest.
            if result.is_ok() || index % 3 == 1 {
                change.apply(&mut inode.durable);
            }
        }
        result
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].seen.len() as u64)
    }
}

/// A small seeded generator (xorshift64*), so that a seed names a run for ever.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

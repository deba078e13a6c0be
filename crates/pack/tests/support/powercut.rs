//! A disk in memory whose power can be cut. What was synced is there afterwards; of the rest, anything.
//!
//! Names change in order, as on a file system with a journal: of the changes that no sync has made durable, the first so
//! many survive. Content that was not synced survives by pieces.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use keepwatch_pack::files::{Facts, File, Files, Kind};

use super::Dice;

/// The unit in which content survives, in bytes.
const BLOCK: usize = 512;

/// The disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    /// So many changes of names are durable.
    durable: usize,
}

struct Inode {
    kind: Kind,
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Add(path, inode) => drop(names.insert(path.clone(), *inode)),
            Change::Remove(path) => drop(names.remove(path)),
            Change::Rename(from, to) => {
                let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let inode = names.remove(&path).unwrap();
                    let rest = path.strip_prefix(from).unwrap();
                    names.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, inode);
                }
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let is_in = |path: &Path| path.parent() == Some(dir);
        match self {
            Change::Add(path, _) | Change::Remove(path) => is_in(path),
            Change::Rename(from, to) => is_in(from) || is_in(to),
        }
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Cuts the power, and writes what is left to a directory.
    pub fn cut(&self, dice: &mut Dice, to: &Path) {
        let state = self.state();
        let survive = state.durable + dice.below(state.changes.len() - state.durable + 1);
        let mut names = BTreeMap::new();
        state.changes[..survive].iter().for_each(|change| change.apply(&mut names));
        let contents: Vec<Vec<u8>> = state.inodes.iter().map(|inode| inode.left(dice)).collect();
        for (path, inode) in names {
            match state.inodes[inode].kind {
                Kind::Dir => std::fs::create_dir_all(to.join(path)).unwrap(),
                _ => std::fs::write(to.join(path), &contents[inode]).unwrap(),
            }
        }
    }
}

impl Inode {
    fn left(&self, dice: &mut Dice) -> Vec<u8> {
        if dice.below(3) == 0 {
            return self.synced.clone();
        }
        let len = self.synced.len() + dice.below(self.now.len().saturating_sub(self.synced.len()) + 1);
        let mut left = vec![0; len];
        for at in (0..len).step_by(BLOCK) {
            let end = (at + BLOCK).min(len);
            let from = if dice.below(2) == 0 { &self.now } else { &self.synced };
            let known = from.len().min(end).max(at);
            left[at..known].copy_from_slice(&from[at.min(from.len())..known.min(from.len())]);
        }
        left
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn has_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.find(parent).map(drop),
            _ => Ok(()),
        }
    }

    fn add(&mut self, path: &Path, kind: Kind) -> io::Result<usize> {
        self.has_parent(path)?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.inodes.push(Inode { kind, now: Vec::new(), synced: Vec::new() });
        self.change(Change::Add(path.to_owned(), self.inodes.len() - 1));
        Ok(self.inodes.len() - 1)
    }

    fn facts(&self, inode: usize) -> Facts {
        let Inode { kind, now, .. } = &self.inodes[inode];
        Facts { dev: 1, inode: inode as u64, size: now.len() as u64, mtime_ns: 0, kind: *kind }
    }
}

impl Files for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        if !dir.as_os_str().is_empty() {
            state.find(dir)?;
        }
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_owned()).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Facts> {
        let state = self.state();
        state.find(path).map(|inode| state.facts(inode))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match self.state().add(dir, Kind::Dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop),
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = self.state().add(path, Kind::File)?;
        Ok(Box::new(DiskFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = self.state().find(path)?;
        Ok(Box::new(DiskFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(from)?;
        state.has_parent(to)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(from)?;
        state.has_parent(to)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(Change::Add(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        state.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(dir)?;
        if state.names.keys().any(|path| path.parent() == Some(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change(Change::Remove(dir.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !dir.as_os_str().is_empty() {
            state.find(dir)?;
        }
        let last = state.changes.iter().rposition(|change| change.touches(dir));
        state.durable = state.durable.max(last.map_or(0, |last| last + 1));
        Ok(())
    }
}

struct DiskFile {
    disk: Disk,
    inode: usize,
}

impl File for DiskFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.inodes[self.inode].now;
        let from = content.len().min(usize::try_from(offset).unwrap());
        let len = into.len().min(content.len() - from);
        into[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let content = &mut state.inodes[self.inode].now;
        let from = usize::try_from(offset).unwrap();
        content.resize(content.len().max(from + bytes.len()), 0);
        content[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.state().inodes[self.inode].now.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inode = &mut self.disk.state().inodes[self.inode];
        inode.synced.clone_from(&inode.now);
        Ok(())
    }

    fn start_sync(&self, _: u64, _: u64) {}

    fn facts(&self) -> io::Result<Facts> {
        let state = self.disk.state();
        Ok(state.facts(self.inode))
    }
}

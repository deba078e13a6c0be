//! The live tree within a transaction: names in directories, their counts, and what is remembered of it. Knows nothing of
//! records. Directories are in `dirs`.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::known::{FileId, Known, ROOTS, signed};
use super::store::{Delta, Fault, Place, Store};
use crate::model::{Facts, FileType, RootName, Seq};

/// Directories whose path is remembered; beyond, all are forgotten and looked up again.
const PATHS_MAX: usize = 65_536;
/// Directories known to be empty that are remembered.
const EMPTY_MAX: usize = 64 * 1024;

/// What is remembered between records and batches so as not to be asked again. Only a shadow of committed or pending rows:
/// forgotten whenever anything is rolled back.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(super) roots: HashMap<RootName, i64>,
    paths: HashMap<i64, HashMap<Box<[u8]>, i64, RandomState>>,
    path_count: usize,
    /// In which root a directory is.
    root_of: HashMap<i64, i64, RandomState>,
    /// Some directories that were made lately and into which no name was written since.
    empty: HashSet<i64, RandomState>,
}

impl Memory {
    pub(crate) fn path(&self, root: i64, path: &[u8]) -> Option<i64> {
        self.paths.get(&root)?.get(path).copied()
    }

    pub(crate) fn learn(&mut self, root: i64, path: &[u8], dir: i64) {
        if self.path_count >= PATHS_MAX {
            self.forget_paths();
        }
        self.path_count += 1;
        self.paths.entry(root).or_default().insert(path.into(), dir);
    }

    pub(super) fn forget_paths(&mut self) {
        self.paths.clear();
        self.path_count = 0;
        self.root_of.clear();
    }

    /// No name was ever written into this directory.
    pub(super) fn made(&mut self, dir: i64) {
        if self.empty.len() >= EMPTY_MAX {
            self.empty.clear();
        }
        self.empty.insert(dir);
    }

    pub(crate) fn forget(&mut self) {
        self.roots.clear();
        self.empty.clear();
        self.forget_paths();
    }
}

/// The live tree within one transaction.
pub(crate) struct Tree<'m, S> {
    pub(crate) store: S,
    pub(super) memory: &'m mut Memory,
    /// By root, since the last [`Tree::settle_counts`] or [`Tree::undo`].
    pub(super) fresh: HashMap<i64, Delta>,
    settled: HashMap<i64, Delta>,
}

impl<'m, S: Store> Tree<'m, S> {
    pub(crate) fn new(store: S, memory: &'m mut Memory) -> Self {
        Tree { store, memory, fresh: HashMap::new(), settled: HashMap::new() }
    }

    /// The store, and what is remembered above it.
    pub(crate) fn parts(&mut self) -> (&mut S, &Memory) {
        (&mut self.store, self.memory)
    }

    /// What stands under a name.
    pub(crate) fn find(&mut self, dir: i64, name: &[u8]) -> Result<Option<Known>, S::Error> {
        self.store.find(dir, name)
    }

    /// Whether nothing stands under a name.
    pub(crate) fn is_free(&mut self, dir: i64, name: &[u8]) -> Result<bool, S::Error> {
        Ok(self.memory.empty.contains(&dir) || self.find(dir, name)?.is_none())
    }

    /// Adds a name that does not exist.
    pub(crate) fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> Result<(), S::Error> {
        self.memory.empty.remove(&dir);
        self.store.insert_name(dir, name, known)
    }

    pub(super) fn write_name(&mut self, dir: i64, name: &[u8], old: &Known, known: &Known) -> Result<(), S::Error> {
        self.store.write_name(dir, name, old, known)
    }

    pub(super) fn lift(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> Result<(), S::Error> {
        self.store.lift(dir, name, known, seq)
    }

    /// Ends a name, and with a directory's name all that it held.
    pub(super) fn end(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> Result<(), Fault<S::Error>> {
        self.count(dir, known.kind, -1, -size(known))?;
        if known.kind == Some(FileType::Dir) {
            let row = self.dir_row(known.file_id.0)?.ok_or(Fault::Contradiction("a directory has no row in dirs"))?;
            self.end_below(&row, seq)?;
        }
        self.lift(dir, name, known, seq)?;
        Ok(())
    }

    pub(super) fn places(&mut self, id: FileId, inode: u64) -> Result<Vec<Place>, S::Error> {
        self.store.places(id, inode)
    }

    pub(super) fn by_inode(&mut self, root: i64, facts: &Facts) -> Result<Vec<Place>, S::Error> {
        self.store.by_inode(root, facts)
    }

    // Counts.

    /// Counts names in a directory's root.
    pub(super) fn count(
        &mut self,
        dir: i64,
        kind: Option<FileType>,
        names: i64,
        bytes: i64,
    ) -> Result<(), Fault<S::Error>> {
        if dir == ROOTS {
            return Ok(());
        }
        let root = match self.memory.root_of.get(&dir) {
            Some(root) => *root,
            None => {
                let row = self.dir_row(dir)?.ok_or(Fault::Contradiction("a directory has no row in dirs"))?;
                if self.memory.root_of.len() >= PATHS_MAX {
                    self.memory.root_of.clear();
                }
                self.memory.root_of.insert(dir, row.root);
                row.root
            }
        };
        self.count_in(root, kind, names, bytes);
        Ok(())
    }

    /// Counts names in a root that is at hand.
    pub(crate) fn count_in(&mut self, root: i64, kind: Option<FileType>, names: i64, bytes: i64) {
        self.fresh.entry(root).or_default().add(kind, names, bytes);
    }

    /// The record's part was applied: its counts hold.
    pub(crate) fn settle_counts(&mut self) {
        for (root, delta) in self.fresh.drain() {
            self.settled.entry(root).or_default().plus(delta);
        }
    }

    /// The record's part was undone: its counts are void, and what was remembered may be too.
    pub(crate) fn undo(&mut self) {
        self.fresh.clear();
        self.memory.forget();
    }

    /// Writes the counts of the batch.
    pub(crate) fn write_counts(&mut self) -> Result<(), S::Error> {
        for (root, delta) in self.settled.drain().filter(|(_, delta)| *delta != Delta::default()) {
            self.store.add_counts(root, delta)?;
        }
        Ok(())
    }
}

/// The bytes that a known object adds to a root's count.
pub(crate) fn size(known: &Known) -> i64 {
    known.facts.as_ref().map_or(0, |facts| signed(facts.size))
}

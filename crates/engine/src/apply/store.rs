//! What the tree asks of whatever keeps its rows.

use super::known::{FileId, Known};
use crate::model::{Facts, FileType, Record, RootName, Seq, Timestamp};

/// When a record was journaled: its place and its moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
}

impl Stamp {
    /// Of a record.
    pub(crate) fn of(record: &Record) -> Stamp {
        Stamp { seq: record.seq, at: record.at }
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) dir: i64,
    pub(crate) name: Vec<u8>,
}

/// Where a live directory is.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) id: i64,
    pub(crate) root: i64,
    pub(crate) path: Vec<u8>,
}

/// A directory that is to be added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDir<'a> {
    pub(crate) id: i64,
    pub(crate) root: i64,
    pub(crate) parent: i64,
    pub(crate) name: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) seq: Seq,
}

/// What changed in the counts of a root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) files: i64,
    pub(crate) dirs: i64,
    pub(crate) others: i64,
    pub(crate) bytes: i64,
}

impl Delta {
    /// The same, taken away.
    pub(crate) fn minus(self) -> Delta {
        Delta { files: -self.files, dirs: -self.dirs, others: -self.others, bytes: -self.bytes }
    }

    pub(crate) fn add(&mut self, kind: Option<FileType>, names: i64, bytes: i64) {
        match kind {
            Some(FileType::File) => (self.files, self.bytes) = (self.files + names, self.bytes + bytes),
            Some(FileType::Dir) => self.dirs += names,
            _ => self.others += names,
        }
    }

    pub(crate) fn plus(&mut self, other: Delta) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.others += other.others;
        self.bytes += other.bytes;
    }
}

/// Why the inventory part of one record was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault<E> {
    /// The store refused, or failed.
    #[error(transparent)]
    Store(#[from] E),
    /// The record contradicts itself or the tree.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Rows of one host, within one transaction. Whatever is written is seen by what is asked next.
pub(crate) trait Store {
    /// What can go wrong in it.
    type Error;

    /// What stands under a name.
    fn find(&mut self, dir: i64, name: &[u8]) -> Result<Option<Known>, Self::Error>;
    /// Adds a name that does not exist.
    fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> Result<(), Self::Error>;
    /// Writes over a name that exists, with what was known under it before.
    fn write_name(&mut self, dir: i64, name: &[u8], old: &Known, known: &Known) -> Result<(), Self::Error>;
    /// Whether an object was removed to free its space, and is not deleted.
    fn is_released(&mut self, _id: FileId) -> Result<bool, Self::Error> {
        Ok(false)
    }
    /// An object was seen: if it was released, it has come back.
    fn came_back(&mut self, _id: FileId) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Takes a name away and leaves it in the past; what it held, if it was a directory, is not touched.
    fn lift(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> Result<(), Self::Error>;
    /// Every name of an object whose facts are known.
    fn places(&mut self, id: FileId, inode: u64) -> Result<Vec<Place>, Self::Error>;
    /// Where the object that has these facts is known in a root: same device, inode and kind, the latest first.
    fn by_inode(&mut self, root: i64, facts: &Facts) -> Result<Vec<Place>, Self::Error>;

    /// The root of this name.
    fn root(&mut self, name: &RootName) -> Result<Option<i64>, Self::Error>;
    /// Adds a root, which is not watched yet, and its own directory; its name in the directory of roots comes apart.
    fn insert_root(&mut self, id: i64, name: &RootName) -> Result<(), Self::Error>;
    /// Adds to a root's counts.
    fn add_counts(&mut self, root: i64, delta: Delta) -> Result<(), Self::Error>;

    /// The live directory at a path below its root.
    fn dir_at(&mut self, root: i64, path: &[u8]) -> Result<Option<i64>, Self::Error>;
    /// Where a live directory is.
    fn dir(&mut self, id: i64) -> Result<Option<Dir>, Self::Error>;
    /// Adds a live directory's own rows; its name stands among the names already.
    fn insert_dir(&mut self, dir: &NewDir<'_>) -> Result<(), Self::Error>;
    /// Moves a directory to another place with all directories below it. Its own name is moved apart.
    fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> Result<(), Self::Error>;
    /// Ends every name below a directory, and the directories themselves; a root keeps its own.
    fn end_below(&mut self, dir: &Dir, seq: Seq) -> Result<(), Self::Error>;
    /// What stands below a directory.
    fn sum_below(&mut self, dir: &Dir) -> Result<Delta, Self::Error>;
}

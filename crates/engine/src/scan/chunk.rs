//! Some entries of a directory: names in one buffer, rows beside it, both used again for the next directory.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDirEntry;
use rustix::io::Errno;

use super::look::{Stat, stat_at};

/// Some entries of a directory, or all of them.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    entries: &'a Entries,
    whole: bool,
}

impl<'a> Chunk<'a> {
    /// Whether these are all entries of the directory. Then they are sorted by the bytes of their names; the chunks
    /// of a directory that needs more than one come in no order.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.rows.is_empty()
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let entries = self.entries;
        entries.order.iter().map(|key| {
            let row = &entries.rows[key.row as usize];
            Entry { name: entries.name(row), seen: row.seen }
        })
    }
}

/// A name in a directory, and what is there.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its bytes: any but `/` and NUL.
    pub name: &'a [u8],
    /// What `statx` said.
    pub seen: Seen,
}

/// What a look at an entry gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    There(Stat),
    /// It was listed, and is gone.
    Vanished,
    /// It could not be looked at, for this reason.
    Failed(Errno),
}

#[derive(Debug)]
struct Row {
    /// Where its name starts in the arena.
    start: u32,
    /// Bytes of the name, without the NUL behind it.
    len: u32,
    seen: Seen,
}

/// What a row is sorted by, next to its place: most comparisons then touch nothing else.
#[derive(Debug)]
struct Key {
    key: u64,
    row: u32,
}

/// The storage of chunks: filled with names, looked at, delivered, cleared, filled again.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Names, each with a NUL behind it.
    names: Vec<u8>,
    rows: Vec<Row>,
    /// The rows in the order they are worked on: first by inode, then by name.
    order: Vec<Key>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.rows.clear();
        self.order.clear();
    }

    /// Adds a name that is yet to be looked at.
    pub(super) fn push(&mut self, entry: &RawDirEntry<'_>) {
        let name = entry.file_name().to_bytes_with_nul();
        let (start, row) = (self.names.len() as u32, self.rows.len() as u32);
        self.names.extend_from_slice(name);
        self.order.push(Key { key: entry.ino(), row });
        self.rows.push(Row { start, len: name.len() as u32 - 1, seen: Seen::Vanished });
    }

    /// Looks at every name, in the order of the inodes: that is how they lie on a disk. False if it was cancelled.
    pub(super) fn look(&mut self, dir: BorrowedFd<'_>, cancelled: impl Fn() -> bool) -> bool {
        self.order.sort_unstable_by_key(|key| key.key);
        for key in &self.order {
            if cancelled() {
                return false;
            }
            let row = &mut self.rows[key.row as usize];
            let (start, end) = (row.start as usize, row.start as usize + row.len as usize);
            row.seen = match CStr::from_bytes_with_nul(&self.names[start..=end]).map(|name| stat_at(dir, name)) {
                Ok(Ok(stat)) => Seen::There(stat),
                Ok(Err(Errno::NOENT)) => Seen::Vanished,
                Ok(Err(error)) => Seen::Failed(error),
                Err(_) => Seen::Failed(Errno::ILSEQ),
            };
        }
        true
    }

    /// The chunk to deliver.
    pub(super) fn chunk(&mut self, whole: bool) -> Chunk<'_> {
        if whole {
            self.sort();
        }
        Chunk { entries: self, whole }
    }

    fn name(&self, row: &Row) -> &[u8] {
        &self.names[row.start as usize..][..row.len as usize]
    }

    /// Sorts by name. Names of one directory are often alike at their start, so the key is made of the eight bytes
    /// behind what all have in common.
    fn sort(&mut self) {
        let Entries { names, rows, order } = self;
        let name = |row: u32| {
            let row = &rows[row as usize];
            &names[row.start as usize..][..row.len as usize]
        };
        let Some(first) = order.first().map(|key| name(key.row)) else { return };
        let common = order.iter().fold(first.len(), |common, key| {
            first[..common].iter().zip(name(key.row)).take_while(|(one, other)| one == other).count()
        });
        for key in order.iter_mut() {
            // No name has a NUL in it, so padding with NULs keeps the order of names that end early.
            let mut bytes = [0; 8];
            let rest = &name(key.row)[common..];
            let len = rest.len().min(8);
            bytes[..len].copy_from_slice(&rest[..len]);
            key.key = u64::from_be_bytes(bytes);
        }
        order.sort_unstable_by(|one, other| {
            one.key.cmp(&other.key).then_with(|| name(one.row)[common..].cmp(&name(other.row)[common..]))
        });
    }
}

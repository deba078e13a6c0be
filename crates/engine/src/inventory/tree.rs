//! The live tree within a transaction: names in directories, their counts, and what is remembered of it. Knows nothing of
//! records. Directories are in `dirs`.

use std::collections::{HashMap, HashSet};

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::codes::Code;
use super::error::Fault;
use super::row::{self, FileId, Known, ROOTS, known_columns, read_known, signed};
use crate::model::{Facts, FileType, RootName, Seq, Timestamp};

/// Directories whose path is remembered; beyond, all are forgotten and looked up again.
const PATHS_MAX: usize = 65_536;
/// Directories known to be empty that are remembered.
const EMPTY_MAX: usize = 64 * 1024;
const INSERT_NAME: &str = concat!(
    "INSERT INTO files (dir_id, name, ",
    known_columns!(),
    ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)"
);
/// Three ways to write over a name, because SQLite writes every index anew that has a column in the statement, whether
/// its value changed or not.
const UPDATE_FACTS: &str = "UPDATE files SET size=?5, mtime_ns=?6, ctime_ns=?7, dev=?8, mode=?10, uid=?11, gid=?12, \
    nlink=?13, target=?14, last_seq=?18, last_change_ns=?19, sha256=?21 WHERE dir_id=?1 AND name=?2";
const UPDATE_VERSION: &str = "UPDATE files SET size=?5, mtime_ns=?6, ctime_ns=?7, dev=?8, mode=?10, uid=?11, gid=?12, \
    nlink=?13, target=?14, version_seq=?17, last_seq=?18, last_change_ns=?19, settled_seq=?20, sha256=?21 \
    WHERE dir_id=?1 AND name=?2";
const UPDATE_ALL: &str = "UPDATE files SET file_id=?3, kind=?4, size=?5, mtime_ns=?6, ctime_ns=?7, dev=?8, inode=?9, \
    mode=?10, uid=?11, gid=?12, nlink=?13, target=?14, first_seen_ns=?15, from_seq=?16, version_seq=?17, last_seq=?18, \
    last_change_ns=?19, settled_seq=?20, sha256=?21 WHERE dir_id=?1 AND name=?2";
const FIND_NAME: &str = concat!("SELECT ", known_columns!(), " FROM files WHERE dir_id=?1 AND name=?2");

/// When a record was journaled: its place and its moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) seq: Seq,
    pub(super) at: Timestamp,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: i64,
    pub(super) name: Vec<u8>,
}

/// What a record changed in the counts of each root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    files: i64,
    dirs: i64,
    others: i64,
    bytes: i64,
}

impl Delta {
    /// The same, taken away.
    pub(super) fn minus(self) -> Delta {
        Delta { files: -self.files, dirs: -self.dirs, others: -self.others, bytes: -self.bytes }
    }

    pub(super) fn add(&mut self, kind: Option<FileType>, names: i64, bytes: i64) {
        match kind {
            Some(FileType::File) => (self.files, self.bytes) = (self.files + names, self.bytes + bytes),
            Some(FileType::Dir) => self.dirs += names,
            _ => self.others += names,
        }
    }

    pub(super) fn plus(&mut self, other: Delta) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.others += other.others;
        self.bytes += other.bytes;
    }
}

/// What is remembered between records and batches so as not to be asked again. Only a shadow of committed or pending rows:
/// forgotten whenever anything is rolled back.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) roots: HashMap<RootName, i64>,
    paths: HashMap<i64, HashMap<Box<[u8]>, i64>>,
    path_count: usize,
    /// Some directories that were made lately and into which no name was written since.
    empty: HashSet<i64>,
}

impl Memory {
    pub(super) fn path(&self, root: i64, path: &[u8]) -> Option<i64> {
        self.paths.get(&root)?.get(path).copied()
    }

    pub(super) fn learn(&mut self, root: i64, path: &[u8], dir: i64) {
        if self.path_count >= PATHS_MAX {
            self.forget_paths();
        }
        self.path_count += 1;
        self.paths.entry(root).or_default().insert(path.into(), dir);
    }

    pub(super) fn forget_paths(&mut self) {
        self.paths.clear();
        self.path_count = 0;
    }

    /// No name was ever written into this directory.
    pub(super) fn made(&mut self, dir: i64) {
        if self.empty.len() >= EMPTY_MAX {
            self.empty.clear();
        }
        self.empty.insert(dir);
    }

    pub(super) fn forget(&mut self) {
        self.roots.clear();
        self.empty.clear();
        self.forget_paths();
    }
}

/// The live tree within one transaction.
pub(super) struct Tree<'c> {
    pub(super) db: &'c Connection,
    pub(super) memory: &'c mut Memory,
    find: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    /// By root, since the last [`Tree::settle_counts`] or [`Tree::undo`].
    pub(super) fresh: HashMap<i64, Delta>,
    settled: HashMap<i64, Delta>,
}

impl<'c> Tree<'c> {
    pub(super) fn new(db: &'c Connection, memory: &'c mut Memory) -> rusqlite::Result<Self> {
        let (find, insert) = (db.prepare_cached(FIND_NAME)?, db.prepare_cached(INSERT_NAME)?);
        Ok(Tree { db, memory, find, insert, fresh: HashMap::new(), settled: HashMap::new() })
    }

    /// What stands under a name.
    pub(super) fn find(&mut self, dir: i64, name: &[u8]) -> rusqlite::Result<Option<Known>> {
        self.find.query_row(params![dir, name], |row| read_known(row, 0)).optional()
    }

    /// Whether nothing stands under a name.
    pub(super) fn is_free(&mut self, dir: i64, name: &[u8]) -> rusqlite::Result<bool> {
        Ok(self.memory.empty.contains(&dir) || self.find(dir, name)?.is_none())
    }

    /// Adds a name that does not exist.
    pub(super) fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> rusqlite::Result<()> {
        self.memory.empty.remove(&dir);
        bind_name(&mut self.insert, dir, name, known)?;
        self.insert.raw_execute()?;
        Ok(())
    }

    /// Writes over a name that exists, with what was known under it before.
    pub(super) fn write_name(&mut self, dir: i64, name: &[u8], old: &Known, known: &Known) -> rusqlite::Result<()> {
        let inode = |known: &Known| known.facts.as_ref().map(|facts| facts.inode);
        let object = |known: &Known| (known.file_id, known.kind, inode(known), known.first_seen, known.from_seq);
        let version = |known: &Known| (known.version_seq, known.settled_seq);
        let update = match (object(old) == object(known), version(old) == version(known)) {
            (true, true) => UPDATE_FACTS,
            (true, false) => UPDATE_VERSION,
            (false, _) => UPDATE_ALL,
        };
        let mut update = self.db.prepare_cached(update)?;
        bind_name(&mut update, dir, name, known)?;
        update.raw_execute()?;
        Ok(())
    }

    /// Takes a name away and leaves it in the past; what it held, if it was a directory, is not touched.
    pub(super) fn lift(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> rusqlite::Result<()> {
        let mut past = self.db.prepare_cached(
            "INSERT INTO past_names (dir_id, name, to_seq, file_id, from_seq, kind) VALUES (?1,?2,?3,?4,?5,?6)",
        )?;
        let kind = known.kind.map(Code::code);
        past.execute(params![dir, name, signed(seq.0), known.file_id.0, signed(known.from_seq.0), kind])?;
        self.db.prepare_cached("DELETE FROM files WHERE dir_id=?1 AND name=?2")?.execute(params![dir, name])?;
        Ok(())
    }

    /// Ends a name, and with a directory's name all that it held.
    pub(super) fn end(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> Result<(), Fault> {
        self.count(dir, known.kind, -1, -size(known))?;
        if known.kind == Some(FileType::Dir) {
            let row = self.dir_row(known.file_id.0)?.ok_or(Fault::Contradiction("a directory has no row in dirs"))?;
            self.end_below(&row, seq)?;
        }
        self.lift(dir, name, known, seq)?;
        Ok(())
    }

    /// Every name of an object whose facts are known.
    pub(super) fn places(&self, id: FileId, inode: u64) -> rusqlite::Result<Vec<Place>> {
        let mut find = self.db.prepare_cached("SELECT dir_id, name FROM files WHERE inode=?1 AND file_id=?2")?;
        let places =
            find.query_map(params![signed(inode), id.0], |row| Ok(Place { dir: row.get(0)?, name: row.get(1)? }))?;
        places.collect()
    }

    /// Where the object that has these facts is known in a root: same device, inode and kind, the latest first.
    pub(super) fn by_inode(&self, root: i64, facts: &Facts) -> rusqlite::Result<Vec<Place>> {
        let mut find = self.db.prepare_cached(
            "SELECT f.dir_id, f.name FROM files f JOIN dirs d ON d.dir_id=f.dir_id \
             WHERE f.inode=?1 AND f.dev=?2 AND f.kind=?3 AND d.root_id=?4 ORDER BY f.last_seq DESC, f.dir_id, f.name",
        )?;
        let key = params![signed(facts.inode), signed(facts.dev), facts.kind.code(), root];
        let places = find.query_map(key, |row| Ok(Place { dir: row.get(0)?, name: row.get(1)? }))?;
        places.collect()
    }

    // Counts.

    /// Counts names in a directory's root.
    pub(super) fn count(&mut self, dir: i64, kind: Option<FileType>, names: i64, bytes: i64) -> rusqlite::Result<()> {
        if dir == ROOTS {
            return Ok(());
        }
        let mut find = self.db.prepare_cached("SELECT root_id FROM dirs WHERE dir_id=?1")?;
        let root = find.query_row([dir], |row| row.get(0))?;
        self.count_in(root, kind, names, bytes);
        Ok(())
    }

    /// Counts names in a root that is at hand.
    pub(super) fn count_in(&mut self, root: i64, kind: Option<FileType>, names: i64, bytes: i64) {
        self.fresh.entry(root).or_default().add(kind, names, bytes);
    }

    /// The record's part was applied: its counts hold.
    pub(super) fn settle_counts(&mut self) {
        for (root, delta) in self.fresh.drain() {
            self.settled.entry(root).or_default().plus(delta);
        }
    }

    /// The record's part was undone: its counts are void, and what was remembered may be too.
    pub(super) fn undo(&mut self) {
        self.fresh.clear();
        self.memory.forget();
    }

    /// Writes the counts of the batch.
    pub(super) fn write_counts(&mut self) -> rusqlite::Result<()> {
        let mut update = self.db.prepare_cached(
            "UPDATE roots SET files=files+?2, dirs=dirs+?3, others=others+?4, bytes=bytes+?5 WHERE root_id=?1",
        )?;
        for (root, delta) in self.settled.drain().filter(|(_, delta)| *delta != Delta::default()) {
            update.execute(params![root, delta.files, delta.dirs, delta.others, delta.bytes])?;
        }
        Ok(())
    }
}

/// The bytes that a known object adds to a root's count.
pub(super) fn size(known: &Known) -> i64 {
    known.facts.as_ref().map_or(0, |facts| signed(facts.size))
}

fn bind_name(statement: &mut rusqlite::Statement<'_>, dir: i64, name: &[u8], known: &Known) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, dir)?;
    statement.raw_bind_parameter(2, name)?;
    statement.raw_bind_parameter(3, known.file_id.0)?;
    row::bind_facts(statement, 4, known.kind, known.facts.as_ref())?;
    let rest = 4 + row::FACT_COLUMNS;
    statement.raw_bind_parameter(rest, known.first_seen.0)?;
    statement.raw_bind_parameter(rest + 1, signed(known.from_seq.0))?;
    statement.raw_bind_parameter(rest + 2, signed(known.version_seq.0))?;
    statement.raw_bind_parameter(rest + 3, signed(known.last_seq.0))?;
    statement.raw_bind_parameter(rest + 4, known.last_change.0)?;
    statement.raw_bind_parameter(rest + 5, signed(known.settled_seq.0))?;
    statement.raw_bind_parameter(rest + 6, known.sha256.as_ref().map(|digest| &digest[..]))
}

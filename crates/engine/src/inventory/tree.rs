//! The live tree: directories by path, names in directories, and what becomes of them. Knows nothing of records.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::codes::Code;
use super::error::Fault;
use super::row::{self, FileId, Known, ROOTS, known_columns, read_known, signed};
use crate::model::{Facts, FileType, RootName, Seq, Timestamp};

/// Directories whose path is remembered; beyond, all are forgotten and looked up again.
const PATHS_MAX: usize = 65_536;
/// Room for the depth of a directory in the id of a placeholder.
pub(super) const DEPTH_BITS: u32 = 16;
/// The deepest directory that a path may prove; the kernel's own limit on a path's length keeps far below.
const DEPTH_MAX: i64 = (1 << DEPTH_BITS) - 2;

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

/// Which part of the tree a statement about a sub-tree means: the directories strictly below, and the top itself.
const SUBTREE: &str = "(SELECT dir_id FROM dirs WHERE root_id=?1 AND path>=?2 AND path<?3 UNION ALL SELECT ?4)";

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

/// A live directory's row in `dirs`.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    pub(super) id: i64,
    pub(super) root: i64,
    pub(super) path: Vec<u8>,
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
    fn add(&mut self, kind: Option<FileType>, names: i64, bytes: i64) {
        match kind {
            Some(FileType::File) => (self.files, self.bytes) = (self.files + names, self.bytes + bytes),
            Some(FileType::Dir) => self.dirs += names,
            _ => self.others += names,
        }
    }

    fn plus(&mut self, other: Delta) {
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
    roots: HashMap<RootName, i64>,
    paths: HashMap<i64, HashMap<Box<[u8]>, i64>>,
    path_count: usize,
}

impl Memory {
    fn path(&self, root: i64, path: &[u8]) -> Option<i64> {
        self.paths.get(&root)?.get(path).copied()
    }

    fn learn(&mut self, root: i64, path: &[u8], dir: i64) {
        if self.path_count >= PATHS_MAX {
            self.forget_paths();
        }
        self.path_count += 1;
        self.paths.entry(root).or_default().insert(path.into(), dir);
    }

    fn forget_paths(&mut self) {
        self.paths.clear();
        self.path_count = 0;
    }

    pub(super) fn forget(&mut self) {
        self.roots.clear();
        self.forget_paths();
    }
}

/// The live tree within one transaction.
pub(super) struct Tree<'c> {
    db: &'c Connection,
    memory: &'c mut Memory,
    find: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    /// By root, since the last [`Tree::settle_counts`] or [`Tree::drop_counts`].
    fresh: HashMap<i64, Delta>,
    settled: HashMap<i64, Delta>,
}

impl<'c> Tree<'c> {
    pub(super) fn new(db: &'c Connection, memory: &'c mut Memory) -> rusqlite::Result<Self> {
        let (find, insert) = (db.prepare_cached(FIND_NAME)?, db.prepare_cached(INSERT_NAME)?);
        Ok(Tree { db, memory, find, insert, fresh: HashMap::new(), settled: HashMap::new() })
    }

    // Roots.

    /// The root of this name; one that no `config` record declared yet becomes a placeholder.
    pub(super) fn root(&mut self, name: &RootName, stamp: Stamp) -> rusqlite::Result<i64> {
        if let Some(root) = self.memory.roots.get(name) {
            return Ok(*root);
        }
        let root = match self.known_root(name)? {
            Some(root) => root,
            None => {
                // A move between two unknown roots makes two of them: the first takes depth 0, the second the last.
                let first = -(signed(stamp.seq.0) << DEPTH_BITS);
                let taken = self.dir_row(first)?.is_some();
                self.make_root(name, first - if taken { DEPTH_MAX + 1 } else { 0 }, stamp)?
            }
        };
        self.memory.roots.insert(name.clone(), root);
        Ok(root)
    }

    /// Declares a root: its id is this record's seq, unless it is known already.
    pub(super) fn declare_root(&mut self, name: &RootName, stamp: Stamp) -> rusqlite::Result<i64> {
        match self.known_root(name)? {
            Some(root) => Ok(root),
            None => self.make_root(name, signed(stamp.seq.0), stamp),
        }
    }

    fn known_root(&self, name: &RootName) -> rusqlite::Result<Option<i64>> {
        let mut find = self.db.prepare_cached("SELECT root_id FROM roots WHERE name=?1")?;
        find.query_row([name.as_str()], |row| row.get(0)).optional()
    }

    fn make_root(&mut self, name: &RootName, id: i64, stamp: Stamp) -> rusqlite::Result<i64> {
        let mut insert = self.db.prepare_cached("INSERT INTO roots (root_id, name, watched) VALUES (?1, ?2, 0)")?;
        insert.execute(params![id, name.as_str()])?;
        let mut insert = self
            .db
            .prepare_cached("INSERT INTO dirs (dir_id, root_id, parent, name, path) VALUES (?1, ?1, ?2, x'', x'')")?;
        insert.execute(params![id, ROOTS])?;
        let place = Place { dir: ROOTS, name: name.as_str().into() };
        self.insert_name(place.dir, &place.name, &placeholder(id, stamp))?;
        Ok(id)
    }

    // Directories.

    /// The live directory at a path, if there is one.
    pub(super) fn dir(&mut self, root: i64, path: &[u8]) -> rusqlite::Result<Option<i64>> {
        if path.is_empty() {
            return Ok(Some(root));
        }
        if let Some(dir) = self.memory.path(root, path) {
            return Ok(Some(dir));
        }
        let mut find = self.db.prepare_cached("SELECT dir_id FROM dirs WHERE root_id=?1 AND path=?2")?;
        let dir = find.query_row(params![root, path], |row| row.get(0)).optional()?;
        if let Some(dir) = dir {
            self.memory.learn(root, path, dir);
        }
        Ok(dir)
    }

    /// The directory at a path, made with all above it where they are not known: a path is proof of them.
    pub(super) fn dir_or_make(&mut self, root: i64, path: &[u8], stamp: Stamp) -> Result<i64, Fault> {
        if let Some(dir) = self.dir(root, path)? {
            return Ok(dir);
        }
        let mut parent = root;
        let mut end = 0;
        for (depth, name) in (1_i64..).zip(path.split(|byte| *byte == b'/')) {
            if depth > DEPTH_MAX {
                return Err(Fault::Contradiction("the path is deeper than 65534 directories"));
            }
            end += name.len() + usize::from(depth > 1);
            parent = match self.dir(root, &path[..end])? {
                Some(dir) => dir,
                None => self.make_placeholder(root, parent, name, &path[..end], depth, stamp)?,
            };
        }
        Ok(parent)
    }

    fn make_placeholder(
        &mut self,
        root: i64,
        parent: i64,
        name: &[u8],
        path: &[u8],
        depth: i64,
        stamp: Stamp,
    ) -> Result<i64, Fault> {
        let id = match self.find(parent, name)? {
            // A name that was never read turns out to be a directory.
            Some(old) if old.kind.is_none() => {
                let known = Known { kind: Some(FileType::Dir), ..old.clone() };
                self.count_in(root, old.kind, -1, 0);
                self.count_in(root, known.kind, 1, 0);
                self.write_name(parent, name, &old, &known)?;
                known.file_id.0
            }
            found => {
                if let Some(known) = found {
                    self.end(parent, name, &known, stamp.seq)?;
                }
                let id = -((signed(stamp.seq.0) << DEPTH_BITS) | depth);
                self.insert_name(parent, name, &placeholder(id, stamp))?;
                self.count_in(root, Some(FileType::Dir), 1, 0);
                id
            }
        };
        self.add_dir(id, root, parent, name, path, stamp.seq)?;
        Ok(id)
    }

    /// Adds a live directory's own rows; its name stands in `files` already.
    pub(super) fn add_dir(
        &mut self,
        id: i64,
        root: i64,
        parent: i64,
        name: &[u8],
        path: &[u8],
        seq: Seq,
    ) -> rusqlite::Result<()> {
        let mut insert =
            self.db.prepare_cached("INSERT INTO dirs (dir_id, root_id, parent, name, path) VALUES (?1,?2,?3,?4,?5)")?;
        insert.execute(params![id, root, parent, name, path])?;
        let mut insert =
            self.db.prepare_cached("INSERT INTO dir_names (dir_id, from_seq, parent, name) VALUES (?1,?2,?3,?4)")?;
        insert.execute(params![id, signed(seq.0), parent, name])?;
        self.memory.learn(root, path, id);
        Ok(())
    }

    /// Root and path of a live directory.
    pub(super) fn dir_row(&self, id: i64) -> rusqlite::Result<Option<Dir>> {
        let mut find = self.db.prepare_cached("SELECT root_id, path FROM dirs WHERE dir_id=?1")?;
        find.query_row([id], |row| Ok(Dir { id, root: row.get(0)?, path: row.get(1)? })).optional()
    }

    /// Moves a directory with all it holds: rows of directories only, however many files they hold.
    pub(super) fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> Result<(), Fault> {
        if root == dir.root && is_within(path, &dir.path) {
            return Err(Fault::Contradiction("a directory cannot move into itself"));
        }
        let (low, high) = below(&dir.path);
        if root != dir.root {
            let delta = self.subtree_delta(dir)?;
            self.fresh.entry(root).or_default().plus(delta);
            let old = self.fresh.entry(dir.root).or_default();
            old.plus(Delta { files: -delta.files, dirs: -delta.dirs, others: -delta.others, bytes: -delta.bytes });
        }
        // `||` makes text of blobs without touching their bytes; the cast makes them a blob again.
        let mut update = self.db.prepare_cached(
            "UPDATE dirs SET root_id=?4, path=CAST(?5 || substr(path, ?6) AS BLOB) \
             WHERE root_id=?1 AND path>=?2 AND path<?3",
        )?;
        update.execute(params![dir.root, low, high, root, path, signed(dir.path.len() as u64 + 1)])?;
        let mut update =
            self.db.prepare_cached("UPDATE dirs SET root_id=?2, parent=?3, name=?4, path=?5 WHERE dir_id=?1")?;
        update.execute(params![dir.id, root, to.dir, to.name, path])?;
        let mut close = self.db.prepare_cached("UPDATE dir_names SET to_seq=?2 WHERE dir_id=?1 AND to_seq IS NULL")?;
        close.execute(params![dir.id, signed(seq.0)])?;
        let mut open =
            self.db.prepare_cached("INSERT INTO dir_names (dir_id, from_seq, parent, name) VALUES (?1,?2,?3,?4)")?;
        open.execute(params![dir.id, signed(seq.0), to.dir, to.name])?;
        self.memory.forget_paths();
        Ok(())
    }

    /// Ends every name below a directory, and the directories themselves; of a root, all but its own directory.
    pub(super) fn end_below(&mut self, dir: &Dir, seq: Seq) -> rusqlite::Result<()> {
        let delta = self.subtree_delta(dir)?;
        let counts = self.fresh.entry(dir.root).or_default();
        counts.plus(Delta { files: -delta.files, dirs: -delta.dirs, others: -delta.others, bytes: -delta.bytes });
        let (low, high) = below(&dir.path);
        let seq = signed(seq.0);
        let past = format!(
            "INSERT INTO past_names (dir_id, name, to_seq, file_id, from_seq, kind) \
             SELECT dir_id, name, ?5, file_id, from_seq, kind FROM files WHERE dir_id IN {SUBTREE}"
        );
        self.db.prepare_cached(&past)?.execute(params![dir.root, low, high, dir.id, seq])?;
        let gone = format!("DELETE FROM files WHERE dir_id IN {SUBTREE}");
        self.db.prepare_cached(&gone)?.execute(params![dir.root, low, high, dir.id])?;
        let names = format!("UPDATE dir_names SET to_seq=?5 WHERE to_seq IS NULL AND dir_id IN {SUBTREE}");
        self.db.prepare_cached(&names)?.execute(params![dir.root, low, high, dir.id, seq])?;
        let mut dirs = self.db.prepare_cached("DELETE FROM dirs WHERE root_id=?1 AND path>=?2 AND path<?3")?;
        dirs.execute(params![dir.root, low, high])?;
        if dir.id != dir.root {
            self.db.prepare_cached("DELETE FROM dirs WHERE dir_id=?1")?.execute([dir.id])?;
        }
        self.memory.forget_paths();
        Ok(())
    }

    fn subtree_delta(&self, dir: &Dir) -> rusqlite::Result<Delta> {
        let (low, high) = below(&dir.path);
        let sum =
            format!("SELECT kind, count(*), coalesce(sum(size), 0) FROM files WHERE dir_id IN {SUBTREE} GROUP BY kind");
        let mut sum = self.db.prepare_cached(&sum)?;
        let mut rows = sum.query(params![dir.root, low, high, dir.id])?;
        let mut delta = Delta::default();
        while let Some(row) = rows.next()? {
            delta.add(row.get::<_, Option<i64>>(0)?.and_then(FileType::decode), row.get(1)?, row.get(2)?);
        }
        Ok(delta)
    }

    // Names.

    /// What stands under a name.
    pub(super) fn find(&mut self, dir: i64, name: &[u8]) -> rusqlite::Result<Option<Known>> {
        self.find.query_row(params![dir, name], |row| read_known(row, 0)).optional()
    }

    /// Adds a name that does not exist.
    pub(super) fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> rusqlite::Result<()> {
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

/// What is known of a directory that only a path told of.
fn placeholder(id: i64, stamp: Stamp) -> Known {
    Known {
        file_id: FileId(id),
        kind: Some(FileType::Dir),
        facts: None,
        first_seen: stamp.at,
        from_seq: stamp.seq,
        version_seq: stamp.seq,
        last_seq: stamp.seq,
        last_change: stamp.at,
        settled_seq: Seq::ZERO,
        sha256: None,
    }
}

/// The bytes that a known object adds to a root's count.
pub(super) fn size(known: &Known) -> i64 {
    known.facts.as_ref().map_or(0, |facts| signed(facts.size))
}

/// Whether a path is a directory's own or lies below it.
pub(super) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The range of paths strictly below a directory: from its path and `/` up to its path and `0`, the next byte.
pub(super) fn below(dir: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if dir.is_empty() {
        // No path is empty, none holds a NUL, and no first name is as long as PATH_MAX.
        return (vec![1], vec![255; 4096]);
    }
    ([dir, b"/"].concat(), [dir, b"0"].concat())
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

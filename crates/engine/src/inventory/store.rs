//! The store of the live tree over SQLite.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::checks;
use super::row::{self, FileId, Known, ROOTS, known_columns, read_known, signed};
use crate::apply::codes::Code;
use crate::apply::{self, Delta, Dir, NewDir, Place, below};
use crate::model::{Facts, FileType, RootName, Seq};

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
const INSERT_PAST: &str =
    "INSERT INTO past_names (dir_id, name, to_seq, file_id, from_seq, kind) VALUES (?1,?2,?3,?4,?5,?6)";
const DELETE_NAME: &str = "DELETE FROM files WHERE dir_id=?1 AND name=?2";
const FIND_DIR: &str = "SELECT root_id, path FROM dirs WHERE dir_id=?1";
const FIND_NAME: &str = concat!("SELECT ", known_columns!(), " FROM files WHERE dir_id=?1 AND name=?2");

/// Which part of the tree a statement about a sub-tree means: the directories strictly below, and the top itself.
const SUBTREE: &str = "(SELECT dir_id FROM dirs WHERE root_id=?1 AND path>=?2 AND path<?3 UNION ALL SELECT ?4)";

/// The live tree over SQLite.
pub(super) type Tree<'c> = apply::Tree<'c, Store<'c>>;
/// Why a part of a record was not applied; [`is_of_the_row`] tells a bad row from a bad disk.
pub(super) type Fault = apply::Fault<rusqlite::Error>;

/// Whether SQLite refused the row. Everything else (disk full, I/O, damage, a lock) stops the whole batch, which is
/// applied again later.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    let code = error.sqlite_error_code();
    matches!(code, Some(ConstraintViolation | TooBig | TypeMismatch))
}

/// The tables, within one transaction. What is asked for every record is at hand: to find a statement by its text costs
/// as much as to run it.
pub(super) struct Store<'c> {
    db: &'c Connection,
    find: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    insert_past: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    find_dir: CachedStatement<'c>,
    update_facts: CachedStatement<'c>,
    update_version: CachedStatement<'c>,
    update_all: CachedStatement<'c>,
}

impl<'c> Store<'c> {
    pub(super) fn new(db: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Store {
            db,
            find: db.prepare_cached(FIND_NAME)?,
            insert: db.prepare_cached(INSERT_NAME)?,
            insert_past: db.prepare_cached(INSERT_PAST)?,
            delete: db.prepare_cached(DELETE_NAME)?,
            find_dir: db.prepare_cached(FIND_DIR)?,
            update_facts: db.prepare_cached(UPDATE_FACTS)?,
            update_version: db.prepare_cached(UPDATE_VERSION)?,
            update_all: db.prepare_cached(UPDATE_ALL)?,
        })
    }
}

impl apply::Store for Store<'_> {
    type Error = rusqlite::Error;

    fn find(&mut self, dir: i64, name: &[u8]) -> rusqlite::Result<Option<Known>> {
        self.find.query_row(params![dir, name], |row| read_known(row, 0)).optional()
    }

    fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> rusqlite::Result<()> {
        bind_name(&mut self.insert, dir, name, known)?;
        self.insert.raw_execute()?;
        Ok(())
    }

    fn write_name(&mut self, dir: i64, name: &[u8], old: &Known, known: &Known) -> rusqlite::Result<()> {
        let inode = |known: &Known| known.facts.as_ref().map(|facts| facts.inode);
        let object = |known: &Known| (known.file_id, known.kind, inode(known), known.first_seen, known.from_seq);
        let version = |known: &Known| (known.version_seq, known.settled_seq);
        let update = match (object(old) == object(known), version(old) == version(known)) {
            (true, true) => &mut self.update_facts,
            (true, false) => &mut self.update_version,
            (false, _) => &mut self.update_all,
        };
        bind_name(update, dir, name, known)?;
        update.raw_execute()?;
        Ok(())
    }

    fn is_released(&mut self, id: FileId) -> rusqlite::Result<bool> {
        checks::is_released(self.db, id.0)
    }

    fn came_back(&mut self, id: FileId) -> rusqlite::Result<()> {
        checks::came_back(self.db, id.0)
    }

    fn lift(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> rusqlite::Result<()> {
        let kind = known.kind.map(Code::code);
        let past = params![dir, name, signed(seq.0), known.file_id.0, signed(known.from_seq.0), kind];
        self.insert_past.execute(past)?;
        self.delete.execute(params![dir, name])?;
        Ok(())
    }

    fn places(&mut self, id: FileId, inode: u64) -> rusqlite::Result<Vec<Place>> {
        let mut find = self.db.prepare_cached("SELECT dir_id, name FROM files WHERE inode=?1 AND file_id=?2")?;
        let places =
            find.query_map(params![signed(inode), id.0], |row| Ok(Place { dir: row.get(0)?, name: row.get(1)? }))?;
        places.collect()
    }

    fn by_inode(&mut self, root: i64, facts: &Facts) -> rusqlite::Result<Vec<Place>> {
        let mut find = self.db.prepare_cached(
            "SELECT f.dir_id, f.name FROM files f JOIN dirs d ON d.dir_id=f.dir_id \
             WHERE f.inode=?1 AND f.dev=?2 AND f.kind=?3 AND d.root_id=?4 ORDER BY f.last_seq DESC, f.dir_id, f.name",
        )?;
        let key = params![signed(facts.inode), signed(facts.dev), facts.kind.code(), root];
        let places = find.query_map(key, |row| Ok(Place { dir: row.get(0)?, name: row.get(1)? }))?;
        places.collect()
    }

    fn root(&mut self, name: &RootName) -> rusqlite::Result<Option<i64>> {
        let mut find = self.db.prepare_cached("SELECT root_id FROM roots WHERE name=?1")?;
        find.query_row([name.as_str()], |row| row.get(0)).optional()
    }

    fn insert_root(&mut self, id: i64, name: &RootName) -> rusqlite::Result<()> {
        let mut insert = self.db.prepare_cached("INSERT INTO roots (root_id, name, watched) VALUES (?1, ?2, 0)")?;
        insert.execute(params![id, name.as_str()])?;
        let mut insert = self
            .db
            .prepare_cached("INSERT INTO dirs (dir_id, root_id, parent, name, path) VALUES (?1, ?1, ?2, x'', x'')")?;
        insert.execute(params![id, ROOTS])?;
        Ok(())
    }

    fn add_counts(&mut self, root: i64, delta: Delta) -> rusqlite::Result<()> {
        let mut update = self.db.prepare_cached(
            "UPDATE roots SET files=files+?2, dirs=dirs+?3, others=others+?4, bytes=bytes+?5 WHERE root_id=?1",
        )?;
        update.execute(params![root, delta.files, delta.dirs, delta.others, delta.bytes])?;
        Ok(())
    }

    fn dir_at(&mut self, root: i64, path: &[u8]) -> rusqlite::Result<Option<i64>> {
        let mut find = self.db.prepare_cached("SELECT dir_id FROM dirs WHERE root_id=?1 AND path=?2")?;
        find.query_row(params![root, path], |row| row.get(0)).optional()
    }

    fn dir(&mut self, id: i64) -> rusqlite::Result<Option<Dir>> {
        self.find_dir.query_row([id], |row| Ok(Dir { id, root: row.get(0)?, path: row.get(1)? })).optional()
    }

    fn insert_dir(&mut self, dir: &NewDir<'_>) -> rusqlite::Result<()> {
        let NewDir { id, root, parent, name, path, seq } = *dir;
        let mut insert =
            self.db.prepare_cached("INSERT INTO dirs (dir_id, root_id, parent, name, path) VALUES (?1,?2,?3,?4,?5)")?;
        insert.execute(params![id, root, parent, name, path])?;
        let mut insert =
            self.db.prepare_cached("INSERT INTO dir_names (dir_id, from_seq, parent, name) VALUES (?1,?2,?3,?4)")?;
        insert.execute(params![id, signed(seq.0), parent, name])?;
        Ok(())
    }

    fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> rusqlite::Result<()> {
        let (low, high) = below(&dir.path);
        // `||` makes text of blobs without touching their bytes; the cast makes them a blob again.
        let mut update = self.db.prepare_cached(
            "UPDATE dirs SET root_id=?4, path=CAST(?5 || substr(path, ?6) AS BLOB) \
             WHERE root_id=?1 AND path>=?2 AND path<?3",
        )?;
        update.execute(params![dir.root, low, high, root, path, signed(dir.path.len() as u64 + 1)])?;
        let mut update =
            self.db.prepare_cached("UPDATE dirs SET root_id=?2, parent=?3, name=?4, path=?5 WHERE dir_id=?1")?;
        update.execute(params![dir.id, root, to.dir, to.name, path])?;
        // The place where it stands is its latest: found so, however often it has been renamed.
        let mut close = self.db.prepare_cached(
            "UPDATE dir_names SET to_seq=?2 WHERE dir_id=?1 AND to_seq IS NULL \
             AND from_seq=(SELECT max(from_seq) FROM dir_names WHERE dir_id=?1)",
        )?;
        close.execute(params![dir.id, signed(seq.0)])?;
        let mut open =
            self.db.prepare_cached("INSERT INTO dir_names (dir_id, from_seq, parent, name) VALUES (?1,?2,?3,?4)")?;
        open.execute(params![dir.id, signed(seq.0), to.dir, to.name])?;
        Ok(())
    }

    fn end_below(&mut self, dir: &Dir, seq: Seq) -> rusqlite::Result<()> {
        let (low, high) = below(&dir.path);
        let seq = signed(seq.0);
        let past = format!(
            "INSERT INTO past_names (dir_id, name, to_seq, file_id, from_seq, kind) \
             SELECT dir_id, name, ?5, file_id, from_seq, kind FROM files WHERE dir_id IN {SUBTREE}"
        );
        self.db.prepare_cached(&past)?.execute(params![dir.root, low, high, dir.id, seq])?;
        let gone = format!("DELETE FROM files WHERE dir_id IN {SUBTREE}");
        self.db.prepare_cached(&gone)?.execute(params![dir.root, low, high, dir.id])?;
        let names = format!(
            "UPDATE dir_names SET to_seq=?5 WHERE to_seq IS NULL AND (dir_id, from_seq) IN \
             (SELECT dir_id, (SELECT max(from_seq) FROM dir_names AS latest WHERE latest.dir_id=dirs.dir_id) \
              FROM dirs WHERE dir_id IN {SUBTREE})"
        );
        self.db.prepare_cached(&names)?.execute(params![dir.root, low, high, dir.id, seq])?;
        let mut dirs = self.db.prepare_cached("DELETE FROM dirs WHERE root_id=?1 AND path>=?2 AND path<?3")?;
        dirs.execute(params![dir.root, low, high])?;
        if dir.id != dir.root {
            self.db.prepare_cached("DELETE FROM dirs WHERE dir_id=?1")?.execute([dir.id])?;
        }
        Ok(())
    }

    fn sum_below(&mut self, dir: &Dir) -> rusqlite::Result<Delta> {
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

//! Reading the inventory: a connection of its own, beside the writer, in this or another process.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::{InventoryError, Result};
use super::row::{DirId, FileId, Known, KnownChild, fact_columns, known_columns};
use super::row::{read_facts, read_known, signed};
use super::{acts, schema, writer};
use crate::model::{Cursor, FileType, GapReason, RelPath, RootName, Seq, Timestamp};

/// A reader of the inventory. Each call sees one committed state; different calls may see different ones.
#[derive(Debug)]
pub struct View {
    path: PathBuf,
    pub(super) db: Connection,
}

/// How much a root holds, by name: a file with two names counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories, without the root's own.
    pub dirs: u64,
    /// Symbolic links, devices and so on, and what was never read.
    pub others: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
}

/// A root that some record named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootRow {
    /// Its directory.
    pub dir_id: DirId,
    /// Its name.
    pub name: RootName,
    /// The host that has it, where that is another one: what a backup tells of it is known, and nobody watches it here.
    pub host: Option<String>,
    /// Its absolute path, the last that was configured.
    pub dir: Option<Box<[u8]>>,
    /// The identity that was recorded for it last.
    pub identity: Option<String>,
    /// Whether it is watched.
    pub watched: bool,
    /// What it holds.
    pub counts: Counts,
}

/// A gap that is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGap {
    /// The record that opened it.
    pub seq: Seq,
    /// In which root; `None`: it touches all, and none was known then.
    pub root: Option<RootName>,
    /// Below which directory.
    pub path: RelPath,
    /// Why.
    pub reason: GapReason,
    /// From when on changes may have been missed.
    pub since: Timestamp,
    /// Words for people.
    pub note: Option<String>,
}

/// A regular file whose current version is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// In which root.
    pub root: RootName,
    /// Under which name.
    pub path: RelPath,
    /// What is known of it.
    pub known: Known,
}

/// A record of which a part was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which record.
    pub seq: Seq,
    /// Which part: `inventory` or `audit`.
    pub part: String,
    /// Why.
    pub reason: String,
    /// The record, for people.
    pub record: String,
}

impl View {
    /// Opens an inventory for reading only.
    ///
    /// # Errors
    /// [`InventoryError`], by what is there.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(View { path: path.to_owned(), db: schema::open_reader(path)? })
    }

    /// From now on until [`View::let_go`] all calls see one state, and cost less. The writer's log cannot be cut meanwhile.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hold(&self) -> Result<()> {
        if self.db.is_autocommit() {
            self.read(|db| db.prepare_cached("BEGIN")?.execute([]))?;
        }
        Ok(())
    }

    /// Each call sees the newest state again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn let_go(&self) -> Result<()> {
        if !self.db.is_autocommit() {
            self.read(|db| db.prepare_cached("COMMIT")?.execute([]))?;
        }
        Ok(())
    }

    /// Whose inventory it is.
    ///
    /// # Errors
    /// SQLite's.
    pub fn host(&self) -> Result<String> {
        self.read(|db| db.query_row("SELECT name FROM hosts", [], |row| row.get(0)))
    }

    /// The id of the state that it belongs to.
    ///
    /// # Errors
    /// SQLite's.
    pub fn host_id(&self) -> Result<String> {
        self.read(|db| db.query_row("SELECT host_id FROM hosts", [], |row| row.get(0)))
    }

    /// How far the journal was applied; `None` before the first batch.
    ///
    /// # Errors
    /// SQLite's, as for every method here.
    pub fn cursor(&self) -> Result<Option<Cursor>> {
        self.read(writer::read_cursor)
    }

    /// All roots that records named, by name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn roots(&self) -> Result<Vec<RootRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT root_id, name, dir, identity, watched, files, dirs, others, bytes, host FROM roots ORDER BY name",
            )?;
            let rows = find.query_map([], |row| {
                let count = |column: usize| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
                Ok(RootRow {
                    dir_id: DirId(row.get(0)?),
                    name: RootName::new(row.get::<_, String>(1)?),
                    host: row.get(9)?,
                    dir: row.get::<_, Option<Vec<u8>>>(2)?.map(Into::into),
                    identity: row.get(3)?,
                    watched: row.get(4)?,
                    counts: Counts { files: count(5)?, dirs: count(6)?, others: count(7)?, bytes: count(8)? },
                })
            })?;
            rows.collect()
        })
    }

    /// A root's own directory.
    ///
    /// # Errors
    /// SQLite's.
    pub fn root_dir(&self, root: &RootName) -> Result<Option<DirId>> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT root_id FROM roots WHERE name=?1")?;
            find.query_row([root.as_str()], |row| row.get(0).map(DirId)).optional()
        })
    }

    /// Every name in a directory, in the order of their bytes, to be held against what a scan finds: what was released is not
    /// expected to be there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn children(&self, dir: DirId, mut each: impl FnMut(KnownChild<'_>)) -> Result<()> {
        self.read(|db| {
            let mut find = db.prepare_cached(concat!(
                "SELECT name, file_id, ",
                fact_columns!(),
                " FROM files WHERE dir_id=?1 AND NOT EXISTS (SELECT 1 FROM released r WHERE r.file_id=files.file_id) \
                 ORDER BY name"
            ))?;
            let mut rows = find.query([dir.0])?;
            while let Some(row) = rows.next()? {
                let file_id = FileId(row.get(1)?);
                let (kind, facts) = read_facts(row, 2)?;
                let dir = (kind == Some(FileType::Dir)).then_some(DirId(file_id.0));
                each(KnownChild { name: row.get_ref(0)?.as_blob()?, file_id, dir, facts });
            }
            Ok(())
        })
    }

    /// Some names in a directory behind a name (an empty one: from the first), in the order of their bytes.
    ///
    /// # Errors
    /// SQLite's.
    pub fn children_after(&self, dir: DirId, after: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Known)>> {
        self.read(|db| {
            let mut find = db.prepare_cached(concat!(
                "SELECT name, ",
                known_columns!(),
                " FROM files WHERE dir_id=?1 AND name>?2 ORDER BY name LIMIT ?3"
            ))?;
            let rows = find
                .query_map(params![dir.0, after, signed(limit as u64)], |row| Ok((row.get(0)?, read_known(row, 1)?)))?;
            rows.collect()
        })
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn child(&self, dir: DirId, name: &[u8]) -> Result<Option<Known>> {
        self.read(|db| {
            let mut find =
                db.prepare_cached(concat!("SELECT ", known_columns!(), " FROM files WHERE dir_id=?1 AND name=?2"))?;
            find.query_row(params![dir.0, name], |row| read_known(row, 0)).optional()
        })
    }

    /// Every name in a root whose object has this inode number, on whatever device.
    ///
    /// # Errors
    /// SQLite's.
    pub fn by_inode(&self, root: &RootName, inode: u64) -> Result<Vec<(DirId, Vec<u8>, Known)>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT f.dir_id, f.name, f.* FROM files f JOIN dirs d ON d.dir_id=f.dir_id \
                 JOIN roots r ON r.root_id=d.root_id WHERE f.inode=?1 AND r.name=?2 ORDER BY f.dir_id, f.name",
            )?;
            let rows = find.query_map(params![signed(inode), root.as_str()], |row| {
                Ok((DirId(row.get(0)?), row.get(1)?, read_known(row, 4)?))
            })?;
            rows.collect()
        })
    }

    /// Root and path of a live directory.
    ///
    /// # Errors
    /// SQLite's.
    pub fn dir_path(&self, dir: DirId) -> Result<Option<(RootName, RelPath)>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT r.name, d.path FROM dirs d JOIN roots r ON r.root_id=d.root_id WHERE d.dir_id=?1",
            )?;
            find.query_row([dir.0], |row| Ok((root_name(row, 0)?, rel_path(row, 1)?))).optional()
        })
    }

    /// The live directory at a path.
    ///
    /// # Errors
    /// SQLite's.
    pub fn dir_by_path(&self, root: &RootName, path: &RelPath) -> Result<Option<DirId>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT d.dir_id FROM dirs d JOIN roots r ON r.root_id=d.root_id WHERE r.name=?1 AND d.path=?2",
            )?;
            find.query_row(params![root.as_str(), path.as_bytes()], |row| row.get(0).map(DirId)).optional()
        })
    }

    /// The gaps that are not closed, oldest first; a gap in all roots once for each.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_gaps(&self) -> Result<Vec<OpenGap>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT g.seq, r.name, g.path, g.reason, g.since_ns, g.note FROM gaps g \
                 LEFT JOIN roots r ON r.root_id=g.root_id WHERE g.closed_seq IS NULL ORDER BY g.seq, g.root_id",
            )?;
            let rows = find.query_map([], |row| {
                Ok(OpenGap {
                    seq: acts::seq(row.get(0)?),
                    root: row.get::<_, Option<String>>(1)?.map(RootName::new),
                    path: rel_path(row, 2)?,
                    reason: acts::reason(&row.get::<_, String>(3)?),
                    since: Timestamp(row.get(4)?),
                    note: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Regular files whose current version is not settled, by `version_seq`, those behind `after` first. Of a file with several
    /// names at least one is listed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unsettled(&self, after: Seq, limit: usize) -> Result<Vec<Unsettled>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT r.name, d.path, f.* FROM files f JOIN dirs d ON d.dir_id=f.dir_id JOIN roots r ON r.root_id=d.root_id \
                 WHERE f.kind=1 AND f.settled_seq<f.version_seq AND f.version_seq>?1 ORDER BY f.version_seq LIMIT ?2",
            )?;
            let rows = find.query_map(params![signed(after.0), signed(limit as u64)], |row| {
                let dir = rel_path(row, 1)?;
                let name: Vec<u8> = row.get(3)?;
                Ok(Unsettled { root: root_name(row, 0)?, path: dir.join(&name), known: read_known(row, 4)? })
            })?;
            rows.collect()
        })
    }

    /// The records of which a part was not applied.
    ///
    /// # Errors
    /// SQLite's.
    pub fn problems(&self) -> Result<Vec<Problem>> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT seq, part, reason, record FROM problems ORDER BY seq, part")?;
            let rows = find.query_map([], |row| {
                Ok(Problem { seq: acts::seq(row.get(0)?), part: row.get(1)?, reason: row.get(2)?, record: row.get(3)? })
            })?;
            rows.collect()
        })
    }

    /// Runs a query and names the database in its error.
    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        query(&self.db).map_err(InventoryError::sqlite(&self.path, "read"))
    }
}

fn root_name(row: &Row<'_>, column: usize) -> rusqlite::Result<RootName> {
    row.get::<_, String>(column).map(RootName::new)
}

/// A path column. What is no relative path was not written by this program.
fn rel_path(row: &Row<'_>, column: usize) -> rusqlite::Result<RelPath> {
    RelPath::new(row.get::<_, Vec<u8>>(column)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
    })
}

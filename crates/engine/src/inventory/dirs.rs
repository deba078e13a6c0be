//! Directories of the live tree, by path: made, moved, ended with all they hold. And roots, whose top they are.

use rusqlite::{OptionalExtension, params};

use super::codes::Code;
use super::error::Fault;
use super::row::{FileId, Known, ROOTS, signed};
use super::tree::{Delta, Place, Stamp, Tree};
use crate::model::{FileType, RootName, Seq};

/// Room for the depth of a directory in the id of a placeholder.
pub(super) const DEPTH_BITS: u32 = 16;
/// The deepest directory that a path may prove; the kernel's own limit on a path's length keeps far below.
const DEPTH_MAX: i64 = (1 << DEPTH_BITS) - 2;

/// Which part of the tree a statement about a sub-tree means: the directories strictly below, and the top itself.
const SUBTREE: &str = "(SELECT dir_id FROM dirs WHERE root_id=?1 AND path>=?2 AND path<?3 UNION ALL SELECT ?4)";

/// A live directory's row in `dirs`.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    pub(super) id: i64,
    pub(super) root: i64,
    pub(super) path: Vec<u8>,
}

impl Tree<'_> {
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
        self.memory.made(id);
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
            old.plus(delta.minus());
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
        counts.plus(delta.minus());
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

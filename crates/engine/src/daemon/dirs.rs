//! Which directory is where: the sequencer's map from a directory's identity to its parent and name, *as journaled*.
//!
//! Events and scans speak of directories by identity; the paths in records come from here. A directory's rename is
//! one update, and what was below a directory that is gone or moved away is found to be so by following the chain.
//! The table lies on disk with a bounded cache above it, so that memory does not grow with the tree. It is
//! disposable: made new at each start, never synced, and filled again by the scan.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use keepwatch_journal::RelPath;
use rusqlite::{Connection, OptionalExtension, params};

use crate::daemon::cache::Cache;
use crate::watch::DirKey;

/// Entries of each generation of the cache.
const CACHE_ENTRIES: usize = 8 * 1024;
/// Directories known to lie in no root, likewise.
const OUTSIDE_ENTRIES: usize = 16 * 1024;
/// A chain longer than this is a loop; PATH_MAX bounds no tree, but 64 Ki levels exceed any.
const DEPTH_MAX: usize = 64 * 1024;

/// A directory's number in this table, unlike any other table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirNo(i64);

/// The parent of directories that lie in no root any more.
const OUTSIDE: DirNo = DirNo(0);

/// Which root, by its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootNo(pub u16);

#[derive(Clone, Debug)]
struct Entry {
    key: DirKey,
    /// `None` for a root's top directory.
    parent: Option<DirNo>,
    name: Arc<[u8]>,
    root: Option<RootNo>,
    /// Path and root as of a generation.
    path: Option<(u64, RootNo, Arc<RelPath>)>,
}

/// Where a directory is.
#[derive(Clone, Debug)]
pub struct At {
    /// Its number.
    pub no: DirNo,
    /// In which root.
    pub root: RootNo,
    /// Its path there.
    pub path: Arc<RelPath>,
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a root.
    In(At),
    /// In no root: never was, moved away, or deleted.
    Outside,
    /// Nothing.
    Unknown,
}

/// The table.
pub struct Dirs {
    db: Connection,
    entries: Cache<DirNo, Entry>,
    numbers: Cache<DirKey, DirNo>,
    outside: Cache<DirKey, ()>,
    /// Which directories hold others, as far as that was asked: most events are about names in those that hold none.
    holding: Cache<DirNo, bool>,
    /// Counts moves and removals: a path cached in an earlier generation may be stale.
    generation: u64,
    next: i64,
}

/// The table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the directory table in the state directory: {0}; it is made new at the next start")]
pub struct DirsError(#[from] rusqlite::Error);

type Result<T> = std::result::Result<T, DirsError>;

impl Dirs {
    /// An empty table in the file `at`, in place of what was there; with `None` in a temporary file.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(at: Option<&Path>) -> Result<Self> {
        let db = match at {
            Some(path) => {
                let _ = std::fs::remove_file(path);
                // The owner's alone. If it cannot be made, SQLite says why.
                let _ = File::options().append(true).create(true).mode(0o600).open(path);
                Connection::open(path)?
            }
            None => Connection::open("")?,
        };
        db.pragma_update(None, "journal_mode", "OFF")?;
        db.pragma_update(None, "synchronous", "OFF")?;
        db.pragma_update(None, "cache_size", -4096)?;
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.execute_batch(
            "CREATE TABLE dir (no INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, parent INTEGER, name BLOB NOT NULL, \
             root INTEGER);
             CREATE UNIQUE INDEX place ON dir (parent, name);
             BEGIN;",
        )?;
        Ok(Dirs {
            db,
            entries: Cache::new(CACHE_ENTRIES),
            numbers: Cache::new(CACHE_ENTRIES),
            outside: Cache::new(OUTSIDE_ENTRIES),
            holding: Cache::new(CACHE_ENTRIES),
            generation: 1,
            next: 1,
        })
    }

    /// Makes `key` the top directory of `root`. What was known below it is forgotten: while the root was away nobody told
    /// of what moved, so events that come before its scan have to look where their directories are.
    ///
    /// # Errors
    /// If the table fails.
    pub fn set_root(&mut self, key: &DirKey, root: RootNo) -> Result<DirNo> {
        if let Some(no) = self.number(key)? {
            self.forget_below(no)?;
            self.forget(no)?;
        }
        self.put(key, None, &[], Some(root))
    }

    fn forget_below(&mut self, no: DirNo) -> Result<()> {
        self.db
            .prepare_cached(
                "WITH RECURSIVE below (no) AS (SELECT no FROM dir WHERE parent = ?1 \
                 UNION SELECT dir.no FROM dir JOIN below ON dir.parent = below.no) \
                 DELETE FROM dir WHERE no IN (SELECT no FROM below)",
            )?
            .execute([no.0])?;
        self.entries.clear();
        self.numbers.clear();
        self.outside.clear();
        self.generation += 1;
        Ok(())
    }

    /// Puts the directory `name` of `parent` in. One that stood there before, and the same one elsewhere, yield.
    ///
    /// # Errors
    /// If the table fails.
    pub fn set(&mut self, key: &DirKey, parent: DirNo, name: &[u8]) -> Result<DirNo> {
        if let Some(there) = self.child(parent, name)? {
            if self.entry(there)?.is_some_and(|entry| entry.key == *key) {
                return Ok(there);
            }
            self.forget(there)?;
        }
        match self.number(key)? {
            Some(no) => {
                self.relocate(no, parent, name)?;
                Ok(no)
            }
            None => self.put(key, Some(parent), name, None),
        }
    }

    /// Puts the directory `name` of `parent` in as one of which nothing is known: what was below it, here or elsewhere,
    /// is in no root until it is put in again.
    ///
    /// # Errors
    /// If the table fails.
    pub fn set_anew(&mut self, key: &DirKey, parent: DirNo, name: &[u8]) -> Result<DirNo> {
        self.forget_key(key)?;
        self.set(key, parent, name)
    }

    /// As [`Dirs::forget`], by identity.
    ///
    /// # Errors
    /// If the table fails.
    pub fn forget_key(&mut self, key: &DirKey) -> Result<()> {
        match self.number(key)? {
            Some(no) => self.forget(no),
            None => Ok(()),
        }
    }

    /// Whether the table holds a directory, in a root or not.
    ///
    /// # Errors
    /// If the table fails.
    pub fn knows(&mut self, key: &DirKey) -> Result<bool> {
        Ok(self.number(key)?.is_some())
    }

    /// The directory left every root, with all below it.
    ///
    /// # Errors
    /// If the table fails.
    pub fn move_out(&mut self, key: &DirKey) -> Result<()> {
        match self.number(key)? {
            // Distinct names below OUTSIDE: its own number.
            Some(no) => self.relocate(no, OUTSIDE, &no.0.to_be_bytes()),
            None => Ok(()),
        }
    }

    /// The directory is gone. What is still listed below it is then in no root.
    ///
    /// # Errors
    /// If the table fails.
    pub fn forget(&mut self, no: DirNo) -> Result<()> {
        if let Some(entry) = self.entries.remove(&no) {
            self.numbers.remove(&entry.key);
        } else if let Some(key) = self.key(no)? {
            self.numbers.remove(&key);
        }
        self.db.prepare_cached("DELETE FROM dir WHERE no = ?")?.execute([no.0])?;
        self.entries.remove(&no);
        self.generation += 1;
        Ok(())
    }

    /// Remembers that a directory lies in no root, until something moves in.
    pub fn set_outside(&mut self, key: &DirKey) {
        self.outside.insert(key.clone(), ());
    }

    /// A directory moved in from elsewhere: what was held to be outside may be below it.
    pub fn forget_outside(&mut self) {
        self.outside.clear();
    }

    /// Where a directory is.
    ///
    /// # Errors
    /// If the table fails.
    pub fn find(&mut self, key: &DirKey) -> Result<Place> {
        // What is known to be outside is not in the table, which need not be asked.
        if self.numbers.get(key).is_none() && self.outside.get(key).is_some() {
            return Ok(Place::Outside);
        }
        match self.number(key)? {
            Some(no) => Ok(self.at(no)?.map_or(Place::Outside, Place::In)),
            None => Ok(Place::Unknown),
        }
    }

    /// The directory called `name` in `parent`.
    ///
    /// # Errors
    /// If the table fails.
    pub fn child(&mut self, parent: DirNo, name: &[u8]) -> Result<Option<DirNo>> {
        if !self.holds_any(parent)? {
            return Ok(None);
        }
        Ok(self
            .db
            .prepare_cached("SELECT no FROM dir WHERE parent = ? AND name = ?")?
            .query_row(params![parent.0, name], |row| row.get(0))
            .optional()?
            .map(DirNo))
    }

    fn holds_any(&mut self, parent: DirNo) -> Result<bool> {
        if let Some(holds) = self.holding.get(&parent) {
            return Ok(*holds);
        }
        let holds = self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dir WHERE parent = ?)")?
            .query_row([parent.0], |row| row.get(0))?;
        self.holding.insert(parent, holds);
        Ok(holds)
    }

    /// A directory's identity.
    ///
    /// # Errors
    /// If the table fails.
    pub fn key(&mut self, no: DirNo) -> Result<Option<DirKey>> {
        Ok(self.entry(no)?.map(|entry| entry.key.clone()))
    }

    /// The top directory of a root.
    ///
    /// # Errors
    /// If the table fails.
    pub fn top(&mut self, root: RootNo) -> Result<Option<At>> {
        let found = self
            .db
            .prepare_cached("SELECT no FROM dir WHERE parent IS NULL AND root = ? ORDER BY no DESC")?
            .query_row([root.0], |row| row.get(0))
            .optional()?;
        found.map_or(Ok(None), |no| self.at(DirNo(no)))
    }

    /// The parent and the name of a directory; `None` for a top directory.
    ///
    /// # Errors
    /// If the table fails.
    pub fn parent(&mut self, no: DirNo) -> Result<Option<(DirNo, Arc<[u8]>)>> {
        Ok(self.entry(no)?.and_then(|entry| Some((entry.parent?, Arc::clone(&entry.name)))))
    }

    /// Where the directory with this number is; `None` if its chain does not end in a root.
    ///
    /// # Errors
    /// If the table fails.
    pub fn at(&mut self, no: DirNo) -> Result<Option<At>> {
        let generation = self.generation;
        let mut names: Vec<(DirNo, Arc<[u8]>)> = Vec::new();
        let mut here = no;
        let (root, mut path) = loop {
            let Some(entry) = self.entry(here)? else { return Ok(None) };
            if let Some((of, root, path)) = &entry.path
                && *of == generation
            {
                break (*root, Arc::clone(path));
            }
            match (entry.parent, entry.root) {
                (None, Some(root)) => break (root, Arc::new(RelPath::ROOT)),
                (Some(parent), _) if names.len() < DEPTH_MAX => {
                    names.push((here, Arc::clone(&entry.name)));
                    here = parent;
                }
                _ => return Ok(None),
            }
        };
        for (below, name) in names.into_iter().rev() {
            path = Arc::new(path.join(&name));
            if let Some(entry) = self.entries.get(&below) {
                entry.path = Some((generation, root, Arc::clone(&path)));
            }
        }
        Ok(Some(At { no, root, path }))
    }

    fn put(&mut self, key: &DirKey, parent: Option<DirNo>, name: &[u8], root: Option<RootNo>) -> Result<DirNo> {
        let no = DirNo(self.next);
        self.next += 1;
        if let Some(parent) = parent {
            self.holding.insert(parent, true);
        }
        self.db
            .prepare_cached("INSERT INTO dir (no, key, parent, name, root) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![no.0, &*key.0, parent.map(|parent| parent.0), name, root.map(|root| root.0)])?;
        self.outside.remove(key);
        self.numbers.insert(key.clone(), no);
        self.entries.insert(no, Entry { key: key.clone(), parent, name: name.into(), root, path: None });
        Ok(no)
    }

    fn relocate(&mut self, no: DirNo, parent: DirNo, name: &[u8]) -> Result<()> {
        if no == parent {
            return Ok(());
        }
        if let Some(between) = self.between(no, parent)? {
            // What holds it cannot be below it: that has moved, nobody knows whereto.
            self.forget(between)?;
        }
        self.holding.insert(parent, true);
        self.db
            .prepare_cached("UPDATE dir SET parent = ?, name = ? WHERE no = ?")?
            .execute(params![parent.0, name, no.0])?;
        if let Some(entry) = self.entries.get(&no) {
            entry.parent = Some(parent);
            entry.name = name.into();
        }
        self.generation += 1;
        Ok(())
    }

    /// The directory in `above` that `below` is, or lies in, if it does.
    fn between(&mut self, above: DirNo, below: DirNo) -> Result<Option<DirNo>> {
        let mut here = below;
        for _ in 0..DEPTH_MAX {
            match self.parent(here)? {
                Some((parent, _)) if parent == above => return Ok(Some(here)),
                Some((parent, _)) => here = parent,
                None => break,
            }
        }
        Ok(None)
    }

    fn number(&mut self, key: &DirKey) -> Result<Option<DirNo>> {
        if let Some(no) = self.numbers.get(key) {
            return Ok(Some(*no));
        }
        let found = self
            .db
            .prepare_cached("SELECT no FROM dir WHERE key = ?")?
            .query_row([&*key.0], |row| row.get(0))
            .optional()?
            .map(DirNo);
        if let Some(no) = found {
            self.numbers.insert(key.clone(), no);
        }
        Ok(found)
    }

    fn entry(&mut self, no: DirNo) -> Result<Option<&mut Entry>> {
        if self.entries.get(&no).is_none() {
            let found = self
                .db
                .prepare_cached("SELECT key, parent, name, root FROM dir WHERE no = ?")?
                .query_row([no.0], |row| {
                    Ok(Entry {
                        key: DirKey(row.get::<_, Vec<u8>>(0)?.into()),
                        parent: row.get::<_, Option<i64>>(1)?.map(DirNo),
                        name: row.get::<_, Vec<u8>>(2)?.into(),
                        root: row.get::<_, Option<u16>>(3)?.map(RootNo),
                        path: None,
                    })
                })
                .optional()?;
            match found {
                Some(entry) => self.entries.insert(no, entry),
                None => return Ok(None),
            }
        }
        Ok(self.entries.get(&no))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(text: &str) -> DirKey {
        DirKey(text.as_bytes().into())
    }

    fn path(dirs: &mut Dirs, text: &str) -> Option<String> {
        match dirs.find(&key(text)).unwrap() {
            Place::In(at) => Some(String::from_utf8(at.path.as_bytes().to_vec()).unwrap()),
            Place::Outside | Place::Unknown => None,
        }
    }

    #[test]
    fn a_rename_moves_all_below_and_a_move_out_takes_it_along() {
        let mut dirs = Dirs::create(None).unwrap();
        let top = dirs.set_root(&key("top"), RootNo(0)).unwrap();
        let a = dirs.set(&key("a"), top, b"a").unwrap();
        let b = dirs.set(&key("b"), a, b"b").unwrap();
        dirs.set(&key("c"), b, b"c").unwrap();
        assert_eq!(path(&mut dirs, "c").as_deref(), Some("a/b/c"));
        dirs.set(&key("a"), top, b"z").unwrap();
        assert_eq!(path(&mut dirs, "c").as_deref(), Some("z/b/c"));
        dirs.move_out(&key("b")).unwrap();
        assert!(matches!(dirs.find(&key("c")).unwrap(), Place::Outside));
        dirs.set(&key("b"), top, b"back").unwrap();
        assert_eq!(path(&mut dirs, "c").as_deref(), Some("back/c"));
    }

    #[test]
    fn a_directory_in_the_place_of_another_puts_that_one_out() {
        let mut dirs = Dirs::create(None).unwrap();
        let top = dirs.set_root(&key("top"), RootNo(0)).unwrap();
        let old = dirs.set(&key("old"), top, b"x").unwrap();
        dirs.set(&key("below"), old, b"y").unwrap();
        dirs.set(&key("new"), top, b"x").unwrap();
        assert_eq!(path(&mut dirs, "new").as_deref(), Some("x"));
        assert!(matches!(dirs.find(&key("old")).unwrap(), Place::Unknown));
        assert!(matches!(dirs.find(&key("below")).unwrap(), Place::Outside));
    }

    #[test]
    fn a_directory_that_is_put_below_itself_makes_no_ring() {
        let mut dirs = Dirs::create(None).unwrap();
        let top = dirs.set_root(&key("top"), RootNo(0)).unwrap();
        let a = dirs.set(&key("a"), top, b"a").unwrap();
        let b = dirs.set(&key("b"), a, b"b").unwrap();
        let c = dirs.set(&key("c"), b, b"c").unwrap();
        dirs.set(&key("a"), a, b"itself").unwrap();
        assert_eq!(path(&mut dirs, "c").as_deref(), Some("a/b/c"));
        dirs.set(&key("a"), c, b"a").unwrap();
        assert!(["a", "c"].iter().all(|lost| matches!(dirs.find(&key(lost)).unwrap(), Place::Outside)));
        dirs.set(&key("b"), top, b"b").unwrap();
        assert_eq!(path(&mut dirs, "b").as_deref(), Some("b"));
        dirs.set_root(&key("top"), RootNo(0)).unwrap();
    }

    #[test]
    fn below_a_root_that_was_away_nothing_is_known() {
        let mut dirs = Dirs::create(None).unwrap();
        let top = dirs.set_root(&key("top"), RootNo(0)).unwrap();
        let a = dirs.set(&key("a"), top, b"a").unwrap();
        dirs.set(&key("b"), a, b"b").unwrap();
        dirs.set_root(&key("other"), RootNo(1)).unwrap();
        dirs.set_root(&key("top"), RootNo(0)).unwrap();
        assert_eq!(path(&mut dirs, "top").as_deref(), Some(""));
        assert_eq!(path(&mut dirs, "other").as_deref(), Some(""));
        assert!(["a", "b"].iter().all(|below| matches!(dirs.find(&key(below)).unwrap(), Place::Unknown)));
    }

    #[test]
    fn more_directories_than_the_cache_holds_are_found_on_disk() {
        let mut dirs = Dirs::create(None).unwrap();
        let top = dirs.set_root(&key("top"), RootNo(3)).unwrap();
        let count = 3 * CACHE_ENTRIES;
        for index in 0..count {
            dirs.set(&key(&format!("k{index}")), top, format!("n{index}").as_bytes()).unwrap();
        }
        for index in [0, 1, count / 2, count - 1] {
            assert_eq!(path(&mut dirs, &format!("k{index}")), Some(format!("n{index}")));
        }
        dirs.set_outside(&key("elsewhere"));
        assert!(matches!(dirs.find(&key("elsewhere")).unwrap(), Place::Outside));
        dirs.forget_outside();
        assert!(matches!(dirs.find(&key("elsewhere")).unwrap(), Place::Unknown));
    }
}

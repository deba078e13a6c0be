//! What waits for a run, and what the last runs said: a database of the trigger's own in the state directory.
//!
//! It is working state. The queue is made anew at each start from the inventory, so that nothing is lost with it; it is on disk
//! because there may be millions. Outputs are kept from run to run, the newest of them.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::model::{RelPath, Seq, Timestamp};

/// Outputs that are kept.
const OUTPUTS_MAX: i64 = 1_000;
/// How much of the database is kept in memory.
const CACHE_KIB: i64 = 2 * 1024;

/// A version that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) file: i64,
    pub(super) version: Seq,
    /// By its place among the trigger's roots.
    pub(super) root: usize,
    pub(super) path: RelPath,
    /// Attempts that were made.
    pub(super) attempts: u32,
    /// By when it became complete.
    pub(super) order: Seq,
    /// Not before then, in milliseconds since the trigger's thread began.
    pub(super) due_ms: u64,
}

/// What a run said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When it ended.
    pub at: Timestamp,
    /// For which root.
    pub root: String,
    /// For which path there; of a batch the first.
    pub path: RelPath,
    /// Which version.
    pub version: Seq,
    /// Why it failed; `None`: it did not.
    pub why: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The end of what it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// And to its standard error.
    pub stderr: Vec<u8>,
}

/// The database.
#[derive(Debug)]
pub(super) struct Queue {
    db: Connection,
    count: u64,
}

type Result<T> = rusqlite::Result<T>;

/// The database of a trigger.
#[must_use]
pub fn queue_of(state: &Path, trigger: &str) -> PathBuf {
    state.join("triggers").join(format!("{trigger}.db"))
}

impl Queue {
    /// An empty queue; outputs of before stay, if they can be read. Where it `is_ordered`, [`Queue::first`] is quick.
    pub(super) fn open(path: &Path, is_ordered: bool) -> Result<Queue> {
        Queue::open_as_it_is(path, is_ordered).or_else(|_| {
            for ending in ["", "-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(ending);
                let _ = std::fs::remove_file(name);
            }
            Queue::open_as_it_is(path, is_ordered)
        })
    }

    fn open_as_it_is(path: &Path, is_ordered: bool) -> Result<Queue> {
        if let Some(dir) = path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        let _ = File::options().append(true).create(true).mode(0o600).open(path);
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        // Nothing here is needed after a power cut.
        db.pragma_update(None, "synchronous", "off")?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.execute_batch(
            "DROP TABLE IF EXISTS queue;
             CREATE TABLE queue (
               file INTEGER PRIMARY KEY, version INTEGER NOT NULL, root INTEGER NOT NULL, path BLOB NOT NULL,
               attempts INTEGER NOT NULL, ord INTEGER NOT NULL, due_ms INTEGER NOT NULL) STRICT;
             CREATE INDEX queue_due ON queue (due_ms, ord);
             CREATE TABLE IF NOT EXISTS said (
               id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, root TEXT NOT NULL, path BLOB NOT NULL,
               version INTEGER NOT NULL, why TEXT, took_ms INTEGER NOT NULL, stdout BLOB NOT NULL,
               stderr BLOB NOT NULL) STRICT;",
        )?;
        if is_ordered {
            db.execute_batch("CREATE INDEX queue_ord ON queue (ord)")?;
        }
        Ok(Queue { db, count: 0 })
    }

    /// Everything between here and [`Queue::end`] costs one commit.
    pub(super) fn begin(&self) -> Result<()> {
        if self.db.is_autocommit() {
            self.db.prepare_cached("BEGIN")?.execute([])?;
        }
        Ok(())
    }

    /// See [`Queue::begin`].
    pub(super) fn end(&self) -> Result<()> {
        if !self.db.is_autocommit() {
            self.db.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    /// A version waits; an older one of the same file does not any more. One that waits already keeps its turn.
    pub(super) fn put(&mut self, waiting: &Waiting) -> Result<()> {
        let mut find = self.db.prepare_cached("SELECT version FROM queue WHERE file=?1")?;
        let known: Option<i64> = find.query_row([waiting.file], |row| row.get(0)).optional()?;
        let version = waiting.version.0.cast_signed();
        match known {
            Some(known) if known > version => return Ok(()),
            Some(known) if known == version => {
                let mut update = self.db.prepare_cached("UPDATE queue SET root=?2, path=?3 WHERE file=?1")?;
                update.execute(params![waiting.file, waiting.root.cast_signed(), waiting.path.as_bytes()])?;
                return Ok(());
            }
            Some(_) => {}
            None => self.count += 1,
        }
        let mut insert = self.db.prepare_cached(
            "INSERT OR REPLACE INTO queue (file, version, root, path, attempts, ord, due_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            waiting.file,
            version,
            waiting.root.cast_signed(),
            waiting.path.as_bytes(),
            waiting.attempts,
            waiting.order.0.cast_signed(),
            waiting.due_ms.cast_signed()
        ])?;
        Ok(())
    }

    /// It does not wait any more.
    pub(super) fn remove(&mut self, file: i64) -> Result<()> {
        let gone = self.db.prepare_cached("DELETE FROM queue WHERE file=?1")?.execute([file])?;
        self.count -= gone as u64;
        Ok(())
    }

    /// Nothing waits.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.count = 0;
        self.db.execute("DELETE FROM queue", [])?;
        Ok(())
    }

    /// What waits is due at once.
    pub(super) fn hurry(&self) -> Result<()> {
        self.db.execute("UPDATE queue SET due_ms=0 WHERE due_ms>0", [])?;
        Ok(())
    }

    /// Some of what is due by now, the longest first, but for the first few.
    pub(super) fn due(&self, now_ms: u64, behind: usize, limit: usize) -> Result<Vec<Waiting>> {
        let mut find = self.db.prepare_cached(
            "SELECT file, version, root, path, attempts, ord, due_ms FROM queue WHERE due_ms<=?1 \
             ORDER BY due_ms, ord LIMIT ?2 OFFSET ?3",
        )?;
        let rows =
            find.query_map(params![now_ms.cast_signed(), limit.cast_signed(), behind.cast_signed()], read_waiting)?;
        rows.collect()
    }

    /// What waits, due or not, in the order in which it became complete: the first of it.
    pub(super) fn first(&self, limit: usize) -> Result<Vec<Waiting>> {
        let mut find = self.db.prepare_cached(
            "SELECT file, version, root, path, attempts, ord, due_ms FROM queue ORDER BY ord LIMIT ?1",
        )?;
        let rows = find.query_map([limit.cast_signed()], read_waiting)?;
        rows.collect()
    }

    /// Some of what waits, behind a file id, in the order of those.
    pub(super) fn after(&self, file: i64, limit: usize) -> Result<Vec<Waiting>> {
        let mut find = self.db.prepare_cached(
            "SELECT file, version, root, path, attempts, ord, due_ms FROM queue WHERE file>?1 ORDER BY file LIMIT ?2",
        )?;
        let rows = find.query_map(params![file, limit.cast_signed()], read_waiting)?;
        rows.collect()
    }

    /// When the next one is due, in milliseconds since the trigger's thread began.
    pub(super) fn next_due_ms(&self) -> Result<Option<u64>> {
        let mut find = self.db.prepare_cached("SELECT due_ms FROM queue ORDER BY due_ms LIMIT 1")?;
        find.query_row([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned)).optional()
    }

    /// How many wait.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Keeps what a run said; of many runs the newest.
    pub(super) fn keep(&self, said: &Said) -> Result<()> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO said (at_ns, root, path, version, why, took_ms, stdout, stderr) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let id = insert.insert(params![
            said.at.0,
            said.root,
            said.path.as_bytes(),
            said.version.0.cast_signed(),
            said.why,
            said.took_ms.cast_signed(),
            said.stdout,
            said.stderr
        ])?;
        self.db.prepare_cached("DELETE FROM said WHERE id<=?1")?.execute([id - OUTPUTS_MAX])?;
        Ok(())
    }
}

fn read_waiting(row: &Row<'_>) -> Result<Waiting> {
    Ok(Waiting {
        file: row.get(0)?,
        version: Seq(row.get::<_, i64>(1)?.cast_unsigned()),
        root: row.get::<_, isize>(2)?.cast_unsigned(),
        path: RelPath::new(row.get::<_, Vec<u8>>(3)?).unwrap_or_default(),
        attempts: row.get(4)?,
        order: Seq(row.get::<_, i64>(5)?.cast_unsigned()),
        due_ms: row.get::<_, i64>(6)?.cast_unsigned(),
    })
}

/// What the last runs of a trigger said, the newest first: of a path in a root, or all. Empty where nothing was kept.
#[must_use]
pub fn said(queue: &Path, about: Option<(&str, &RelPath)>, limit: usize) -> Vec<Said> {
    let read = || -> Result<Vec<Said>> {
        let db = Connection::open_with_flags(queue, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut find = db.prepare(
            "SELECT at_ns, root, path, version, why, took_ms, stdout, stderr FROM said \
             WHERE ?1 IS NULL OR (root=?1 AND path=?2) ORDER BY id DESC LIMIT ?3",
        )?;
        let (root, path) = about.unzip();
        let rows = find.query_map(params![root, path.map(RelPath::as_bytes), limit.cast_signed()], |row| {
            Ok(Said {
                at: Timestamp(row.get(0)?),
                root: row.get(1)?,
                path: RelPath::new(row.get::<_, Vec<u8>>(2)?).unwrap_or_default(),
                version: Seq(row.get::<_, i64>(3)?.cast_unsigned()),
                why: row.get(4)?,
                took_ms: row.get::<_, i64>(5)?.cast_unsigned(),
                stdout: row.get(6)?,
                stderr: row.get(7)?,
            })
        })?;
        rows.collect()
    };
    read().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn waiting(file: i64, version: u64, order: u64, due_ms: u64) -> Waiting {
        let path = RelPath::new(format!("f{file}")).unwrap();
        Waiting { file, version: Seq(version), root: 0, path, attempts: 0, order: Seq(order), due_ms }
    }

    #[test]
    fn what_waits_comes_by_its_time_and_then_by_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = Queue::open(&queue_of(dir.path(), "a"), true).unwrap();
        for one in [waiting(1, 1, 30, 0), waiting(2, 2, 10, 50), waiting(3, 3, 20, 0)] {
            queue.put(&one).unwrap();
        }
        let files = |found: Vec<Waiting>| found.iter().map(|one| one.file).collect::<Vec<_>>();
        assert_eq!(files(queue.due(0, 0, 9).unwrap()), [3, 1]);
        assert_eq!(files(queue.due(50, 0, 9).unwrap()), [3, 1, 2]);
        assert_eq!(files(queue.due(50, 1, 1).unwrap()), [1]);
        assert_eq!(files(queue.first(2).unwrap()), [2, 3]);
        assert_eq!(files(queue.after(1, 1).unwrap()), [2]);
        queue.put(&waiting(3, 3, 99, 99)).unwrap();
        assert_eq!(files(queue.due(0, 0, 1).unwrap()), [3], "it keeps its turn");
        queue.put(&waiting(3, 4, 99, 99)).unwrap();
        assert_eq!((files(queue.due(0, 0, 9).unwrap()), queue.count()), (vec![1], 3), "a new version does not");
        queue.remove(1).unwrap();
        assert_eq!(queue.next_due_ms().unwrap(), Some(50));
    }

    #[test]
    fn outputs_outlive_a_start_and_a_broken_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = queue_of(dir.path(), "a");
        let root = "r".to_owned();
        let said_once = Said {
            at: Timestamp(1),
            root,
            path: RelPath::new("p").unwrap(),
            version: Seq(1),
            why: None,
            took_ms: 2,
            stdout: b"\xff".to_vec(),
            stderr: Vec::new(),
        };
        let queue = Queue::open(&path, false).unwrap();
        for _ in 0..OUTPUTS_MAX + 5 {
            queue.keep(&said_once).unwrap();
        }
        drop(queue);
        drop(Queue::open(&path, false).unwrap());
        assert_eq!(said(&path, None, usize::MAX / 2).len(), usize::try_from(OUTPUTS_MAX).unwrap());
        assert_eq!(said(&path, Some(("r", &said_once.path)), 1), std::slice::from_ref(&said_once));
        assert!(said(&path, Some(("r", &RelPath::ROOT)), 1).is_empty());
        std::fs::write(&path, [b'x'; 8192]).unwrap();
        assert_eq!(Queue::open(&path, false).unwrap().count(), 0);
    }
}

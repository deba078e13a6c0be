//! The one writer: a batch is one transaction, each record's inventory part one savepoint.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use foldhash::fast::RandomState;
use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::copies::Together;
use super::error::{InventoryError, Result};
use super::history::{History, Then, Told};
use super::row::{FileId, Known, ROOTS, signed, unsigned};
use super::schema::{self, Host};
use super::store::{Fault, Store, Tree, is_of_the_row};
use super::view::View;
use super::{acts, checks, copies, runs};
use crate::apply::{Halves, Memory, Spot, Stamp, first_seen, size};
use crate::model::{Body, Change, Cursor, Facts, FileType, JournalId, Op, Record, RelPath, Seq, Settled};
use keepwatch_journal::ChainHash;

/// New names that wait to be written in the order of their keys.
const WAITING_MAX: usize = 8_192;

/// The one writer of the inventory.
#[derive(Debug)]
pub struct Inventory {
    path: PathBuf,
    db: Connection,
    memory: Memory,
    /// The running maximum of `at` after the last batch.
    latest: Option<i64>,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records applied.
    pub records: u64,
    /// Records skipped, because they were applied before.
    pub skipped: u64,
    /// Records of which a part was set aside in `problems`.
    pub problems: u64,
}

impl Inventory {
    /// Opens the inventory, or makes an empty one. That the file lies on a local file system is the caller's to see to.
    ///
    /// # Errors
    /// [`InventoryError::Older`] asks for a rebuild; the other kinds say what a person has to do.
    pub fn open(path: &Path, host: &Host) -> Result<Self> {
        let db = schema::open_writer(path, host)?;
        Ok(Inventory { path: path.to_owned(), db, memory: Memory::default(), latest: None })
    }

    /// How far the journal was applied; `None` before the first batch.
    ///
    /// # Errors
    /// SQLite's.
    pub fn cursor(&self) -> Result<Option<Cursor>> {
        read_cursor(&self.db).map_err(InventoryError::sqlite(&self.path, "read the cursor of"))
    }

    /// Gives cached pages back.
    ///
    /// # Errors
    /// SQLite's.
    pub fn release_memory(&self) -> Result<()> {
        self.db.release_memory().map_err(InventoryError::sqlite(&self.path, "release the memory of"))
    }

    /// A reader of what is committed, beside this writer.
    ///
    /// # Errors
    /// SQLite's.
    pub fn reader(&self) -> Result<View> {
        View::open(&self.path)
    }

    /// Applies records and moves the cursor to the commit that covers them, in one transaction. Records at or before the
    /// cursor are skipped; the rest must continue there and end at `to`.
    ///
    /// # Errors
    /// [`InventoryError::Forked`] and [`InventoryError::Discontinuous`] before anything is touched; SQLite's where the disk,
    /// not a record, is at fault. After an error nothing of the batch was applied.
    pub fn apply(&mut self, records: &[Record], to: Cursor) -> Result<Applied> {
        self.apply_parts(&[records], to)
    }

    /// The same with records that lie in several pieces.
    ///
    /// # Errors
    /// As [`Inventory::apply`].
    pub fn apply_parts(&mut self, parts: &[&[Record]], to: Cursor) -> Result<Applied> {
        let skipped = self.continues(parts, &to)?;
        let new = || parts.iter().copied().flatten().skip(skipped);
        let records = new().count() as u64;
        if records == 0 {
            return Ok(Applied { skipped: skipped as u64, ..Applied::default() });
        }
        let Inventory { path, db, memory, latest } = self;
        let known = latest.take();
        let is_at_fault = Cell::new(false);
        let mut apply = |is_careful| -> rusqlite::Result<Applied> {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if is_careful {
                memory.forget();
            }
            let mut batch = Batch::new(&tx, memory, known, is_careful, &is_at_fault)?;
            for record in new() {
                batch.record(record)?;
            }
            let (problems, max_at_ns) = batch.finish()?;
            let mut cursor =
                tx.prepare_cached("UPDATE cursors SET journal=?1, seq=?2, hash=?3 WHERE follower='inventory'")?;
            cursor.execute(params![&to.journal.0.as_bytes()[..], signed(to.seq.0), &to.hash.0[..]])?;
            drop(cursor);
            tx.commit()?;
            *latest = Some(max_at_ns);
            Ok(Applied { records, skipped: skipped as u64, problems })
        };
        let mut outcome = apply(false);
        if outcome.is_err() && is_at_fault.get() {
            outcome = apply(true);
        }
        if outcome.is_err() {
            memory.forget();
        }
        outcome.map_err(InventoryError::sqlite(path, "write"))
    }

    /// How many records stand before the cursor; the rest must continue there.
    fn continues(&self, parts: &[&[Record]], to: &Cursor) -> Result<usize> {
        let cursor = self.cursor()?;
        let ours = cursor.map_or(Seq::ZERO, |cursor| cursor.seq);
        if let Some(cursor) = cursor
            && (cursor.journal != to.journal || (cursor.seq == to.seq && cursor.hash != to.hash))
        {
            return Err(InventoryError::Forked {
                path: self.path.clone(),
                ours: Box::new(cursor),
                theirs: Box::new(*to),
            });
        }
        let seqs = || parts.iter().copied().flatten().map(|record| record.seq);
        let skipped = seqs().take_while(|seq| *seq <= ours).count();
        if to.seq > ours || seqs().nth(skipped).is_some() {
            let found = seqs().skip(skipped).chain([to.seq.next()]);
            let expected = (ours.0 + 1..).map(Seq);
            if let Some((expected, found)) = expected.zip(found).find(|(expected, found)| expected != found) {
                return Err(InventoryError::Discontinuous { path: self.path.clone(), expected, found });
            }
        }
        Ok(skipped)
    }

    /// Copies the WAL back and closes, so that the database is one file.
    pub(super) fn close_whole(self) -> Result<()> {
        let Inventory { path, db, .. } = self;
        let outcome = db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .and_then(|()| db.close().map_err(|(_, error)| error));
        outcome.map_err(InventoryError::sqlite(&path, "close"))
    }
}

/// The inventory's cursor.
pub(super) fn read_cursor(db: &Connection) -> rusqlite::Result<Option<Cursor>> {
    let mut read = db.prepare_cached("SELECT journal, seq, hash FROM cursors WHERE follower='inventory'")?;
    read.query_row([], |row| {
        let seq = Seq(unsigned(row.get(1)?));
        if seq == Seq::ZERO {
            return Ok(None);
        }
        Ok(Some(Cursor { journal: JournalId(Uuid::from_bytes(row.get(0)?)), seq, hash: ChainHash(row.get(2)?) }))
    })
}

/// A new name that waits for its turn by key. Nothing stands under it, and it is no directory, so that only a record that
/// looks at names could tell the difference; all of those write what waits first.
struct Waiting<'r> {
    spot: Spot<'r>,
    facts: &'r Facts,
    record: &'r Record,
    /// The record that told of its being complete.
    settled: Seq,
}

/// The records of one transaction.
///
/// To undo a part of a record, SQLite has to keep every page as it was before, record by record. So it is not prepared for that
/// at first: if a record is at fault all is undone, and done again with care.
struct Batch<'c, 'r> {
    db: &'c Connection,
    tree: Tree<'c>,
    history: History<'c>,
    waiting: Vec<Waiting<'r>>,
    keys: HashMap<(i64, &'r [u8]), usize, RandomState>,
    together: Together,
    is_careful: bool,
    is_at_fault: &'c Cell<bool>,
    savepoint: CachedStatement<'c>,
    release: CachedStatement<'c>,
    halves: Halves<'r>,
    problems: u64,
}

impl<'c, 'r> Batch<'c, 'r> {
    fn new(
        db: &'c Connection,
        memory: &'c mut Memory,
        latest: Option<i64>,
        is_careful: bool,
        is_at_fault: &'c Cell<bool>,
    ) -> rusqlite::Result<Self> {
        let (tree, history) = (Tree::new(Store::new(db)?, memory), History::new(db, latest)?);
        Ok(Batch {
            db,
            tree,
            history,
            waiting: Vec::new(),
            keys: HashMap::default(),
            together: Together::default(),
            is_careful,
            is_at_fault,
            savepoint: db.prepare_cached("SAVEPOINT part")?,
            release: db.prepare_cached("RELEASE part")?,
            halves: Halves::default(),
            problems: 0,
        })
    }

    fn record(&mut self, record: &'r Record) -> rusqlite::Result<()> {
        let stamp = Stamp::of(record);
        match &record.body {
            Body::Change(change) => self.change(record, change, stamp)?,
            body => self.act(record, body, stamp)?,
        }
        self.history.passed(stamp)
    }

    fn change(&mut self, record: &'r Record, change: &'r Change, stamp: Stamp) -> rusqlite::Result<()> {
        let root = self.tree.root(&change.root, stamp)?;
        let old_root = match change.old.as_ref().and_then(|old| old.root.as_ref()) {
            Some(name) => Some(self.tree.root(name, stamp)?),
            None => None,
        };
        // Where the old name stood before this record, whose own effects may end that directory.
        let old = match &change.old {
            Some(old) => Some((old_root, self.then(old_root.unwrap_or(root), &old.path)?)),
            None => None,
        };
        let parks = self.halves.parks(change);
        let file = match self.free_spot(change, root)? {
            Some((spot, facts)) if facts.kind == FileType::Dir => {
                // Needs nothing of what waits: its parent is known, its name is free, and no directory is waiting.
                self.in_savepoint(record, |tree, _| tree.appeared(spot, facts, stamp).map(Some))?
            }
            Some((spot, facts)) => Some(self.wait(spot, facts, record)?),
            None => {
                self.guarded(record, |tree, _| tree.change(change, root, old_root.unwrap_or(root), stamp, parks))?
            }
        };
        let place = self.then(root, &change.path)?;
        let told = Told { root, place, old, file };
        let written = self.history.change(stamp, change, &told, &record.extra);
        self.audited(record, written)
    }

    /// The quick way of a first scan: a new object with one name, free, in a known directory.
    fn free_spot(&mut self, change: &'r Change, root: i64) -> rusqlite::Result<Option<(Spot<'r>, &'r Facts)>> {
        let (Op::Create, Some(facts), Some((parent, name))) = (change.op, &change.facts, change.path.split()) else {
            return Ok(None);
        };
        if facts.nlink > 1 && facts.kind != FileType::Dir {
            return Ok(None);
        }
        let Some(dir) = self.tree.dir(root, parent)? else { return Ok(None) };
        let is_free = !self.keys.contains_key(&(dir, name)) && self.tree.is_free(dir, name)?;
        Ok(is_free.then_some((Spot { root, dir, name, path: &change.path }, facts)))
    }

    fn wait(&mut self, spot: Spot<'r>, facts: &'r Facts, record: &'r Record) -> rusqlite::Result<FileId> {
        if self.waiting.len() >= WAITING_MAX {
            self.write_waiting()?;
        }
        self.keys.insert((spot.dir, spot.name), self.waiting.len());
        self.waiting.push(Waiting { spot, facts, record, settled: Seq::ZERO });
        Ok(FileId(signed(record.seq.0)))
    }

    /// A name that waits is complete. `None`: none waits there.
    fn settle_waiting(&mut self, settled: &Settled, root: i64, stamp: Stamp) -> rusqlite::Result<Option<FileId>> {
        let Some((parent, name)) = settled.path.split().filter(|_| !self.waiting.is_empty()) else { return Ok(None) };
        let Some(dir) = self.tree.dir(root, parent)? else { return Ok(None) };
        let Some(new) = self.keys.get(&(dir, name)).and_then(|index| self.waiting.get_mut(*index)) else {
            return Ok(None);
        };
        if (new.facts.size, new.facts.mtime_ns, new.facts.inode) == (settled.size, settled.mtime_ns, settled.inode) {
            new.settled = stamp.seq;
        }
        Ok(Some(FileId(signed(new.record.seq.0))))
    }

    fn write_waiting(&mut self) -> rusqlite::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.keys.clear();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by_key(|new| (new.spot.dir, new.spot.name));
        for new in waiting.drain(..) {
            let known = Known { settled_seq: new.settled, ..first_seen(Some(new.facts), Stamp::of(new.record)) };
            match self.tree.insert_name(new.spot.dir, new.spot.name, &known) {
                Ok(()) => self.tree.count_in(new.spot.root, known.kind, 1, size(&known)),
                Err(error) => {
                    self.set_aside(new.record, "inventory", error.into())?;
                    self.history.disown(new.record.seq)?;
                }
            }
        }
        self.tree.settle_counts();
        self.waiting = waiting;
        Ok(())
    }

    fn act(&mut self, record: &'r Record, body: &'r Body, stamp: Stamp) -> rusqlite::Result<()> {
        let db = self.db;
        let named = match body {
            Body::Settled(settled) => Some(&settled.root),
            Body::Gap(gap) => gap.root.as_ref(),
            Body::GapClosed(closed) => closed.root.as_ref(),
            Body::Copied(copied) => Some(&copied.root),
            Body::Withdrawn(gone) => Some(&gone.root),
            Body::Failed(failed) => Some(&failed.root),
            Body::Hashed(_)
            | Body::Verified(_)
            | Body::Unsound(_)
            | Body::Repaired(_)
            | Body::Restored(_)
            | Body::Released(_)
            | Body::Enrolled(_) => body.fixity_place().map(|(root, _)| root),
            Body::Run(run) => Some(&run.root),
            Body::Config(_) | Body::Replica(_) | Body::Trigger(_) | Body::Other(_) | Body::Change(_) => None,
        };
        let mut root = match (named, body) {
            (Some(name), Body::Enrolled(act)) if act.path.is_root() => Some(self.tree.declare_root(name, stamp)?),
            (Some(name), _) => Some(self.tree.root(name, stamp)?),
            (None, Body::Config(config)) => Some(self.tree.declare_root(&config.root, stamp)?),
            (None, _) => None,
        };
        if let (Body::Settled(settled), Some(root)) = (body, root)
            && let Some(file) = self.settle_waiting(settled, root, stamp)?
        {
            let written = self.history.act(record, body, Some(root), Some(file));
            return self.audited(record, written);
        }
        if !matches!(body, Body::Settled(_) | Body::Copied(_)) {
            self.together.write(db)?;
        }
        let file = self.guarded(record, |tree, together| match body {
            Body::Settled(settled) => root.map_or(Ok(None), |root| tree.settled(settled, root, stamp)),
            Body::Gap(gap) => Ok(acts::open_gap(db, gap, root, stamp).map(|()| None)?),
            Body::GapClosed(closed) => Ok(acts::close_gap(db, closed, root, stamp).map(|()| None)?),
            Body::Config(config) => match root {
                Some(root) => Ok(acts::configure(db, root, config).map(|()| None)?),
                None => Ok(None),
            },
            Body::Copied(act) => match root {
                Some(root) => {
                    let dir = act.path.split().map(|(parent, _)| tree.dir(root, parent)).transpose()?.flatten();
                    Ok(copies::copied(db, together, act, (root, dir), stamp).map(|()| Some(FileId(act.file)))?)
                }
                None => Ok(None),
            },
            Body::Withdrawn(act) => match root {
                Some(root) => Ok(copies::withdrawn(db, act, root, stamp).map(|()| None)?),
                None => Ok(None),
            },
            Body::Failed(act) => match root {
                Some(root) => Ok(copies::failed(db, act, root, stamp).map(|()| None)?),
                None => Ok(None),
            },
            Body::Run(act) => match root {
                Some(root) => Ok(runs::stepped(db, act, root, stamp).map(|()| Some(FileId(act.file)))?),
                None => Ok(None),
            },
            Body::Enrolled(act) => match (root, &act.place) {
                (Some(root), Some(place)) if act.path.is_root() => Ok(acts::enrol(db, root, place).map(|()| None)?),
                (Some(root), _) => tree.enrolled(act, root, stamp),
                (None, _) => Ok(None),
            },
            Body::Trigger(config) => Ok(runs::configure(db, config, stamp).map(|()| None)?),
            Body::Replica(config) => Ok(copies::configure(db, config, stamp).map(|()| None)?),
            Body::Hashed(_)
            | Body::Verified(_)
            | Body::Unsound(_)
            | Body::Repaired(_)
            | Body::Restored(_)
            | Body::Released(_) => match root {
                Some(root) => Ok(checks::apply(db, body, root, stamp)?),
                None => Ok(None),
            },
            Body::Other(_) | Body::Change(_) => Ok(None),
        })?;
        let written = self.history.act(record, body, root.take(), file);
        self.audited(record, written)
    }

    /// Applies the inventory part of a record that looks at names.
    fn guarded(
        &mut self,
        record: &Record,
        part: impl FnOnce(&mut Tree<'c>, &mut Together) -> std::result::Result<Option<FileId>, Fault>,
    ) -> rusqlite::Result<Option<FileId>> {
        self.write_waiting()?;
        self.in_savepoint(record, part)
    }

    fn in_savepoint(
        &mut self,
        record: &Record,
        part: impl FnOnce(&mut Tree<'c>, &mut Together) -> std::result::Result<Option<FileId>, Fault>,
    ) -> rusqlite::Result<Option<FileId>> {
        if self.is_careful {
            self.together.write(self.db)?;
            self.savepoint.execute([])?;
        }
        match part(&mut self.tree, &mut self.together) {
            Ok(file) => {
                if self.is_careful {
                    self.release.execute([])?;
                }
                self.tree.settle_counts();
                Ok(file)
            }
            Err(fault) => {
                if self.is_careful {
                    self.db.execute_batch("ROLLBACK TO part; RELEASE part")?;
                    self.together = Together::default();
                }
                self.tree.undo();
                self.set_aside(record, "inventory", fault)?;
                Ok(None)
            }
        }
    }

    /// Keeps why a part was not applied, if the record is at fault; otherwise the batch fails.
    fn set_aside(&mut self, record: &Record, part: &str, fault: Fault) -> rusqlite::Result<()> {
        let fault = match fault {
            Fault::Store(error) if !is_of_the_row(&error) => return Err(error),
            fault => fault,
        };
        if !self.is_careful {
            self.is_at_fault.set(true);
            return Err(match fault {
                Fault::Store(error) => error,
                Fault::Contradiction(_) => rusqlite::Error::InvalidQuery,
            });
        }
        self.history.problem(record, part, &fault.to_string())?;
        self.problems += 1;
        Ok(())
    }

    fn audited(&mut self, record: &Record, written: rusqlite::Result<()>) -> rusqlite::Result<()> {
        written.or_else(|error| self.set_aside(record, "audit", error.into()))
    }

    /// A path in the history's terms, as the tree is now.
    fn then(&mut self, root: i64, path: &'r RelPath) -> rusqlite::Result<Then<'r>> {
        let Some((parent, name)) = path.split() else { return Ok(Then { dir: ROOTS, name: &[] }) };
        Ok(match self.tree.dir(root, parent)? {
            Some(dir) => Then { dir, name },
            None => Then { dir: root, name: path.as_bytes() },
        })
    }

    /// How many records had a problem, and the running maximum of `at`.
    fn finish(mut self) -> rusqlite::Result<(u64, i64)> {
        self.write_waiting()?;
        self.together.write(self.db)?;
        self.tree.write_counts()?;
        Ok((self.problems, self.history.max_at_ns()))
    }
}

//! A journal in memory, and a real inventory behind it that has come as far as a test lets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keepwatch_engine::clock::Clock;
use keepwatch_engine::daemon::ledger::{Knowledge, Known, Ledger, NotDurable, Unsettled};
use keepwatch_engine::inventory::{Host, Inventory, InventoryError, ListQuery, ROOTS_DIR, View};
use keepwatch_journal::{Body, ChainHash, Cursor, Evidence, Facts, JournalId, Record, RelPath, RootName, Seq};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use crate::clock::SimClock;
use crate::tree::Shared;

/// Journal and inventory.
pub struct SimLedger {
    clock: SimClock,
    world: Shared,
    records: Vec<Record>,
    durable: usize,
    applied: usize,
    path: PathBuf,
    inventory: Inventory,
    view: View,
    /// `catch_up` says "not now" this many times.
    refusals: u8,
    /// What a record claimed that was not so when it was made.
    lies: Vec<String>,
}

fn host() -> Host {
    Host { id: "simulated".to_owned(), name: "simulated".to_owned() }
}

fn cursor(seq: u64) -> Cursor {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&seq.to_le_bytes());
    Cursor { journal: JournalId(uuid::Uuid::from_u128(42)), seq: Seq(seq), hash: ChainHash(hash) }
}

impl SimLedger {
    /// An empty one, with its inventory in `dir`.
    ///
    /// # Errors
    /// The inventory's.
    pub fn new(clock: SimClock, world: Shared, dir: &Path) -> Result<Self, InventoryError> {
        let path = dir.join("inventory.db");
        let inventory = Inventory::open(&path, &host())?;
        let view = inventory.reader()?;
        Ok(SimLedger {
            clock,
            world,
            records: Vec::new(),
            durable: 0,
            applied: 0,
            path,
            inventory,
            view,
            refusals: 0,
            lies: Vec::new(),
        })
    }

    /// All records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The inventory, for reading.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Another reader of the inventory.
    ///
    /// # Errors
    /// The inventory's.
    pub fn reader(&self) -> Result<View, InventoryError> {
        self.inventory.reader()
    }

    /// What records claimed that was not so when they were made.
    #[must_use]
    pub fn lies(&self) -> &[String] {
        &self.lies
    }

    /// The inventory does not catch up so many times.
    pub fn refuse(&mut self, times: u8) {
        self.refusals = times;
    }

    /// The inventory takes in so many durable records more.
    ///
    /// # Panics
    /// If the inventory cannot be written.
    pub fn apply(&mut self, count: usize) {
        let to = self.durable.min(self.applied + count);
        if to > self.applied {
            let applied = self.inventory.apply(&self.records[self.applied..to], cursor(to as u64));
            let applied = applied.expect("the inventory takes all records");
            if applied.problems > 0 {
                let found = self.view.problems().unwrap_or_default();
                self.lies.push(format!("records could not be applied: {found:?}"));
            }
            self.applied = to;
        }
    }

    /// What the inventory holds in a root, by path.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn listed(&self, root: &RootName) -> BTreeMap<RelPath, Option<Facts>> {
        let mut all = BTreeMap::new();
        let query = ListQuery { root: Some(root.clone()), ..ListQuery::default() };
        let listed = self.view.list(&query, |one| {
            all.insert(one.path, one.facts);
            std::ops::ControlFlow::Continue(())
        });
        listed.expect("the inventory can be listed");
        all
    }

    /// All tables of the inventory, and all tables of one that was made from the journal anew.
    ///
    /// # Panics
    /// If either cannot be written or read.
    #[must_use]
    pub fn replayed(&self, dir: &Path) -> (Vec<String>, Vec<String>) {
        let path = dir.join("replayed.db");
        let mut inventory = Inventory::open(&path, &host()).expect("an inventory can be made");
        let to = cursor(self.applied as u64);
        inventory.apply(&self.records[..self.applied], to).expect("the inventory takes all records");
        (dump(&self.path), dump(&path))
    }

    fn hold_to_it(&mut self, body: &Body) {
        let Body::Settled(settled) = body else { return };
        let world = self.world.borrow();
        let facts = world.facts(settled.inode);
        if facts.is_none_or(|facts| (facts.size, facts.mtime_ns) != (settled.size, settled.mtime_ns)) {
            self.lies.push(format!("settled as another version than it is: {settled:?}, is {facts:?}"));
        }
        if settled.evidence == Evidence::Lease && !world.was_leased(settled.inode) {
            self.lies.push(format!("settled by a lease that was not granted: {settled:?}"));
        }
    }
}

fn dump(path: &Path) -> Vec<String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut tables =
            db.prepare("SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY name")?;
        let tables: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        for table in tables {
            let mut rows = db.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = rows.column_count();
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| row.get(column)).collect();
                all.push(format!("{table} {:?}", values?));
            }
        }
        all.sort();
        Ok(all)
    };
    read().expect("the tables can be read")
}

fn known(known: keepwatch_engine::inventory::Known) -> Known {
    Known { settled: known.is_settled(), facts: known.facts }
}

impl Ledger for SimLedger {
    fn append(&mut self, body: Body) -> Seq {
        self.hold_to_it(&body);
        let seq = Seq(self.records.len() as u64 + 1);
        self.records.push(Record { seq, at: self.clock.now(), body, extra: None });
        seq
    }

    fn pending(&self) -> usize {
        self.records.len() - self.durable
    }

    fn commit(&mut self) -> Result<(), NotDurable> {
        self.durable = self.records.len();
        Ok(())
    }

    fn discard(&mut self) {
        self.records.truncate(self.durable);
    }

    fn catch_up(&mut self) -> bool {
        if self.refusals > 0 {
            self.refusals -= 1;
            return false;
        }
        self.durable = self.records.len();
        self.apply(usize::MAX / 2);
        true
    }

    fn applied(&self) -> Seq {
        Seq(self.applied as u64)
    }

    fn child(&mut self, root: &RootName, dir: &RelPath, name: &[u8]) -> Knowledge {
        let found = match (name, dir.split()) {
            (b"", None) => self.view.child(ROOTS_DIR, root.as_str().as_bytes()),
            (b"", Some((above, name))) => match RelPath::new(above) {
                Ok(above) => return self.child(root, &above, name),
                Err(_) => Ok(None),
            },
            (name, _) => self.view.dir_by_path(root, dir).and_then(|id| match id {
                Some(id) => self.view.child(id, name),
                None => Ok(None),
            }),
        };
        match found {
            Ok(Some(found)) => Knowledge::Yes(known(found)),
            Ok(None) => Knowledge::No,
            Err(_) => Knowledge::Unknown,
        }
    }

    fn by_inode(&mut self, root: &RootName, inode: u64) -> Vec<(RelPath, Known)> {
        let found = self.view.by_inode(root, inode).unwrap_or_default();
        let place = |dir, name: &[u8]| match self.view.dir_path(dir) {
            Ok(Some((_, dir))) if !name.is_empty() => Some(dir.join(name)),
            _ => None,
        };
        found.into_iter().filter_map(|(dir, name, found)| Some((place(dir, &name)?, known(found)))).collect()
    }

    fn unsettled(&mut self, after: Seq, limit: usize) -> Vec<Unsettled> {
        let found = self.view.unsettled(after, limit).unwrap_or_default();
        let read = |one: keepwatch_engine::inventory::Unsettled| {
            Some(Unsettled { root: one.root, path: one.path, version: one.known.version_seq, facts: one.known.facts? })
        };
        found.into_iter().filter_map(read).collect()
    }
}

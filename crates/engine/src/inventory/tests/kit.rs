//! What the tests are made of: short ways to write records, an inventory in a temporary directory, a dump of its tables.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use keepwatch_journal::{ChainHash, Extra};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use uuid::Uuid;

use crate::inventory::{Applied, Host, Inventory, Known, ListQuery, Listed, LogQuery, View};
use crate::model::{
    Body, Change, Config, Cursor, Evidence, Facts, FileType, JournalId, OldPlace, Op, Record, RelPath, RootName, Seq,
    Settled, Timestamp, Via,
};

pub(super) const SECOND: i64 = 1_000_000_000;
/// The moment of record 0; record N is N seconds later.
pub(super) const EPOCH: i64 = 1_800_000_000 * SECOND;

pub(super) fn host() -> Host {
    Host { id: "m1".into(), name: "preserve-1".into() }
}

pub(super) fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

pub(super) fn root(name: &str) -> RootName {
    RootName::new(name)
}

pub(super) fn cursor(seq: u64) -> Cursor {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&seq.to_le_bytes());
    Cursor { journal: JournalId(Uuid::from_u128(42)), seq: Seq(seq), hash: ChainHash(hash) }
}

pub(super) fn file(inode: u64, size: u64) -> Facts {
    Facts {
        kind: FileType::File,
        size,
        mtime_ns: EPOCH + i64::try_from(size % 1000).unwrap(),
        ctime_ns: EPOCH,
        dev: 8,
        inode,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        nlink: 1,
        target: None,
    }
}

pub(super) fn linked(inode: u64, size: u64, nlink: u32) -> Facts {
    Facts { nlink, ..file(inode, size) }
}

pub(super) fn dir(inode: u64) -> Facts {
    Facts { kind: FileType::Dir, nlink: 2, mode: 0o755, ..file(inode, 0) }
}

pub(super) fn change(op: Op, path: &str, facts: Option<Facts>) -> Body {
    Body::Change(Change {
        op,
        root: root("r"),
        path: rel(path),
        old: None,
        facts,
        via: Via::Fanotify,
        by: None,
        merged: false,
        subtree: false,
        exchange: false,
    })
}

pub(super) fn create(path: &str, facts: Facts) -> Body {
    change(Op::Create, path, Some(facts))
}

pub(super) fn modify(path: &str, facts: Facts) -> Body {
    change(Op::Modify, path, Some(facts))
}

pub(super) fn delete(path: &str) -> Body {
    change(Op::Delete, path, None)
}

pub(super) fn rename(old: &str, path: &str, facts: Option<Facts>) -> Body {
    let Body::Change(mut change) = change(Op::Move, path, facts) else { unreachable!() };
    change.old = Some(OldPlace { root: None, path: rel(old) });
    Body::Change(change)
}

/// A body in another root.
pub(super) fn within(name: &str, body: Body) -> Body {
    let Body::Change(change) = body else { unreachable!() };
    Body::Change(Change { root: root(name), ..change })
}

pub(super) fn settled(path: &str, facts: &Facts) -> Body {
    Body::Settled(Settled {
        root: root("r"),
        path: rel(path),
        evidence: Evidence::Lease,
        size: facts.size,
        mtime_ns: facts.mtime_ns,
        inode: facts.inode,
    })
}

pub(super) fn config(name: &str) -> Body {
    let dir = Some(format!("/srv/{name}").into_bytes().into());
    Body::Config(Config { root: root(name), dir, identity: Some("uuid:1".into()), accepted: false })
}

pub(super) fn records(bodies: Vec<Body>) -> Vec<Record> {
    (1..).zip(bodies).map(|(seq, body)| record(seq, body, None)).collect()
}

pub(super) fn record(seq: u64, body: Body, extra: Extra) -> Record {
    Record { seq: Seq(seq), at: Timestamp(EPOCH + i64::try_from(seq).unwrap() * SECOND), body, extra }
}

/// An inventory in a directory of its own.
pub(super) struct Kit {
    pub(super) dir: tempfile::TempDir,
    pub(super) inventory: Inventory,
    seq: u64,
}

impl Kit {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory::open(&dir.path().join("inventory.db"), &host()).unwrap();
        Kit { dir, inventory, seq: 0 }
    }

    /// With root `r` declared by record 1 and these records behind it.
    pub(super) fn with(bodies: Vec<Body>) -> Self {
        let mut kit = Kit::new();
        kit.apply([vec![config("r")], bodies].concat());
        kit
    }

    pub(super) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("inventory.db")
    }

    /// Applies bodies as the next records, as one batch.
    pub(super) fn apply(&mut self, bodies: Vec<Body>) -> Applied {
        let first = self.seq + 1;
        let records: Vec<Record> = (first..).zip(bodies).map(|(seq, body)| record(seq, body, None)).collect();
        self.apply_records(&records)
    }

    pub(super) fn apply_records(&mut self, records: &[Record]) -> Applied {
        self.seq = records.last().unwrap().seq.0;
        self.inventory.apply(records, cursor(self.seq)).unwrap()
    }

    pub(super) fn view(&self) -> View {
        self.inventory.reader().unwrap()
    }

    /// What stands at a path of root `r`.
    pub(super) fn at(&self, path: &str) -> Option<Known> {
        known(&self.view(), "r", path)
    }

    /// The live tree of all roots: `root:path=inode`, a `/` behind directories, `?` where nothing was read.
    pub(super) fn tree(&self) -> Vec<String> {
        listed(&self.view(), &ListQuery::default()).iter().map(show).collect()
    }

    pub(super) fn log(&self, query: &LogQuery) -> Vec<Record> {
        log(&self.view(), query)
    }

    pub(super) fn dump(&self) -> String {
        dump(&self.view().db)
    }
}

pub(super) fn known(view: &View, name: &str, path: &str) -> Option<Known> {
    let path = rel(path);
    let (parent, name_in) = path.split()?;
    let parent = RelPath::new(parent).unwrap();
    view.child(view.dir_by_path(&root(name), &parent).unwrap()?, name_in).unwrap()
}

pub(super) fn listed(view: &View, query: &ListQuery) -> Vec<Listed> {
    let mut all = Vec::new();
    let seen = |listed| {
        all.push(listed);
        ControlFlow::Continue(())
    };
    view.list(query, seen).unwrap();
    all
}

pub(super) fn show(listed: &Listed) -> String {
    let path = String::from_utf8_lossy(listed.path.as_bytes());
    let slash = if listed.kind == Some(FileType::Dir) { "/" } else { "" };
    let inode = listed.facts.as_ref().map_or("?".into(), |facts| facts.inode.to_string());
    format!("{}:{path}{slash}={inode}", listed.root)
}

pub(super) fn log(view: &View, query: &LogQuery) -> Vec<Record> {
    let mut all = Vec::new();
    let seen = |record| {
        all.push(record);
        ControlFlow::Continue(())
    };
    view.log(query, seen).unwrap();
    all
}

/// Every row of every table, as text.
pub(super) fn dump(db: &Connection) -> String {
    let mut text = String::new();
    let mut tables = db.prepare("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names.iter().filter(|name| !name.starts_with("sqlite_")) {
        let width = db.prepare(&format!("SELECT * FROM {name}")).unwrap().column_count();
        let order: Vec<String> = (1..=width).map(|column| column.to_string()).collect();
        let mut all = db.prepare(&format!("SELECT * FROM {name} ORDER BY {}", order.join(","))).unwrap();
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            write!(text, "{name}").unwrap();
            for column in 0..width {
                match row.get_ref(column).unwrap() {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => write!(text, " {:?}", bstr::BStr::new(bytes)),
                    other => write!(text, " {other:?}"),
                }
                .unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// Checks what must hold of the tables whatever was applied.
pub(super) fn check(db: &Connection) {
    let zero = |what: &str, sql: &str| {
        let count: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{what}\n{}", dump(db));
    };
    zero(
        "a live directory without its name",
        "SELECT count(*) FROM dirs d WHERE NOT EXISTS \
        (SELECT 1 FROM files f WHERE f.file_id=d.dir_id AND f.kind=2 AND \
         (f.dir_id=d.parent AND f.name=d.name OR d.parent=0 AND f.dir_id=0))",
    );
    zero(
        "a directory's name without its row",
        "SELECT count(*) FROM files f WHERE f.kind=2 AND NOT EXISTS \
        (SELECT 1 FROM dirs d WHERE d.dir_id=f.file_id)",
    );
    zero(
        "a name in no directory",
        "SELECT count(*) FROM files f WHERE f.dir_id<>0 AND f.dir_id NOT IN (SELECT dir_id FROM dirs)",
    );
    zero(
        "a path that is not its parent's and its name",
        "SELECT count(*) FROM dirs d JOIN dirs p ON p.dir_id=d.parent \
        WHERE d.path <> CAST(CASE p.path WHEN x'' THEN d.name ELSE p.path || '/' || d.name END AS BLOB) OR d.root_id<>p.root_id",
    );
    zero(
        "a live directory without a place",
        "SELECT count(*) FROM dirs d WHERE d.parent<>0 AND 1 <> (SELECT count(*) \
        FROM dir_names n WHERE n.dir_id=d.dir_id AND n.to_seq IS NULL AND n.parent=d.parent AND n.name=d.name)",
    );
    zero(
        "a dead directory with a place",
        "SELECT count(*) FROM dir_names WHERE to_seq IS NULL AND dir_id NOT IN (SELECT dir_id FROM dirs)",
    );
    zero(
        "counts that are not what is there",
        "SELECT count(*) FROM roots r WHERE (r.files, r.dirs, r.others, r.bytes) <> \
        (SELECT count(*) FILTER (WHERE kind=1), count(*) FILTER (WHERE kind=2), \
                count(*) FILTER (WHERE kind IS NULL OR kind NOT IN (1,2)), coalesce(sum(size) FILTER (WHERE kind=1), 0) \
           FROM files f JOIN dirs d ON d.dir_id=f.dir_id WHERE d.root_id=r.root_id)",
    );
    zero(
        "two names of one object that differ",
        "SELECT count(*) FROM files a JOIN files b ON a.file_id=b.file_id \
        AND a.inode=b.inode WHERE (a.size, a.mtime_ns, a.nlink, a.version_seq, a.settled_seq) <> \
        (b.size, b.mtime_ns, b.nlink, b.version_seq, b.settled_seq)",
    );
}

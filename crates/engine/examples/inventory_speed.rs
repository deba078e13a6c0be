//! How fast the inventory takes records in and gives names out.
//!
//! `cargo run --release --example inventory_speed [FILES]` (default 1 000 000) applies a first scan, churn and the rename of a
//! directory that holds them all, in a temporary directory, and prints one line each. A measurement, not a test.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use keepwatch_engine::inventory::{Host, Inventory, ListQuery};
use keepwatch_engine::model::{
    Body, Change, Config, Cursor, Evidence, Facts, FileType, JournalId, OldPlace, Op, Record, RelPath, RootName, Seq,
    Settled, Timestamp, Via,
};
use keepwatch_journal::ChainHash;

const BATCH: usize = 16_384;
const FILES_IN_DIR: u64 = 100;

type Failure = Box<dyn std::error::Error>;

/// Writes records and knows the next seq.
struct Pen {
    root: RootName,
    seq: u64,
    random: u64,
}

impl Pen {
    fn record(&mut self, body: Body) -> Record {
        self.seq += 1;
        let at = Timestamp(1_800_000_000_000_000_000 + i64::try_from(self.seq).unwrap_or(i64::MAX) * 1_000);
        Record { seq: Seq(self.seq), at, body, extra: None }
    }

    fn change(&mut self, op: Op, path: &str, old: Option<&str>, facts: Option<Facts>) -> Result<Record, Failure> {
        let old = old.map(|path| RelPath::new(path).map(|path| OldPlace { root: None, path })).transpose()?;
        let (root, path) = (self.root.clone(), RelPath::new(path)?);
        let (via, by, merged, subtree) = (Via::Scan, None, false, false);
        Ok(self.record(Body::Change(Change { op, root, path, old, facts, via, by, merged, subtree, exchange: false })))
    }

    /// A number below `end`, the same in every run (xorshift64).
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }
}

fn facts(kind: FileType, inode: u64, size: u64) -> Facts {
    let mtime_ns = 1_700_000_000_000_000_000 + i64::try_from(size).unwrap_or(0);
    Facts {
        kind,
        size,
        mtime_ns,
        ctime_ns: mtime_ns,
        dev: 66_306,
        inode,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        target: None,
    }
}

fn path(number: u64) -> String {
    let dir = number / FILES_IN_DIR;
    format!("records/series-{:03}/box-{dir:06}/page-{number:08}.tif", dir / 100)
}

fn apply(inventory: &mut Inventory, what: &str, records: &[Record]) -> Result<(), Failure> {
    let start = Start::now();
    for batch in records.chunks(BATCH) {
        let seq = batch.last().map_or(Seq::ZERO, |record| record.seq);
        inventory.apply(batch, Cursor { journal: JournalId(uuid::Uuid::nil()), seq, hash: ChainHash([1; 32]) })?;
    }
    report(what, records.len() as u64, &start);
    Ok(())
}

/// When a measurement began, by the wall clock and by this thread's processor time: on a busy machine only the latter tells.
struct Start {
    wall: Instant,
    cpu: Duration,
}

impl Start {
    fn now() -> Self {
        Start { wall: Instant::now(), cpu: cpu_time() }
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn report(what: &str, count: u64, start: &Start) {
    let (wall, cpu) = (start.wall.elapsed().as_secs_f64(), (cpu_time() - start.cpu).as_secs_f64());
    let count_f64 = count as f64;
    println!("{what:38} {count:9} in {wall:7.3} s, {cpu:7.3} s of cpu = {:9.0} /s of cpu", count_f64 / cpu);
}

fn main() -> Result<(), Failure> {
    let files: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("inventory.db");
    let mut inventory = Inventory::open(&database, &Host { id: "speed".into(), name: "speed".into() })?;
    let mut pen = Pen { root: RootName::new("records"), seq: 0, random: 88_172_645_463_325_252 };

    let root = pen.root.clone();
    let mut scan = vec![pen.record(Body::Config(Config {
        root,
        dir: Some(b"/srv/r"[..].into()),
        identity: None,
        accepted: false,
    }))];
    let mut made = std::collections::HashSet::new();
    for number in 0..files {
        let path = path(number);
        for (slash, _) in
            path.match_indices('/').filter(|(slash, _)| !made.contains(&path[..*slash])).collect::<Vec<_>>()
        {
            made.insert(path[..slash].to_owned());
            scan.push(pen.change(
                Op::Create,
                &path[..slash],
                None,
                Some(facts(FileType::Dir, 1 << 40 | pen.seq, 4096)),
            )?);
        }
        scan.push(pen.change(Op::Create, &path, None, Some(facts(FileType::File, 1000 + number, number)))?);
    }
    apply(&mut inventory, "first scan", &scan)?;
    drop(scan);

    let settled: Vec<Record> = (0..files)
        .map(|number| {
            let (root, facts) = (pen.root.clone(), facts(FileType::File, 1000 + number, number));
            let (path, evidence) = (RelPath::new(path(number))?, Evidence::Quiet);
            let (size, mtime_ns, inode) = (facts.size, facts.mtime_ns, facts.inode);
            Ok(pen.record(Body::Settled(Settled { root, path, evidence, size, mtime_ns, inode })))
        })
        .collect::<Result<_, Failure>>()?;
    apply(&mut inventory, "settled, in order", &settled)?;
    drop(settled);

    let mut churn = Vec::new();
    for round in 0..files / 5 {
        let number = pen.below(files);
        let (old, new) = (path(number), format!("{}.{round}", path(pen.below(files))));
        let inode = (1 << 41) + round;
        churn.push(pen.change(Op::Modify, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        churn.push(pen.change(Op::Create, &new, None, Some(facts(FileType::File, inode, 5)))?);
        churn.push(pen.change(Op::Move, &format!("{new}.done"), Some(&new), Some(facts(FileType::File, inode, 5)))?);
        churn.push(pen.change(Op::Attrib, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        churn.push(pen.change(Op::Delete, &format!("{new}.done"), None, None)?);
    }
    apply(&mut inventory, "churn, random places", &churn)?;
    drop(churn);

    let rename = [pen.change(Op::Move, "renamed", Some("records"), None)?];
    apply(&mut inventory, &format!("rename of a directory of {files}"), &rename)?;

    let view = inventory.reader()?;
    let start = Start::now();
    let (mut names, mut dirs) = (0, vec![view.root_dir(&pen.root)?.ok_or("the root is not known")?]);
    while let Some(dir) = dirs.pop() {
        view.children(dir, |child| {
            names += 1;
            dirs.extend(child.dir);
        })?;
    }
    report("children, every directory", names, &start);
    let start = Start::now();
    let mut names = 0;
    view.list(&ListQuery::default(), |_| {
        names += 1;
        ControlFlow::Continue(())
    })?;
    report("list", names, &start);
    let start = Start::now();
    let (mut names, at) = (0, Some(Timestamp(1_800_000_000_000_000_000 + i64::try_from(files)? * 2_500)));
    view.list(&ListQuery { at, ..ListQuery::default() }, |_| {
        names += 1;
        ControlFlow::Continue(())
    })?;
    report("list at a moment in the churn", names, &start);
    let start = Start::now();
    let mut records = 0;
    view.log(&Default::default(), |_| {
        records += 1;
        ControlFlow::Continue(())
    })?;
    report("log, everything", records, &start);

    let start = Start::now();
    let gone = [pen.change(Op::Delete, "renamed", None, None)?];
    apply(&mut inventory, &format!("delete of a directory of {files}"), &gone)?;
    report("the same, a name", files, &start);
    println!("database: {} MiB", database.metadata()?.len() >> 20);
    Ok(())
}

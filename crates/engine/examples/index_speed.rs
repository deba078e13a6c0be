//! How fast the shared index takes records in.
//!
//! `cargo run --release --example index_speed URL [FILES]` (default 1 000 000) applies a first scan, churn and the rename of a
//! directory that holds them all to an empty database, and prints one line each. A measurement, not a test.

use std::time::{Duration, Instant};

use keepwatch_engine::index::{Index, IndexSettings, Password, Stop, Tls, Writer};
use keepwatch_engine::model::{
    Body, Change, Config, Cursor, Evidence, Facts, FileType, JournalId, OldPlace, Op, Record, RelPath, RootName, Seq,
    Settled, Timestamp, Via,
};
use keepwatch_journal::ChainHash;

/// Records of a commit of the journal, and of a transaction.
const BATCH: usize = 4_096;
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

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("the address of an empty database is missing")?;
    let files: u64 = args.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let settings = IndexSettings {
        server: url.parse()?,
        password: Password::None,
        tls: Tls::Off,
        timeout: Duration::from_secs(60),
    };
    let journal = JournalId(uuid::Uuid::nil());
    let writer = Writer { name: "speed".into(), identity: "speed".into(), journal };
    let mut index = Index::open(&settings, &writer, |_| false, Stop::default())?;
    let mut pen = Pen { root: RootName::new("records"), seq: 0, random: 88_172_645_463_325_252 };

    // As it comes from the scanner, in pieces, so that the memory measured is the index's.
    let root = pen.root.clone();
    let mut scan = vec![pen.record(Body::Config(Config {
        root,
        dir: Some(b"/srv/r"[..].into()),
        identity: None,
        accepted: false,
    }))];
    let mut load = Sum::default();
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
        if scan.len() >= BATCH {
            load.apply(&mut index, &scan)?;
            scan.clear();
        }
    }
    load.apply(&mut index, &scan)?;
    load.report("initial load");

    let mut settling = Sum::default();
    for first in (0..files).step_by(BATCH) {
        let settled: Vec<Record> = (first..files.min(first + BATCH as u64))
            .map(|number| {
                let (root, facts) = (pen.root.clone(), facts(FileType::File, 1000 + number, number));
                let (path, evidence) = (RelPath::new(path(number))?, Evidence::Quiet);
                let (size, mtime_ns, inode) = (facts.size, facts.mtime_ns, facts.inode);
                Ok(pen.record(Body::Settled(Settled { root, path, evidence, size, mtime_ns, inode })))
            })
            .collect::<Result<_, Failure>>()?;
        settling.apply(&mut index, &settled)?;
    }
    settling.report("settled, in order");

    let mut churning = Sum::default();
    let mut churn = Vec::new();
    for round in 0..files / 10 {
        let number = pen.below(files);
        let (old, new) = (path(number), format!("{}.{round}", path(pen.below(files))));
        let inode = (1 << 41) + round;
        churn.push(pen.change(Op::Modify, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        churn.push(pen.change(Op::Create, &new, None, Some(facts(FileType::File, inode, 5)))?);
        churn.push(pen.change(Op::Move, &format!("{new}.done"), Some(&new), Some(facts(FileType::File, inode, 5)))?);
        churn.push(pen.change(Op::Attrib, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        churn.push(pen.change(Op::Delete, &format!("{new}.done"), None, None)?);
        if churn.len() + 5 > BATCH {
            churning.apply(&mut index, &churn)?;
            churn.clear();
        }
    }
    churning.apply(&mut index, &churn)?;
    churning.report("live changes, random places");

    let mut renaming = Sum::default();
    renaming.apply(&mut index, &[pen.change(Op::Move, "renamed", Some("records"), None)?])?;
    renaming.report(&format!("rename of a directory of {files}"));
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("peak memory: {}", peak.trim());
    Ok(())
}

/// Time spent in the index alone.
#[derive(Default)]
struct Sum {
    records: u64,
    wall: Duration,
    cpu: Duration,
}

impl Sum {
    fn apply(&mut self, index: &mut Index, records: &[Record]) -> Result<(), Failure> {
        let Some(last) = records.last() else { return Ok(()) };
        let start = Start::now();
        let to = Cursor { journal: JournalId(uuid::Uuid::nil()), seq: last.seq, hash: ChainHash([1; 32]) };
        if index.apply(records, to, last.seq)? > 0 {
            return Err("some records were set aside".into());
        }
        self.records += records.len() as u64;
        self.wall += start.wall.elapsed();
        self.cpu += cpu_time().saturating_sub(start.cpu);
        Ok(())
    }

    fn report(&self, what: &str) {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        let per_s = self.records as f64 / wall;
        println!("{what:38} {:9} in {wall:7.3} s, {cpu:7.3} s of cpu = {per_s:9.0} /s", self.records);
    }
}

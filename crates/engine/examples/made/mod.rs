//! Records for measurements: what a scan of an archive, and work in it, would have journaled; and a stopwatch.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use keepwatch_engine::model::{
    Body, Change, Config, Evidence, Facts, FileType, OldPlace, Op, Record, RelPath, RootName, Seq, Settled, Timestamp,
    Via,
};

const FILES_IN_DIR: u64 = 100;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Writes records and knows the next seq.
pub(crate) struct Pen {
    pub(crate) root: RootName,
    made: HashSet<String>,
    seq: u64,
    random: u64,
}

impl Pen {
    pub(crate) fn new() -> Self {
        Pen { root: RootName::new("records"), made: HashSet::new(), seq: 0, random: 88_172_645_463_325_252 }
    }

    /// Where the root is.
    pub(crate) fn config(&mut self) -> Record {
        let (root, dir) = (self.root.clone(), Some(b"/srv/r"[..].into()));
        self.record(Body::Config(Config { root, dir, identity: None, accepted: false }))
    }

    /// A file as a first scan finds it, behind the directories above it that were not found yet.
    pub(crate) fn found(&mut self, number: u64, into: &mut Vec<Record>) -> Result<(), Failure> {
        let path = path(number);
        for (slash, _) in path.match_indices('/') {
            if self.made.insert(path[..slash].to_owned()) {
                let facts = facts(FileType::Dir, 1 << 40 | self.seq, 4096);
                into.push(self.change(Op::Create, &path[..slash], None, Some(facts))?);
            }
        }
        into.push(self.change(Op::Create, &path, None, Some(facts(FileType::File, 1000 + number, number)))?);
        Ok(())
    }

    /// That a file as it was found is finished.
    pub(crate) fn settled(&mut self, number: u64) -> Result<Record, Failure> {
        let Facts { size, mtime_ns, inode, .. } = facts(FileType::File, 1000 + number, number);
        let (root, path) = (self.root.clone(), RelPath::new(path(number))?);
        Ok(self.record(Body::Settled(Settled { root, path, evidence: Evidence::Quiet, size, mtime_ns, inode })))
    }

    /// Work in random places: a file of so many is written to, another made, renamed and deleted.
    pub(crate) fn churn(&mut self, files: u64, round: u64, into: &mut Vec<Record>) -> Result<(), Failure> {
        let number = self.below(files);
        let (old, new) = (path(number), format!("{}.{round}", path(self.below(files))));
        let (done, inode) = (format!("{new}.done"), (1 << 41) + round);
        into.push(self.change(Op::Modify, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        into.push(self.change(Op::Create, &new, None, Some(facts(FileType::File, inode, 5)))?);
        into.push(self.change(Op::Move, &done, Some(&new), Some(facts(FileType::File, inode, 5)))?);
        into.push(self.change(Op::Attrib, &old, None, Some(facts(FileType::File, 1000 + number, round)))?);
        into.push(self.change(Op::Delete, &done, None, None)?);
        Ok(())
    }

    fn record(&mut self, body: Body) -> Record {
        self.seq += 1;
        let at = Timestamp(1_800_000_000_000_000_000 + i64::try_from(self.seq).unwrap_or(i64::MAX) * 1_000);
        Record { seq: Seq(self.seq), at, body, extra: None }
    }

    pub(crate) fn change(
        &mut self,
        op: Op,
        path: &str,
        old: Option<&str>,
        facts: Option<Facts>,
    ) -> Result<Record, Failure> {
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
pub(crate) struct Start {
    pub(crate) wall: Instant,
    cpu: Duration,
}

impl Start {
    pub(crate) fn now() -> Self {
        Start { wall: Instant::now(), cpu: cpu_time() }
    }

    /// The processor time since.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_time().saturating_sub(self.cpu)
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

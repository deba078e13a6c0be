//! How fast the shared index takes records in.
//!
//! `cargo run --release --example index_speed URL [FILES]` (default 1 000 000) applies a first scan, churn and the rename of a
//! directory that holds them all to an empty database, and prints one line each. A measurement, not a test.

mod made;

use std::time::Duration;

use keepwatch_engine::index::{Index, IndexSettings, Password, Stop, Tls, Writer};
use keepwatch_engine::model::{Cursor, JournalId, Op, Record};
use keepwatch_journal::ChainHash;
use made::{Failure, Pen, Start};

/// Records of a commit of the journal, and of a transaction.
const BATCH: usize = 4_096;

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
    let mut pen = Pen::new();

    // As it comes from the scanner, in pieces, so that the memory measured is the index's.
    let mut scan = vec![pen.config()];
    let mut load = Sum::default();
    for number in 0..files {
        pen.found(number, &mut scan)?;
        if scan.len() >= BATCH {
            load.apply(&mut index, &scan)?;
            scan.clear();
        }
    }
    load.apply(&mut index, &scan)?;
    load.report("initial load");

    let mut settling = Sum::default();
    for first in (0..files).step_by(BATCH) {
        let numbers = first..files.min(first + BATCH as u64);
        settling.apply(&mut index, &numbers.map(|number| pen.settled(number)).collect::<Result<Vec<_>, _>>()?)?;
    }
    settling.report("settled, in order");

    let mut churning = Sum::default();
    let mut churn = Vec::new();
    for round in 0..files / 10 {
        pen.churn(files, round, &mut churn)?;
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
        self.cpu += start.cpu();
        Ok(())
    }

    fn report(&self, what: &str) {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        let per_s = self.records as f64 / wall;
        println!("{what:38} {:9} in {wall:7.3} s, {cpu:7.3} s of cpu = {per_s:9.0} /s", self.records);
    }
}

//! Measures the journal on a directory: `cargo run --release --example journal_speed -- DIR [RECORDS]`.
//!
//! Prints records a second for append with a commit every 5 ms, for reading with parsing, and for verification, and
//! the bytes of a typical record. The directory is made and removed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepwatch_journal::{
    Body, By, Change, Facts, FileType, Op, Reader, RealDisk, RelPath, RootName, Seq, Timestamp, VerifyOptions, Via,
    Writer, WriterOptions, verify,
};

const GROUP: Duration = Duration::from_millis(5);

fn change(number: u64) -> Result<Body, Box<dyn Error>> {
    let mtime_ns = 1_793_880_000_000_000_000 + i64::try_from(number)? * 1_234_567;
    Ok(Body::Change(Change {
        op: Op::Create,
        root: RootName::new("records"),
        path: RelPath::new(format!("2026/box-{:04}/scan-{number:08}.tif", number / 1000))?,
        old: None,
        facts: Some(Facts {
            kind: FileType::File,
            size: 31_415_926 + number,
            mtime_ns,
            ctime_ns: mtime_ns,
            dev: 64_769,
            inode: 12_345_678 + number,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            nlink: 1,
            target: None,
        }),
        via: Via::Fanotify,
        by: Some(Arc::new(By { pid: 4242, uid: Some(1000), exe: Some(b"/usr/bin/rsync".to_vec().into()) })),
        merged: false,
        subtree: false,
        exchange: false,
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: journal_speed DIR [RECORDS]")?);
    let count: u64 = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(1_000_000);
    std::fs::create_dir(&dir)?;
    let result = measure(&dir.join("journal"), count);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    let now = Timestamp(1_793_880_000_000_000_000);
    let bodies = (0..10_000).map(change).collect::<Result<Vec<_>, _>>()?;
    let (mut writer, _) = Writer::open(Arc::new(RealDisk), dir, now, WriterOptions::new("speed"))?;
    let (start, mut commits) = (Instant::now(), 0u32);
    let mut due = start + GROUP;
    for (number, body) in (0..count).zip(bodies.iter().cycle()) {
        writer.append(Timestamp(now.0 + i64::try_from(number)?), body);
        if number % 64 == 0 && Instant::now() >= due {
            writer.commit()?;
            commits += 1;
            due = Instant::now() + GROUP;
        }
    }
    let head = writer.close()?;
    say("append", count, start);
    println!("commits      {commits:>12}");

    let bytes: u64 = std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    println!("bytes/record {:>12}", bytes / count);

    let start = Instant::now();
    let mut reader = Reader::open(Arc::new(RealDisk), dir, Seq::ZERO)?;
    let mut records = 0;
    while let Some(batch) = reader.next_batch()? {
        records += batch.records.len() as u64;
    }
    say("read", records, start);

    let start = Instant::now();
    let report = verify(&RealDisk, dir, &VerifyOptions { head: Some(head), deep: false })?;
    say("verify", report.records, start);
    if let Some(finding) = report.findings.first() {
        return Err(finding.to_string().into());
    }
    Ok(())
}

fn say(what: &str, records: u64, since: Instant) {
    println!("{what:<8}/s   {:>12.0}", records as f64 / since.elapsed().as_secs_f64());
}

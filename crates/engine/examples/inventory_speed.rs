//! How fast the inventory takes records in and gives names out.
//!
//! `cargo run --release --example inventory_speed [FILES]` (default 1 000 000) applies a first scan, churn and the rename of a
//! directory that holds them all, in a temporary directory, and prints one line each. A measurement, not a test.

mod made;

use std::ops::ControlFlow;

use keepwatch_engine::inventory::{Host, Inventory, ListQuery};
use keepwatch_engine::model::{Cursor, JournalId, Op, Record, Seq, Timestamp};
use keepwatch_journal::ChainHash;
use made::{Failure, Pen, Start};

const BATCH: usize = 16_384;

fn apply(inventory: &mut Inventory, what: &str, records: &[Record]) -> Result<(), Failure> {
    let start = Start::now();
    for batch in records.chunks(BATCH) {
        let seq = batch.last().map_or(Seq::ZERO, |record| record.seq);
        inventory.apply(batch, Cursor { journal: JournalId(uuid::Uuid::nil()), seq, hash: ChainHash([1; 32]) })?;
    }
    report(what, records.len() as u64, &start);
    Ok(())
}

fn report(what: &str, count: u64, start: &Start) {
    let (wall, cpu) = (start.wall.elapsed().as_secs_f64(), start.cpu().as_secs_f64());
    let count_f64 = count as f64;
    println!("{what:38} {count:9} in {wall:7.3} s, {cpu:7.3} s of cpu = {:9.0} /s of cpu", count_f64 / cpu);
}

fn main() -> Result<(), Failure> {
    let files: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("inventory.db");
    let mut inventory = Inventory::open(&database, &Host { id: "speed".into(), name: "speed".into() })?;
    let mut pen = Pen::new();

    let mut scan = vec![pen.config()];
    (0..files).try_for_each(|number| pen.found(number, &mut scan))?;
    apply(&mut inventory, "first scan", &scan)?;
    drop(scan);

    let settled = (0..files).map(|number| pen.settled(number)).collect::<Result<Vec<_>, _>>()?;
    apply(&mut inventory, "settled, in order", &settled)?;
    drop(settled);

    let mut churn = Vec::new();
    (0..files / 5).try_for_each(|round| pen.churn(files, round, &mut churn))?;
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

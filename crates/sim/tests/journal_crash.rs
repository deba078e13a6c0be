//! The journal on a disk that crashes and fails: whatever was acknowledged is there afterwards, the chain verifies,
//! and the seqs have no hole.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepwatch_journal::{
    Body, Cursor, Disk, Gap, GapReason, Reader, RelPath, Seq, Timestamp, VerifyOptions, Writer, WriterOptions,
    compress_closed, verify,
};
use keepwatch_sim::disk::{Fault, SimDisk};

const STATE: &str = "/state";
/// Batches of a run; each has as many records as its number says, modulo 4, and one more.
const BATCHES: u64 = 8;
const RECORDS: usize = 20;

/// How many: few by default, many when KEEPWATCH_FULL is set.
fn sized<T>(small: T, full: T) -> T {
    if std::env::var_os("KEEPWATCH_FULL").is_some() { full } else { small }
}

fn dir() -> PathBuf {
    Path::new(STATE).join("journal")
}

fn options() -> WriterOptions {
    // Small enough that every run rolls, reserves room several times, and falls out of the memory of recent batches.
    WriterOptions { roll_bytes: 1_500, prealloc_bytes: 700, tail_bytes: 600, ..WriterOptions::new("sim") }
}

fn at(batch: u64) -> Timestamp {
    // The day changes in the middle of a run.
    Timestamp(1_800_000_000_000_000_000 + i64::try_from(batch).unwrap() * 10_000_000_000_000)
}

fn body(batch: u64, index: u64) -> Body {
    Body::Gap(Gap {
        root: None,
        path: RelPath::new(format!("dir/{index}")).unwrap(),
        reason: GapReason::Asked,
        since: None,
        note: Some(format!("{batch}.{index}: {}", "x".repeat(60))),
    })
}

fn open(disk: &SimDisk, batch: u64) -> Result<(Writer, keepwatch_journal::Recovery), keepwatch_journal::OpenError> {
    Writer::open(Arc::new(disk.clone()), &dir(), at(batch), options())
}

/// Writes batches, compressing in between, for as long as the disk lets it; returns what was acknowledged.
/// A failed commit is tried again `patience` times.
fn write(disk: &SimDisk, patience: usize) -> Option<(Cursor, Vec<String>)> {
    let (mut writer, recovery) = open(disk, 0).ok()?;
    let mut acknowledged = (recovery.head, Vec::new());
    let mut left = patience;
    for batch in 0..BATCHES {
        let mut notes = Vec::new();
        for index in 0..=batch % 4 {
            let seq = writer.append(at(batch), &body(batch, index));
            notes.push(format!("{seq}={batch}.{index}"));
        }
        loop {
            match writer.commit() {
                Ok(cursor) => {
                    acknowledged.0 = cursor;
                    acknowledged.1.extend(notes);
                    break;
                }
                Err(_) if left > 0 => left -= 1,
                Err(_) => return Some(acknowledged),
            }
        }
        if batch % 3 == 2 {
            // A failure leaves the plain file; it is tried again later.
            let _ = compress_closed(disk, &dir(), acknowledged.0);
        }
    }
    let _ = writer.close();
    Some(acknowledged)
}

/// What the journal holds, as `seq=batch.index`.
fn read(disk: &SimDisk) -> Vec<String> {
    let mut reader = Reader::open(Arc::new(disk.clone()), &dir(), Seq::ZERO).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records.iter() {
            let Body::Gap(gap) = &record.body else { panic!("only gaps were written") };
            let note = gap.note.as_ref().unwrap();
            found.push(format!("{}={}", record.seq, note.split(':').next().unwrap()));
        }
    }
    found
}

/// Opens again, checks everything, goes on writing, and cuts the power once more.
fn check(disk: &SimDisk, acknowledged: Option<(Cursor, Vec<String>)>, run: &str) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut writer, recovery) = open(disk, 9).unwrap_or_else(|error| panic!("{run}: {error}\n{:#?}", disk.paths()));
    let found = read(disk);
    let seqs: Vec<u64> = found.iter().map(|text| text.split('=').next().unwrap().parse().unwrap()).collect();
    assert_eq!(seqs, (1..=found.len() as u64).collect::<Vec<_>>(), "{run}: holes");
    assert_eq!(recovery.head.seq.0, found.len() as u64, "{run}");
    if let Some((cursor, records)) = acknowledged {
        assert!(found.starts_with(&records), "{run}: acknowledged {records:?}, found {found:?}");
        let followed = Reader::open_at(Arc::clone(&shared), &dir(), cursor);
        assert!(followed.is_ok(), "{run}: {}", followed.err().unwrap());
    }
    let seq = writer.append(at(9), &body(9, 9));
    assert_eq!(seq.0, found.len() as u64 + 1, "{run}");
    let head = writer.commit().unwrap_or_else(|error| panic!("{run}: {error}"));
    assert_eq!(read(disk).len() as u64, seq.0, "{run}");
    let report = verify(disk, &dir(), &VerifyOptions { head: Some(head), deep: true }).unwrap();
    assert!(report.findings.is_empty(), "{run}: {:#?}", report.findings);
    assert_eq!(report.records, seq.0, "{run}");
    disk.restart(1);
    assert_eq!(read(disk).len() as u64, seq.0, "{run}: lost after it was acknowledged");
}

fn new_disk() -> SimDisk {
    SimDisk::with_dir(Path::new(STATE))
}

fn operations_of_a_run() -> u64 {
    let disk = new_disk();
    write(&disk, 0).unwrap();
    assert_eq!(read(&disk).len(), RECORDS, "the run itself is sound");
    assert!(disk.paths().iter().any(|path| path.to_string_lossy().ends_with(".zst")), "it compresses");
    disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let operations = operations_of_a_run();
    assert!(operations > 40, "a run of {operations} operations proves little");
    let seeds = sized(12, 100);
    for operation in 1..=operations + 1 {
        for seed in 0..seeds {
            let disk = new_disk();
            disk.cut_power_at(operation);
            let acknowledged = write(&disk, 0);
            disk.restart(seed);
            check(&disk, acknowledged, &format!("cut at {operation}, seed {seed}"));
        }
    }
    eprintln!("{} power cuts: {seeds} at each of {operations} operations and after them", seeds * (operations + 1));
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_either() {
    let (step, seconds) = sized((3, 12), (1, 20));
    for operation in (1..=operations_of_a_run()).step_by(step) {
        for second in 1..seconds {
            let disk = new_disk();
            disk.cut_power_at(operation);
            let acknowledged = write(&disk, 0);
            disk.restart(second);
            disk.cut_power_at(disk.operations() + second);
            let _ = open(&disk, 9);
            disk.restart(second + 100);
            check(&disk, acknowledged, &format!("cut at {operation}, then {second}"));
        }
    }
}

#[test]
fn any_operation_may_fail_and_the_writer_goes_on_in_a_new_file() {
    for operation in 1..=operations_of_a_run() {
        for fault in [Fault::NoSpace, Fault::Io] {
            for seed in 0..sized(4, 40) {
                let disk = new_disk();
                disk.fail_at(operation, fault);
                let acknowledged = write(&disk, 1);
                let run = format!("{fault:?} at {operation}, seed {seed}");
                if let Some((_, records)) = &acknowledged {
                    assert_eq!(records.len(), RECORDS, "{run}: one failure must not stop the writer");
                    assert_eq!(read(&disk), *records, "{run}");
                }
                disk.restart(seed);
                check(&disk, acknowledged, &run);
            }
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_proved_before_it_counts() {
    for operation in 1..=operations_of_a_run() {
        let disk = new_disk();
        disk.fail_at(operation, Fault::Io);
        let acknowledged = write(&disk, 0);
        disk.restart_program_only();
        check(&disk, acknowledged, &format!("{operation} failed, program started again"));
    }
}

#[test]
fn a_full_disk_piles_up_no_files() {
    let disk = new_disk();
    let (mut writer, _) = open(&disk, 0).unwrap();
    writer.append(at(0), &body(0, 0));
    writer.commit().unwrap();
    writer.append(at(0), &body(0, 1));
    disk.fill_up(true);
    for _ in 0..20 {
        writer.commit().unwrap_err();
    }
    assert_eq!(disk.paths().len(), 1, "{:?}", disk.paths());
    disk.fill_up(false);
    writer.commit().unwrap();
    assert_eq!(read(&disk), ["1=0.0", "2=0.1"]);
}

#[test]
fn discarded_records_leave_no_hole() {
    let disk = new_disk();
    let (mut writer, _) = open(&disk, 0).unwrap();
    writer.append(at(0), &body(0, 0));
    writer.commit().unwrap();
    writer.append(at(1), &body(1, 0));
    writer.append(at(1), &body(1, 1));
    assert_eq!(writer.pending().0, 2);
    disk.fill_up(true);
    writer.commit().unwrap_err();
    disk.fill_up(false);
    writer.discard_pending();
    assert_eq!(writer.append(at(2), &body(2, 0)), Seq(2));
    writer.commit().unwrap();
    assert_eq!(read(&disk), ["1=0.0", "2=2.0"]);
    check(&disk, None, "after discarding");
}

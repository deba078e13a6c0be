//! The service killed at random moments under churn: what a reader was shown is never taken back, the chain goes on
//! without a hole, and the inventory is exact again.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use disturb::{Churn, Ground};
use keepwatch_journal::{Reader, RealDisk, Seq};
use serde_json::Value;
use support::{Dice, Keepwatch, sized, wait_for};

/// One reader that follows the journal's files beside the service, and remembers what it was shown, byte for byte.
struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Vec<u8>>>>,
    from: u64,
}

impl Follower {
    /// Follows from the record behind `after` on.
    fn behind(journal: PathBuf, after: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut shown: Vec<Vec<u8>> = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                // Beside a live writer a batch that is just being written may look torn: then it is read again.
                let seq = Seq(after + shown.len() as u64);
                if let Ok(mut reader) = Reader::open(Arc::new(RealDisk), &journal, seq) {
                    while let Ok(Some(batch)) = reader.next_batch() {
                        for (record, line) in batch.records.iter().zip(batch.lines()) {
                            assert_eq!(record.seq.0, after + shown.len() as u64 + 1, "a reader was shown a hole");
                            shown.push(line.to_vec());
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            shown
        });
        Follower { stop, thread: Some(thread), from: after + 1 }
    }

    /// Stops reading; every record that was shown must be in the journal still.
    fn assert_kept(mut self, keepwatch: &Keepwatch) -> usize {
        self.stop.store(true, Ordering::Release);
        let shown = self.thread.take().unwrap().join().unwrap();
        let from = self.from.to_string();
        let out = keepwatch.ok(&["journal", "cat", "--from", &from]);
        let there: Vec<&[u8]> = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        assert!(there.len() >= shown.len(), "{} records were shown, {} are there", shown.len(), there.len());
        for (index, line) in shown.iter().enumerate() {
            assert_eq!(
                String::from_utf8_lossy(line),
                String::from_utf8_lossy(there[index]),
                "record {} is not what a reader was shown",
                self.from + index as u64
            );
        }
        shown.len()
    }
}

/// The chain of a journal that nobody writes is sound, but for bytes behind its end that a crash may leave. Its head.
fn assert_sound_but_torn(keepwatch: &Keepwatch, kept_head: Option<&str>) -> Option<String> {
    let mut args = vec!["journal", "verify", "--json"];
    args.extend(kept_head.into_iter().flat_map(|head| ["--head", head]));
    let output = keepwatch.ask(&args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["kind"], "torn", "{report}");
    }
    report["head"].as_str().map(str::to_owned)
}

/// The seq of a head as it is printed.
fn seq_of(keepwatch: &Keepwatch) -> u64 {
    let line: Value = serde_json::from_slice(&keepwatch.ok(&["journal", "head", "--json"])).unwrap();
    line["seq"].as_u64().unwrap()
}

/// No hole in `seq` from the first record on.
fn assert_no_hole(keepwatch: &Keepwatch) {
    for (record, seq) in keepwatch.records().iter().zip(1_u64..) {
        assert_eq!(record["seq"].as_u64(), Some(seq));
    }
}

#[test]
fn killed_at_random_moments_it_loses_nothing_that_was_shown() {
    let ground = Ground::new();
    let tree = ground.tree();
    let mut dice = Dice::new(0xC4A5);
    let mut keepwatch = Keepwatch::on(&ground.state(), &tree);
    keepwatch.start_and_settle();
    let (mut shown, mut torn, mut head) = (0, 0, None);
    let rounds = sized(15, 200);
    for round in 0..rounds {
        let follower = Follower::behind(keepwatch.state.join("journal"), seq_of(&keepwatch));
        let churn = Churn::on(&tree, 1 + round as u64);
        if dice.below(3) == 0 {
            // Once more in the middle of start-up and its scan.
            keepwatch.kill();
            keepwatch.launch();
        }
        std::thread::sleep(Duration::from_millis(dice.below(400) as u64));
        keepwatch.kill();
        head = assert_sound_but_torn(&keepwatch, head.as_deref());
        if keepwatch.state.join("journal/torn").is_dir() {
            torn = fs::read_dir(keepwatch.state.join("journal/torn")).unwrap().count();
        }
        shown += follower.assert_kept(&keepwatch);
        keepwatch.start();
        churn.stop();
        keepwatch.settle();
        keepwatch.assert_same(&tree);
        if round % 5 == 0 {
            keepwatch.kill();
            // A kill leaves at most a tail; the next start sets it aside, and then both verifiers find nothing at all.
            keepwatch.start();
            keepwatch.stop();
            keepwatch.assert_verifies();
            keepwatch.start_and_settle();
        }
    }
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&tree);
    assert_no_hole(&keepwatch);
    assert!(shown > rounds * 10, "only {shown} records were shown in {rounds} rounds");
    eprintln!("{rounds} kills, {shown} records shown and kept, {torn} torn tails");
}

#[test]
fn a_journal_cut_in_mid_batch_by_a_kill_is_set_aside_told_and_scanned_for() {
    let ground = Ground::new();
    let tree = ground.tree();
    let mut keepwatch = Keepwatch::on(&ground.state(), &tree);
    keepwatch.start_and_settle();
    fs::write(tree.join("before"), "1").unwrap();
    keepwatch.assert_same(&tree);
    keepwatch.kill();
    // What a kill between write and commit line leaves.
    let file = disturb::journal_files(&keepwatch.state).pop().unwrap();
    let text = fs::read(&file).unwrap();
    let end = text.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let half = b"{\"seq\":999,\"at\":\"2026-01-01T00:00:00Z\",\"do\":\"crea";
    fs::File::options().write(true).open(&file).unwrap().write_at(half, end as u64).unwrap();
    fs::write(tree.join("meanwhile"), "2").unwrap();

    keepwatch.start_and_settle();
    keepwatch.assert_same(&tree);
    assert!(keepwatch.log_text().contains("torn and set aside"), "{}", keepwatch.log_text());
    let kept: Vec<PathBuf> =
        fs::read_dir(keepwatch.state.join("journal/torn")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), half);
    let gaps: Vec<Value> = keepwatch.records().into_iter().filter(|record| record["reason"] == "torn").collect();
    assert_eq!(gaps.len(), 1, "a torn tail opens one gap");
    keepwatch.stop();
    keepwatch.assert_verifies();
}

#[test]
fn a_clean_stop_under_load_leaves_nothing_half_written() {
    let ground = Ground::new();
    let tree = ground.tree();
    let mut keepwatch = Keepwatch::on(&ground.state(), &tree);
    keepwatch.start_and_settle();
    for round in 0..sized(5, 40) {
        let follower = Follower::behind(keepwatch.state.join("journal"), seq_of(&keepwatch));
        let churn = Churn::on(&tree, 900 + round as u64);
        wait_for("the churn is journaled", || seq_of(&keepwatch) > follower.from + 100);
        keepwatch.stop();
        // Nothing torn, nothing reserved, every record acknowledged: both verifiers agree before any restart.
        keepwatch.assert_verifies();
        follower.assert_kept(&keepwatch);
        let status = keepwatch.status().expect("status answers without a service");
        assert!(status["service"].is_null(), "{status}");
        assert_eq!(status["roots"][0]["state"], "stopped");
        assert_eq!(status["journal"]["seq"].as_u64(), Some(seq_of(&keepwatch)), "the inventory has all of it");
        keepwatch.start();
        churn.stop();
        keepwatch.settle();
        keepwatch.assert_same(&tree);
        assert!(!keepwatch.state.join("journal/torn").exists(), "a clean stop left a torn tail");
    }
    keepwatch.stop();
    keepwatch.assert_last_records(&tree);
}

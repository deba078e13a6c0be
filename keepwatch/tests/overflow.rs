//! More happens than can be heard: what was missed is said, found and mended, and memory stays bounded.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::path::Path;
use std::time::Instant;

use disturb::Ground;
use serde_json::Value;
use support::{Keepwatch, one_root, sized};

/// The most memory that the service may ever have held, whatever it missed.
const MEMORY_MAX_KIB: u64 = 200 * 1024;

fn started(ground: &Ground, method: &str, backlog_max: usize) -> Keepwatch {
    let tree = ground.tree();
    // Known, and watched, before: else the kernel would tell nothing of what is done in them.
    for dir_no in 0..sized(40, 300) {
        fs::create_dir_all(tree.join(format!("dir {dir_no}"))).unwrap();
    }
    let toml = format!("backlog_max = {backlog_max}\n{}", one_root(&tree, method));
    let mut keepwatch = Keepwatch::configured(&ground.state(), &toml);
    keepwatch.start_and_settle();
    keepwatch
}

/// `operations` of them, each a thing done to a name: files made, written, renamed, removed, in directories that are renamed
/// and removed, too. What a call does in two steps, as a write that makes its file, is counted once.
fn storm(tree: &Path, operations: usize) {
    const FILES: usize = 400;
    let mut done = 0;
    for dir_no in 0.. {
        let dir = tree.join(format!("dir {dir_no}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES {
            let path = dir.join(format!("{file}"));
            fs::write(&path, format!("{dir_no}")).unwrap();
            match file % 4 {
                0 => fs::remove_file(&path).unwrap(),
                1 => fs::rename(&path, dir.join(format!("renamed {file}"))).unwrap(),
                2 => fs::write(&path, "written again").unwrap(),
                _ => {}
            }
            done += if file % 4 == 3 { 1 } else { 2 };
        }
        match dir_no % 5 {
            0 => fs::rename(&dir, tree.join(format!("renamed {dir_no}"))).unwrap(),
            1 => fs::remove_dir_all(&dir).unwrap(),
            _ => {}
        }
        if done >= operations {
            return;
        }
    }
}

/// What was told of gaps from this record on.
fn gaps(keepwatch: &Keepwatch, from: u64) -> Vec<Value> {
    let out = keepwatch.ok(&["journal", "cat", "--from", &from.to_string()]);
    // Only these are read as JSON: there are hundreds of thousands of others.
    let lines = String::from_utf8(out).unwrap();
    let told = lines.lines().filter(|line| line.contains("\"do\":\"gap"));
    told.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn memory_peak_kib(keepwatch: &Keepwatch) -> u64 {
    let status = support::read_text(Path::new(&format!("/proc/{}/status", keepwatch.pid())));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn stop_during_a_storm(method: &str, backlog_max: usize) {
    let ground = Ground::with_room("2g");
    let tree = ground.tree();
    let mut keepwatch = started(&ground, method, backlog_max);
    fs::write(tree.join("before"), "x").unwrap();
    let next = keepwatch.caught_up();
    keepwatch.signal("STOP");
    let operations = sized(30_000, 500_000);
    storm(&tree, operations);
    keepwatch.signal("CONT");
    let heard = Instant::now();
    let is_overflow = |record: &Value| record["do"] == "gap" && record["reason"] == "overflow";
    support::wait_for("the loss is journaled", || gaps(&keepwatch, next).iter().any(is_overflow));
    keepwatch.settle();
    keepwatch.assert_same(&tree);
    let seconds = heard.elapsed().as_secs_f64();
    let gaps = gaps(&keepwatch, next);
    let lost: Vec<&Value> = gaps.iter().filter(|record| is_overflow(record)).collect();
    for gap in &lost {
        let closed = gaps.iter().any(|record| record["do"] == "gap_closed" && record["gap"] == gap["seq"]);
        assert!(closed, "{gap} is open still");
    }
    // After the repair it hears as before.
    fs::write(tree.join("after"), "x").unwrap();
    keepwatch.assert_same(&tree);
    let peak = memory_peak_kib(&keepwatch);
    let lost = lost.len();
    eprintln!("{method}: {operations} operations unheard, {lost} gaps, exact {seconds:.1} s later, {peak} KiB at most");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&tree);
}

#[test]
fn a_backlog_that_runs_over_is_a_gap_and_is_repaired() {
    stop_during_a_storm("fanotify", 1_000);
}

#[test]
fn a_queue_of_the_kernel_that_runs_over_is_a_gap_and_is_repaired() {
    // Our own cap is far above the kernel's 16 384: it is the kernel that loses.
    let max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    if max.trim().parse::<usize>().unwrap() > 60_000 {
        return support::skipped("a_queue_of_the_kernel_that_runs_over", "fs.inotify.max_queued_events is raised here");
    }
    stop_during_a_storm("inotify", 10_000_000);
}

#[test]
fn a_storm_that_the_service_sees_ends_right_with_the_smallest_backlog() {
    for method in ["fanotify", "inotify"] {
        let ground = Ground::with_room("2g");
        let tree = ground.tree();
        let mut keepwatch = started(&ground, method, 10);
        let operations = sized(8_000, 100_000);
        storm(&tree, operations);
        keepwatch.settle();
        keepwatch.assert_same(&tree);
        keepwatch.stop();
        keepwatch.assert_same(&tree);
        keepwatch.assert_verifies();
        keepwatch.assert_last_records(&tree);
        let records = gaps(&keepwatch, 1);
        let told = records.iter().filter(|record| record["reason"] == "overflow").count();
        let logged = keepwatch.log_text().matches("may have been missed").count();
        assert!(told > 0 && logged <= told, "{told} gaps are logged {logged} times");
        eprintln!("{method}: {operations} operations with the smallest backlog, {told} gaps");
    }
}

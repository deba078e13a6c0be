//! The world goes wrong while the service runs: the disk of its state fills up, it is told to end or to read a
//! configuration that is broken. It says so, goes on, and is exact again.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use disturb::{Churn, Ground, Mounted};
use serde_json::Value;
use support::{Dice, Keepwatch, is_root, shake, skipped, wait_for};

/// More than what waits for a full disk may take, with all else the service needs.
const RESIDENT_MAX: u64 = 400 << 20;

/// A state directory on a small disk of its own.
struct SmallDisk {
    _mounted: Mounted,
    filler: PathBuf,
}

impl SmallDisk {
    fn under(state: &Path) -> Self {
        let mounted = Mounted::tmpfs(state, "256m");
        let filler = state.join("filler");
        // So little room is left that none can be reserved for the journal: it would outlast the rest.
        fs::write(&filler, vec![b'x'; 244 << 20]).unwrap();
        SmallDisk { _mounted: mounted, filler }
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(&self.filler).unwrap();
        for block in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; block]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

/// The largest size that the process has had in memory, in bytes.
fn resident_max(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// `status` ends with 1 and says that the journal cannot be written.
fn wait_until_told(keepwatch: &Keepwatch) {
    wait_for("status says that the journal cannot be written", || {
        let output = keepwatch.ask(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let needs = status["needs"].to_string();
        output.status.code() == Some(1) && needs.contains("journal cannot be written") && needs.contains("No space")
    });
    assert!(keepwatch.log_text().contains("changes wait in memory"), "{}", keepwatch.log_text());
}

/// A file that the journal tried and gave up leaves a little room: that is filled too.
fn wait_until_records_wait(keepwatch: &Keepwatch, disk: &SmallDisk) {
    wait_for("records wait", || {
        disk.fill();
        keepwatch.status().unwrap()["journal"]["pending"].as_u64().unwrap() > 0
    });
}

fn wait_until_well(keepwatch: &Keepwatch) {
    wait_for("status is fine again", || keepwatch.ask(&["status"]).status.code() == Some(0));
    assert!(keepwatch.log_text().contains("the journal can be written again"), "{}", keepwatch.log_text());
}

fn reasons(keepwatch: &Keepwatch) -> Vec<String> {
    let gaps = keepwatch.records().into_iter().filter(|record| record["do"] == "gap");
    gaps.map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

/// A service on a disk that is full, and has been said to be.
fn on_a_full_disk(ground: &Ground) -> (SmallDisk, Keepwatch) {
    let disk = SmallDisk::under(&ground.state());
    let mut keepwatch = Keepwatch::on(&ground.state(), &ground.tree());
    keepwatch.start_and_settle();
    disk.fill();
    let churn = Churn::on(&ground.tree(), 4);
    wait_for("the journal cannot be written", || {
        disk.fill();
        keepwatch.status().is_some_and(|status| status["needs"].to_string().contains("journal cannot be written"))
    });
    churn.stop();
    wait_until_told(&keepwatch);
    (disk, keepwatch)
}

/// Files whose records are large because their paths are long.
struct Deep {
    dir: PathBuf,
    made: usize,
}

impl Deep {
    fn in_tree(tree: &Path) -> Self {
        let dir = (0..8).fold(tree.to_owned(), |dir, level| dir.join(format!("{level}").repeat(240)));
        fs::create_dir_all(&dir).unwrap();
        Deep { dir, made: 0 }
    }

    fn add(&mut self, count: usize) {
        for _ in 0..count {
            self.made += 1;
            fs::write(self.dir.join(self.made.to_string()), "").unwrap();
        }
    }
}

#[test]
fn a_disk_full_for_a_short_time_costs_nothing() {
    if !is_root() {
        return skipped("a_disk_full_for_a_short_time_costs_nothing", "only root can mount");
    }
    let ground = Ground::new();
    let (disk, mut keepwatch) = on_a_full_disk(&ground);
    shake(&ground.tree(), &mut Dice::new(8), 500);
    fs::write(ground.tree().join("told all the same"), "x").unwrap();
    wait_until_records_wait(&keepwatch, &disk);
    disk.make_room();
    wait_until_well(&keepwatch);
    keepwatch.settle();
    keepwatch.assert_same(&ground.tree());
    assert!(!reasons(&keepwatch).contains(&"journal".to_owned()), "what fits in memory needs no gap");
    assert!(resident_max(keepwatch.pid()) < RESIDENT_MAX);
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&ground.tree());
}

#[test]
fn a_disk_full_for_a_long_time_costs_a_gap() {
    if !is_root() {
        return skipped("a_disk_full_for_a_long_time_costs_a_gap", "only root can mount");
    }
    let ground = Ground::new();
    let (disk, mut keepwatch) = on_a_full_disk(&ground);
    let mut deep = Deep::in_tree(&ground.tree().join("again"));
    wait_for("so much waits that it is dropped", || {
        deep.add(2_000);
        disk.fill();
        keepwatch.log_text().contains("a gap and a scan will follow")
    });
    // Things that only the dropped records told of, and things that went while nothing could be kept.
    shake(&ground.tree(), &mut Dice::new(9), 500);
    fs::remove_dir_all(ground.tree().join("again")).unwrap();
    assert_eq!(keepwatch.ask(&["status"]).status.code(), Some(1), "it runs on, and still says so");
    let peak = resident_max(keepwatch.pid());
    assert!(peak < RESIDENT_MAX, "{} MiB", peak >> 20);
    disk.make_room();
    wait_until_well(&keepwatch);
    keepwatch.settle();
    keepwatch.assert_same(&ground.tree());
    assert!(reasons(&keepwatch).contains(&"journal".to_owned()), "{:?}", reasons(&keepwatch));
    let records = keepwatch.records();
    let gap = records.iter().find(|record| record["reason"] == "journal").unwrap();
    assert!(records.iter().any(|record| record["do"] == "gap_closed" && record["gap"] == gap["seq"]));
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&ground.tree());
    eprintln!("{} MiB at most while the disk was full", peak >> 20);
}

#[test]
fn a_stop_on_a_full_disk_is_told_and_mended_at_the_next_start() {
    if !is_root() {
        return skipped("a_stop_on_a_full_disk_is_told_and_mended_at_the_next_start", "only root can mount");
    }
    let ground = Ground::new();
    let (disk, mut keepwatch) = on_a_full_disk(&ground);
    shake(&ground.tree(), &mut Dice::new(10), 300);
    wait_until_records_wait(&keepwatch, &disk);
    keepwatch.signal("TERM");
    assert_eq!(keepwatch.wait_end().code(), Some(3));
    assert!(keepwatch.log_text().contains("could not be written"), "{}", keepwatch.log_text());
    disk.make_room();
    keepwatch.start_and_settle();
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
    keepwatch.assert_verifies();
}

#[test]
fn a_second_term_ends_at_once() {
    let ground = Ground::new();
    let mut keepwatch = Keepwatch::on(&ground.state(), &ground.tree());
    keepwatch.start_and_settle();
    // The first one is not heard to its end while the process does not run.
    keepwatch.signal("STOP");
    keepwatch.signal("TERM");
    keepwatch.signal("CONT");
    keepwatch.signal("TERM");
    let status = keepwatch.wait_end();
    assert!(status.success() || status.signal() == Some(15), "{status}");
    keepwatch.start_and_settle();
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
    keepwatch.assert_verifies();
}

#[test]
fn a_reload_adds_a_root_and_refuses_what_is_broken() {
    let ground = Ground::new();
    let (tree, other) = (ground.tree(), ground.path().join("quiet/other"));
    shake(&tree, &mut Dice::new(1), 100);
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("was there before"), "x").unwrap();
    let one = format!("[roots.tree]\npath = {tree:?}\n");
    let two = format!("{one}[roots.other]\npath = {other:?}\n");
    let mut keepwatch = Keepwatch::configured(&ground.state(), &one);
    let config = keepwatch.config.clone().unwrap();
    keepwatch.start_and_settle();
    let roots = |keepwatch: &Keepwatch| {
        let status = keepwatch.status();
        status
            .map_or(0, |status| if status["service"].is_null() { 0 } else { status["roots"].as_array().unwrap().len() })
    };

    fs::write(&config, &two).unwrap();
    keepwatch.signal("HUP");
    wait_for("the other root is watched", || roots(&keepwatch) == 2);
    keepwatch.settle();
    assert!(keepwatch.listed().contains_key(&b"was there before"[..]));
    fs::write(other.join("came later"), "x").unwrap();
    wait_for("changes in it are noticed", || keepwatch.listed().contains_key(&b"came later"[..]));

    let nested = format!("{two}[roots.nested]\npath = {:?}\n", tree.join("d0"));
    let file = format!("{two}[roots.file]\npath = {:?}\n", other.join("came later"));
    for (count, broken) in ["nonsense = 1\n".to_owned(), "[roots".to_owned(), nested, file].iter().enumerate() {
        let before = keepwatch.log_text().matches("the configuration was not reloaded").count();
        assert_eq!(before, count, "{}", keepwatch.log_text());
        fs::write(&config, broken).unwrap();
        keepwatch.signal("HUP");
        wait_for("the refusal is logged", || {
            keepwatch.log_text().matches("the configuration was not reloaded").count() > before
        });
        fs::write(&config, &two).unwrap();
        assert_eq!(roots(&keepwatch), 2, "{broken}");
        let name = format!("watched on {count}");
        fs::write(tree.join(&name), "x").unwrap();
        wait_for("it goes on", || keepwatch.listed().contains_key(name.as_bytes()));
    }

    // A root that is taken out is not watched any more, and what was in it is not deleted.
    fs::write(&config, &one).unwrap();
    keepwatch.signal("HUP");
    wait_for("one root is left", || roots(&keepwatch) == 1);
    keepwatch.settle();
    keepwatch.stop();
    assert!(keepwatch.records().iter().all(|record| record["root"] != "other" || record["do"] != "delete"));
    keepwatch.assert_verifies();
}

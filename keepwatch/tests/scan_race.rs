//! Scans that walk over a tree while it changes: no old observation overwrites what happened after it.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Dice, Keepwatch, bytes, one_root, sized};

/// Directories that are renamed all the time and never removed.
const WANDERERS: usize = 12;
const PLACES: usize = 6;
/// Enough for as many scans as it takes.
const RACE_MAX: Duration = Duration::from_secs(1_200);

/// What the writers know of the scans, and how much they have done.
#[derive(Default)]
struct Race {
    /// A scan walks now.
    walking: AtomicBool,
    /// Scans that were seen to walk.
    scans: AtomicUsize,
    /// Changes made while one walked.
    changes: AtomicUsize,
    done: AtomicBool,
}

impl Race {
    /// Sees whether one of the service's threads scans, until all is done.
    fn observe(&self, pid: u32) {
        let is_scan = |task: fs::DirEntry| {
            let name = fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == "scan")
        };
        while !self.done.load(Ordering::Acquire) {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let walking = tasks.flatten().any(is_scan);
            if walking && !self.walking.swap(walking, Ordering::AcqRel) {
                self.scans.fetch_add(1, Ordering::Relaxed);
            }
            self.walking.store(walking, Ordering::Release);
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Renames wandering directories between places, until enough was done while scans walked; the last thing it does to each
/// is nothing but a rename.
fn wander(tree: &Path, seed: u64, mine: &[usize], race: &Race, enough: usize) {
    let mut dice = Dice::new(seed);
    let mut at: BTreeMap<usize, (usize, usize)> = mine.iter().map(|one| (*one, (one % PLACES, 0))).collect();
    let path = |one: usize, (place, turn): (usize, usize)| tree.join(format!("p{place}/w{one}-{turn}"));
    let start = Instant::now();
    for count in 0.. {
        if race.changes.load(Ordering::Relaxed) >= enough {
            return;
        }
        assert!(start.elapsed() < RACE_MAX, "{} changes in {RACE_MAX:?}", race.changes.load(Ordering::Relaxed));
        let one = mine[dice.below(mine.len())];
        let from = at[&one];
        let to = (dice.below(PLACES), (from.1 + 1) % 3);
        fs::rename(path(one, from), path(one, to)).unwrap();
        at.insert(one, to);
        let dir = path(one, to);
        // What they hold changes, too, and comes and goes.
        let name = |dice: &mut Dice| dir.join(format!("f{}", dice.below(4)));
        let _ = match dice.below(6) {
            0 => fs::write(name(&mut dice), vec![b'x'; count % 50]),
            1 => fs::remove_file(name(&mut dice)),
            2 => fs::rename(name(&mut dice), name(&mut dice)),
            3 => fs::create_dir_all(dir.join(format!("d{}/e", dice.below(3)))),
            4 => fs::remove_dir_all(dir.join(format!("d{}", dice.below(3)))),
            _ => fs::write(dir.join("new"), "new").and_then(|()| fs::rename(dir.join("new"), name(&mut dice))),
        };
        if race.walking.load(Ordering::Acquire) {
            race.changes.fetch_add(1, Ordering::Relaxed);
        } else {
            // The next scan begins when what happened was heard.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn race(method: &str) {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    let mut wanderers = BTreeSet::new();
    for one in 0..WANDERERS {
        let dir = tree.join(format!("p{}/w{one}-0", one % PLACES));
        fs::create_dir_all(dir.join("keeps/this")).unwrap();
        fs::write(dir.join("keeps/this/file"), "kept").unwrap();
        wanderers.insert(inode(&dir));
        wanderers.insert(inode(&dir.join("keeps")));
        wanderers.insert(inode(&dir.join("keeps/this")));
    }
    // What never changes, in the middle of it, makes the walk long enough to be raced with.
    for place in 0..PLACES {
        for index in 0..sized(1_000, 10_000) {
            let dir = tree.join(format!("p{place}/still {}", index % 50));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(index.to_string()), "").unwrap();
        }
    }
    let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
    keepwatch.start_and_settle();
    let (enough, race, asked) = (sized(2_000, 100_000), Race::default(), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| race.observe(keepwatch.pid()));
        scope.spawn(|| {
            while !race.done.load(Ordering::Acquire) {
                let output = keepwatch.ask(&["reconcile", "--summary"]);
                let code = output.status.code();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(matches!(code, Some(0 | 1 | 3)), "{code:?}: {error}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writers = [0, 1].map(|half| {
            let mine: Vec<usize> = (0..WANDERERS).filter(|one| one % 2 == half).collect();
            let (tree, race) = (&tree, &race);
            scope.spawn(move || wander(tree, 11 + half as u64, &mine, race, enough))
        });
        let ended = writers.map(std::thread::ScopedJoinHandle::join);
        if ended.iter().all(Result::is_ok) {
            // At least one scan begins after the last change was made, and ends.
            let before = asked.load(Ordering::Relaxed);
            support::wait_for("two more scans", || asked.load(Ordering::Relaxed) >= before + 2);
        }
        race.done.store(true, Ordering::Release);
        assert!(ended.iter().all(Result::is_ok), "a writer ended early");
    });
    eprintln!(
        "{method}: {} changes while one of {} scans walked, in {:?}",
        race.changes.into_inner(),
        race.scans.into_inner(),
        start.elapsed()
    );
    keepwatch.settle();
    keepwatch.assert_same(&tree);
    keepwatch.stop();
    keepwatch.assert_same(&tree);
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&tree);
    if method == "fanotify" {
        // Inotify tells of names, not of objects: a directory that is renamed twice before its first rename is heard
        // may be told as gone and come.
        assert_never_deleted(&keepwatch, &wanderers);
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().ino()
}

/// No record says that one of these directories is gone, neither by its name nor with one above it.
fn assert_never_deleted(keepwatch: &Keepwatch, wanderers: &BTreeSet<u64>) {
    let mut known: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for record in keepwatch.changes_since(0) {
        let path = bytes(&record, "path");
        let is_within =
            |other: &[u8], dir: &[u8]| other == dir || (other.starts_with(dir) && other.get(dir.len()) == Some(&b'/'));
        if record["do"] == "delete" {
            for (other, inode) in known.iter().filter(|(other, _)| is_within(other, &path)) {
                if wanderers.contains(inode) {
                    keepwatch.keep();
                }
                assert!(!wanderers.contains(inode), "{} was only renamed: {record}", support::show(other));
            }
            known.retain(|other, _| !is_within(other, &path));
            continue;
        }
        let Some(inode) = record["inode"].as_u64().filter(|_| record["type"] == "dir") else { continue };
        // It is here now, with what is below it, wherever it was.
        let was: Vec<Vec<u8>> =
            known.iter().filter(|(_, other)| **other == inode).map(|(path, _)| path.clone()).collect();
        for from in was.into_iter().filter(|from| *from != path) {
            let below: Vec<Vec<u8>> = known.keys().filter(|other| is_within(other, &from)).cloned().collect();
            for other in below {
                let inode = known.remove(&other).unwrap();
                known.insert([&path[..], &other[from.len()..]].concat(), inode);
            }
        }
        known.insert(path, inode);
    }
}

#[test]
fn scans_race_with_what_fanotify_tells() {
    race("fanotify");
}

#[test]
fn scans_race_with_what_inotify_tells() {
    race("inotify");
}

//! Scans that walk over a tree while it changes: no old observation overwrites what happened after it.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::{Dice, Keepwatch, bytes, one_root, sized};

/// Directories that are renamed all the time and never removed.
const WANDERERS: usize = 12;
const PLACES: usize = 6;

/// Renames wandering directories between places; the last thing it does to each is nothing but a rename.
fn wander(tree: &Path, seed: u64, operations: usize, mine: &[usize]) {
    let mut dice = Dice::new(seed);
    let mut at: BTreeMap<usize, (usize, usize)> = mine.iter().map(|one| (*one, (one % PLACES, 0))).collect();
    let path = |one: usize, (place, turn): (usize, usize)| tree.join(format!("p{place}/w{one}-{turn}"));
    for count in 0..operations {
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
    let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
    keepwatch.start_and_settle();
    let (halves, done, scans) = (sized(4_000, 50_000), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let output = keepwatch.ask(&["reconcile", "--summary"]);
                let code = output.status.code();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(matches!(code, Some(0 | 1 | 3)), "{code:?}: {error}");
                scans.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writers = [0, 1].map(|half| {
            let mine: Vec<usize> = (0..WANDERERS).filter(|one| one % 2 == half).collect();
            let tree = &tree;
            scope.spawn(move || wander(tree, 11 + half as u64, halves, &mine))
        });
        for writer in writers {
            writer.join().unwrap();
        }
        // At least one scan begins after the last change was made, and ends.
        let before = scans.load(Ordering::Relaxed);
        support::wait_for("two more scans", || scans.load(Ordering::Relaxed) >= before + 2);
        done.store(true, Ordering::Release);
    });
    eprintln!("{method}: {} scans over {} changes", scans.into_inner(), 2 * halves);
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

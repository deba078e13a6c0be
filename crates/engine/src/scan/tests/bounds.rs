//! What a walk may take: chunks, pending sub-directories, descriptors.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat};

use super::{Recorder, Told, number, with_threads};
use crate::scan::{OpenDir, Options, Step, Summary};

#[test]
fn a_huge_directory_comes_in_chunks() {
    const FILES: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let open = File::open(dir.path()).unwrap();
    // Many names of few files: those are made in a moment on any disk. ext4 allows 65 000 for each.
    for first in (0..FILES).step_by(50_000) {
        let file = format!("{first}");
        openat(&open, &file, OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        for name in first + 1..first + 50_000 {
            linkat(&open, &file, &open, format!("{name}"), AtFlags::empty()).unwrap();
        }
    }
    let recorder = Recorder::default();
    let options = Options { chunk_max: number(10_000), ..with_threads(2) };
    let summary = recorder.walk(dir.path(), &options);
    assert_eq!(summary, Summary { directories: 1, entries: FILES as u64, ..Summary::default() });
    let mut all = HashSet::new();
    let mut chunks = 0;
    for told in recorder.told() {
        if let Told::Entries { names, whole, .. } = told {
            assert!(!whole);
            assert!(names.len() <= 10_000);
            chunks += 1;
            all.extend(names.into_iter().map(|(name, _)| name));
        }
    }
    assert_eq!((chunks, all.len()), (20, FILES));
}

#[test]
fn a_directory_of_very_many_sub_directories_is_read_in_turns_with_them() {
    let dir = tempfile::tempdir().unwrap();
    for sub in 0..3_000 {
        fs::create_dir(dir.path().join(format!("sub-directory {sub}"))).unwrap();
    }
    for threads in [1, 3] {
        let recorder = Recorder::default();
        let options = Options { chunk_max: number(100), subdirs_max: number(500), ..with_threads(threads) };
        let summary = recorder.walk(dir.path(), &options);
        assert_eq!(summary, Summary { directories: 3_001, entries: 3_000, ..Summary::default() });
        let told = recorder.told();
        let mut heard = HashSet::new();
        let (mut waiting, mut waiting_max) = (0_usize, 0);
        for told in &told {
            match told {
                Told::Entries { dir, names, .. } if dir.is_empty() => {
                    waiting += names.len();
                    waiting_max = waiting_max.max(waiting);
                    assert!(names.iter().all(|(name, _)| heard.insert(name)), "each once");
                }
                Told::Enter(dir) if !dir.is_empty() => {
                    assert!(heard.contains(dir), "its parent's chunk came first");
                    waiting -= 1;
                }
                _ => {}
            }
        }
        // A buffer of the kernel's and a chunk go beyond; without the bound it would be all 3 000.
        assert!((500..2_900).contains(&waiting_max), "{waiting_max}");
        let left = told.iter().filter(|told| **told == Told::Leave(Vec::new(), "Complete".to_owned())).count();
        assert_eq!(left, 1);
    }
}

#[test]
fn no_more_descriptors_are_held_than_was_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = dir.path().to_owned();
    for _ in 0..60 {
        for sub in ["a", "b", "z"] {
            fs::create_dir(at.join(sub)).unwrap();
        }
        at.push("a");
    }
    let most = |descriptors_max, threads| {
        let most = AtomicUsize::new(0);
        let count = |_: &OpenDir<'_>| {
            most.fetch_max(open_below(dir.path()), Ordering::Relaxed);
        };
        let on_enter = |dir: &OpenDir<'_>| {
            count(dir);
            Step::Read
        };
        let recorder = Recorder { on_enter: Box::new(on_enter), on_entries: Box::new(count), ..Recorder::default() };
        let summary = recorder.walk(dir.path(), &Options { descriptors_max, ..with_threads(threads) });
        assert_eq!(summary.directories, 181);
        drop(recorder);
        most.into_inner()
    };
    // The root's is the caller's.
    assert!(most(0, 1) <= 1 + 2);
    assert!(most(5, 2) <= 1 + 5 + 2 * 2);
    assert!(most(1_000, 1) > 20, "the tree does need more where more are allowed");
    assert_eq!(open_below(dir.path()), 0);
}

/// How many descriptors of this process are open on what lies below `dir`.
fn open_below(dir: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close theirs meanwhile.
    open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).filter(|path| path.starts_with(dir)).count()
}

//! Trees that change while they are walked, and places that cannot be read.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::RawDir;
use rustix::process::Uid;

use super::{Recorder, Told, number, with_threads};
use crate::scan::chunk::Entries;
use crate::scan::{OpenDir, Options, Seen, Step, Summary};

#[test]
fn a_sub_directory_that_goes_before_it_is_opened_is_reported_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let secret = tempfile::tempdir().unwrap();
    File::create(secret.path().join("secret")).unwrap();
    for name in ["gone", "link", "stays"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let on_entries = |open: &OpenDir<'_>| {
        if open.path.is_root() {
            fs::remove_dir(dir.path().join("gone")).unwrap();
            fs::remove_dir(dir.path().join("link")).unwrap();
            symlink(secret.path(), dir.path().join("link")).unwrap();
        }
    };
    for descriptors_max in [0, 256] {
        let _ = fs::remove_file(dir.path().join("link"));
        let _ = fs::create_dir(dir.path().join("link"));
        let _ = fs::create_dir(dir.path().join("gone"));
        let recorder = Recorder { on_entries: Box::new(on_entries), ..Recorder::default() };
        let summary = recorder.walk(dir.path(), &Options { descriptors_max, ..with_threads(1) });
        assert_eq!(summary, Summary { directories: 2, entries: 3, failed: 2, ..Summary::default() });
        let told = recorder.told();
        assert!(told.contains(&Told::Failed(b"gone".to_vec(), io::ErrorKind::NotFound)));
        assert!(told.iter().any(|told| matches!(told, Told::Failed(path, _) if path == b"link")));
        assert_eq!(told.last(), Some(&Told::Leave(b"stays".to_vec(), "Complete".to_owned())));
    }
}

#[test]
fn a_directory_that_may_not_be_read_is_reported_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("closed", 0o000), ("open", 0o755), ("unsearchable", 0o744)] {
        fs::create_dir(dir.path().join(name)).unwrap();
        File::create(dir.path().join(name).join("file")).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let recorder = Recorder::default();
    let summary = thread::scope(|scope| {
        let as_nobody = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                // Of this thread alone; it has to do all the walking.
                rustix::thread::set_thread_uid(Uid::from_raw(65_534)).unwrap();
            } else {
                fs::set_permissions(dir.path().join("unsearchable"), fs::Permissions::from_mode(0o400)).unwrap();
            }
            recorder.walk(dir.path(), &with_threads(1))
        });
        as_nobody.join().unwrap()
    });
    // Those who own nothing here may not ask for O_NOATIME either, and read `open` all the same.
    assert_eq!(summary, Summary { directories: 3, entries: 4, failed: 2, ..Summary::default() });
    let told = recorder.told();
    assert!(told.contains(&Told::Failed(b"closed".to_vec(), io::ErrorKind::PermissionDenied)));
    let refused = vec![(b"file".to_vec(), Seen::Failed(rustix::io::Errno::ACCESS))];
    assert!(told.contains(&Told::Entries { dir: b"unsearchable".to_vec(), names: refused, whole: true }));
}

#[test]
fn an_entry_that_goes_before_it_is_looked_at_has_vanished() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("gone")).unwrap();
    File::create(dir.path().join("stays")).unwrap();
    let open = File::open(dir.path()).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut listed = RawDir::new(&open, &mut buffer);
    let mut entries = Entries::default();
    while let Some(entry) = listed.next() {
        let entry = entry.unwrap();
        if !entry.file_name().to_bytes().starts_with(b".") {
            entries.push(&entry);
        }
    }
    fs::remove_file(dir.path().join("gone")).unwrap();
    assert!(entries.look(open.as_fd(), || false));
    let seen: Vec<_> = entries.chunk(true).iter().map(|entry| (entry.name, entry.seen)).collect();
    assert!(matches!(seen[..], [(b"gone", Seen::Vanished), (b"stays", Seen::There(_))]), "{seen:?}");
}

#[test]
fn what_stays_is_seen_exactly_once_whatever_else_is_renamed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    for sub in 0..8 {
        fs::create_dir(dir.path().join(format!("sub {sub}"))).unwrap();
        for file in 0..200 {
            File::create(dir.path().join(format!("sub {sub}/stable {file}"))).unwrap();
        }
    }
    let done = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let churn = || {
        while !done.load(Ordering::Relaxed) {
            for n in 0..100 {
                let at = |name: &str, sub| dir.path().join(format!("sub {sub}/{name} {n}"));
                File::create(at("new", n % 8)).unwrap();
                fs::rename(at("new", n % 8), at("moved", (n + 1) % 8)).unwrap();
                fs::create_dir(at("dir", n % 8)).unwrap();
                fs::rename(at("dir", n % 8), at("dir moved", (n + 3) % 8)).unwrap();
                fs::remove_file(at("moved", (n + 1) % 8)).unwrap();
                fs::remove_dir(at("dir moved", (n + 3) % 8)).unwrap();
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(churn);
        let mut walks = 0;
        while walks < 20 || rounds.load(Ordering::Relaxed) < 3 {
            let recorder = Recorder::default();
            recorder.walk(dir.path(), &Options { chunk_max: number(64), ..with_threads(2) });
            let seen = recorder.seen();
            let stable = |path: &[u8]| path.windows(6).any(|part| part == b"stable");
            let stable: Vec<_> = seen.iter().filter(|(path, _)| stable(path)).collect();
            assert_eq!(stable.len(), 1600);
            assert!(stable.iter().all(|(_, (seen, times))| matches!(seen, Seen::There(_)) && *times == 1));
            walks += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_cancelled_walk_ends_soon_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for sub in 0..100 {
        fs::create_dir(dir.path().join(format!("sub {sub}"))).unwrap();
    }
    let cancel = AtomicBool::new(false);
    let entered = AtomicUsize::new(0);
    let on_enter = |_: &OpenDir<'_>| {
        if entered.fetch_add(1, Ordering::Relaxed) == 10 {
            cancel.store(true, Ordering::Relaxed);
        }
        Step::Read
    };
    let recorder = Recorder { on_enter: Box::new(on_enter), ..Recorder::default() };
    let summary = recorder.walk(dir.path(), &Options { cancel: Some(&cancel), ..with_threads(1) });
    assert!(summary.cancelled);
    assert_eq!(entered.load(Ordering::Relaxed), 11);
    let told = recorder.told();
    assert!(matches!(told.last(), Some(Told::Leave(_, outcome)) if outcome == "Cancelled"), "{told:?}");
}

#[test]
fn a_visitor_that_panics_ends_the_walk_of_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    for sub in 0..100 {
        fs::create_dir(dir.path().join(format!("sub {sub}"))).unwrap();
    }
    let on_enter = |dir: &OpenDir<'_>| {
        assert!(!dir.path.as_bytes().ends_with(b"50"), "by intent");
        Step::Read
    };
    let recorder = Recorder { on_enter: Box::new(on_enter), ..Recorder::default() };
    assert!(catch_unwind(AssertUnwindSafe(|| recorder.walk(dir.path(), &with_threads(4)))).is_err());
}

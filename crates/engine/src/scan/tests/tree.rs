//! What is found: all of it, exactly once, with the right facts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use keepwatch_journal::FileType;
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::{Recorder, Told, os, with_threads};
use crate::scan::{Options, Seen, Stat, Summary};

#[test]
fn any_name_that_linux_allows_is_delivered_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<Vec<u8>> = (1..=255_u8)
        .filter(|byte| !b"/.".contains(byte))
        .map(|byte| vec![byte])
        .chain([b"...".to_vec(), b"..x".to_vec(), vec![0xff; 255], b"\xc3\x28 \n'\"$(x)".to_vec()])
        .collect();
    for name in &expected {
        File::create(dir.path().join(os(name))).unwrap();
    }
    let recorder = Recorder::default();
    let summary = recorder.walk(dir.path(), &with_threads(2));
    expected.sort();
    assert_eq!(summary, Summary { directories: 1, entries: expected.len() as u64, ..Summary::default() });
    let told = recorder.told();
    let Told::Entries { names, whole: true, .. } = &told[1] else { panic!("{told:?}") };
    assert!(names.iter().map(|(name, _)| name).eq(&expected), "all of them, in the order of their bytes");
}

#[test]
fn paths_beyond_path_max_are_walked_with_and_without_held_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let level = "d".repeat(200);
    let mut at: OwnedFd = File::open(dir.path()).unwrap().into();
    for _ in 0..50 {
        for name in [level.as_str(), "a", "z"] {
            mkdirat(&at, name, Mode::RWXU).unwrap();
        }
        at = openat(&at, level.as_str(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&at, "bottom", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    for descriptors_max in [0, 1, 256] {
        let recorder = Recorder::default();
        let summary = recorder.walk(dir.path(), &Options { descriptors_max, ..with_threads(2) });
        assert_eq!(summary, Summary { directories: 151, entries: 151, ..Summary::default() }, "{descriptors_max}");
        let deepest = recorder.seen().into_keys().max_by_key(Vec::len).unwrap();
        assert_eq!(deepest.len(), 50 * 201 + "bottom".len());
        assert!(deepest.ends_with(b"/bottom"));
    }
}

#[test]
fn symbolic_links_are_entries_and_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    symlink("..", dir.path().join("sub/up")).unwrap();
    symlink("self", dir.path().join("self")).unwrap();
    symlink("/", dir.path().join("out")).unwrap();
    let recorder = Recorder::default();
    let summary = recorder.walk(dir.path(), &with_threads(2));
    assert_eq!(summary, Summary { directories: 2, entries: 4, ..Summary::default() });
    for (path, (seen, times)) in recorder.seen() {
        let Seen::There(stat) = seen else { panic!("{seen:?}") };
        assert_eq!((stat.kind == FileType::Symlink, times), (path != b"sub", 1));
    }
}

#[test]
fn an_empty_directory_is_told_of_once_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    recorder.walk(dir.path(), &with_threads(1));
    let expected = [
        Told::Enter(Vec::new()),
        Told::Entries { dir: Vec::new(), names: Vec::new(), whole: true },
        Told::Leave(Vec::new(), "Complete".to_owned()),
    ];
    assert_eq!(recorder.told(), expected);
}

#[test]
fn a_walk_of_usr_equals_one_by_the_standard_library() {
    // Somebody may install a package meanwhile; not three times.
    let same = (0..3).any(|_| {
        let recorder = Recorder::default();
        let summary = recorder.walk(Path::new("/usr"), &with_threads(4));
        assert_eq!(summary.failed, 0);
        let seen = recorder.seen();
        assert!(seen.values().all(|(_, times)| *times == 1));
        let seen: BTreeMap<_, _> = seen.into_iter().map(|(path, (seen, _))| (path, seen)).collect();
        let mut expected = BTreeMap::new();
        by_the_standard_library(Path::new("/usr"), &mut expected);
        assert!(expected.len() > 100, "/usr holds something");
        seen == expected
    });
    assert!(same);
}

fn by_the_standard_library(dir: &Path, found: &mut BTreeMap<Vec<u8>, Seen>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let kind = match meta.file_type() {
            kind if kind.is_dir() => FileType::Dir,
            kind if kind.is_symlink() => FileType::Symlink,
            kind if kind.is_fifo() => FileType::Fifo,
            kind if kind.is_socket() => FileType::Socket,
            kind if kind.is_block_device() => FileType::Block,
            kind if kind.is_char_device() => FileType::Char,
            _ => FileType::File,
        };
        let stat = Stat {
            size: meta.size(),
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
            dev: meta.dev(),
            inode: meta.ino(),
            uid: meta.uid(),
            gid: meta.gid(),
            nlink: u32::try_from(meta.nlink()).unwrap(),
            mode: u16::try_from(meta.mode() & 0o7777).unwrap(),
            kind,
            mount_root: false,
        };
        let path = entry.path();
        found.insert(path.strip_prefix("/usr").unwrap().as_os_str().as_bytes().to_vec(), Seen::There(stat));
        if kind == FileType::Dir {
            by_the_standard_library(&path, found);
        }
    }
}

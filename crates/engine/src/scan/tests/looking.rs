//! Looks at single names, and opens by path.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use keepwatch_journal::{FileType, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps, mkdirat, openat};
use rustix::io::Errno;

use super::os;
use crate::beneath::{open_beneath, open_component, open_in_pieces};
use crate::scan::look::nanoseconds;
use crate::scan::{facts_of, look, stat_at, stat_of};

#[test]
fn a_look_tells_what_is_there_or_that_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let open = File::open(dir.path()).unwrap();
    let file = dir.path().join(os(b"\xff file"));
    fs::write(&file, "12345").unwrap();
    let old = Timespec { tv_sec: -2, tv_nsec: 500_000_000 };
    rustix::fs::utimensat(
        &open,
        os(b"\xff file"),
        &Timestamps { last_access: old, last_modification: old },
        AtFlags::empty(),
    )
    .unwrap();

    let facts = look(&open, b"\xff file").unwrap().unwrap();
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((facts.kind, facts.size, facts.mtime_ns), (FileType::File, 5, -1_500_000_000));
    assert_eq!((facts.dev, facts.inode, u64::from(facts.nlink)), (meta.dev(), meta.ino(), meta.nlink()));
    assert_eq!((facts.mode, facts.uid, facts.gid), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    assert_eq!(facts.ctime_ns, meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
    let statx = rustix::fs::statx(&open, os(b"\xff file"), AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
    assert_eq!(facts_of(&statx), facts);

    assert_eq!(look(&open, b"none").unwrap(), None);
    assert_eq!(look(File::open(&file).unwrap(), b"below a file").unwrap(), None);
    let itself = look(&open, b"").unwrap().unwrap();
    assert_eq!((itself.kind, itself.inode), (FileType::Dir, fs::metadata(dir.path()).unwrap().ino()));
    for name in [b"..".as_slice(), b".", b"a/b", b"/", b"a\0b"] {
        assert!(look(&open, name).is_err(), "{name:?} is not a name in this directory");
    }
}

#[test]
fn a_look_at_a_symbolic_link_reads_its_target_and_follows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = File::open(dir.path()).unwrap();
    let target = [b"\xfe/".as_slice(), &[b'x'; 3000]].concat();
    symlink(os(&target), dir.path().join("link")).unwrap();
    let facts = look(&open, b"link").unwrap().unwrap();
    assert_eq!((facts.kind, facts.size, facts.target.as_deref()), (FileType::Symlink, 3002, Some(&*target)));
}

#[test]
fn a_mount_point_is_told_from_a_directory() {
    let root = File::open("/").unwrap();
    let (root, proc) = (stat_of(root.as_fd()).unwrap(), stat_at(root.as_fd(), "proc").unwrap());
    assert!(proc.mount_root, "/proc is mounted");
    assert_ne!(proc.dev, root.dev);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    assert!(!stat_at(File::open(dir.path()).unwrap().as_fd(), "sub").unwrap().mount_root);
}

#[test]
fn moments_beyond_64_bits_of_nanoseconds_are_cut() {
    assert_eq!(nanoseconds(1, 5), 1_000_000_005);
    assert_eq!(nanoseconds(-1, 999_999_999), -1);
    assert_eq!(nanoseconds(i64::MAX, 0), i64::MAX);
    assert_eq!(nanoseconds(i64::MIN, 999_999_999), i64::MIN);
    assert_eq!(nanoseconds(-9_223_372_037, 145_224_193), i64::MIN + 1);
}

#[test]
fn a_path_is_opened_beneath_its_root_through_no_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/sub")).unwrap();
    fs::write(dir.path().join("root/sub/file"), "").unwrap();
    fs::write(dir.path().join("outside"), "").unwrap();
    symlink("..", dir.path().join("root/up")).unwrap();
    symlink(dir.path(), dir.path().join("root/absolute")).unwrap();
    symlink("sub", dir.path().join("root/inside")).unwrap();
    let root = File::open(dir.path().join("root")).unwrap();
    let path = |path: &str| RelPath::new(path).unwrap();
    let in_one = |at: &str| open_beneath(root.as_fd(), &path(at), OFlags::RDONLY);
    let by_component =
        |at: &str| open_in_pieces(root.as_fd(), &path(at), OFlags::RDONLY, 1, open_component).map_err(|_| ());
    for at in ["", "sub", "sub/file"] {
        let expected = fs::metadata(dir.path().join("root").join(at)).unwrap().ino();
        assert_eq!(stat_of(in_one(at).unwrap().as_fd()).unwrap().inode, expected);
        assert_eq!(stat_of(by_component(at).unwrap().as_fd()).unwrap().inode, expected);
    }
    for at in ["up/outside", "absolute/outside", "inside/file", "inside", "up"] {
        assert_eq!(in_one(at).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()), "{at}");
        assert!(by_component(at).is_err(), "{at}");
    }
    let link = open_beneath(root.as_fd(), &path("inside"), OFlags::PATH | OFlags::NOFOLLOW).unwrap();
    assert_eq!(stat_of(link.as_fd()).unwrap().kind, FileType::Symlink);
}

#[test]
fn a_path_longer_than_path_max_is_opened_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let root = File::open(dir.path()).unwrap();
    for name_len in [255, 127, 7] {
        let name = "n".repeat(name_len);
        let levels = 9_000 / (name_len + 1);
        let mut at = root.try_clone().unwrap().into();
        let mut path = RelPath::ROOT;
        for _ in 0..levels {
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            path = path.join(name.as_bytes());
        }
        let expected = stat_of(at.as_fd()).unwrap();
        let opened = open_beneath(root.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        assert_eq!(stat_of(opened.as_fd()).unwrap(), expected, "{name_len}");
        // The names that are short make a tree too deep for a removal that recurses.
        if name_len == 7 {
            remove_chain(&root, &name, levels);
        }
    }
}

/// Removes directories in each other, without a level of the stack for each.
fn remove_chain(root: &File, name: &str, levels: usize) {
    let down = |at, _| openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut at: OwnedFd = (1..levels).fold(root.try_clone().unwrap().into(), down);
    for _ in 0..levels {
        rustix::fs::unlinkat(&at, name, AtFlags::REMOVEDIR).unwrap();
        at = openat(&at, "..", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

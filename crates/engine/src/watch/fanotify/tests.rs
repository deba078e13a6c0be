//! Real events of real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::thread::CapabilitySet;

use super::*;
use crate::watch::feed::feed;
use crate::watch::handle;
use crate::watch::testing::{Heard, Mount, command, events, given, key, open_dir, without};

/// A file system of its own, marked.
struct Marked {
    source: Fanotify,
    heard: Heard,
    mount: Mount,
}

impl Marked {
    /// Marks it after `prepare` has made what is there from the start.
    fn new(mount: Result<Mount, String>, prepare: fn(&Path)) -> Result<Marked, String> {
        let mount = mount?;
        prepare(&mount.at);
        let (feed, receiver) = feed(100_000);
        let source = Fanotify::start(feed, std::sync::Arc::default()).map_err(|error| error.to_string())?;
        source.mark_filesystem(open_dir(&mount.at).as_fd()).map_err(|error| error.to_string())?;
        Ok(Marked { source, heard: Heard::new(receiver), mount })
    }

    fn at(&self) -> &Path {
        &self.mount.at
    }

    /// Waits until all that has happened so far was told.
    fn catch_up(&mut self) {
        fs::create_dir(self.at().join("caught up")).unwrap();
        let here = key(self.at());
        self.heard.until_event(&here, b"caught up", What::CREATE);
    }
}

#[test]
fn keys_are_those_that_events_carry() {
    for kind in ["tmpfs", "ext4", "xfs", "btrfs"] {
        let mount = if kind == "tmpfs" { Mount::tmpfs() } else { Mount::on_loop(kind) };
        let Some(mut marked) =
            given(&format!("keys_are_those_that_events_carry on {kind}"), Marked::new(mount, |_| {}))
        else {
            continue;
        };
        let dir = marked.at().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), b"1").unwrap();
        let (root_key, dir_key) = (key(marked.at()), key(&dir));
        let made = marked.heard.until_event(&root_key, b"dir", What::CREATE);
        assert!(made.is_dir, "{kind}");
        assert_eq!(made.object.as_ref(), Some(&dir_key), "{kind}");
        let written = marked.heard.until_event(&dir_key, b"file", What::CLOSE_WRITE);
        assert_eq!(written.object, handle::child_key(open_dir(&dir).as_fd(), b"file").ok(), "{kind}");
        assert!(!written.is_dir, "{kind}");

        let moved = marked.at().join("moved");
        fs::rename(&dir, &moved).unwrap();
        let mount = open_dir(marked.at());
        let opened = handle::open_by_key(mount.as_fd(), &dir_key, OFlags::PATH).unwrap();
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", opened.as_raw_fd()), vec![]);
        assert_eq!(link.unwrap().as_bytes(), moved.as_os_str().as_bytes(), "{kind}");
        assert_eq!(dir_key.fsid(), handle::fsid_of(mount.as_fd()).ok(), "{kind}");
        drop(opened);
        fs::remove_dir_all(&moved).unwrap();
        let gone = handle::open_by_key(mount.as_fd(), &dir_key, OFlags::PATH).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE), "{kind}");
    }
}

/// What is there from the start: files `old` and `dir/in`, directories `dir` and `empty`.
fn prepare(at: &Path) {
    fs::write(at.join("old"), b"old").unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/in"), b"in").unwrap();
    fs::create_dir(at.join("empty")).unwrap();
}

/// Something that is done, and what must be told of which names. A name that ends with `/` is a directory itself.
type Case = (&'static str, fn(&Path), &'static [(&'static str, What)]);

const CASES: &[Case] = &[
    (
        "a file is written",
        |at| fs::write(at.join("new"), b"1").unwrap(),
        &[("new", What::CREATE), ("new", What::MODIFY), ("new", What::CLOSE_WRITE)],
    ),
    (
        "a file is truncated",
        |at| OpenOptions::new().write(true).open(at.join("old")).unwrap().set_len(1).unwrap(),
        &[("old", What::MODIFY), ("old", What::CLOSE_WRITE)],
    ),
    (
        "a shared mapping is written",
        |at| {
            let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[0]=66\nm.close()";
            assert!(Command::new("python3").args(["-c", script]).arg(at.join("old")).status().unwrap().success());
        },
        &[("old", What::CLOSE_WRITE)],
    ),
    (
        "the mode is changed",
        |at| fs::set_permissions(at.join("old"), fs::Permissions::from_mode(0o600)).unwrap(),
        &[("old", What::ATTRIB)],
    ),
    ("a directory is made", |at| fs::create_dir(at.join("new")).unwrap(), &[("new", What::CREATE)]),
    ("a symbolic link is made", |at| symlink("x", at.join("new")).unwrap(), &[("new", What::CREATE)]),
    ("a hard link is made", |at| fs::hard_link(at.join("old"), at.join("new")).unwrap(), &[("new", What::CREATE)]),
    (
        "an unnamed file gets a name",
        |at| {
            let file = rustix::fs::open(at, OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
            rustix::io::write(&file, b"1").unwrap();
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, path, CWD, at.join("new"), AtFlags::SYMLINK_FOLLOW).unwrap();
        },
        &[("new", What::CREATE)],
    ),
    (
        "a name is no text",
        |at| fs::write(at.join(OsStr::from_bytes(b"\xff\n")), b"").unwrap(),
        &[("\u{0}", What::CREATE)],
    ),
    ("a file is unlinked", |at| fs::remove_file(at.join("old")).unwrap(), &[("old", What::DELETE)]),
    ("a directory is removed", |at| fs::remove_dir(at.join("empty")).unwrap(), &[("empty", What::DELETE)]),
    ("a directory is renamed", |at| fs::rename(at.join("dir"), at.join("new")).unwrap(), &[("dir", What::RENAME)]),
    ("a file replaces another", |at| fs::rename(at.join("old"), at.join("dir/in")).unwrap(), &[("old", What::RENAME)]),
    (
        "two files are exchanged",
        |at| rustix::fs::renameat_with(CWD, at.join("old"), CWD, at.join("dir/in"), RenameFlags::EXCHANGE).unwrap(),
        &[("old", What::RENAME), ("dir/in", What::RENAME)],
    ),
];

#[test]
fn each_operation_is_told_of_its_name() {
    for (case, act, expected) in CASES {
        let test = format!("each_operation_is_told_of_its_name: {case}");
        let Some(mut marked) = given(&test, Marked::new(Mount::tmpfs(), prepare)) else { continue };
        let at = marked.at().to_owned();
        let [top, dir, empty] = ["", "dir", "empty"].map(|name| key(&at.join(name)));
        act(&at);
        marked.catch_up();
        for (path, what) in *expected {
            let (dir, name) = match path.split_once('/') {
                Some(("empty", name)) => (&empty, name.as_bytes()),
                Some((_, name)) => (&dir, name.as_bytes()),
                None if *path == "\u{0}" => (&top, &b"\xff\n"[..]),
                None => (&top, path.as_bytes()),
            };
            let told = marked.heard.of(dir, name);
            assert!(told.has(*what), "{case}: {what:?} of {path:?} was not told: {:#?}", marked.heard.notices);
        }
    }
}

#[test]
fn a_rename_tells_both_names_and_the_object() {
    let test = "a_rename_tells_both_names_and_the_object";
    let Some(mut marked) = given(test, Marked::new(Mount::tmpfs(), prepare)) else { return };
    let at = marked.at().to_owned();
    let object = handle::child_key(open_dir(&at).as_fd(), b"old").unwrap();
    fs::rename(at.join("old"), at.join("dir/in")).unwrap();
    let event = marked.heard.until_event(&key(&at), b"old", What::RENAME);
    assert_eq!(event.to, Some(Place { dir: key(&at.join("dir")), name: b"in"[..].into() }));
    assert_eq!((event.what, event.object, event.is_dir), (What::RENAME, Some(object), false));
}

#[test]
fn the_process_behind_a_change_is_told() {
    let test = "the_process_behind_a_change_is_told";
    let Some(mut marked) = given(test, Marked::new(Mount::tmpfs(), prepare)) else { return };
    fs::write(marked.at().join("ours"), b"1").unwrap();
    let by = marked.heard.until_event(&key(marked.at()), b"ours", What::CLOSE_WRITE).by.unwrap();
    assert_eq!((by.pid, by.uid), (std::process::id(), Some(rustix::process::getuid().as_raw())));
    assert_eq!(by.exe.as_deref(), Some(std::env::current_exe().unwrap().as_os_str().as_bytes()));
    assert!(marked.source.is_unlimited());
}

#[test]
fn a_marked_file_system_can_be_unmounted_beside_the_running_source() {
    for kind in ["tmpfs", "ext4"] {
        let test = "a_marked_file_system_can_be_unmounted_beside_the_running_source";
        let mount = if kind == "tmpfs" { Mount::tmpfs() } else { Mount::on_loop(kind) };
        let Some(mut marked) = given(test, Marked::new(mount, prepare)) else { continue };
        marked.source.ignore_dir(open_dir(&marked.at().join("dir")).as_fd()).unwrap();
        fs::write(marked.at().join("new"), b"1").unwrap();
        marked.catch_up();
        marked.mount.unmount().expect("nobody holds it");
    }
}

#[test]
fn the_end_and_the_moves_of_a_marked_directory_are_told() {
    let test = "the_end_and_the_moves_of_a_marked_directory_are_told";
    let Some(mut marked) = given(test, Marked::new(Mount::tmpfs(), prepare)) else { return };
    let (old, new) = (marked.at().join("empty"), marked.at().join("new"));
    let itself = key(&old);
    marked.source.mark_itself(open_dir(&old).as_fd()).unwrap();
    fs::rename(&old, &new).unwrap();
    marked.heard.until_event(&itself, b"", What::MOVE_SELF);
    fs::remove_dir(&new).unwrap();
    marked.heard.until_event(&itself, b"", What::DELETE_SELF);
}

#[test]
fn an_ignored_directory_and_an_unmarked_file_system_are_silent() {
    let test = "an_ignored_directory_and_an_unmarked_file_system_are_silent";
    let Some(mut marked) = given(test, Marked::new(Mount::tmpfs(), prepare)) else { return };
    let (at, dir) = (marked.at().to_owned(), key(&marked.at().join("dir")));
    marked.source.ignore_dir(open_dir(&at.join("dir")).as_fd()).unwrap();
    for round in 0..3 {
        fs::write(at.join("dir/in"), b"more").unwrap();
        fs::write(at.join("dir/new"), round.to_string()).unwrap();
        fs::rename(at.join("dir/new"), at.join("dir/renamed")).unwrap();
        fs::set_permissions(at.join("dir/in"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(at.join("dir/renamed")).unwrap();
    }
    marked.catch_up();
    let heard: Vec<_> = events(&marked.heard.notices).filter(|event| event.place.dir == dir).collect();
    assert!(heard.is_empty(), "{heard:#?}");

    marked.source.unmark_filesystem(open_dir(&at).as_fd()).unwrap();
    marked.source.unmark_filesystem(open_dir(&at).as_fd()).expect("not marked is no error");
    fs::write(at.join("unheard"), b"1").unwrap();
    marked.source.mark_filesystem(open_dir(&at).as_fd()).unwrap();
    fs::write(at.join("heard"), b"1").unwrap();
    marked.heard.until_event(&key(&at), b"heard", What::CREATE);
    assert_eq!(marked.heard.of(&key(&at), b"unheard"), What::default());
}

#[test]
fn a_btrfs_subvolume_is_refused() {
    let test = "a_btrfs_subvolume_is_refused";
    let Some(marked) = given(test, Marked::new(Mount::on_loop("btrfs"), |_| {})) else { return };
    let subvolume = marked.at().join("subvolume");
    command("btrfs", &["-q", "subvolume", "create", subvolume.to_str().unwrap()]).unwrap();
    let refused = marked.source.mark_filesystem(open_dir(&subvolume).as_fd()).unwrap_err();
    assert!(refused.is_refusal(), "{refused:?}");
    assert_ne!(key(&subvolume).fsid(), key(marked.at()).fsid());
}

#[test]
fn without_privilege_less_is_granted_and_marks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_dir(dir.path());
    without(CapabilitySet::SYS_ADMIN, || {
        let (feed, _receiver) = feed(1);
        let source = Fanotify::start(feed, std::sync::Arc::default()).unwrap();
        assert!(!source.is_unlimited());
        let refused = source.mark_filesystem(opened.as_fd()).unwrap_err();
        assert!(matches!(refused, WatchError::Privilege { .. }), "{refused:?}");
        assert!(refused.to_string().contains("CAP_SYS_ADMIN"), "{refused}");
    });
}

#[test]
fn a_file_without_a_name_is_told_by_its_own_key() {
    let test = "a_file_without_a_name_is_told_by_its_own_key";
    let Some(mut marked) = given(test, Marked::new(Mount::tmpfs(), prepare)) else { return };
    let object = handle::child_key(open_dir(marked.at()).as_fd(), b"old").unwrap();
    fs::hard_link(marked.at().join("old"), marked.at().join("new")).unwrap();
    let event = marked.heard.until_event(&object, b"", What::ATTRIB);
    assert_eq!((event.is_dir, event.object), (false, Some(object.clone())));

    // The end of a file is told by its name alone.
    marked.heard.notices.clear();
    fs::remove_file(marked.at().join("new")).unwrap();
    fs::remove_file(marked.at().join("old")).unwrap();
    marked.catch_up();
    assert!(!marked.heard.of(&object, b"").has(What::DELETE_SELF));
    assert!(marked.heard.of(&key(marked.at()), b"old").has(What::DELETE));
}

#[test]
fn what_the_kernel_lost_is_told_in_its_place() {
    let overflow = RawEvent { mask: libc::FAN_Q_OVERFLOW, ..RawEvent::default() };
    assert_eq!(notice_of(&overflow), Some(Notice::Lost(Loss::KernelQueue)));
    assert_eq!(notice_of(&RawEvent { mask: libc::FAN_MODIFY, ..RawEvent::default() }), None);
}

#[test]
fn bits_that_the_kernel_merged_are_all_told() {
    let merged = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB;
    let all = [What::CREATE, What::DELETE, What::MODIFY, What::CLOSE_WRITE, What::ATTRIB];
    assert_eq!(what_of(merged, false), all.into_iter().fold(What::default(), What::with));
    assert_eq!(what_of(libc::FAN_RENAME, true), What::RENAME);
}

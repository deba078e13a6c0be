//! Real events of real directories.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::*;
use crate::watch::feed::feed;
use crate::watch::testing::{Heard, Mount, events, given, key, open_dir};

fn start() -> (Inotify, Heard) {
    let (feed, receiver) = feed(100_000);
    (Inotify::start(feed).unwrap(), Heard::new(receiver))
}

fn watch(source: &Inotify, path: &Path) -> DirKey {
    let key = key(path);
    source.watch_dir(open_dir(path).as_fd(), &key).unwrap();
    key
}

#[test]
fn each_operation_is_told_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (source, mut heard) = start();
    let here = watch(&source, dir.path());
    let name = std::ffi::OsStr::new("a \u{fffd}\n");
    let path = dir.path().join(name);
    fs::write(&path, b"1").unwrap();
    let bytes = name.as_encoded_bytes();
    for what in [What::CREATE, What::MODIFY, What::CLOSE_WRITE] {
        assert!(!heard.until_event(&here, bytes, what).is_dir);
    }
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    heard.until_event(&here, bytes, What::ATTRIB);
    fs::remove_file(&path).unwrap();
    heard.until_event(&here, bytes, What::DELETE);
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(heard.until_event(&here, b"dir", What::CREATE).is_dir);
}

#[test]
fn a_rename_between_watched_directories_is_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(a.join("x"), b"x").unwrap();
    fs::write(b.join("y"), b"y").unwrap();
    let (source, mut heard) = start();
    let (key_a, key_b) = (watch(&source, &a), watch(&source, &b));
    rustix::fs::renameat_with(CWD, a.join("x"), CWD, b.join("y"), RenameFlags::EXCHANGE).unwrap();
    heard.until_event(&key_b, b"y", What::RENAME);
    let renames: Vec<_> = events(&heard.notices).filter(|event| event.what.has(What::RENAME)).collect();
    assert_eq!(renames[0].place, Place { dir: key_a.clone(), name: b"x"[..].into() });
    assert_eq!(renames[0].to, Some(Place { dir: key_b, name: b"y"[..].into() }));
    assert_eq!(renames[1].to.as_ref(), Some(&renames[0].place));
}

#[test]
fn one_watched_end_of_a_rename_is_told_as_out_or_in() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let (source, mut heard) = start();
    let here = watch(&source, &inside);
    fs::rename(dir.path().join("in"), inside.join("in")).unwrap();
    assert!(heard.until_event(&here, b"in", What::MOVED_IN).is_dir);
    fs::rename(inside.join("in"), dir.path().join("out")).unwrap();
    assert!(heard.until_event(&here, b"in", What::MOVED_OUT).is_dir);
}

#[test]
fn a_directory_is_followed_when_it_is_renamed_and_forgotten_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir(&one).unwrap();
    let (source, mut heard) = start();
    let here = watch(&source, &one);
    assert_eq!(watch(&source, &one), here);
    assert_eq!(source.watched(), 1);
    fs::rename(&one, &two).unwrap();
    heard.until_event(&here, b"", What::MOVE_SELF);
    fs::write(two.join("file"), b"1").unwrap();
    heard.until_event(&here, b"file", What::CLOSE_WRITE);
    fs::remove_dir_all(&two).unwrap();
    assert!(heard.until_event(&here, b"", What::DELETE_SELF).is_dir);
    // The kernel's last word on a watch comes behind all else; another directory's event shows that it was read.
    let other = watch(&source, dir.path());
    fs::write(dir.path().join("after"), b"").unwrap();
    heard.until_event(&other, b"after", What::CREATE);
    assert_eq!(source.watched(), 1);
}

#[test]
fn a_directory_that_is_unwatched_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    let (source, mut heard) = start();
    let (key_one, key_two) = (watch(&source, &one), watch(&source, &two));
    source.unwatch_dir(&key_one);
    source.unwatch_dir(&key_one);
    fs::write(one.join("unheard"), b"").unwrap();
    fs::write(two.join("heard"), b"").unwrap();
    heard.until_event(&key_two, b"heard", What::CREATE);
    assert_eq!(heard.of(&key_one, b"unheard"), What::default());
    assert_eq!(source.watched(), 1);
}

#[test]
fn an_unmount_is_told_and_not_hindered() {
    let Some(mount) = given("an_unmount_is_told_and_not_hindered", Mount::tmpfs()) else { return };
    let (source, mut heard) = start();
    let here = watch(&source, &mount.at);
    mount.unmount().unwrap();
    heard.until_event(&here, b"", What::UNMOUNT);
}

#[test]
fn an_overflow_of_the_queue_is_a_loss_at_its_place() {
    let length: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // With an event more in front the queue ends behind the other half of a rename.
    for in_front in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), b"").unwrap();
        // Without a reader thread, which would be too quick for that.
        let shared = Arc::new(Shared { fd: init().unwrap(), watches: Mutex::default() });
        let wd = add_watch(shared.fd.as_fd(), open_dir(&inside).as_fd(), 0).unwrap();
        shared.watches().insert(wd, &key(&inside));
        for _ in 0..in_front {
            fs::create_dir(inside.join("dir")).unwrap();
        }
        for _ in 0..=length / 2 {
            fs::rename(inside.join("file"), &outside).unwrap();
            fs::rename(&outside, inside.join("file")).unwrap();
        }
        let mut queue = InotifyQueue { shared, buffer: vec![0; READ_MAX], pairing: Pairing::default() };
        let mut notices = Vec::new();
        while queue.read(&mut notices).is_ok() {}
        assert_eq!(notices.pop(), Some(Notice::Lost(Loss::KernelQueue)));
        assert_eq!(events(&notices).count(), length, "all events stand before their loss");
    }
}

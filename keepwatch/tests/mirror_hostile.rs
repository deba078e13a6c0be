//! `keepwatch mirror` among names, links and writers that mean harm, or just do not care.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use support::pair::{Pair, make_tree};
use support::{sized, wait_for};

#[test]
fn names_of_all_bytes_and_of_all_lengths() {
    let pair = Pair::new();
    let source = pair.source();
    for byte in (1..=255_u8).filter(|byte| *byte != b'/') {
        for name in [vec![byte, b'x'], vec![b'-', byte, b'.']] {
            fs::write(source.join(OsStr::from_bytes(&name)), [byte]).unwrap();
        }
    }
    let long = "n".repeat(255);
    fs::create_dir(source.join(&long)).unwrap();
    fs::write(source.join(&long).join(&long), "first").unwrap();
    // Deeper than one system call reaches: made with the directory itself as the starting point.
    let deep = |top: &Path, make: bool| -> std::os::fd::OwnedFd {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let mut at = rustix::fs::open(top, flags, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..25 {
            let name = "d".repeat(200);
            if make {
                rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::from(0o755)).unwrap();
            }
            at = rustix::fs::openat(&at, &name, flags, rustix::fs::Mode::empty()).unwrap();
        }
        at
    };
    let read = |dir: &std::os::fd::OwnedFd| {
        let file = rustix::fs::openat(dir, "end", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        file.map(|file| std::io::read_to_string(fs::File::from(file)).unwrap())
    };
    let inner = deep(&source, true);
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    let end = rustix::fs::openat(&inner, "end", flags, rustix::fs::Mode::from(0o644)).unwrap();
    fs::File::from(end).write_all(b"deep").unwrap();
    pair.once_fine();
    assert_eq!(read(&deep(&pair.target(), false)).unwrap(), "deep");
    // The walk that compares does not go so deep.
    let shallow = source.join("d".repeat(200));
    assert!(std::process::Command::new("rm").arg("-rf").arg(&shallow).status().unwrap().success());
    fs::write(source.join(&long).join(&long), "second").unwrap();
    pair.once_fine();
    fs::write(source.join(&long).join(&long), "third").unwrap();
    pair.once_fine();
    pair.assert_same();
    let kept = pair.trash().into_iter().filter(|path| path.starts_with(&long)).count();
    assert_eq!(kept, 3, "the directory and two versions, the second under a name that is cut");
}

#[test]
fn no_link_leads_out_however_fast_it_is_swapped() {
    let mut pair = Pair::new();
    let (source, outside) = (pair.source(), pair.dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "SECRET").unwrap();
    fs::create_dir_all(source.join("real")).unwrap();
    fs::write(source.join("real/file"), "public").unwrap();
    symlink(&outside, source.join("link")).unwrap();
    pair.start(&["--delete-delay=0s", "--allow-deletes"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // `dir` is the real directory and a link out of the tree, in turns.
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(source.join("real"), source.join("dir"));
                let _ = fs::write(source.join("dir/file"), "public");
                let _ = fs::rename(source.join("dir"), source.join("real"));
                let _ = fs::rename(source.join("link"), source.join("dir"));
                let _ = fs::rename(source.join("dir"), source.join("link"));
            }
        });
        let until = Instant::now() + Duration::from_secs(sized(4, 60) as u64);
        let mut escaped = None;
        while Instant::now() < until && escaped.is_none() {
            // What lies below a copied link is no copy.
            let mut read = ["dir/file", "real/file"].into_iter().map(|path| (path, read_within(&pair.target(), path)));
            escaped = read.find(|(_, content)| content.as_deref() == Some("SECRET"));
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(escaped, None, "it came from outside");
    });
    let _ = fs::rename(source.join("dir"), source.join("real"));
    pair.wait_same();
    pair.stop();
    // It may have been the same for a moment only, amid the renames.
    pair.once_fine();
    pair.assert_same();
    // The target's own links are not followed either.
    fs::remove_dir_all(pair.target().join("real")).unwrap();
    symlink(&outside, pair.target().join("real")).unwrap();
    fs::write(source.join("real/file"), "changed").unwrap();
    let _ = pair.once(&[]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "SECRET");
}

/// A file's content, if no symbolic link leads to it.
fn read_within(top: &Path, path: &str) -> Option<String> {
    let top = fs::File::open(top).unwrap();
    let (flags, resolve) = (OFlags::RDONLY | OFlags::CLOEXEC, ResolveFlags::NO_SYMLINKS);
    let file = rustix::fs::openat2(top, path, flags, Mode::empty(), resolve).ok()?;
    io::read_to_string(fs::File::from(file)).ok()
}

#[test]
fn a_slow_writer_is_waited_for_and_its_file_copied_once() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 10);
    pair.start(&[]);
    pair.wait_same();
    let mut file = fs::File::create(source.join("slow")).unwrap();
    for _ in 0..sized(10, 300) {
        file.write_all(&[b'x'; 1000]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(!pair.target().join("slow").exists(), "it is not complete");
    }
    drop(file);
    pair.wait_same();
    let copied = pair.records().into_iter().filter(|record| record["do"] == "copied" && record["path"] == "slow");
    assert_eq!(copied.count(), 1);
    pair.stop();
}

#[test]
fn a_file_that_is_replaced_while_it_is_copied_ends_as_the_new_one() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 5);
    pair.start(&[]);
    pair.wait_same();
    for round in 0..sized(10, 100) {
        let new = pair.dir.path().join("new");
        for half in 0..2_u8 {
            fs::write(&new, vec![half + b'a' + round as u8 % 20; 4 << 20]).unwrap();
            fs::rename(&new, source.join("big")).unwrap();
            std::thread::sleep(Duration::from_millis(3 * round as u64));
            if let Ok(seen) = fs::read(pair.target().join("big")) {
                assert!(seen.len() == 4 << 20 && seen.iter().all(|byte| *byte == seen[0]), "a part of a version");
            }
        }
    }
    pair.wait_same();
    pair.stop();
}

#[test]
fn the_trash_is_emptied_of_days_that_are_over() {
    let pair = Pair::new();
    make_tree(&pair.source(), 3);
    pair.once_fine();
    let trash = pair.target().join(".keepwatch-trash");
    for day in ["2001-02-03", "not a day", "2001-02-03x"] {
        fs::create_dir_all(trash.join(day).join("deep/er")).unwrap();
        fs::write(trash.join(day).join("deep/er/file"), "x").unwrap();
    }
    fs::write(pair.source().join("d1/e1/f1"), "new").unwrap();
    pair.once_fine();
    let mut left: Vec<_> = fs::read_dir(&trash).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name.len() != 10);
    assert_eq!(left.len(), 2, "what is no day was not put there by us");
    assert!(!trash.join("2001-02-03").exists());
    assert!(pair.trash().contains(&"d1/e1/f1".into()), "what is young stays");
}

#[test]
fn killed_again_and_again_it_sends_no_more_than_it_must() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, sized(600, 20_000));
    let bytes: u64 = support::pair::walk(&source).values().map(|object| object.content.len() as u64).sum();
    let mut sent = 0;
    for round in 0..sized(5, 50) {
        pair.start(&["--bwlimit=2M"]);
        std::thread::sleep(Duration::from_millis(300 + 150 * (round as u64 % 7)));
        pair.kill();
    }
    pair.start(&[]);
    pair.wait_same();
    pair.stop();
    pair.assert_same();
    for record in pair.records() {
        if record["do"] == "copied" && record["type"] == "file" && record["old_path"].is_null() {
            sent += record["size"].as_u64().unwrap();
        }
    }
    // What was on its way when it was killed is sent again, at most a batch each time.
    assert!(sent <= bytes + bytes / 10, "{sent} bytes were told of, {bytes} are there");
}

#[test]
fn two_sources_of_one_user_share_a_target() {
    let (one, other) = (Pair::new(), Pair::new());
    make_tree(&one.source(), 5);
    make_tree(&other.source(), 5);
    let target = one.target();
    let mirror = |source: &Path, home: &Path| {
        let mut command = std::process::Command::new(support::program());
        command.arg("mirror").arg("--once").arg(source).arg(&target).env_clear();
        // Root's own state is left alone: an unprivileged user's place is used by name.
        command.env("HOME", home).env("XDG_STATE_HOME", home.join("state"));
        if rustix::process::geteuid().is_root() {
            use std::os::unix::process::CommandExt as _;
            command.uid(65534).gid(65534);
        }
        command.output().unwrap()
    };
    let home = one.dir.path();
    for path in [home, &target, &one.source(), other.dir.path(), &other.source()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        // Only of a file of one's own can be told at once that nobody writes it.
        let mut chown = std::process::Command::new("chown");
        let status = chown.args(["-R", "65534:65534"]).args([one.source(), other.source()]).status().unwrap();
        assert!(status.success());
    }
    for source in [one.source(), other.source()] {
        for _ in 0..2 {
            let output = mirror(&source, home);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(target.join(source.strip_prefix("/").unwrap()).join("d1/e1/f1").exists());
    }
    wait_for("nothing is staged", || fs::read_dir(target.join(".keepwatch-tmp")).map_or(true, |dir| dir.count() == 0));
}

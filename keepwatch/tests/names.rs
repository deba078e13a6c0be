//! A name is any bytes but `/` and NUL. They stay what they are everywhere, and a terminal never gets to obey them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use base64::Engine as _;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, mkfifoat, openat, symlinkat, unlinkat};
use support::{Dice, Keepwatch, bytes, one_root, sized};

const METHODS: [&str; 3] = ["fanotify", "inotify", "poll"];

/// Names that have hurt programs before.
fn odd_names() -> Vec<Vec<u8>> {
    let words: [&[u8]; 24] = [
        b"new\nline",
        b"carriage\rreturn",
        b"quote\"double",
        b"quote'single",
        b"back\\slash",
        b"\\n",
        b"\\x0a",
        b"-rf",
        b"--help",
        b" leading and trailing ",
        b"$(touch hacked)",
        b"`id`;id",
        b"*?[a]{b}",
        b"\xff\xfe not utf-8",
        b"half of \xc3",
        b"overlong \xc0\xaf",
        b"surrogate \xed\xa0\x80",
        "caf\u{e9} \u{6570} \u{1f600}".as_bytes(),
        "turned \u{202e}txt.exe".as_bytes(),
        b"\x1b]0;title\x07\x1b[31mred",
        "c1 \u{9b}31m".as_bytes(),
        b"...",
        b"<td><script>",
        b"' OR 1=1; --",
    ];
    let mut names: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    names.push(vec![b'x'; 255]);
    names.push(vec![0xff; 255]);
    names.push([&[b'\n'; 254][..], b"\\"].concat());
    names
}

fn allowed(name: &[u8]) -> bool {
    !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b".."
}

/// All names of one byte, and `pairs` of two.
fn short_names(pairs: usize) -> BTreeSet<Vec<u8>> {
    let mut names: BTreeSet<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut dice = Dice::new(3);
    let byte = |dice: &mut Dice| u8::try_from(dice.below(256)).unwrap();
    names.extend((0..pairs).map(|_| vec![byte(&mut dice), byte(&mut dice)]));
    names.retain(|name| allowed(name));
    names
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Files, and one of everything else, under odd names.
fn fill(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for name in odd_names() {
        let sub = dir.join(os(&name));
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join(os(&name)), &name).unwrap();
        symlink(os(&name), sub.join("link")).unwrap();
        fs::hard_link(sub.join(os(&name)), sub.join("\u{fffd} hard")).unwrap();
        mkfifoat(CWD, sub.join("fifo"), Mode::RUSR).unwrap();
    }
    symlink(os(&[0xfe; 4000]), dir.join("to a long target")).unwrap();
    drop(UnixListener::bind(dir.join("socket\n")).unwrap());
}

/// A directory of `levels` levels below `dir`, with a file in the deepest; made and removed level by level, for no path to it
/// is short enough for the kernel.
fn deep_dir(dir: &Path, levels: usize) {
    let mut fd = open_dir(dir);
    for level in 0..levels {
        let name = deep_name(level);
        mkdirat(&fd, &*name, Mode::RWXU).unwrap();
        fd = openat(&fd, &*name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    let file = openat(&fd, "deepest\n", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"deep down").unwrap();
    symlinkat("nowhere", &fd, "link").unwrap();
}

fn open_dir(dir: &Path) -> OwnedFd {
    openat(CWD, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn deep_name(level: usize) -> Vec<u8> {
    [format!("{level:03}").as_bytes(), &[b'd'; 200]].concat()
}

fn deep_path(levels: usize) -> Vec<u8> {
    (0..levels).map(deep_name).collect::<Vec<_>>().join(&b'/')
}

/// The standard library's walk takes whole paths: what is deeper has to go before it.
fn remove_deep(dir: &Path, levels: usize) {
    let mut fds = vec![open_dir(dir)];
    for level in 0..levels {
        let fd = openat(fds.last().unwrap(), deep_name(level), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        fds.push(fd.unwrap());
    }
    for name in ["deepest\n", "link"] {
        unlinkat(fds.last().unwrap(), name, AtFlags::empty()).unwrap();
    }
    for level in (0..levels).rev() {
        unlinkat(&fds[level], deep_name(level), AtFlags::REMOVEDIR).unwrap();
    }
}

fn started(base: &Path, method: &str) -> Keepwatch {
    let tree = base.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let mut keepwatch = Keepwatch::configured(&base.join("state"), &one_root(&tree, method));
    keepwatch.start_and_settle();
    keepwatch
}

/// Whether a terminal would obey anything of this but the ends of lines.
fn is_harmless(out: &[u8]) -> bool {
    let text = std::str::from_utf8(out).expect("what is printed is UTF-8");
    text.chars().all(|c| c == '\n' || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

#[test]
fn every_name_is_exact_everywhere() {
    for method in METHODS {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        // Half of it is there before, and found by the scan.
        fill(&tree.join("before"));
        let mut keepwatch = started(base.path(), method);
        fill(&tree.join("after"));
        let short = short_names(sized(2_000, 60_000));
        fs::create_dir(tree.join("short")).unwrap();
        for name in &short {
            fs::write(tree.join("short").join(os(name)), name).unwrap();
        }
        keepwatch.assert_same(&tree);
        exact_lists(&keepwatch, &tree);
        // One process a name: by one method, for what is read does not depend on who told of it.
        if method == METHODS[0] {
            exact_history(&keepwatch, &tree);
        }
        keepwatch.stop();
        keepwatch.assert_verifies();
        keepwatch.assert_last_records(&tree);
    }
}

fn exact_lists(keepwatch: &Keepwatch, tree: &Path) {
    let walked = support::walk(tree);
    let raw = keepwatch.ok(&["ls", "-0"]);
    let listed: BTreeSet<&[u8]> = raw.split(|byte| *byte == 0).filter(|path| !path.is_empty()).collect();
    let full: Vec<Vec<u8>> = walked.keys().map(|path| tree.join(os(path)).into_os_string().into_vec()).collect();
    assert_eq!(listed, full.iter().map(|path| &path[..]).collect());
    for args in [&["ls"][..], &["log"], &["status"]] {
        assert!(is_harmless(&keepwatch.ok(args)), "{args:?} prints what a terminal obeys");
    }
    for line in keepwatch.json_lines(&["ls", "--json"]) {
        if line["type"] == "symlink" {
            let target = fs::read_link(tree.join(os(&bytes(&line, "path")))).unwrap();
            assert_eq!(bytes(&line, "target"), target.as_os_str().as_bytes());
        }
    }
}

fn exact_history(keepwatch: &Keepwatch, tree: &Path) {
    for name in odd_names() {
        for dir in ["before", "after"] {
            let file = [dir.as_bytes(), &name, &name].join(&b'/');
            let log = keepwatch.log_of(&tree.join(os(&file)));
            assert!(
                log.iter().any(|record| record["do"] == "create" && bytes(record, "path") == file),
                "{} has no beginning",
                support::show(&file)
            );
            let listed = keepwatch.command(&["ls", "-0"]).arg("--").arg(tree.join(os(&file))).output().unwrap();
            assert_eq!(listed.stdout, [tree.join(os(&file)).as_os_str().as_bytes(), b"\0"].concat());
        }
    }
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_known_to_its_end() {
    const LEVELS: usize = 30;
    for method in METHODS {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fs::create_dir_all(tree.join("before")).unwrap();
        fs::create_dir_all(tree.join("after")).unwrap();
        deep_dir(&tree.join("before"), LEVELS);
        let mut keepwatch = started(base.path(), method);
        deep_dir(&tree.join("after"), LEVELS);
        let expected = |top: &str| [top.as_bytes(), &deep_path(LEVELS), b"deepest\n"].join(&b'/');
        let knows = |keepwatch: &Keepwatch, path: Vec<u8>| {
            assert!(path.len() > 4096);
            support::wait_for("the deepest file is known", || {
                keepwatch.listed().get(&path).is_some_and(|row| row.size == 9 && row.kind == "file")
            });
        };
        knows(&keepwatch, expected("before"));
        knows(&keepwatch, expected("after"));
        // Renamed at its top, nothing below is lost; then what happens in the depth is told of under the new name.
        fs::rename(tree.join("after"), tree.join("renamed")).unwrap();
        knows(&keepwatch, expected("renamed"));
        remove_deep(&tree.join("renamed"), LEVELS);
        remove_deep(&tree.join("before"), LEVELS);
        keepwatch.assert_same(&tree);
        keepwatch.stop();
        keepwatch.assert_verifies();
    }
}

#[test]
fn names_that_are_not_utf_8_are_written_twice() {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    let keepwatch = started(base.path(), "inotify");
    fs::write(tree.join(os(b"a\xff")), "x").unwrap();
    keepwatch.assert_same(&tree);
    let line = &keepwatch.json_lines(&["ls", "--json"])[0];
    assert_eq!(line["path"], "a\u{fffd}");
    let exact = base64::engine::general_purpose::STANDARD.decode(line["path_b64"].as_str().unwrap()).unwrap();
    assert_eq!(OsString::from_vec(exact), os(b"a\xff"));
}

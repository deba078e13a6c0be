//! One tree to a directory, to another host and to a bucket at once, while it changes: what each holds at any time is a whole version
//! of some file, and in the end all of them hold all of it.
#![allow(clippy::unwrap_used)]

mod sshd;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keepwatch_s3_server::{KEY_ID, REGION, SECRET, Server};
use sha2::{Digest as _, Sha256};
use sshd::{Far, Sshd};
use support::{Dice, Keepwatch, sized, wait_for};

/// What must be the same everywhere: mode, mtime in nanoseconds, and the hash of the content or where a link points.
type Row = (u32, i64, Vec<u8>);

/// A file of about this size that tells by itself whether it is whole: first the hash of the rest.
fn version(dice: &mut Dice, size: usize) -> Vec<u8> {
    let length = size / 2 + dice.below(size);
    let mut word = dice.below(usize::MAX) as u64 | 1;
    let body: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.to_le_bytes()
        })
        .collect();
    [&Sha256::digest(&body)[..], &body].concat()
}

fn is_whole(content: &[u8]) -> bool {
    content.split_at_checked(32).is_some_and(|(hash, body)| *hash == Sha256::digest(body)[..])
}

fn place(tree: &Path, number: usize) -> PathBuf {
    tree.join(format!("d{}/e{}", number % 97, number % 7)).join(format!("f{number}"))
}

/// As a checkout does: what is another in this revision is removed and written again, some is gone, some is new, a directory is renamed.
fn check_out(tree: &Path, revision: usize, files: usize, size: usize, dice: &mut Dice) {
    for _ in 0..files / 50 {
        let path = place(tree, dice.below(files));
        let content = version(dice, size);
        let _ = fs::remove_file(&path);
        // Its directory may have been renamed before.
        if fs::write(&path, content).is_ok() && dice.below(4) == 0 {
            let _ = fs::remove_file(place(tree, dice.below(files)));
        }
    }
    let (from, to) = (tree.join(format!("d{}", dice.below(97))), tree.join(format!("d{}", dice.below(97))));
    let _ = fs::rename(from, to.join(format!("moved-{revision}")));
}

/// Ends the looking, however the rest ends.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn walk(top: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            }
            each(&entry.path(), &meta);
        }
    }
}

fn rows(top: &Path) -> BTreeMap<Vec<u8>, Row> {
    let mut rows = BTreeMap::new();
    walk(top, &mut |path, meta| {
        let content = match () {
            () if meta.is_file() => Sha256::digest(fs::read(path).unwrap()).to_vec(),
            () if meta.is_symlink() => fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
            () => Vec::new(),
        };
        let key = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        rows.insert(key, (meta.mode(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), content));
    });
    rows
}

/// The files and links below a prefix of the bucket, read past the wire.
fn objects(server: &Server, prefix: &str) -> BTreeMap<Vec<u8>, Row> {
    let keys = server.store.keys("bucket").into_iter();
    let rows = keys.filter_map(|key| {
        let object = server.store.object("bucket", &key)?;
        let text = |name: &str| object.metadata.get(name).cloned().unwrap_or_default();
        let (seconds, nanos) = text("mtime")
            .split_once('.')
            .map_or((text("mtime"), String::new()), |(one, other)| (one.to_owned(), other.to_owned()));
        let mtime = format!("{seconds}{nanos:0<9}").parse().ok()?;
        let is_link = text("keepwatch-kind") == "symlink";
        let content = if is_link { object.bytes() } else { Sha256::digest(object.bytes()).to_vec() };
        let mode = u32::from_str_radix(&text("mode"), 8).ok()?;
        Some((key.strip_prefix(prefix)?.as_bytes().to_vec(), (mode, mtime, content)))
    });
    rows.collect()
}

fn assert_same(what: &str, there: &BTreeMap<Vec<u8>, Row>, held: &BTreeMap<Vec<u8>, Row>) {
    let names: std::collections::BTreeSet<_> = there.keys().chain(held.keys()).collect();
    let differ: Vec<_> = names.into_iter().filter(|name| there.get(*name) != held.get(*name)).collect();
    let shown: Vec<_> =
        differ.iter().take(5).map(|name| (support::show(name), there.get(*name), held.get(*name))).collect();
    assert!(differ.is_empty(), "{what}: {} of {} differ: {shown:#?}", differ.len(), there.len());
}

#[test]
fn three_targets_at_once_hold_a_tree_that_changes() {
    let name = "three_targets_at_once_hold_a_tree_that_changes";
    let Some(sshd) = Sshd::start(name, Far::Keepwatch) else { return };
    let server = Server::start("bucket").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["tree", "volume", "far"] {
        fs::create_dir(at(name)).unwrap();
    }
    let (tree, top) = (at("tree"), dir.path().display());
    let (files, size) = (sized(2_000, 50_000), sized(4_000, 104_000));
    let mut dice = Dice::new(3);
    for number in 0..files {
        let path = place(&tree, number);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, version(&mut dice, size)).unwrap();
    }
    symlink("d1/e1", tree.join("link")).unwrap();
    let more = "delete_delay = \"1s\"\nmax_delete = \"100%\"\n";
    let mut keepwatch = Keepwatch::configured(
        &at("state"),
        &format!(
            "host = \"observer\"\n[roots.tree]\npath = \"{top}/tree\"\n[replicas.volume]\nurl = \"{top}/volume\"\n{more}\
             [replicas.far]\nurl = \"ssh://far{top}/far\"\n{more}[replicas.bucket]\nurl = \"s3://bucket/copies\"\n{more}"
        ),
    );
    keepwatch.env = [
        ("PATH", sshd.path()),
        ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_ENDPOINT_URL", server.endpoint()),
        ("AWS_REGION", REGION.to_owned()),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let placed = format!("observer{top}/tree");
    let copies = [at("volume").join(&placed), at("far").join(&placed)];
    let (done, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    keepwatch.start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for copy in &copies {
                    walk(copy, &mut |path, meta| {
                        let Ok(content) = fs::read(path) else { return };
                        assert!(!meta.is_file() || is_whole(&content), "{} is a part", path.display());
                        looked.fetch_add(u64::from(meta.is_file()), Ordering::Relaxed);
                    });
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let ended = Ended(&done);
        for revision in 0..sized(6, 60) {
            check_out(&tree, revision, files, size, &mut dice);
            // The next revision comes when it comes: this is no wait for anything.
            std::thread::sleep(std::time::Duration::from_millis(sized(100, 1_000) as u64));
        }
        keepwatch.caught_up();
        wait_for("all replicas follow", || {
            let all = keepwatch.json_lines(&["replica", "list", "--json"]);
            all.len() == 3 && all.iter().all(|one| one["state"] == "following" && one["pending"] == 0)
        });
        drop(ended);
    });
    let there = rows(&tree);
    assert!(looked.load(Ordering::Relaxed) > files as u64, "copies were looked at while they were made");
    for copy in &copies {
        assert_same(&copy.display().to_string(), &there, &rows(copy));
    }
    let no_dirs = there.iter().filter(|(_, (mode, ..))| mode & 0o170_000 != 0o040_000);
    let no_dirs: BTreeMap<_, _> = no_dirs.map(|(name, row)| (name.clone(), row.clone())).collect();
    assert_same("the bucket", &no_dirs, &objects(&server, &format!("copies/{placed}/")));
    keepwatch.stop();
    keepwatch.assert_verifies();
    let staged = fs::read_dir(at("volume").join(".keepwatch-tmp")).unwrap().count();
    assert_eq!(staged, 0, "nothing is left staged");
}

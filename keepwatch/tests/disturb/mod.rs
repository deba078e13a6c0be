//! What the tests of faults do to the world around the service: churn that goes on beside it, file systems of their own,
//! and a look at a directory that shows whether anything in it was changed.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::{Dice, is_root, sh, shake};

/// Random operations on a tree, in a thread of their own, until it is dropped or stopped.
pub struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub fn on(tree: &Path, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, tree) = (Arc::clone(&stop), tree.to_owned());
        let thread = std::thread::spawn(move || {
            let mut dice = Dice::new(seed);
            while !stopped.load(Ordering::Acquire) {
                shake(&tree, &mut dice, 20);
                // Leaves the service a share of a small machine.
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
        Churn { stop, thread: Some(thread) }
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.end();
    }
}

/// Something mounted, until it is dropped.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// A file system in memory, of this size, at a directory that is made.
    pub fn tmpfs(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        sh("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "keepwatch-test", at.to_str().unwrap()]);
        Mounted { at: at.to_owned() }
    }

    /// A directory at a second place, which is made.
    pub fn bind(from: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        sh("mount", &["--bind", from.to_str().unwrap(), at.to_str().unwrap()]);
        Mounted { at: at.to_owned() }
    }

    /// What somebody else has mounted, to be unmounted with the rest.
    pub fn already(at: &Path) -> Self {
        Mounted { at: at.to_owned() }
    }

    /// What is mounted there can be read only from now on.
    pub fn read_only(self) -> Self {
        sh("mount", &["-o", "remount,bind,ro", self.at.to_str().unwrap()]);
        self
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A directory to work in, with a tree in it. The tree has a file system of its own where that can be had, so that what
/// others do on this machine is not heard.
pub struct Ground {
    /// Unmounted before the directory below it is removed.
    _quiet: Option<Mounted>,
    dir: tempfile::TempDir,
}

impl Ground {
    pub fn new() -> Self {
        Self::with_room("512m")
    }

    /// With room for this much in the tree.
    pub fn with_room(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let quiet = dir.path().join("quiet");
        let mounted = is_root().then(|| Mounted::tmpfs(&quiet, size));
        fs::create_dir_all(quiet.join("tree")).unwrap();
        Ground { _quiet: mounted, dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("quiet/tree")
    }

    /// The state directory, on the machine's own disk.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

/// All that is in a directory: each name with its mode and content. The lock file's content is left out, since it
/// belongs to whoever looks, and so are SQLite's files beside a database, which come and go with readers.
pub fn content(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir_path) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir_path) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == "lock" || name.ends_with("-wal") || name.ends_with("-shm") {
                continue;
            }
            let mode = meta.permissions().mode();
            let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { meta.rdev().to_le_bytes().to_vec() };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.strip_prefix(dir).unwrap().to_owned(), (mode, bytes));
        }
    }
    found
}

/// Panics with the names that differ.
pub fn assert_unchanged(before: &BTreeMap<PathBuf, (u32, Vec<u8>)>, dir: &Path) {
    let after = content(dir);
    let names: Vec<&PathBuf> =
        before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(names.is_empty(), "changed in {}: {names:?}", dir.display());
}

/// Copies a directory with all that is in it, as a restore from a backup would.
pub fn copy(from: &Path, to: &Path) {
    sh("cp", &["-a", "--", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// The journal's plain files, the newest last.
pub fn journal_files(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("journal")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}

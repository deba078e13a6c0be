//! A source, a target and what mirrors one to the other; what is at the target is held against the source by an
//! independent walk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::Dice;

/// A source, a target, and the state of what mirrors one to the other.
pub struct Pair {
    pub dir: tempfile::TempDir,
    pub flags: Vec<String>,
    pub child: Option<Child>,
}

impl Pair {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        let prefix = format!("--source-prefix={}/", dir.path().join("source").display());
        Pair { dir, flags: vec![prefix], child: None }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(super::program());
        command.arg("mirror").args(&self.flags).args(flags).arg(self.source()).arg(self.target());
        command.arg("--state-dir").arg(self.state());
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    pub fn once(&self, flags: &[&str]) -> Output {
        self.command(flags).arg("--once").output().unwrap()
    }

    /// Mirrors once, which must be fine; what it says.
    pub fn once_fine(&self) -> String {
        let output = self.once(&[]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {text}", output.status);
        text
    }

    pub fn start(&mut self, flags: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        self.child = Some(self.command(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        super::terminate(&child);
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// Waits until the target is as the source, whatever was done before.
    pub fn wait_same(&self) {
        self.wait_for(&|_| ());
    }

    /// The same, but a file of several names may be several files: whose names come and go while they are first found, may be taken
    /// for two.
    pub fn wait_alike(&self) {
        self.wait_for(&|object| object.links = 1);
    }

    fn wait_for(&self, leave_out: &dyn Fn(&mut Object)) {
        let mut last = Vec::new();
        let start = std::time::Instant::now();
        while start.elapsed() < super::PATIENCE {
            last = differences_but(&self.source(), &self.target(), leave_out);
            if last.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        super::keep_failed(self.dir.path());
        panic!("{} differences: {:#?}\n{log}", last.len(), &last[..last.len().min(10)]);
    }

    pub fn assert_same(&self) {
        let found = differences(&self.source(), &self.target());
        assert!(found.is_empty(), "{} differences: {:#?}", found.len(), &found[..found.len().min(10)]);
        let staged = fs::read_dir(self.target().join(".keepwatch-tmp")).unwrap().count();
        assert_eq!(staged, 0, "nothing is left staged");
    }

    /// The journal's records, as JSON.
    pub fn records(&self) -> Vec<serde_json::Value> {
        let mut command = Command::new(super::program());
        command.args(["journal", "cat", "--json", "--state-dir"]).arg(self.state());
        let output = command.env_clear().env("HOME", self.dir.path()).output().unwrap();
        super::lines_of_json(&output.stdout)
    }

    /// Every path in the trash, below its day.
    pub fn trash(&self) -> Vec<PathBuf> {
        let trash = self.target().join(".keepwatch-trash");
        let mut found = Vec::new();
        for day in fs::read_dir(&trash).into_iter().flatten().flatten() {
            let tree = walk(&day.path());
            found.extend(tree.into_keys().map(PathBuf::from));
        }
        found.sort();
        found
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What of an object must be the same at both places.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Vec<u8>,
    pub links: u64,
}

pub fn walk(top: &Path) -> BTreeMap<std::ffi::OsString, Object> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(top.join(&dir)).into_iter().flatten().flatten() {
            if dir.as_os_str().is_empty() && entry.file_name().to_string_lossy().starts_with(".keepwatch-") {
                continue;
            }
            let path = dir.join(entry.file_name());
            let Ok(meta) = top.join(&path).symlink_metadata() else { continue };
            let content = match () {
                () if meta.is_file() => fs::read(top.join(&path)).unwrap_or_default(),
                () if meta.is_symlink() => {
                    fs::read_link(top.join(&path)).unwrap_or_default().into_os_string().into_encoded_bytes()
                }
                () => Vec::new(),
            };
            let object = Object {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: (meta.mtime(), meta.mtime_nsec()),
                size: if meta.is_dir() { 0 } else { meta.size() },
                content,
                links: if meta.is_dir() { 0 } else { meta.nlink() },
            };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.into_os_string(), object);
        }
    }
    found
}

pub fn differences(source: &Path, target: &Path) -> Vec<String> {
    differences_but(source, target, &|_| ())
}

fn differences_but(source: &Path, target: &Path, leave_out: &dyn Fn(&mut Object)) -> Vec<String> {
    let (mut ours, mut theirs) = (walk(source), walk(target));
    ours.values_mut().chain(theirs.values_mut()).for_each(leave_out);
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differs.map(|name| format!("{name:?}: {:?} / {:?}", ours.get(name), theirs.get(name))).collect()
}

pub fn make_tree(top: &Path, files: usize) {
    let mut dice = Dice::new(7);
    for number in 0..files {
        let dir = top.join(format!("d{}", number % 17)).join(format!("e{}", number % 5));
        fs::create_dir_all(&dir).unwrap();
        let bytes: Vec<u8> = (0..dice.below(9000)).map(|_| dice.below(256) as u8).collect();
        fs::write(dir.join(format!("f{number}")), bytes).unwrap();
    }
}

//! A source and a store that keeps what it is given in a directory, plainly: what is there is held against the source by an
//! independent walk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::Dice;

/// Content, or where a link points, and the time to a second's part.
type Row = (Vec<u8>, Option<(i64, i64)>);

/// A source, what keeps it, and the state of what mirrors one to the other.
pub struct Kept {
    pub dir: tempfile::TempDir,
    /// The target; `{}` in it stands for [`Kept::kept`].
    pub url: String,
    pub flags: Vec<String>,
    pub env: Vec<(String, String)>,
    pub child: Option<Child>,
}

impl Kept {
    pub fn new(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        let flags = vec![format!("--source-prefix={}/", dir.path().join("source").display())];
        Kept { dir, url: url.to_owned(), flags, env: Vec::new(), child: None }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Where the store has what it was given.
    pub fn kept(&self) -> PathBuf {
        self.dir.path().join("kept")
    }

    /// An environment with nothing of the test's own but where programs are.
    pub fn program(&self) -> Command {
        let mut command = Command::new(super::program());
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("mirror").args(&self.flags).args(flags).arg(self.source());
        command.arg(self.url.replace("{}", &self.kept().display().to_string()));
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        command
    }

    /// Mirrors once; how that ended, and what was said.
    pub fn once(&self, flags: &[&str]) -> (Option<i32>, String) {
        let output = self.command(flags).arg("--once").output().unwrap();
        (output.status.code(), said(&output))
    }

    pub fn once_fine(&self) -> String {
        let (code, said) = self.once(&[]);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    pub fn start(&mut self, flags: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.command(&["--delete-delay=1s", "--max-delete=100%"]);
        self.child = Some(command.args(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it at once while new files are on their way.
    pub fn kill_amid(&mut self, round: usize) {
        let dir = self.source().join(format!("new{round}"));
        fs::create_dir(&dir).unwrap();
        let there = || self.kept().join(format!("new{round}")).exists();
        for number in 0..400 {
            fs::write(dir.join(number.to_string()), vec![b'n'; number * 10]).unwrap();
            if number > 30 && there() {
                break;
            }
        }
        self.kill();
    }

    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        super::terminate(&child);
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The processes that it has started and that still run.
    pub fn children(&self) -> Vec<String> {
        let pid = self.child.as_ref().unwrap().id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|all| all.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// What differs between the source and what is kept of it.
    pub fn differences(&self) -> Vec<String> {
        let (ours, theirs) = (walk(&self.source()), walk(&self.kept()));
        let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let differs = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        let short = |row: Option<&Row>| row.map(|(bytes, time)| (bytes.len(), *time));
        let shown = |name: &Vec<u8>| {
            (String::from_utf8_lossy(name).into_owned(), short(ours.get(name)), short(theirs.get(name)))
        };
        differs.map(|name| format!("{:?}", shown(name))).collect()
    }

    pub fn assert_same(&self) {
        let found = self.differences();
        assert!(found.is_empty(), "{} differences: {:#?}", found.len(), &found[..found.len().min(10)]);
    }

    pub fn wait_same(&mut self) {
        let mut waited = super::Waited::default();
        loop {
            let found = self.differences();
            if found.is_empty() {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            // What is deleted goes to the trash one after another, in several requests each.
            let patience = super::PATIENCE * u32::try_from(super::sized(1, 5)).unwrap();
            let is_over = waited.again(std::time::Duration::from_millis(100)) > patience || ended.is_some();
            let log = self.log();
            let log = &log[log.len().saturating_sub(3000)..];
            if is_over {
                super::keep_failed(self.dir.path());
            }
            assert!(!is_over, "{ended:?} {} differences: {:#?}\n{log}", found.len(), &found[..found.len().min(10)]);
        }
    }

    /// A tree of so many files, with links and odd names among them.
    pub fn plant(&self, files: usize) {
        let mut dice = Dice::new(5);
        let top = self.source();
        for number in 0..files {
            let dir = top.join(format!("d{}", number % 17)).join(format!("e{}", number % 5));
            fs::create_dir_all(&dir).unwrap();
            let bytes: Vec<u8> = (0..dice.below(5000)).map(|_| dice.below(256) as u8).collect();
            fs::write(dir.join(format!("f{number}")), bytes).unwrap();
        }
        fs::write(top.join("empty"), b"").unwrap();
        fs::write(top.join("large"), vec![b'l'; 12_000_000]).unwrap();
        symlink("d1/nowhere", top.join("link")).unwrap();
        let odd: &[&[u8]] =
            &[b"-rf", b"line\nbreak", b"$(x)`y`'\"", b"\xff\xfe", b"%41", b"!x", b" y", b"g\xc3\xbc", b"a?b=c&d#e+f"];
        for name in odd {
            fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The files and links of a tree, but for Keepwatch's own.
pub fn walk(top: &Path) -> BTreeMap<Vec<u8>, Row> {
    let mut rows = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let rel = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            let Ok(meta) = path.symlink_metadata() else { continue };
            match () {
                () if rel.starts_with(b".keepwatch-") => {}
                () if meta.is_dir() => pending.push(path),
                () if meta.is_symlink() => {
                    let to = fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes());
                    rows.insert(rel, (to.unwrap_or_default(), None));
                }
                () => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    rows.insert(rel, (bytes, Some((meta.mtime(), meta.mtime_nsec()))));
                }
            }
        }
    }
    rows
}

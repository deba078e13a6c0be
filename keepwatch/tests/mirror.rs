//! `keepwatch mirror` on real files: what is at the target is held against the source by an independent walk.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::{Dice, shake, sized, wait_for};

/// A source, a target, and the state of what mirrors one to the other.
struct Pair {
    dir: tempfile::TempDir,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        let prefix = format!("--source-prefix={}/", dir.path().join("source").display());
        Pair { dir, flags: vec![prefix], child: None }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(support::program());
        command.arg("mirror").args(&self.flags).args(flags).arg(self.source()).arg(self.target());
        command.arg("--state-dir").arg(self.state());
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    fn once(&self, flags: &[&str]) -> Output {
        self.command(flags).arg("--once").output().unwrap()
    }

    /// Mirrors once, which must be fine; what it says.
    fn once_fine(&self) -> String {
        let output = self.once(&[]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {text}", output.status);
        text
    }

    fn start(&mut self, flags: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        self.child = Some(self.command(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let _ = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// Waits until the target is as the source, whatever was done before.
    fn wait_same(&self) {
        let mut last = Vec::new();
        let start = std::time::Instant::now();
        while start.elapsed() < support::PATIENCE {
            last = differences(&self.source(), &self.target());
            if last.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("{} differences: {:#?}\n{log}", last.len(), &last[..last.len().min(10)]);
    }

    fn assert_same(&self) {
        let found = differences(&self.source(), &self.target());
        assert!(found.is_empty(), "{} differences: {:#?}", found.len(), &found[..found.len().min(10)]);
        let staged = fs::read_dir(self.target().join(".keepwatch-tmp")).unwrap().count();
        assert_eq!(staged, 0, "nothing is left staged");
    }

    /// Every path in the trash, below its day.
    fn trash(&self) -> Vec<PathBuf> {
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
struct Object {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    content: Vec<u8>,
    links: u64,
}

fn walk(top: &Path) -> BTreeMap<std::ffi::OsString, Object> {
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

fn differences(source: &Path, target: &Path) -> Vec<String> {
    let (ours, theirs) = (walk(source), walk(target));
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differs.map(|name| format!("{name:?}: {:?} / {:?}", ours.get(name), theirs.get(name))).collect()
}

fn make_tree(top: &Path, files: usize) {
    let mut dice = Dice::new(7);
    for number in 0..files {
        let dir = top.join(format!("d{}", number % 17)).join(format!("e{}", number % 5));
        fs::create_dir_all(&dir).unwrap();
        let bytes: Vec<u8> = (0..dice.below(9000)).map(|_| dice.below(256) as u8).collect();
        fs::write(dir.join(format!("f{number}")), bytes).unwrap();
    }
}

#[test]
fn a_tree_of_all_kinds_is_copied_once_and_then_nothing_is_sent_again() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, sized(400, 20_000));
    symlink("d1/nowhere", source.join("link")).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("a\nb 'c' -\"\u{e9}"), "odd").unwrap();
    fs::write(source.join("a-b"), "beside").unwrap();
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::write(source.join("a/b/c"), "x").unwrap();
    fs::create_dir(source.join("hollow")).unwrap();
    fs::set_permissions(source.join("hollow"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(source.join("a-b"), fs::Permissions::from_mode(0o604)).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    drop(sparse);
    fs::hard_link(source.join("a-b"), source.join("a/linked")).unwrap();
    pair.once_fine();
    pair.assert_same();
    assert!(fs::metadata(pair.target().join("sparse")).unwrap().blocks() < 64, "holes stay holes");
    assert!(pair.once_fine().contains("0 copied"), "nothing is sent twice");
}

#[test]
fn what_changed_while_nothing_ran_is_brought_over() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 200);
    pair.once_fine();
    fs::rename(source.join("d3"), source.join("moved")).unwrap();
    fs::remove_file(source.join("d4/e4/f4")).unwrap();
    fs::write(source.join("d5/e0/f5"), "other").unwrap();
    fs::set_permissions(source.join("d6/e1/f6"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(source.join("d7/e2/f7"), source.join("d8/f7")).unwrap();
    let told = pair.once_fine();
    pair.assert_same();
    assert!(told.contains("1 copied"), "only the content that is new is sent: {told}");
    let trash = pair.trash();
    for kept in ["d4/e4/f4", "d5/e0/f5"] {
        assert!(trash.contains(&PathBuf::from(kept)), "{kept} is kept: {trash:?}");
    }
}

#[test]
fn a_target_that_holds_the_files_already_is_recognised() {
    let pair = Pair::new();
    make_tree(&pair.source(), 100);
    let copied = Command::new("cp").arg("-aT").arg(pair.source()).arg(pair.target()).status().unwrap();
    assert!(copied.success());
    fs::write(pair.target().join("foreign"), "not ours").unwrap();
    let told = pair.once_fine();
    assert!(told.contains("0 copied"), "{told}");
    assert_eq!(fs::read(pair.target().join("foreign")).unwrap(), b"not ours");
}

#[test]
fn refusals_name_the_thing_and_touch_nothing() {
    let pair = Pair::new();
    make_tree(&pair.source(), 5);
    let program = || {
        let mut command = Command::new(support::program());
        command.env_clear().env("HOME", pair.dir.path()).arg("mirror").arg("--once");
        // Another state is another keepwatch.
        command.arg("--state-dir").arg(pair.dir.path().join("other"));
        command
    };
    let told = |command: &mut Command, code: i32, words: &str| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    };
    let inside = pair.source().join("d1");
    told(program().arg(pair.source()).arg(&inside), 2, "lie in one another");
    told(program().arg(pair.source()).arg("gopher://x/y"), 2, "gopher");
    told(program().arg(pair.source()).arg(pair.dir.path().join("missing")), 4, "missing");
    told(program().arg("--source-prefix").arg(&inside).arg(pair.source()).arg(pair.target()), 2, "source prefix");
    assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0);
    pair.once_fine();
    let output = program().arg(pair.source()).arg(pair.target()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("belongs to another keepwatch"), "{text}");
}

#[test]
fn the_copy_follows_under_churn() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 100);
    pair.start(&["--delete-delay=1s", "--allow-deletes"]);
    pair.wait_same();
    let mut dice = Dice::new(11);
    for _ in 0..sized(4, 40) {
        shake(&source, &mut dice, 300);
        fs::write(source.join("round"), format!("{}", dice.below(1_000_000))).unwrap();
        wait_for("the round is there", || {
            fs::read(pair.target().join("round")).ok() == fs::read(source.join("round")).ok()
        });
    }
    pair.wait_same();
    pair.stop();
    pair.assert_same();
}

#[test]
fn a_renamed_directory_is_renamed_at_the_target() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 300);
    pair.start(&[]);
    pair.wait_same();
    let inode = |path: &str| fs::metadata(pair.target().join(path)).map(|meta| meta.ino()).ok();
    let before = inode("d2/e2/f2");
    assert!(before.is_some());
    fs::rename(source.join("d2"), source.join("d3/inner")).unwrap();
    wait_for("the directory is renamed", || inode("d3/inner/e2/f2") == before && inode("d2").is_none());
    fs::rename(source.join("d4/e4/f4"), source.join("f4")).unwrap();
    let file = inode("d4/e4/f4");
    wait_for("the file is renamed", || inode("f4") == file && inode("d4/e4/f4").is_none());
    pair.wait_same();
    pair.stop();
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, sized(300, 5_000));
    let mut dice = Dice::new(5);
    for _ in 0..sized(6, 100) {
        pair.start(&["--delete-delay=1s", "--allow-deletes"]);
        for _ in 0..50 {
            let number = dice.below(200);
            let path = source.join(format!("d{}/e{}/f{number}", number % 17, number % 5));
            fs::write(path, vec![number as u8; dice.below(50_000)]).unwrap();
        }
        // At whatever moment that is.
        std::thread::sleep(std::time::Duration::from_millis(dice.below(700) as u64));
        pair.kill();
    }
    pair.start(&["--delete-delay=1s", "--allow-deletes"]);
    pair.wait_same();
    pair.stop();
    pair.assert_same();
}

#[test]
fn nothing_is_deleted_where_it_may_be_a_mistake() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 50);
    pair.once_fine();
    let copies = walk(&pair.target()).len();
    // The directory is another, and empty: what was mounted there is gone.
    fs::rename(&source, pair.dir.path().join("away")).unwrap();
    fs::create_dir(&source).unwrap();
    let _ = pair.once(&["--allow-deletes"]);
    assert_eq!(walk(&pair.target()).len(), copies);
    fs::remove_dir(&source).unwrap();
    fs::rename(pair.dir.path().join("away"), &source).unwrap();
    pair.once_fine();
    // Emptied by hand.
    for entry in fs::read_dir(&source).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
    fs::write(source.join("last"), "").unwrap();
    pair.once_fine();
    assert_eq!(pair.trash().iter().filter(|path| path.to_string_lossy().contains("/f")).count(), 50, "few go at once");
    make_tree(&source, 300);
    pair.once_fine();
    for number in 0..10 {
        fs::remove_dir_all(source.join(format!("d{number}"))).unwrap();
    }
    let output = pair.once(&[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("deletes within an hour"), "{text}");
    assert!(pair.target().join("d1").exists());
    assert!(pair.once(&["--allow-deletes"]).status.success());
    pair.assert_same();
}

#[test]
fn a_target_that_is_not_the_one_is_not_written_to() {
    let pair = Pair::new();
    make_tree(&pair.source(), 20);
    pair.once_fine();
    fs::rename(pair.target(), pair.dir.path().join("unmounted")).unwrap();
    fs::create_dir(pair.target()).unwrap();
    fs::write(pair.source().join("new"), "x").unwrap();
    let output = pair.once(&[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("is it mounted"), "{text}");
    assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0, "the bare mount point stays bare");
    fs::remove_dir(pair.target()).unwrap();
    fs::rename(pair.dir.path().join("unmounted"), pair.target()).unwrap();
    pair.once_fine();
    pair.assert_same();
}

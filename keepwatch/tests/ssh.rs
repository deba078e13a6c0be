//! `keepwatch mirror` to a real sshd, with keepwatch on the far side and without.
#![allow(clippy::unwrap_used)]

mod sshd;
mod support;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sshd::{Far, Sshd};
use support::{Dice, sized, wait_for};

/// A source, a directory behind a server, and the state of what mirrors one to the other.
struct Pair {
    sshd: Sshd,
    far: Far,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Pair {
    fn new(test: &str, far: Far) -> Option<Self> {
        let sshd = Sshd::start(test, far)?;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        Some(Pair { sshd, far, dir, child: None })
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn command(&self, host: &str) -> Command {
        let mut command = Command::new(support::program());
        command.arg("mirror").arg(format!("--source-prefix={}/", self.source().display())).arg(self.source());
        match host.starts_with("ssh://") {
            true => command.arg(host),
            false => command.arg(format!("ssh://{host}{}", self.target().display())),
        };
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").env("PATH", self.sshd.path());
        command.stdin(Stdio::null());
        command
    }

    fn once(&self, host: &str) -> Output {
        self.command(host).arg("--once").output().unwrap()
    }

    fn once_fine(&self) -> String {
        let output = self.once("far");
        assert!(output.status.success(), "{:?}: {}: {}", self.far, output.status, text(&output));
        text(&output)
    }

    fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        self.child = Some(self.command("far").arg("-v").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it, however it is.
    fn end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let _ = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        child.wait().unwrap()
    }

    fn stop(&mut self) {
        let status = self.end();
        assert!(status.success(), "{status}: {}", self.log());
    }

    fn differences(&self) -> Vec<String> {
        let (ours, theirs) = (walk(&self.source(), self.far), walk(&self.target(), self.far));
        let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let differs = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        differs.map(|name| format!("{name:?}: {:?} / {:?}", ours.get(name), theirs.get(name))).collect()
    }

    fn assert_same(&self) {
        let found = self.differences();
        assert!(found.is_empty(), "{:?}: {} differences: {:#?}", self.far, found.len(), &found[..found.len().min(5)]);
    }

    fn assert_nothing_staged(&self) {
        assert_eq!(fs::read_dir(self.target().join(".keepwatch-tmp")).unwrap().count(), 0, "{:?}", self.far);
    }

    fn wait_same(&self) {
        let start = std::time::Instant::now();
        loop {
            let found = self.differences();
            if found.is_empty() {
                return;
            }
            let log = self.log();
            let log = &log[log.len().saturating_sub(3000)..];
            assert!(start.elapsed() < support::PATIENCE, "{:?}: {:#?}\n{log}", self.far, &found[..found.len().min(5)]);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
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

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What of an object must be the same at both places, as far as the way to the target keeps it.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: Vec<u8>,
    links: u64,
}

fn walk(top: &Path, far: Far) -> BTreeMap<OsString, Object> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(top.join(&dir)).into_iter().flatten().flatten() {
            if dir.as_os_str().is_empty() && entry.file_name().as_bytes().starts_with(b".keepwatch-") {
                continue;
            }
            let path = dir.join(entry.file_name());
            let Ok(meta) = top.join(&path).symlink_metadata() else { continue };
            let content = match () {
                () if meta.is_file() => fs::read(top.join(&path)).unwrap_or_default(),
                () if meta.is_symlink() => {
                    fs::read_link(top.join(&path)).unwrap().into_os_string().into_encoded_bytes()
                }
                () => Vec::new(),
            };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            let nanoseconds = if far == Far::Keepwatch { meta.mtime_nsec() } else { 0 };
            let object = Object {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: (meta.mtime(), nanoseconds),
                content,
                links: if meta.is_dir() { 0 } else { meta.nlink() },
            };
            found.insert(path.into_os_string(), object);
        }
    }
    found
}

fn fill(top: &Path, files: usize) {
    let mut dice = Dice::new(11);
    for number in 0..files {
        let dir = top.join(format!("d{}", number % 13)).join(format!("e{}", number % 3));
        fs::create_dir_all(&dir).unwrap();
        let bytes: Vec<u8> = (0..dice.below(6000)).map(|_| dice.below(256) as u8).collect();
        fs::write(dir.join(format!("f{number}")), bytes).unwrap();
    }
}

/// Bytes that no cipher or file system makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut dice = Dice::new(length as u64 + 1);
    (0..length).map(|_| dice.below(256) as u8).collect()
}

const BOTH: [Far; 2] = [Far::Keepwatch, Far::Bare];

#[test]
fn a_tree_of_all_kinds_is_copied_once_and_nothing_is_sent_again() {
    for far in BOTH {
        let Some(pair) = Pair::new("a tree of all kinds by ssh", far) else { return };
        let source = pair.source();
        fill(&source, sized(400, 20_000));
        fs::write(source.join("large"), noise(3_000_000)).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        symlink("d1/nowhere", source.join("link")).unwrap();
        fs::hard_link(source.join("large"), source.join("other-name")).unwrap();
        fs::write(source.join("shut"), "x").unwrap();
        fs::set_permissions(source.join("shut"), fs::Permissions::from_mode(0o4710)).unwrap();
        let odd: &[&[u8]] = &[b"-rf", b"a\nb", b"$(touch x)`id`;'\"", b"\xff\xfe", b" ", b"%41"];
        for name in odd {
            fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
        }
        fs::write(source.join(OsStr::from_bytes(&[b'n'; 255])), "long").unwrap();
        let sparse = fs::File::create(source.join("sparse")).unwrap();
        sparse.set_len(40_000_000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 20_000_000).unwrap();
        drop(sparse);
        pair.once_fine();
        pair.assert_same();
        pair.assert_nothing_staged();
        let blocks = fs::metadata(pair.target().join("sparse")).unwrap().blocks();
        assert!(blocks < 4000, "{far:?}: holes stay holes, but it has {blocks} blocks");
        let sent = pair.sshd.proxy.sent();
        let said = pair.once_fine();
        assert!(said.contains("0 copied"), "{far:?}: {said}");
        assert!(pair.sshd.proxy.sent() - sent < 50_000, "{far:?}: only what a connection costs");
    }
}

#[test]
fn what_happens_is_followed_and_what_moves_is_not_sent_again() {
    for far in BOTH {
        let Some(mut pair) = Pair::new("moves by ssh", far) else { return };
        let (source, files) = (pair.source(), sized(2_000, 100_000));
        fs::create_dir(source.join("many")).unwrap();
        for number in 0..files {
            fs::write(source.join(format!("many/{number}")), format!("{number:0200}")).unwrap();
        }
        fs::write(source.join("large"), noise(20_000_000)).unwrap();
        pair.start();
        pair.wait_same();
        let sent = pair.sshd.proxy.sent();
        fs::rename(source.join("many"), source.join("moved")).unwrap();
        fs::rename(source.join("large"), source.join("moved/large")).unwrap();
        pair.wait_same();
        let moved = pair.sshd.proxy.sent() - sent;
        assert!(moved < 100_000, "{far:?}: {moved} bytes were sent for two renames");
        fs::write(source.join("moved/7"), "changed").unwrap();
        fs::write(source.join("new"), "new").unwrap();
        pair.wait_same();
        pair.stop();
        pair.assert_nothing_staged();
    }
}

#[test]
fn a_connection_that_is_cut_or_swallowed_is_made_again() {
    for (far, hole) in [(Far::Keepwatch, false), (Far::Keepwatch, true), (Far::Bare, false), (Far::Bare, true)] {
        let Some(mut pair) = Pair::new("a connection is lost", far) else { return };
        // So that silence is noticed while the test has patience.
        pair.sshd.set_client("-o ServerAliveInterval=1 -o ServerAliveCountMax=2");
        fill(&pair.source(), 300);
        for number in 0..4 {
            fs::write(pair.source().join(format!("large{number}")), noise(4_000_000 + number)).unwrap();
        }
        pair.sshd.proxy.trouble_after(6_000_000, hole);
        pair.start();
        wait_for("the trouble", || pair.sshd.proxy.had_trouble());
        wait_for("the trouble is noticed", || pair.log().contains("lags"));
        pair.sshd.proxy.heal();
        pair.wait_same();
        pair.end();
        pair.once_fine();
        pair.assert_nothing_staged();
        pair.assert_same();
    }
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_touched() {
    let Some(pair) = Pair::new("refusals by ssh", Far::Keepwatch) else { return };
    fs::write(pair.source().join("x"), "x").unwrap();
    let refused = |host: &str, status: i32, words: &[&str]| {
        let output = pair.once(host);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(status), "{host}: {said}");
        for word in words {
            assert!(said.contains(word), "{host}: `{word}` is not in: {said}");
        }
        assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0, "{host}: nothing is touched");
    };
    refused("unknown", 4, &["host key is known", "ssh-keyscan unknown"]);
    refused("wrong", 4, &["Permission denied", "does not take our key"]);
    refused("far:1", 4, &["Connection refused"]);
    refused("far/nowhere", 4, &["there is no such directory"]);
    refused("-oProxyCommand=touch${IFS}x", 2, &["no host's name"]);
    refused("far:99999", 2, &["port"]);
    refused("ann:secret@far", 2, &["password"]);
}

#[test]
fn a_key_can_be_bound_to_a_directory() {
    let Some(pair) = Pair::new("receive in a directory", Far::Keepwatch) else { return };
    fs::write(pair.source().join("x"), "x").unwrap();
    let program = support::program();
    pair.sshd.force(&format!("{} receive {}/elsewhere", program.display(), pair.dir.path().display()));
    fs::create_dir(pair.dir.path().join("elsewhere")).unwrap();
    let output = pair.once("far");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("takes nothing outside of"), "{}", text(&output));
    // Not by a link either.
    symlink(pair.target(), pair.dir.path().join("elsewhere/target")).unwrap();
    let output = pair.once(&format!("ssh://far{}/elsewhere/target", pair.dir.path().display()));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0);
    pair.sshd.force(&format!("{} receive {}", program.display(), pair.dir.path().display()));
    pair.once_fine();
    pair.assert_same();
}

#[test]
fn a_target_that_is_full_says_so_and_goes_on_when_there_is_room() {
    if !support::is_root() {
        return support::skipped("a full target by ssh", "it mounts a small file system, as root");
    }
    for far in BOTH {
        let Some(pair) = Pair::new("a full target by ssh", far) else { return };
        let target = pair.target();
        support::sh("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", target.to_str().unwrap()]);
        for number in 0..6 {
            fs::write(pair.source().join(format!("f{number}")), noise(1_000_000 + number)).unwrap();
        }
        let output = pair.once("far");
        let grown = Command::new("mount").args(["-o", "remount,size=40m"]).arg(&target).status().unwrap();
        let said = text(&output);
        let again = pair.once("far");
        let (differences, staged) = (pair.differences(), fs::read_dir(target.join(".keepwatch-tmp")).unwrap().count());
        support::sh("umount", &[target.to_str().unwrap()]);
        assert!(!output.status.success() && said.contains("no room"), "{far:?}: {}: {said}", output.status);
        assert!(grown.success() && again.status.success(), "{far:?}: {}", text(&again));
        assert_eq!((differences, staged), (Vec::new(), 0), "{far:?}");
    }
}

#[test]
fn what_ssh_is_told_is_what_was_asked_for() {
    let Some(pair) = Pair::new("what_ssh_is_told_is_what_was_asked_for", Far::Keepwatch) else { return };
    fs::write(pair.source().join("x"), "x").unwrap();
    let top = pair.sshd.dir();
    let once = |flags: &[&OsStr]| {
        let mut command = pair.command("wrong");
        // Nothing but the flags leads to this server and its key.
        command.env("PATH", "/usr/bin:/bin").arg("--once").args(["--ssh-command", "/usr/bin/ssh -4"]);
        command.arg("--ssh-config").arg(top.join("ssh.conf")).args(flags).output().unwrap()
    };
    let refused = once(&[]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("does not take our key"), "{}", text(&refused));
    let key = top.join("user");
    let done = once(&["--identity-file".as_ref(), key.as_os_str(), "--far-side=receive".as_ref()]);
    assert!(done.status.success(), "{}", text(&done));
    pair.assert_same();
    let usage = once(&["--far-side=telnet".as_ref()]);
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage));
}

//! Many real processes at once, some of which are killed or stopped at any moment.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keepwatch_pack::{Limits, Options, Packer, ScavengeOptions, Scavenger, Sync};
use support::{Dice, Members, assert_clean, assert_program_accepts, recover, sized, skipped, unzipped};

const ROLE: &str = "KEEPWATCH_PACK_ROLE";
/// So that parts are begun and merged.
const LIMITS: Limits = Limits { members: 3000, bytes: 1 << 30, small_bytes: 1 << 16, ratio: 3 };

/// What a process of this test's own program does when it is told to.
#[test]
fn role() {
    let Ok(role) = env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let base = env::current_dir().unwrap();
    match words[..] {
        ["worker", seed, count] => work(&base, seed.parse().unwrap(), count.parse().unwrap()),
        ["scavenger"] => scavenge_for_ever(&base),
        _ => panic!("{role}"),
    }
}

/// What a worker with this number writes as its file of that number.
fn file(seed: usize, member: usize) -> (String, Vec<u8>) {
    let mut dice = Dice::new((seed * 1_000_003 + member + 1) as u64);
    let archive = dice.below(5);
    let len = if dice.below(50) == 0 { dice.below(60_000) } else { dice.below(800) };
    (format!("a{archive}.zip/w{seed}/m{member}"), dice.bytes(len))
}

fn work(base: &Path, seed: usize, count: usize) {
    let options = Options {
        rotation: Duration::from_millis(30),
        sync: if seed.is_multiple_of(3) { Sync::Each } else { Sync::Rotation },
        spill_bytes: 20_000,
        ..Options::default()
    };
    let packer = Packer::open(base, options).unwrap();
    for member in 0..count {
        let (name, content) = file(seed, member);
        let mut handle = packer.create(name).unwrap();
        handle.write_all(&content).unwrap();
        handle.finish().unwrap();
        // One call, so that a line is there in full or not at all.
        std::io::stdout().write_all(format!("FINISHED {member}\n").as_bytes()).unwrap();
    }
    packer.close().unwrap();
}

/// Also from writers that live, and from scavengers that were stopped for a while.
fn scavenge_for_ever(base: &Path) {
    let options = ScavengeOptions {
        flush: true,
        stale_after: Some(Duration::from_secs(1)),
        limits: LIMITS,
        ..ScavengeOptions::default()
    };
    let scavenger = Scavenger::open(base, options).unwrap();
    // Until the test ends it, or dies itself.
    let (ended, end) = channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    while end.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
        let report = scavenger.scavenge().unwrap();
        assert!(report.quarantined.is_empty() || env::var_os("KEEPWATCH_PACK_TORN").is_some(), "{report:?}");
        for error in report.errors {
            eprintln!("{error}");
        }
    }
}

/// A process, and what it finished.
struct Process {
    child: Child,
    seed: Option<usize>,
    finished: Receiver<usize>,
    /// What it has to say to people, when it has ended.
    complaint: JoinHandle<String>,
}

impl Process {
    fn start(base: &Path, role: &str, seed: Option<usize>) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env("KEEPWATCH_PACK_TORN", "1")
            .current_dir(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut err = child.stderr.take().unwrap();
        let complaint = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, finished) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test's own program says something before the first.
                if let Some(member) = line.rsplit_once("FINISHED ").and_then(|(_, member)| member.parse().ok()) {
                    let _ = sender.send(member);
                }
            }
        });
        Process { child, seed, finished, complaint }
    }

    fn worker(base: &Path, seed: usize, count: usize) -> Self {
        Self::start(base, &format!("worker {seed} {count}"), Some(seed))
    }

    fn scavenger(base: &Path) -> Self {
        Self::start(base, "scavenger", None)
    }

    /// Waits for its end; adds what it finished. If it failed: what it said.
    fn end(self, all: &mut Members) -> Result<(), String> {
        let (role, pid) = (self.seed.map_or("scavenger".to_owned(), |seed| format!("worker {seed}")), self.child.id());
        let (status, complaint) = self.ended(all);
        if status.success() { Ok(()) } else { Err(format!("{role} ({pid}) {status}: {complaint}")) }
    }

    /// Ends it where it is; adds what it finished.
    fn kill(mut self, all: &mut Members) {
        self.child.kill().unwrap();
        self.ended(all);
    }

    fn ended(mut self, all: &mut Members) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        // The channel closes when all that was printed has been read.
        for member in &self.finished {
            let (name, content) = file(self.seed.unwrap(), member);
            all.insert(name.into_bytes(), content);
        }
        (status, self.complaint.join().unwrap())
    }
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
}

fn assert_all_there(base: &Path, finished: &Members, may_have_more: bool) {
    let found = unzipped(base);
    for (name, content) in finished {
        let shown = String::from_utf8_lossy(name).into_owned();
        assert!(found.get(name) == Some(content), "{shown}: {:?}", found.get(name).map(Vec::len));
    }
    assert!(found.keys().all(|name| !name.contains(&b'~')), "a name twice");
    assert!(may_have_more || found.len() == finished.len());
    assert_clean(base);
}

fn many(base: &Path) {
    let (workers, members) = (sized(12, 64), sized(200, 2000));
    let scavengers: Vec<Process> = (0..sized(3, 4)).map(|_| Process::scavenger(base)).collect();
    let started: Vec<Process> = (0..workers).map(|seed| Process::worker(base, seed, members)).collect();
    let mut finished = Members::new();
    let mut failed: Vec<String> = Vec::new();
    failed.extend(started.into_iter().filter_map(|worker| worker.end(&mut finished).err()));
    failed.extend(scavengers.into_iter().filter_map(|scavenger| scavenger.end(&mut Members::new()).err()));
    assert!(failed.is_empty(), "in {base:?}:\n{}", failed.join("\n"));
    assert_eq!(finished.len(), workers * members);
    recover(base, LIMITS);
    assert_all_there(base, &finished, false);
    let mut told = 0;
    for entry in std::fs::read_dir(base).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "zip") {
            assert_program_accepts("unzip", &["-tqq"], &path);
            assert_program_accepts("7zz", &["t"], &path);
            told += headers_told(&path);
        }
    }
    assert_eq!(told, finished.len());
}

/// How many members zipdetails(1) finds by reading the file from front to back.
fn headers_told(archive: &Path) -> usize {
    let output = Command::new("zipdetails").arg(archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Unexpected") && !text.contains("ERROR"), "{archive:?}");
    text.lines().filter(|line| line.contains("LOCAL HEADER #")).count()
}

#[test]
fn many_workers_and_scavengers_at_once() {
    many(support::base().path());
}

/// So that the tests here fail for what the packer does, and not for how they look at it.
#[test]
fn what_is_found_is_told_whole_though_its_teller_is_stopped() {
    let base = support::fast_base();
    let content = Dice::new(5).bytes(300_000);
    support::stage(base.path(), &[("ar.zip/large", &content)]);
    support::scavenge(base.path());
    let found = support::unzipped_while(&[base.path().to_owned()], |child| {
        let pid = child.id();
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
        };
        let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !is_so() {
                assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
                std::thread::yield_now();
            }
        };
        let out = child.stdout.as_ref().unwrap();
        // The pipe holds less than the answer, so that the teller comes to sleep within one write.
        wait_for("it tells nothing", &|| rustix::io::ioctl_fionread(out).unwrap() > 4096 && state() == 'S');
        signal(pid, "STOP");
        wait_for("it is not stopped", &|| state() == 'T');
        signal(pid, "CONT");
    });
    assert_eq!(found[0], support::members([("ar.zip/large", &content[..])]));
}

#[test]
fn killed_and_stopped_at_any_moment() {
    let base = support::fast_base();
    let kills = sized(60, 2000);
    let mut dice = Dice::new(17);
    let mut finished = Members::new();
    let mut next = 0..;
    let mut start = |kind: usize| match kind {
        0 => Process::scavenger(base.path()),
        _ => Process::worker(base.path(), next.next().unwrap(), 400),
    };
    let mut running: Vec<(usize, Process)> = [0, 0, 1, 1, 1].map(|kind| (kind, start(kind))).into();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(dice.below(40) as u64));
        let at = dice.below(running.len());
        // Stopped for longer than others wait for it, now and then.
        if dice.below(8) == 0 {
            signal(running[at].1.child.id(), "STOP");
            std::thread::sleep(Duration::from_millis(1300));
            signal(running[at].1.child.id(), "CONT");
        }
        let (kind, process) = running.swap_remove(at);
        process.kill(&mut finished);
        running.push((kind, start(kind)));
    }
    for (_, process) in running {
        process.kill(&mut finished);
    }
    recover(base.path(), LIMITS);
    assert!(finished.len() > kills, "only {} were finished", finished.len());
    assert_all_there(base.path(), &finished, true);
}

#[test]
fn on_a_network_file_system() {
    const SERVER: &str = "/usr/lib/openssh/sftp-server";
    let test = "on_a_network_file_system";
    let dir = tempfile::tempdir().unwrap();
    let (near, far) = (dir.path().join("near"), dir.path().join("far"));
    std::fs::create_dir(&near).unwrap();
    std::fs::create_dir(&far).unwrap();
    // The server is spoken to over a pipe: no daemon, no key.
    let wrapper = dir.path().join("ssh");
    std::fs::write(&wrapper, format!("#!/bin/sh\nexec {SERVER}\n")).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = Command::new("sshfs")
        .args(["-o", &format!("ssh_command={}", wrapper.display())])
        .arg(format!("nowhere:{}", far.display()))
        .arg(&near)
        .output();
    if !Path::new(SERVER).exists() || !mounted.is_ok_and(|output| output.status.success()) {
        return skipped(test, "it needs sshfs, openssh-sftp-server and the right to mount");
    }
    let _mounted = Mounted(&near);
    many(&near);
}

/// Unmounts when the test ends, in whatever way.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fusermount").arg("-uz").arg(self.0).status();
    }
}

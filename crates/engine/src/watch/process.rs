//! Who did it: the user and the program behind a process number, read once for each process.
//!
//! An event waits in the kernel's queue before it is read, and its process may be gone by then, its number given to
//! another. What is read of a process counts if it began before the queue was last empty: then it had the number all the
//! while. For one that is younger the queue must have been empty a moment ago.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keepwatch_journal::By;
use rustix::fs::{Mode, OFlags, open, openat, readlinkat};
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::processes;

/// How many processes are remembered; beyond that all are forgotten and read again.
const REMEMBERED_MAX: usize = 512;

/// How long what was read is trusted: a process may go on as another program (`execve`) or another user. Process
/// numbers are given out in a cycle, so within this time none stands for two processes that both wrote.
const TRUSTED: Duration = Duration::from_secs(1);

/// How long it need not be asked whether a number still is the same process's.
const SEEN: Duration = Duration::from_millis(100);

/// When a process began, in clock ticks since the machine did: what tells it from a later one with the same number.
type Birth = u64;

/// Processes whose groups are remembered; beyond that all are forgotten.
const GROUPS_MAX: usize = 8_192;

/// In which process group those were who were told of lately, by process number: they may be gone by now.
#[derive(Debug, Default)]
pub struct Groups(Mutex<HashMap<u32, u32>>);

impl Groups {
    /// The group of a process that was told of lately.
    #[must_use]
    pub fn of(&self, pid: u32) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).copied()
    }

    fn note(&self, pid: u32, group: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= GROUPS_MAX {
            known.clear();
        }
        known.insert(pid, group);
    }
}

/// Remembers processes by number and birth.
#[derive(Debug)]
pub(crate) struct Processes {
    known: HashMap<u32, Known>,
    /// When the buffer was read.
    now: Instant,
    /// When the kernel's queue was last known to be empty.
    emptied: Instant,
    groups: Arc<Groups>,
}

#[derive(Debug)]
struct Known {
    birth: Option<Birth>,
    /// When it was last seen to be the same.
    seen_at: Instant,
    read_at: Instant,
    by: Arc<By>,
}

impl Processes {
    /// Knows nobody; the queue is empty.
    pub(crate) fn new(now: Instant, groups: Arc<Groups>) -> Self {
        Processes { known: HashMap::new(), now, emptied: now, groups }
    }

    /// A new buffer is about to be read: process numbers may have been given to others since the last.
    pub(crate) fn next_buffer(&mut self, now: Instant) {
        self.now = now;
        if self.known.len() > REMEMBERED_MAX {
            self.known.clear();
        }
    }

    /// Nothing was left in the queue by then.
    pub(crate) fn queue_was_empty(&mut self, at: Instant) {
        self.emptied = at;
    }

    /// Who `pid` is. `None` where the kernel does not tell. Of a process that is gone, or of which it is not sure that it
    /// is the one that was told of, only its number is known, unless it was met a moment ago.
    pub(crate) fn who(&mut self, pid: i32) -> Option<Arc<By>> {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        let now = self.now;
        let is_fresh = |known: &&Known| now.duration_since(known.seen_at) < SEEN;
        if let Some(known) = self.known.get(&pid).filter(is_fresh) {
            return Some(Arc::clone(&known.by));
        }
        let process = Process::open(pid);
        let birth = process.as_ref().map(|process| process.birth);
        if let Some(known) = self.known.get_mut(&pid) {
            let is_same = birth.is_none() || birth == known.birth;
            if is_same && now.duration_since(known.read_at) < TRUSTED {
                known.seen_at = now;
                return Some(Arc::clone(&known.by));
            }
        }
        if let Some(process) = &process {
            self.groups.note(pid, process.group);
        }
        let by = match process {
            Some(process) if self.is_the_one(process.birth) => process.read(pid),
            Some(_) | None => By { pid, uid: None, exe: None },
        };
        let by = Arc::new(by);
        self.known.insert(pid, Known { birth, seen_at: now, read_at: now, by: Arc::clone(&by) });
        Some(by)
    }

    /// Whether a process that began then had its number when the event was made.
    fn is_the_one(&self, birth: Birth) -> bool {
        let waited = self.now.duration_since(self.emptied);
        waited < TRUSTED || self.now.checked_sub(age(birth)).is_some_and(|began| began < self.emptied)
    }
}

/// For how long there has been a process, at least: births are told in ticks, rounded down.
fn age(birth: Birth) -> Duration {
    let ticks_per_second = clock_ticks_per_second().max(1);
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    let born = Duration::from_nanos((birth + 1).saturating_mul(1_000_000_000 / ticks_per_second));
    since_boot.saturating_sub(born)
}

/// A process, by its directory: that stays this process's and can be read no more once it is gone.
struct Process {
    dir: OwnedFd,
    birth: Birth,
    group: u32,
}

impl Process {
    fn open(pid: u32) -> Option<Process> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = open(format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        let processes::Process { group, born: birth } = processes::Process::parse(&read(&dir, "stat")?)?;
        Some(Process { dir, birth, group })
    }

    fn read(&self, pid: u32) -> By {
        let exe = readlinkat(&self.dir, "exe", Vec::new()).ok().map(|path| path.into_bytes().into_boxed_slice());
        By { pid, uid: read(&self.dir, "status").and_then(|status| real_uid(&status)), exe }
    }
}

fn read(dir: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = vec![0; 4096];
    let len = rustix::io::read(&file, &mut bytes[..]).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// The first of the four numbers in the line `Uid:` of `/proc/PID/status`.
fn real_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    #[test]
    fn this_process_is_known_by_user_and_program() {
        let pid = std::process::id();
        let mut processes = Processes::new(Instant::now(), Arc::default());
        processes.next_buffer(Instant::now());
        let by = processes.who(pid.cast_signed()).unwrap();
        let group = rustix::process::getpgrp().as_raw_nonzero().get().cast_unsigned();
        assert_eq!((processes.groups.of(pid), processes.groups.of(0)), (Some(group), None));
        assert_eq!(by.pid, pid);
        assert_eq!(by.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(by.exe.as_deref(), Some(std::env::current_exe().unwrap().as_os_str().as_bytes()));
    }

    #[test]
    fn what_was_read_is_trusted_for_a_moment_only() {
        let pid = std::process::id();
        let start = Instant::now();
        let mut processes = Processes::new(start, Arc::default());
        let who = |processes: &mut Processes, at: Instant| {
            processes.queue_was_empty(at);
            processes.next_buffer(at);
            processes.who(pid.cast_signed()).unwrap()
        };
        let by = who(&mut processes, start);
        Arc::make_mut(&mut processes.known.get_mut(&pid).unwrap().by).exe = None;
        assert_eq!(who(&mut processes, start + TRUSTED / 2).exe, None);
        assert_eq!(who(&mut processes, start + TRUSTED), by);
        processes.known.get_mut(&pid).unwrap().birth = Some(0);
        Arc::make_mut(&mut processes.known.get_mut(&pid).unwrap().by).exe = None;
        assert_eq!(who(&mut processes, start + TRUSTED + SEEN), by, "it is another process");
    }

    #[test]
    fn a_process_that_is_gone_leaves_only_its_number() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let mut processes = Processes::new(Instant::now(), Arc::default());
        processes.next_buffer(Instant::now());
        assert_eq!(processes.who(pid.cast_signed()), Some(Arc::new(By { pid, uid: None, exe: None })));
        assert_eq!(processes.who(0), None);
        assert_eq!(processes.who(-1), None);
    }

    #[test]
    fn a_process_younger_than_what_waited_long_may_be_another() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = Instant::now();
        let mut processes = Processes::new(now, Arc::default());
        let mut knows = |pid: u32, waited: Duration| {
            processes.known.clear();
            processes.queue_was_empty(now.checked_sub(waited).unwrap());
            processes.next_buffer(now);
            processes.who(pid.cast_signed()).unwrap().uid.is_some()
        };
        assert!(!knows(child.id(), TRUSTED * 2));
        assert!(knows(child.id(), TRUSTED / 2));
        assert!(knows(1, TRUSTED * 2), "the first process is older than that");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

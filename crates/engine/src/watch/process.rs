//! Who did it: the user and the program behind a process id, read once for each process.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use keepwatch_journal::By;
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open, openat, readlinkat};

/// How many processes are remembered; beyond that all are forgotten and read again.
const REMEMBERED_MAX: usize = 512;

/// How long what was read is trusted: a process may go on as another program (`execve`) or another user. Process
/// numbers are given out in a cycle, so within this time none stands for two processes that both wrote.
const TRUSTED: Duration = Duration::from_secs(1);

/// `PID_FS_MAGIC` of `linux/magic.h`: since Linux 6.9 a process descriptor's inode number is its process's alone.
const PID_FS_MAGIC: u64 = 0x5049_4446;

/// What tells a process from a later one with the same number.
type Birth = u64;

/// Remembers processes by number and birth.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: HashMap<u32, Known>,
    /// Counts buffers: within one buffer nothing is read twice.
    buffer: u64,
    /// Whether process descriptors are told apart by inode; unknown before the first.
    has_pidfs: Option<bool>,
}

#[derive(Debug)]
struct Known {
    birth: Option<Birth>,
    buffer: u64,
    read_at: Instant,
    by: By,
}

impl Processes {
    /// A new buffer was read: process numbers may have been given to others since the last.
    pub(crate) fn next_buffer(&mut self) {
        self.buffer += 1;
        if self.known.len() > REMEMBERED_MAX {
            self.known.clear();
        }
    }

    /// Who `pid` is. `pidfd` is its descriptor, if the kernel gave one. `None` where the kernel does not tell.
    /// Of a process that is gone only its number is known, unless it was met a moment ago.
    pub(crate) fn who(&mut self, pid: i32, pidfd: Option<&OwnedFd>, now: Instant) -> Option<Box<By>> {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        let buffer = self.buffer;
        if let Some(known) = self.known.get(&pid).filter(|known| known.buffer == buffer) {
            return Some(Box::new(known.by.clone()));
        }
        let birth = self.birth(pid, pidfd);
        if let Some(known) = self.known.get_mut(&pid) {
            let is_same = birth.is_none() || birth == known.birth;
            if is_same && now.duration_since(known.read_at) < TRUSTED {
                known.buffer = buffer;
                return Some(Box::new(known.by.clone()));
            }
        }
        let by = read_process(pid, pidfd);
        self.known.insert(pid, Known { birth, buffer, read_at: now, by: by.clone() });
        Some(Box::new(by))
    }

    fn birth(&mut self, pid: u32, pidfd: Option<&OwnedFd>) -> Option<Birth> {
        if let Some(pidfd) = pidfd {
            let has_pidfs = *self.has_pidfs.get_or_insert_with(|| {
                fstatfs(pidfd).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|magic| magic == PID_FS_MAGIC))
            });
            if has_pidfs {
                return fstat(pidfd).ok().map(|stat| stat.st_ino);
            }
        }
        start_time(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Field 22 of `/proc/PID/stat`. The second, the command, may hold blanks and parentheses of its own.
fn start_time(stat: &[u8]) -> Option<Birth> {
    let behind_command = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let field = stat[behind_command..].split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(19)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Reads user and program. Only if the descriptor still stands for `pid` afterwards were they this process's.
fn read_process(pid: u32, pidfd: Option<&OwnedFd>) -> By {
    let nothing = By { pid, uid: None, exe: None };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(dir) = open(format!("/proc/{pid}"), flags, Mode::empty()) else { return nothing };
    let exe = readlinkat(&dir, "exe", Vec::new()).ok().map(|path| path.into_bytes().into_boxed_slice());
    let by = By { pid, uid: read_uid(&dir), exe };
    let is_the_same = pidfd.is_none_or(|pidfd| {
        std::fs::read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
            .is_ok_and(|info| line_value(&info, b"Pid:") == Some(u64::from(pid)))
    });
    if is_the_same { by } else { nothing }
}

/// The real user id, first of the four in the line `Uid:` of `status`.
fn read_uid(dir: &OwnedFd) -> Option<u32> {
    let status = openat(dir, "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = vec![0; 4096];
    let len = rustix::io::read(&status, &mut bytes[..]).ok()?;
    line_value(&bytes[..len], b"Uid:").and_then(|uid| u32::try_from(uid).ok())
}

/// The first number in the line that starts with `label`.
fn line_value(text: &[u8], label: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(label))?;
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
    fn a_start_time_is_found_behind_any_command() {
        let stat = b"7 (a ) R (b) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 4711 99 1\n";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time(b"7 (cut"), None);
        assert_eq!(start_time(b""), None);
    }

    #[test]
    fn this_process_is_known_by_user_and_program() {
        let pid = std::process::id();
        let mut processes = Processes::default();
        processes.next_buffer();
        let by = processes.who(pid.cast_signed(), None, Instant::now()).unwrap();
        assert_eq!(by.pid, pid);
        assert_eq!(by.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(by.exe.as_deref(), Some(std::env::current_exe().unwrap().as_os_str().as_bytes()));
    }

    #[test]
    fn what_was_read_is_trusted_for_a_moment_only() {
        let pid = std::process::id();
        let start = Instant::now();
        let mut processes = Processes::default();
        processes.next_buffer();
        let by = processes.who(pid.cast_signed(), None, start).unwrap();
        processes.known.get_mut(&pid).unwrap().by.exe = None;
        processes.next_buffer();
        assert_eq!(processes.who(pid.cast_signed(), None, start + TRUSTED / 2).unwrap().exe, None);
        processes.next_buffer();
        assert_eq!(processes.who(pid.cast_signed(), None, start + TRUSTED).unwrap(), by);
        processes.known.get_mut(&pid).unwrap().birth = Some(0);
        processes.known.get_mut(&pid).unwrap().by.exe = None;
        processes.next_buffer();
        assert_eq!(processes.who(pid.cast_signed(), None, start + TRUSTED).unwrap(), by, "it is another process");
    }

    #[test]
    fn a_process_that_is_gone_leaves_only_its_number() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let raw = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        let mut processes = Processes::default();
        processes.next_buffer();
        let gone = Some(Box::new(By { pid, uid: None, exe: None }));
        assert_eq!(processes.who(pid.cast_signed(), Some(&pidfd), Instant::now()), gone);
        // By now its number belongs to another: to us, say.
        let other = std::process::id();
        let unknown = Some(Box::new(By { pid: other, uid: None, exe: None }));
        assert_eq!(processes.who(other.cast_signed(), Some(&pidfd), Instant::now()), unknown);
        assert_eq!(processes.who(0, None, Instant::now()), None);
        assert_eq!(processes.who(-1, None, Instant::now()), None);
    }
}

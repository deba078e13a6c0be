//! Process groups for commands: each with a leader that is there before the command, so that its number can be journaled first.
//!
//! The leader does nothing but wait on a pipe. When the pipe's other end goes, with this process however it ends, it ends its
//! whole group. So commands do not outlive the service; what does all the same is found by number, start and boot.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::model::RunProcess;
use crate::processes::{self, Process};

/// How long a group may take to be gone after it was killed.
const GONE_MAX: Duration = Duration::from_secs(10);
/// It is looked for this often.
const GONE_LOOK: Duration = Duration::from_millis(2);

/// A process group, and its leader.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    pid: Pid,
    born: u64,
}

impl Group {
    /// Starts a leader: a program and its arguments, that waits until its standard input ends.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(holder: &[OsString]) -> io::Result<Group> {
        let (program, args) = holder.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(args).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let leader = command.spawn()?;
        let born = Process::look(leader.id()).map(|process| process.born);
        let pid = i32::try_from(leader.id()).ok().and_then(Pid::from_raw);
        match (pid, born) {
            (Some(pid), Some(born)) => Ok(Group { leader, pid, born }),
            _ => Err(io::Error::other("the leader of a process group was gone at once")),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.leader.id()
    }

    /// The same as a number for signals.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// When its leader began, in clock ticks since the machine did.
    #[must_use]
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Whether its leader is there.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.leader.try_wait(), Ok(None))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.leader.wait();
    }
}

fn is_of_group(pid: u32, group: u32) -> bool {
    Process::look(pid).is_some_and(|process| process.group == group)
}

/// Ends what is left of a group in which a command was run by a process that is gone: nothing, if the machine was booted since or
/// the number is another's by now. `false`: something is there still.
#[must_use]
pub fn end_group(process: &RunProcess) -> bool {
    let Some(pid) = i32::try_from(process.group).ok().and_then(Pid::from_raw) else { return true };
    if process.boot != processes::boot_id() || test_kill_process_group(pid).is_err() || !is_ours(process) {
        return true;
    }
    let until = Instant::now() + GONE_MAX;
    while kill_process_group(pid, Signal::KILL).is_ok() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(GONE_LOOK);
    }
    true
}

/// Whether a group that is there is the one that is meant. Its number is given to no new process as long as it has members; where
/// the leader is gone one of them must have been told of it.
fn is_ours(process: &RunProcess) -> bool {
    if let Some(leader) = Process::look(process.group) {
        return leader.born == process.born;
    }
    let run = format!("KEEPWATCH_RUN={}.{}", process.group, process.born);
    let knows_run = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == run.as_bytes())
    };
    processes::all().is_ok_and(|mut all| all.any(|pid| is_of_group(pid, process.group) && knows_run(pid)))
}

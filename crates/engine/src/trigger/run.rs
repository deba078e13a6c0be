//! One run of a command, from its start to its end or its time-out.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::output::Output;

/// How long a command may take to end after TERM, before KILL.
const TERM_WAIT: Duration = Duration::from_secs(5);
/// It is looked this often whether it is to be ended.
const LOOK_WAIT: Duration = Duration::from_millis(200);
/// Read at once of what a command says.
const PIECE: usize = 64 * 1024;

/// A command to run.
#[derive(Debug)]
pub struct Order {
    /// The program, by its path, and its arguments.
    pub words: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub dir: PathBuf,
    /// As which user and group; `None`: as this process.
    pub user: Option<u32>,
    /// The same.
    pub group: Option<u32>,
    /// Its standard input; `None`: nothing.
    pub input: Option<OwnedFd>,
    /// The process group that it joins.
    pub process_group: Pid,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// `None`: it was fine. Else why it was not, for people.
    pub why: Option<String>,
    /// It was not the command's fault: it was to end.
    pub is_cut: bool,
    /// What it said.
    pub stdout: Output,
    /// The same.
    pub stderr: Output,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command to its end, or to that of its time, or until it is to end. Whatever is not fine ends with its whole process group
/// killed, leader too.
#[must_use]
pub fn run(order: Order, is_to_end: impl Fn() -> bool) -> Finish {
    let begun = Instant::now();
    let group = order.process_group;
    let mut watched = Watched { stdout: Output::default(), stderr: Output::default() };
    let ended = watched.run(order, &is_to_end);
    let (why, is_cut) = match ended {
        Ok(End::Status(status)) if status.success() => (None, false),
        Ok(End::Status(status)) => (Some(told_status(status, &watched)), false),
        Ok(End::Late(timeout)) => (Some(format!("it took longer than {timeout:?} and was ended")), false),
        Ok(End::Stopped) => (Some("it was ended from here".to_owned()), true),
        Err(error) => (Some(error), false),
    };
    if why.is_some() {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Finish { why, is_cut, stdout: watched.stdout, stderr: watched.stderr, took: begun.elapsed() }
}

fn told_status(status: std::process::ExitStatus, watched: &Watched) -> String {
    let what = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "it ended in an unknown way".to_owned(),
    };
    match watched.stderr.last_line() {
        Some(line) => format!("{what}: {line}"),
        None => what,
    }
}

/// How a command ended.
enum End {
    Status(std::process::ExitStatus),
    Late(Duration),
    Stopped,
}

struct Watched {
    stdout: Output,
    stderr: Output,
}

impl Watched {
    fn run(&mut self, order: Order, is_to_end: &dyn Fn() -> bool) -> Result<End, String> {
        let (program, args) = order.words.split_first().ok_or("there is no command")?;
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(order.environment).current_dir(&order.dir);
        command.process_group(order.process_group.as_raw_nonzero().get());
        command.stdin(order.input.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = order.user {
            command.uid(user);
        }
        if let Some(group) = order.group {
            command.gid(group);
        }
        let shown = || program.to_string_lossy();
        let child = command.spawn().map_err(|error| format!("{} cannot be started: {error}", shown()))?;
        drop(command);
        self.watch(child, order.process_group, order.timeout, is_to_end).map_err(|error| error.to_string())
    }

    fn watch(
        &mut self,
        mut child: Child,
        group: Pid,
        timeout: Duration,
        is_to_end: &dyn Fn() -> bool,
    ) -> io::Result<End> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let end = pidfd_open(pid, PidfdFlags::empty())?;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        for pipe in [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let begun = Instant::now();
        let mut buffer = vec![0; PIECE];
        // Why it is ended, and until when it may end by itself.
        let mut ending: Option<(End, Instant)> = None;
        loop {
            let until = ending.as_ref().map_or(begun + timeout, |(_, kill)| *kill);
            let wait = LOOK_WAIT.min(until.saturating_duration_since(Instant::now()));
            let mut fds = vec![PollFd::new(&end, PollFlags::IN)];
            fds.extend(out.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(err.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let has_ended = fds[0].revents().contains(PollFlags::IN);
            drop(fds);
            drain(&mut out, &mut self.stdout, &mut buffer);
            drain(&mut err, &mut self.stderr, &mut buffer);
            if has_ended {
                let status = child.wait()?;
                return Ok(ending.map_or(End::Status(status), |(why, _)| why));
            }
            let now = Instant::now();
            let kill = ending.as_ref().map(|(_, kill)| *kill);
            match kill {
                None if is_to_end() => ending = Some((End::Stopped, now + TERM_WAIT)),
                None if now >= begun + timeout => ending = Some((End::Late(timeout), now + TERM_WAIT)),
                None => continue,
                Some(kill) if now >= kill => {
                    kill_process_group(group, Signal::KILL)?;
                    continue;
                }
                Some(_) => continue,
            }
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// Takes what is there of a stream, at most as much as is kept of it, so that a flood does not hide an end.
fn drain(pipe: &mut Option<impl io::Read>, output: &mut Output, buffer: &mut [u8]) {
    let Some(open) = pipe else { return };
    match open.by_ref().read(buffer) {
        Ok(0) => *pipe = None,
        Ok(length) => output.push(&buffer[..length]),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
}

//! A program that a target talks with on its standard input and output, and what it complains of on its standard error.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Lines of its complaints that are kept, and the bytes of one.
const LINES_MAX: usize = 24;
const LINE_BYTES_MAX: u64 = 1024;
/// How long it may take to end once its output is closed.
const END_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const END_LOOK: Duration = Duration::from_millis(5);

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A program that runs.
pub(super) struct Process {
    child: Child,
    /// Its process group, which is its own.
    group: Option<Pid>,
    complaints: Lines,
    gatherer: Option<JoinHandle<()>>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    /// `None`: it did not end by itself, and was ended.
    pub(super) status: Option<ExitStatus>,
    /// The last lines of its standard error.
    pub(super) complaints: Vec<String>,
}

/// Starts a program. `name` is for the log.
pub(super) fn start(mut command: Command, name: &'static str) -> io::Result<(Process, ChildStdin, ChildStdout)> {
    // What a person's terminal tells us to do, we tell the child in our own time.
    command.process_group(0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let errors = child.stderr.take();
    let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let complaints = Lines::default();
    let lines = Arc::clone(&complaints);
    let gather = move || gather(errors, name, &lines);
    let gatherer = std::thread::Builder::new().name(format!("{name} stderr")).spawn(gather)?;
    Ok((Process { child, group, complaints, gatherer: Some(gatherer) }, input, output))
}

/// Keeps the last lines.
fn gather(errors: ChildStderr, name: &'static str, lines: &Lines) {
    let mut errors = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match errors.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        if text.is_empty() {
            continue;
        }
        tracing::debug!(line = text, name);
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

impl Process {
    /// Ends it and all that it started, at once.
    pub(super) fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// What it complained of until now.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended, as it does once its input is closed, and tells how.
    pub(super) fn end(mut self) -> End {
        let until = Instant::now() + END_MAX;
        let mut status = self.ended();
        while status.is_none() && Instant::now() < until {
            std::thread::sleep(END_LOOK);
            status = self.ended();
        }
        if status.is_none() {
            self.kill();
            let _ = self.child.wait();
        }
        // A process that it left behind may hold the pipe open for ever.
        if let Some(gatherer) = self.gatherer.take().filter(|_| status.is_some()) {
            let until = Instant::now() + END_LOOK * 20;
            while !gatherer.is_finished() && Instant::now() < until {
                std::thread::sleep(END_LOOK);
            }
        }
        End { status, complaints: self.complaints() }
    }
}

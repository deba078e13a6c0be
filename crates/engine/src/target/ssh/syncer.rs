//! A shell where there is no `keepwatch`: it has a file system synced as a whole, where sftp can only sync file by file.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::child::Ssh;

/// What the shell prints before it listens.
pub(super) const GREETING: &[u8] = b"keepwatch-sync\n";
/// What it prints for a directory whose file system was synced.
const DONE: &str = "done";

/// What it is asked first, and answers.
const READY: &str = "ready";
/// What a far side is started with: its `keepwatch`, or the shell that syncs. It holds nothing that came from outside. What is
/// no path, like that with which a receiver is greeted, has no answer.
pub(super) const COMMAND: &str = "exec sh -c 'command -v keepwatch >/dev/null && exec keepwatch receive; \
    echo keepwatch-sync; while IFS= read -r line; do case $line in \
    /*) sync -f \"$line\" && echo done || echo failed;; ready) echo ready;; esac; done'";

/// The shell at the other end.
pub(super) struct Syncer {
    talk: Mutex<Option<Talk>>,
    /// It answered until now.
    is_there: AtomicBool,
}

struct Talk {
    // They are closed before the program is waited for.
    to: Option<ChildStdin>,
    from: Option<BufReader<ChildStdout>>,
    ssh: Option<Ssh>,
}

impl Syncer {
    /// Over what has greeted as one. `None`: it does not answer.
    pub(super) fn begin(ssh: Ssh, to: ChildStdin, from: BufReader<ChildStdout>) -> Option<Self> {
        let mut talk = Talk { to: Some(to), from: Some(from), ssh: Some(ssh) };
        let is_ready = talk.ask(&[b"\n", READY.as_bytes()].concat()).is_ok_and(|answer| answer == READY);
        is_ready.then(|| Syncer { talk: Mutex::new(Some(talk)), is_there: AtomicBool::new(true) })
    }

    /// Whether it is worth asking.
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// Has the file system that holds a directory synced. `false`: that was not done, and is not to be asked for again.
    pub(super) fn sync(&self, dir: &[u8]) -> bool {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        // A line ends the name.
        let is_plain = dir.starts_with(b"/") && !dir.contains(&b'\n') && !dir.contains(&0);
        let is_done = is_plain && talk.as_mut().is_some_and(|talk| talk.ask(dir).is_ok_and(|answer| answer == DONE));
        if !is_done {
            *talk = None;
            self.is_there.store(false, Ordering::Relaxed);
        }
        is_done
    }
}

impl Talk {
    fn ask(&mut self, line: &[u8]) -> io::Result<String> {
        let (Some(to), Some(from)) = (&mut self.to, &mut self.from) else { return Ok(String::new()) };
        to.write_all(&[line, b"\n"].concat())?;
        let mut answer = String::new();
        from.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        (self.to, self.from) = (None, None);
        if let Some(ssh) = self.ssh.take() {
            ssh.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    use super::super::child::{self, Ssh};
    use super::super::receiver::{self, Greeting};
    use super::*;

    /// The shell, as it is where `keepwatch` is not.
    fn shell() -> (Ssh, ChildStdin, BufReader<ChildStdout>) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", COMMAND]).env("PATH", "/usr/bin:/bin");
        let (ssh, to, from) = child::run(command).unwrap();
        (ssh, to, BufReader::new(from))
    }

    #[test]
    fn a_shell_syncs_what_it_is_told_and_nothing_that_is_no_path() {
        let (ssh, mut to, mut from) = shell();
        assert!(matches!(receiver::greet(&mut from, &mut to).unwrap(), Some(Greeting::Shell)));
        let syncer = Syncer::begin(ssh, to, from).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(" it's $(odd) \\ ");
        std::fs::create_dir(&odd).unwrap();
        assert!(syncer.sync(odd.as_os_str().as_bytes()));
        assert!(syncer.sync(dir.path().as_os_str().as_bytes()) && syncer.is_there());
        assert!(!syncer.sync(b"/nowhere at all") && !syncer.is_there());
        assert!(!syncer.sync(dir.path().as_os_str().as_bytes()), "once is enough");
    }

    #[test]
    fn what_ends_or_says_something_else_is_no_syncer() {
        for script in ["true", "echo hello; cat >/dev/null"] {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let (ssh, to, from) = child::run(command).unwrap();
            assert!(Syncer::begin(ssh, to, BufReader::new(from)).is_none(), "{script}");
        }
        let (ssh, mut to, mut from) = shell();
        receiver::greet(&mut from, &mut to).unwrap();
        let syncer = Syncer::begin(ssh, to, from).unwrap();
        assert!(!syncer.sync(b"relative"));
    }
}

//! The system's `ssh` as a child: its configuration, agent and known hosts are the user's. Nobody is there to be asked, so it
//! never asks; a key of a host that is not known is refused.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus};

use super::address::SshAddress;
use super::syncer::COMMAND;
use crate::target::process::{self, Process};

/// What `ssh` is told besides the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOptions {
    /// The program; looked up in `PATH` if it is a bare name.
    pub program: OsString,
    /// What it is told before all else.
    pub arguments: Vec<OsString>,
    /// A configuration file instead of the user's and the system's.
    pub config: Option<PathBuf>,
    /// The private key to log in with, and no other, instead of those that the agent and the configuration offer.
    pub identity: Option<PathBuf>,
    /// A connection on which nothing was heard for so long is lost, in seconds.
    pub silence_max_s: u32,
    /// How to talk to the far side.
    pub way: Way,
}

/// How to talk to the far side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// To `keepwatch receive` where it is installed, else by sftp.
    #[default]
    Either,
    /// To `keepwatch receive`, or not at all.
    Receiver,
    /// By sftp.
    Sftp,
}

impl Way {
    /// The word for it in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Either => "auto",
            Way::Receiver => "receive",
            Way::Sftp => "sftp",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Way::Either, Way::Receiver, Way::Sftp].into_iter().find(|way| way.as_str() == text)
    }
}

impl Default for SshOptions {
    fn default() -> Self {
        SshOptions {
            program: "ssh".into(),
            arguments: Vec::new(),
            config: None,
            identity: None,
            silence_max_s: 45,
            way: Way::Either,
        }
    }
}

/// What is started on the far side. Neither holds anything that came from outside: there is nothing to quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FarSide {
    Receiver,
    Sftp,
}

/// How long a connection may take to come about, in seconds.
const CONNECT_MAX_S: u32 = 20;
/// It is asked so many times whether the far side is there before it is given up.
const ALIVE_COUNT: u32 = 3;
/// The status with which `ssh` says that the trouble is its own, ssh(1).
const SSH_FAILED: i32 = 255;

/// The arguments of `ssh`.
fn arguments(address: &SshAddress, options: &SshOptions, far: FarSide) -> Vec<OsString> {
    let mut all = options.arguments.clone();
    all.extend(["-T", "-x", "-a", "-e", "none"].map(OsString::from));
    if let Some(config) = &options.config {
        all.extend(["-F".into(), config.clone().into_os_string()]);
    }
    if let Some(identity) = &options.identity {
        all.extend(["-i".into(), identity.clone().into_os_string(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    let interval = options.silence_max_s.div_ceil(ALIVE_COUNT).max(1);
    for option in [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        format!("ConnectTimeout={CONNECT_MAX_S}"),
        format!("ServerAliveInterval={interval}"),
        format!("ServerAliveCountMax={ALIVE_COUNT}"),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ControlMaster=no".to_owned(),
        "RemoteCommand=none".to_owned(),
        "RequestTTY=no".to_owned(),
    ] {
        all.extend(["-o".into(), option.into()]);
    }
    if let Some(port) = address.port {
        all.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = &address.user {
        all.extend(["-l".into(), user.into()]);
    }
    if far == FarSide::Sftp {
        all.push("-s".into());
    }
    all.extend(["--".into(), OsString::from(&address.host)]);
    match far {
        FarSide::Receiver => all.push(COMMAND.into()),
        FarSide::Sftp => all.push("sftp".into()),
    }
    all
}

/// An `ssh` that runs.
pub(super) struct Ssh(Process);

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    status: Option<ExitStatus>,
    complaints: Vec<String>,
    host: String,
}

/// Starts it.
pub(super) fn start(
    address: &SshAddress,
    options: &SshOptions,
    far: FarSide,
) -> io::Result<(Ssh, ChildStdin, ChildStdout)> {
    let mut command = Command::new(&options.program);
    command.args(arguments(address, options, far));
    run(command)
}

/// Starts what is or stands for `ssh`.
pub(super) fn run(command: Command) -> io::Result<(Ssh, ChildStdin, ChildStdout)> {
    let (process, input, output) = process::start(command, "ssh")?;
    let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE_BYTES);
    Ok((Ssh(process), input, output))
}

/// What may wait in the pipe to `ssh`, so that it and we take turns less often.
const PIPE_BYTES: usize = 1024 * 1024;

impl Ssh {
    /// Ends it at once.
    pub(super) fn kill(self) {
        self.0.kill();
        self.0.end();
    }

    /// Waits until it has ended, as it does once its output is closed, and tells how.
    pub(super) fn end(self, host: &str) -> End {
        let process::End { status, complaints } = self.0.end();
        End { status, complaints, host: host.to_owned() }
    }
}

impl End {
    /// Whether the far side was reached and has ended the conversation itself.
    pub(super) fn is_of_far_side(&self) -> bool {
        self.status.and_then(|status| status.code()).is_some_and(|code| code != SSH_FAILED)
    }

    /// Why, in one line, and what to do.
    pub(super) fn why(&self) -> String {
        explain(&self.host, &self.complaints).unwrap_or_else(|| match self.status {
            Some(status) => match (status.code(), status.signal()) {
                (Some(0), _) => "the far side closed the connection".to_owned(),
                (_, Some(signal)) => format!("ssh was ended by signal {signal}"),
                (code, _) => format!("ssh ended with status {}", code.unwrap_or(SSH_FAILED)),
            },
            None => "the connection was lost".to_owned(),
        })
    }
}

/// What ssh's complaints come to; `None` if there are none.
fn explain(host: &str, lines: &[String]) -> Option<String> {
    let line = |part: &str| lines.iter().rev().find(|line| line.contains(part)).cloned();
    if line("IDENTIFICATION HAS CHANGED").is_some() {
        return Some(format!(
            "its host key is not the one that is known, so somebody may stand in between; if the host was made anew, \
             take the old key away with `ssh-keygen -R {host}` and take in the new one, compared with the host's own"
        ));
    }
    if let Some(text) = line("host key is known for").or_else(|| line("Host key verification failed")) {
        return Some(format!(
            "{text}: connect once by hand with `ssh {host}`, or put what `ssh-keyscan {host}` prints into known_hosts, \
             once you have compared it with the host's own"
        ));
    }
    if let Some(text) = line("Permission denied (") {
        return Some(format!("{text}: it does not take our key; `ssh {host}` has to work without a question"));
    }
    // What ssh says last is mostly only that it has ended.
    let telling = lines.iter().rev().find(|line| !line.starts_with("Connection to ") && !line.starts_with("** "));
    telling.or(lines.last()).cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_never_an_option() {
        let address = SshAddress::parse(b"ssh://ann@vault:2222/x y").unwrap();
        let all = arguments(&address, &SshOptions::default(), FarSide::Receiver);
        let text: Vec<_> = all.iter().map(|one| one.to_string_lossy()).collect();
        let end = text.iter().position(|one| one == "--").unwrap();
        assert_eq!(text[end + 1..], ["vault", COMMAND], "nothing of the address reaches a shell");
        assert!(text[..end].windows(2).any(|pair| pair == ["-l", "ann"]));
        assert!(text[..end].windows(2).any(|pair| pair == ["-p", "2222"]));
        assert!(text.iter().any(|one| one == "StrictHostKeyChecking=yes"));
        assert!(text.iter().any(|one| one == "BatchMode=yes"));
        let asked = SshOptions {
            arguments: vec!["-4".into()],
            config: Some("/etc/ssh own".into()),
            identity: Some("/etc/key".into()),
            ..SshOptions::default()
        };
        let all = arguments(&address, &asked, FarSide::Receiver);
        assert_eq!(all[0], "-4");
        assert!(all.windows(2).any(|pair| pair == ["-F", "/etc/ssh own"]));
        assert!(all.windows(4).any(|four| four == ["-i", "/etc/key", "-o", "IdentitiesOnly=yes"]));
        let sftp = arguments(&address, &SshOptions::default(), FarSide::Sftp);
        assert_eq!(sftp[sftp.len() - 3..], ["--", "vault", "sftp"]);
    }

    #[test]
    fn complaints_become_one_line_with_a_remedy() {
        let explained = |lines: &[&str]| {
            explain("vault", &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let unknown = explained(&[
            "No ED25519 host key is known for vault and you have requested strict checking.",
            "Host key verification failed.",
        ]);
        assert!(unknown.contains("No ED25519 host key is known") && unknown.contains("ssh-keyscan vault"));
        let changed =
            explained(&["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."]);
        assert!(changed.contains("ssh-keygen -R vault"));
        assert!(explained(&["ann@vault: Permission denied (publickey)."]).contains("our key"));
        let refused = "ssh: connect to host vault port 22: Connection refused";
        assert_eq!(explained(&[refused]), refused);
        assert_eq!(explain("vault", &[]), None);
    }
}

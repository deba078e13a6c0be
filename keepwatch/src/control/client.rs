//! A command's end of the control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::address::Address;
use super::{REPLY_BYTES_MAX, Reply, Request, SILENCE_MAX, WRITE_TIMEOUT};
use crate::error::{CommandError, Kind};

/// A way to the service that runs on a state directory.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
    silence_max: Duration,
}

impl Client {
    /// For the service on this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Client { state_dir: state_dir.to_owned(), silence_max: SILENCE_MAX }
    }

    /// The same, but giving up after another time of silence.
    #[cfg(test)]
    pub fn silence_max(mut self, silence_max: Duration) -> Self {
        self.silence_max = silence_max;
        self
    }

    /// Whether a service listens.
    #[cfg(test)]
    pub fn is_running(&self) -> bool {
        self.connect().is_ok()
    }

    /// Asks, hands each progress line to `progress`, and returns what `done` carries.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if no service answers or it falls silent; what the service said if it did not do it; and what
    /// `progress` ends in.
    pub fn call(
        &self,
        request: &Request,
        mut progress: impl FnMut(Value) -> Result<(), CommandError>,
    ) -> Result<Value, CommandError> {
        let stream = self.connect().map_err(|error| self.no_service(&error))?;
        let mut lines = self.send(stream, request).map_err(|error| self.lost(&error))?;
        loop {
            match self.receive(&mut lines)? {
                Reply::Progress { data } => progress(data)?,
                Reply::Working {} => {}
                Reply::Done { data } => return Ok(data),
                Reply::Failed { kind, message, hints } => {
                    return Err(CommandError { kind: Kind::from(kind), message, hints });
                }
            }
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(Address::of(&self.state_dir)?.path())
    }

    fn send(&self, mut stream: UnixStream, request: &Request) -> io::Result<BufReader<UnixStream>> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.set_read_timeout(Some(self.silence_max))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        match stream.write_all(&line) {
            // A service that turns us away does not read first; why stands in its answer.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent?,
        }
        Ok(BufReader::new(stream))
    }

    fn receive(&self, lines: &mut BufReader<UnixStream>) -> Result<Reply, CommandError> {
        let mut line = Vec::new();
        lines.by_ref().take(REPLY_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| self.lost(&error))?;
        if line.is_empty() {
            return Err(self.lost(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        serde_json::from_slice(&line).map_err(|error| {
            CommandError::failed(format!("the service gave an answer that cannot be understood: {error}"))
                .hint("is it of another version? restart it after an upgrade")
        })
    }

    fn no_service(&self, error: &io::Error) -> CommandError {
        let dir = self.state_dir.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CommandError::unreachable(format!("no keepwatch service runs on {dir}"))
                    .hint("start it with `keepwatch run`, or name its directory with `--state-dir`")
            }
            io::ErrorKind::PermissionDenied => {
                CommandError::unreachable(format!("not allowed to reach the keepwatch service on {dir}"))
                    .hint("be root, its user, or a member of its `control_group`")
            }
            _ => CommandError::unreachable(format!("cannot reach the keepwatch service on {dir}: {error}")),
        }
    }

    fn lost(&self, error: &io::Error) -> CommandError {
        let dir = self.state_dir.display();
        let message = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the keepwatch service on {dir} has not answered for {} s", self.silence_max.as_secs())
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                format!("the keepwatch service on {dir} ended before it had answered")
            }
            _ => format!("lost the keepwatch service on {dir}: {error}"),
        };
        CommandError::unreachable(message).hint("its log says more")
    }
}

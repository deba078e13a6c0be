//! What a command can end in, and the one place that maps it to an exit code.

use std::fmt;
use std::io;

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was done and nothing found amiss.
    Fine,
    /// It ran, and there is something to know: drift, differences, a chain that does not verify.
    Findings,
    /// Some of it failed; what, was said on stderr.
    Partly,
}

/// Why a command ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked to be true is not: damage, drift.
    Findings,
    /// The command line or the configuration is wrong; nothing was done.
    Usage,
    /// It failed, in whole or in part.
    Failed,
    /// The service or a target cannot be reached.
    Unreachable,
    /// A fault in this program.
    Bug,
    /// Whoever read our output has gone, which is how `keepwatch ls | head` ends.
    ClosedPipe,
}

/// The end of a command that could not do what was asked: a message that names the object, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// Decides the exit code.
    pub kind: Kind,
    /// Lower-case, without a final stop; may have several lines.
    pub message: String,
    /// What to do next, each a line.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        CommandError { kind, message: message.into(), hints: Vec::new() }
    }

    /// The command line or configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The service or a target cannot be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    /// The same with one more remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A failed write to standard output: a closed pipe is no failure.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    pub fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::ClosedPipe, "standard output was closed"),
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

/// The exit code, the same for every command: 0 fine · 1 findings · 2 usage or configuration · 3 some of it failed ·
/// 4 the service or a target cannot be reached · 70 a bug.
#[must_use]
pub fn exit_code(result: &Result<Outcome, CommandError>) -> u8 {
    match result {
        Ok(Outcome::Fine) => 0,
        Ok(Outcome::Findings) => 1,
        Ok(Outcome::Partly) => 3,
        Err(error) => match error.kind {
            Kind::ClosedPipe => 0,
            Kind::Findings => 1,
            Kind::Usage => 2,
            Kind::Failed => 3,
            Kind::Unreachable => 4,
            Kind::Bug => 70,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_the_promised_exit_code() {
        let of = |kind| exit_code(&Err(CommandError::new(kind, "x")));
        assert_eq!([Outcome::Fine, Outcome::Findings, Outcome::Partly].map(|o| exit_code(&Ok(o))), [0, 1, 3]);
        assert_eq!([Kind::Findings, Kind::Usage, Kind::Failed, Kind::Unreachable, Kind::Bug].map(of), [1, 2, 3, 4, 70]);
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
        let closed = CommandError::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(exit_code(&Err(closed)), 0);
        let full = CommandError::output(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(exit_code(&Err(full)), 3);
    }

    #[test]
    fn hints_follow_the_message() {
        let error = CommandError::usage("no roots").hint("add one");
        assert_eq!(error.to_string(), "error: no roots\nhint: add one");
    }
}

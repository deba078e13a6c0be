//! How a command that does its work itself has it journaled: by the service that runs, or in the state directory, taken for so long.

use std::path::{Path, PathBuf};

use keepwatch_engine::daemon::scribe::Scribe;
use keepwatch_engine::daemon::settings::Settings;
use keepwatch_engine::daemon::tell::{Tell, TellError};
use keepwatch_journal::{Body, Record, RelPath, RootName, Seq, Timestamp};

use crate::control::Request;
use crate::control::client::Client;
use crate::error::{CommandError, Kind};

/// An act as it would stand in the journal.
#[must_use]
pub fn text_of(body: Body) -> String {
    let mut text = Vec::new();
    Record { seq: Seq::ZERO, at: Timestamp(0), body, extra: None }.render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The acts that a client has journaled: those of what it does itself, and no others.
///
/// # Errors
/// If there is another one among them.
pub fn acts(texts: &[String]) -> Result<Vec<Body>, CommandError> {
    let read = |text: &String| match Record::parse(text.as_bytes()).map(|record| record.body) {
        Ok(body @ (Body::Restored(_) | Body::Released(_))) => Ok(body),
        _ => Err(CommandError::usage("the service journals only what was restored or released for a client")),
    };
    texts.iter().map(read).collect()
}

/// The service that runs, or the state directory.
pub enum Teller {
    /// A service runs.
    Service(ByControl),
    /// None does.
    Alone(Box<Scribe>),
}

/// By the control socket.
#[derive(Debug)]
pub struct ByControl {
    state_dir: PathBuf,
}

impl Teller {
    /// Finds out which.
    ///
    /// # Errors
    /// If the state directory is taken by something that does not answer, or cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, CommandError> {
        let by_control = ByControl { state_dir: settings.state_dir.clone() };
        match by_control.call(&Request::Sync {}) {
            Ok(()) => Ok(Teller::Service(by_control)),
            Err(error) if error.kind == Kind::Unreachable && crate::lock::holder(&settings.state_dir).is_none() => {
                Ok(Teller::Alone(Box::new(Scribe::open(settings)?)))
            }
            Err(error) => Err(error),
        }
    }

    /// Who journals.
    #[must_use]
    pub fn tell(&self) -> &dyn Tell {
        match self {
            Teller::Service(service) => service,
            Teller::Alone(scribe) => &**scribe,
        }
    }

    /// Closes the journal, if it was opened here.
    ///
    /// # Errors
    /// If its end could not be written.
    pub fn close(self) -> Result<(), CommandError> {
        match self {
            Teller::Service(_) => Ok(()),
            Teller::Alone(scribe) => scribe.close().map_err(|error| CommandError::failed(error.to_string())),
        }
    }
}

impl ByControl {
    fn call(&self, request: &Request) -> Result<(), CommandError> {
        Client::new(Path::new(&self.state_dir)).call(request, |_| Ok(())).map(|_| ())
    }
}

impl Tell for ByControl {
    fn tell(&self, acts: Vec<Body>) -> Result<(), TellError> {
        let request = Request::Tell { acts: acts.into_iter().map(text_of).collect() };
        self.call(&request).map_err(|error| TellError::Failed(error.message))
    }

    fn catch_up(&self) -> Result<(), TellError> {
        self.call(&Request::Sync {}).map_err(|error| TellError::Failed(error.message))
    }

    fn look_again(&self, _root: &RootName, _dir: &RelPath) {}
}

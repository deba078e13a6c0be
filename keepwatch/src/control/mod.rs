//! How commands reach the running service: JSON lines over a Unix socket in the state directory.
//!
//! A client sends one [`Request`] as one line. The service answers with any number of `progress` and `working` lines and
//! then one `done` or `failed` line, and closes. `working` only says that it is still at it, so that a client can tell a
//! long task from a hung service.

pub mod access;
mod address;
pub mod client;
pub mod server;

use std::time::Duration;

use keepwatch_engine::daemon::triggers::Wish;
use keepwatch_engine::model::{RelPath, RootName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CommandError, Kind};

/// What a command asks of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How are you? `done` carries a [`crate::show::status::Status`].
    Status {},
    /// Return when everything noticed up to now is in the journal and the inventory.
    Sync {},
    /// Walk a root, journal what had changed unseen, and say what that came to.
    Reconcile {
        /// Which; all if none is named.
        root: Option<String>,
    },
    /// Verify originals or copies; on the way `progress` carries findings, and how far it is.
    Verify(VerifyRequest),
    /// Journal what a command has restored or is about to release, each as the text of its record.
    Tell {
        /// In their order.
        acts: Vec<String>,
    },
    /// Take the disk that is there now as the root's.
    RootAccept {
        /// Which root.
        name: String,
    },
    /// Ask a replica for something, and say how it stands when that is done.
    Replica {
        /// Which.
        name: String,
        /// What.
        wish: ReplicaWish,
    },
    /// Forget a replica that is not configured any more. Nothing at its target is touched.
    ReplicaForget {
        /// Which.
        name: String,
    },
    /// Ask a trigger for something, and say how many files that was about.
    Trigger {
        /// Which.
        name: String,
        /// What.
        wish: TriggerWish,
    },
    /// Read the configuration again.
    Reload {},
    /// Bring everything to disk and end.
    Stop {},
}

/// Whose a directory at a replica is: the directory, the host, and the path on it. Paths are their bytes.
pub type Origin = (Vec<u8>, String, Vec<u8>);

/// What is to be verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Roots, and paths in them as bytes; none: all.
    pub scopes: Vec<(String, Vec<u8>)>,
    /// The copies at this replica.
    pub replica: Option<String>,
    /// Take what lies at the replica for the copies that it is: by its attributes, or (`true`) by its content.
    pub import: Option<bool>,
    /// And what lies there of other hosts for their originals.
    #[serde(default)]
    pub origins: Option<Vec<Origin>>,
    /// Mend what is not what it was.
    pub repair: bool,
    /// Leave out what was verified within so many milliseconds.
    pub max_age_ms: Option<u64>,
    /// Read the medium, not the page cache.
    pub from_medium: bool,
}

/// What a replica can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaWish {
    /// List the target and hold all against all.
    Sync,
    /// Go on with deletes.
    Resume {
        /// All that wait are meant.
        allow_deletes: bool,
    },
    /// Take what is at its place now for the target.
    Accept,
}

/// What a trigger can be asked. A path is its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerWish {
    /// Try again.
    Retry {
        /// The root; none: all that the trigger is about.
        root: Option<String>,
        /// The path there.
        path: Vec<u8>,
    },
    /// Do not run.
    Skip {
        /// As for `Retry`.
        root: Option<String>,
        /// As for `Retry`.
        path: Vec<u8>,
    },
}

impl TriggerWish {
    /// The wish about a place.
    #[must_use]
    pub fn about(is_retry: bool, place: Option<(RootName, RelPath)>) -> Self {
        let (root, path) = place.unzip();
        let root = root.map(|root| root.to_string());
        let path = path.unwrap_or_default().as_bytes().to_vec();
        if is_retry { TriggerWish::Retry { root, path } } else { TriggerWish::Skip { root, path } }
    }

    /// What the engine is asked.
    ///
    /// # Errors
    /// If the path is none.
    pub fn for_engine(self) -> Result<Wish, CommandError> {
        let place = |root: Option<String>, path: Vec<u8>| {
            let path = RelPath::new(path).map_err(|error| CommandError::usage(error.to_string()))?;
            Ok::<_, CommandError>(root.map(|root| (RootName::new(root), path)))
        };
        Ok(match self {
            TriggerWish::Retry { root, path } => Wish::Retry(place(root, path)?),
            TriggerWish::Skip { root, path } => Wish::Skip(place(root, path)?),
        })
    }
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Something to show on the way.
    Progress {
        /// By the request.
        data: Value,
    },
    /// Still at it.
    Working {},
    /// The end: it was done.
    Done {
        /// By the request.
        data: Value,
    },
    /// The end: it was not done.
    Failed {
        /// By which the exit code is chosen.
        kind: WireKind,
        /// As in [`CommandError`].
        message: String,
        /// As in [`CommandError`].
        hints: Vec<String>,
    },
}

/// [`Kind`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireKind {
    /// Findings.
    Findings,
    /// The request makes no sense.
    Usage,
    /// It failed.
    Failed,
    /// Something that the service needs cannot be reached.
    Unreachable,
    /// A fault of the service.
    Bug,
}

/// A request is longer than this only by mistake or malice: a path has at most 4 096 bytes.
pub(crate) const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// A line of an answer; the status of very many roots is the longest.
pub(crate) const REPLY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// So often the service says that it is still at it.
pub(crate) const WORKING_INTERVAL: Duration = Duration::from_secs(2);
/// A client gives up after so long a silence.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Either side gives up if the other takes in nothing for so long.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        let kind = match error.kind {
            Kind::Findings => WireKind::Findings,
            Kind::Usage => WireKind::Usage,
            Kind::Failed | Kind::ClosedPipe => WireKind::Failed,
            Kind::Unreachable => WireKind::Unreachable,
            Kind::Bug => WireKind::Bug,
        };
        Reply::Failed { kind, message: error.message, hints: error.hints }
    }
}

impl From<WireKind> for Kind {
    fn from(kind: WireKind) -> Self {
        match kind {
            WireKind::Findings => Kind::Findings,
            WireKind::Usage => Kind::Usage,
            WireKind::Failed => Kind::Failed,
            WireKind::Unreachable => Kind::Unreachable,
            WireKind::Bug => Kind::Bug,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_plain_json_lines() {
        let request = Request::Reconcile { root: Some("records".to_owned()) };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"request":"reconcile","root":"records"}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        assert_eq!(serde_json::to_string(&Request::Status {}).unwrap(), r#"{"request":"status"}"#);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tests.rs"]
mod round_trips;

//! The state directory: one instance, one machine, no copies.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::watch::handle::dir_key;
use crate::watch::magic::FsMagic;

/// The directory, held for one instance as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// To whom a state directory belongs; `identity.json` in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The host's name, fixed at first start.
    pub host: String,
    /// A name for this state that no other has.
    pub host_id: String,
    /// The machine that it was made on.
    machine_id: Option<String>,
    /// The file handle of `identity.json` itself: a copy of the directory has another one.
    handle: String,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another instance has it.
    #[error("{path} is in use by another keepwatch (process {pid}); stop it first, or give --state-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who says so in the lock file.
        pid: String,
    },
    /// SQLite and locks are not safe there.
    #[error("{path} is on a network file system ({kind}); put state_dir on a local disk")]
    Network {
        /// The directory.
        path: PathBuf,
        /// Which.
        kind: String,
    },
    /// It was made on another machine.
    #[error(
        "{path} was made on another machine: its journal goes on there; run `keepwatch init --new-epoch` to begin a new \
         journal here"
    )]
    OtherMachine {
        /// The directory.
        path: PathBuf,
    },
    /// It is a copy, or was restored from one.
    #[error(
        "{path} is a copy or was restored from a backup: what was journaled since is not in it; run \
         `keepwatch init --new-epoch` to begin a new journal, which reconciles in full"
    )]
    Copied {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it cannot be read.
    #[error("{path} is not readable as an identity: {reason}; run `keepwatch init --new-epoch` to write a new one")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Anything else.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, StateError>;

impl StateDir {
    /// Takes the directory, making it if need be.
    ///
    /// # Errors
    /// [`StateError`] says which rule it breaks; nothing in it is changed then.
    pub fn take(path: &Path, host: &str, machine_id: Option<&str>) -> Result<Self> {
        let lock = lock(path)?;
        let at = path.join(IDENTITY);
        let identity = match fs::read(&at) {
            Ok(text) => check(path, &at, &text, machine_id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_identity(&at, &Identity::new(host, machine_id))?
            }
            Err(source) => return Err(StateError::Io { doing: "read", path: at, source }),
        };
        Ok(StateDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The journal's directory.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The inventory's file.
    #[must_use]
    pub fn inventory(&self) -> PathBuf {
        inventory_of(&self.path)
    }
}

/// A state directory that is held whatever its identity says, so that its journal can be set aside. It gets its new
/// identity last: until then it is refused as before.
#[derive(Debug)]
pub struct TakeOver {
    path: PathBuf,
    lock: File,
}

impl TakeOver {
    /// Takes the directory, which must exist. Nothing in it changes.
    ///
    /// # Errors
    /// [`StateError`], above all if another instance has it.
    pub fn begin(path: &Path) -> Result<Self> {
        fs::metadata(path).map_err(|source| StateError::Io { doing: "look at", path: path.to_owned(), source })?;
        Ok(TakeOver { path: path.to_owned(), lock: lock(path)? })
    }

    /// Binds the directory to this machine. The host keeps its name; it keeps its id too, unless the directory is
    /// another one's copy.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn finish(self, host: &str, machine_id: Option<&str>) -> Result<StateDir> {
        let at = self.path.join(IDENTITY);
        let text = fs::read(&at).unwrap_or_default();
        let sound = check(&self.path, &at, &text, machine_id).ok();
        let before = serde_json::from_slice::<Identity>(&text).ok();
        let mut identity = Identity::new(before.as_ref().map_or(host, |before| &before.host), machine_id);
        if let Some(sound) = sound {
            identity.host_id = sound.host_id;
        }
        let identity = write_identity(&at, &identity)?;
        Ok(StateDir { path: self.path, identity, _lock: self.lock })
    }
}

/// To whom a state directory belongs.
const IDENTITY: &str = "identity.json";

/// The inventory's file in a state directory.
#[must_use]
pub fn inventory_of(state: &Path) -> PathBuf {
    state.join("inventory.db")
}

/// A lock that is held for longer is held by another instance.
const LOOKERS_WAIT: Duration = Duration::from_millis(200);

fn lock(path: &Path) -> Result<File> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { doing, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make", path))?;
    let dir = File::open(path).map_err(io("open", path))?;
    let magic = FsMagic::of(dir.as_fd()).map_err(io("look at", path))?;
    if magic.is_network() {
        return Err(StateError::Network { path: path.to_owned(), kind: magic.to_string() });
    }
    let at = path.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&at)
        .map_err(io("open", &at))?;
    let start = Instant::now();
    let mut is_held = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err();
    // One that only asks who has the directory holds the lock for an instant.
    while is_held && start.elapsed() < LOOKERS_WAIT {
        std::thread::sleep(LOOKERS_WAIT / 20);
        is_held = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err();
    }
    if is_held {
        let mut pid = String::new();
        let _ = lock.read_to_string(&mut pid);
        let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
        return Err(StateError::InUse { path: path.to_owned(), pid });
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(io("write", &at))?;
    Ok(lock)
}

fn check(dir: &Path, at: &Path, text: &[u8], machine_id: Option<&str>) -> Result<Identity> {
    let identity: Identity = serde_json::from_slice(text)
        .map_err(|error| StateError::Unreadable { path: at.to_owned(), reason: error.to_string() })?;
    if let (Some(made), Some(here)) = (&identity.machine_id, machine_id)
        && made != here
    {
        return Err(StateError::OtherMachine { path: dir.to_owned() });
    }
    if handle_of(at)? != identity.handle {
        return Err(StateError::Copied { path: dir.to_owned() });
    }
    Ok(identity)
}

fn handle_of(at: &Path) -> Result<String> {
    let io = |source| StateError::Io { doing: "look at", path: at.to_owned(), source };
    let file = File::open(at).map_err(io)?;
    let key = dir_key(file.as_fd()).map_err(io)?;
    // The file system's own number may change with a reboot; the handle behind it does not.
    let bytes = key.0.get(9..).unwrap_or_default();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Identity {
    /// A new one, not bound to a file yet.
    fn new(host: &str, machine_id: Option<&str>) -> Self {
        Identity {
            host: host.to_owned(),
            host_id: keepwatch_journal::JournalId::random().to_string(),
            machine_id: machine_id.map(str::to_owned),
            handle: String::new(),
        }
    }
}

/// Writes it whole or not at all: the new file is complete, and on disk, before it has the name.
fn write_identity(at: &Path, identity: &Identity) -> Result<Identity> {
    let new = at.with_extension("json.new");
    let io = |doing| {
        let path = new.clone();
        move |source| StateError::Io { doing, path, source }
    };
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io("make"))?;
    let identity = Identity { handle: handle_of(&new)?, ..identity.clone() };
    let text = serde_json::to_string_pretty(&identity).map_err(|error| io("write")(error.into()))?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(io("write"))?;
    fs::rename(&new, at).map_err(io("put in place"))?;
    if let Some(dir) = at.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync"))?;
    }
    Ok(identity)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_and_another_machine_are_told_and_can_be_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = StateDir::take(&state, "h", Some("m1")).unwrap();
        assert!(matches!(StateDir::take(&state, "h", Some("m1")), Err(StateError::InUse { .. })));
        let id = first.identity().host_id.clone();
        drop(first);
        assert_eq!(StateDir::take(&state, "other", Some("m1")).unwrap().identity().host_id, id);
        assert!(matches!(StateDir::take(&state, "h", Some("m2")), Err(StateError::OtherMachine { .. })));
        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        fs::copy(state.join("identity.json"), copy.join("identity.json")).unwrap();
        assert!(matches!(StateDir::take(&copy, "h", Some("m1")), Err(StateError::Copied { .. })));
        let taken = TakeOver::begin(&copy).unwrap().finish("x", Some("m1")).unwrap();
        assert_eq!(taken.identity().host, "h");
        assert_ne!(taken.identity().host_id, id);
        drop(taken);
        StateDir::take(&copy, "h", Some("m1")).unwrap();
        let again = TakeOver::begin(&state).unwrap().finish("x", Some("m1")).unwrap();
        assert_eq!(again.identity().host_id, id);
    }
}

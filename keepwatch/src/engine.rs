//! From settings to what the engine is told, and from the engine's errors to what a person is told.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keepwatch_engine::daemon::epoch::EpochError;
use keepwatch_engine::daemon::replay::ReplayError;
use keepwatch_engine::daemon::service::StartError;
use keepwatch_engine::daemon::settings as engine;
use keepwatch_engine::daemon::state::{StateError, inventory_of};
use keepwatch_engine::index::IndexError;
use keepwatch_engine::inventory::{InventoryError, View};
use keepwatch_engine::watch::probe::Forced;
use keepwatch_journal::{OpenError, RootName};

use crate::config::packs::PackSettings;
use crate::config::postgres::PostgresSettings;
use crate::config::replicas;
use crate::config::{Poll, RootSettings, Settings, WatchMethod};
use crate::control::Request;
use crate::control::client::Client;
use crate::error::{CommandError, Kind};

/// How long a file must stay the same where no better evidence is to be had.
const SETTLE: Duration = Duration::from_secs(60);
/// Threads that scan: more gain nothing on a disk, and leave no core for the rest.
const SCAN_THREADS_MAX: usize = 8;

/// What the engine is told.
#[must_use]
pub fn settings(settings: &Settings) -> engine::Settings {
    let host = settings.host.clone().unwrap_or_else(host_name);
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    engine::Settings {
        state_dir: settings.state_dir.clone(),
        host: host.clone(),
        machine_id: machine_id(),
        roots: settings.roots.iter().map(|found| root(found, &settings.packs)).collect(),
        backlog_max: usize::try_from(settings.backlog_max).unwrap_or(usize::MAX),
        roll_bytes: settings.journal.roll_bytes,
        commit_wait: settings.journal.commit_interval,
        commit_records: usize::try_from(settings.journal.commit_records).unwrap_or(usize::MAX),
        index: settings.postgres.as_ref().and_then(PostgresSettings::for_engine),
        replicas: settings.replicas.iter().map(|replica| replica.for_engine(&settings.roots, &host)).collect(),
        triggers: settings.triggers.iter().map(|trigger| trigger.for_engine(&settings.roots)).collect(),
        digest: settings.digest,
        minute_of_week: replicas::minute_of_week,
        scan_threads: NonZeroUsize::new(cores.min(SCAN_THREADS_MAX)).unwrap_or(NonZeroUsize::MIN),
    }
}

/// What the packer keeps below a base is no original: it comes and goes.
fn own_places(root: &RootSettings, packs: &[PackSettings]) -> Option<String> {
    let is_within = packs.iter().any(|pack| pack.base.starts_with(&root.path));
    is_within.then(|| format!("{}/", keepwatch_pack::STAGING_DIR))
}

fn root(root: &RootSettings, packs: &[PackSettings]) -> engine::RootSettings {
    engine::RootSettings {
        name: RootName::new(root.name.as_str()),
        path: root.path.clone(),
        ignore: root.ignore.iter().cloned().chain(own_places(root, packs)).collect(),
        unfinished: root.unfinished.clone(),
        method: match root.watch {
            WatchMethod::Auto => Forced::Auto,
            WatchMethod::Fanotify => Forced::Fanotify,
            WatchMethod::Inotify => Forced::Inotify,
            WatchMethod::Poll => Forced::Poll,
        },
        poll: match root.poll {
            Poll::Auto => engine::PollEvery::WhereNeeded,
            Poll::Off => engine::PollEvery::Never,
            Poll::Every(every) => engine::PollEvery::Every(every),
        },
        settle: root.settle.unwrap_or(SETTLE),
        settle_min: root.settle_min,
        open_max: root.open_max,
        lease: root.lease,
        copies_min: root.copies_min,
        scrubbing: root.scrubbing.clone(),
    }
}

/// The machine's own name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What tells this machine from a clone of it, `machine-id(5)`.
#[must_use]
pub fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The inventory, for reading.
///
/// # Errors
/// If there is none yet, or it cannot be read.
pub fn view(state_dir: &Path) -> Result<View, CommandError> {
    let path = inventory_of(state_dir);
    if !path.exists() {
        return Err(CommandError::failed(format!("there is no inventory in {}", state_dir.display()))
            .hint("`keepwatch run` makes one; name another state directory with `--state-dir DIR`"));
    }
    View::open(&path).map_err(CommandError::from)
}

/// Lets a running service journal and apply all that has happened until now. Without one, or when it cannot, what is
/// there is what there is.
pub fn catch_up(state_dir: &Path) {
    match Client::new(state_dir).call(&Request::Sync {}, |_| Ok(())) {
        Ok(_) => {}
        Err(error) if error.kind == Kind::Unreachable => {}
        Err(error) => tracing::warn!("what follows may lag behind: {}", error.message),
    }
}

impl From<InventoryError> for CommandError {
    fn from(error: InventoryError) -> Self {
        let hint = "`keepwatch replay --to inventory` rebuilds it from the journal";
        CommandError::failed(with_sources(&error)).hint(hint)
    }
}

impl From<ReplayError> for CommandError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Index(error) => error.into(),
            error => CommandError::failed(with_sources(&error)),
        }
    }
}

impl From<IndexError> for CommandError {
    fn from(error: IndexError) -> Self {
        let kind = match &error {
            error if error.is_of_settings() => Kind::Usage,
            IndexError::Forked { .. } => Kind::Findings,
            error if error.is_away() => Kind::Unreachable,
            _ => Kind::Failed,
        };
        CommandError::new(kind, error.to_string())
    }
}

impl From<StateError> for CommandError {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::Network { .. } | StateError::InUse { .. } => Kind::Usage,
            StateError::OtherMachine { .. } | StateError::Copied { .. } | StateError::Unreadable { .. } => {
                Kind::Findings
            }
            StateError::Io { .. } => Kind::Failed,
        };
        CommandError::new(kind, with_sources(&error))
    }
}

impl From<EpochError> for CommandError {
    fn from(error: EpochError) -> Self {
        match error {
            EpochError::State(error) => error.into(),
            EpochError::Journal(_) | EpochError::Inventory { .. } => CommandError::failed(with_sources(&error)),
        }
    }
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Damaged { .. } | OpenError::Forked { .. } | OpenError::Missing { .. } => Kind::Findings,
            OpenError::Newer { .. } => Kind::Usage,
            OpenError::Disk(_) => Kind::Failed,
        };
        CommandError::new(kind, with_sources(&error))
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::State(error) => error.into(),
            StartError::Journal(error) => error.into(),
            StartError::Inventory(error) => error.into(),
            StartError::Replay(error) => error.into(),
            StartError::Forked { .. } => CommandError::new(Kind::Findings, error.to_string()),
            StartError::Pattern { .. } | StartError::Overlap(_) => CommandError::usage(error.to_string()),
            StartError::Behind(_) | StartError::Dirs(_) | StartError::Thread(_) => {
                CommandError::failed(with_sources(&error))
            }
        }
    }
}

/// An error with its causes, each said once.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The journal's directory in a state directory.
#[must_use]
pub fn journal_of(state_dir: &Path) -> PathBuf {
    state_dir.join("journal")
}

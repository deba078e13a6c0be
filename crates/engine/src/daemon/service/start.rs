//! Starting: take the state directory, find the journal's end, catch the inventory up, then watch.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use keepwatch_journal::{
    Body, Config, Cursor, Disk, GapReason, OpenError, RealDisk, Recovery, RelPath, RootName, Tail, Timestamp, Via,
    Writer, WriterOptions,
};

use super::commit::Commits;
use super::fixity::Verifiers;
use super::replicas::Replicas;
use super::root::RootRun;
use super::scans::Scans;
use super::sources::{Sources, own_dirs};
use super::triggers::Triggers;
use super::{Command, Mode, Reconciled, Service, ServiceError};
use crate::clock::{Clock, SystemClock};
use crate::daemon::dirs::{Dirs, DirsError, RootNo};
use crate::daemon::epoch;
use crate::daemon::follow::Follower;
use crate::daemon::fstree::FsTree;
use crate::daemon::index::{IndexFollower, IndexThread};
use crate::daemon::journaled::Journaled;
use crate::daemon::ledger::Ledger;
use crate::daemon::progress::Progress;
use crate::daemon::replay::{ReplayError, is_epoch, rebuild_inventory};
use crate::daemon::rules::{BadPattern, Rules};
use crate::daemon::sequencer::{Root, Sequencer};
use crate::daemon::settings::{RootSettings, Settings};
use crate::daemon::state::{StateDir, StateError};
use crate::inventory::{Host, Inventory, InventoryError, View};
use crate::watch::mounts::MountWatch;
use crate::watch::settle::Patience;

/// Commands that may wait to be heard.
const COMMANDS_MAX: usize = 64;
/// How long a file must have stayed the same after its close where only this machine writes and no lease can be had.
const SETTLE_CLOSED: std::time::Duration = std::time::Duration::from_secs(2);

/// Why the service did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The inventory does not fit the journal.
    #[error(
        "the inventory and the journal in {state} do not belong together: {why}; run `keepwatch replay --to inventory` \
         to rebuild the inventory from the journal, or `keepwatch init --new-epoch` if the journal is the older one"
    )]
    Forked {
        /// The state directory.
        state: std::path::PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The inventory could not be rebuilt.
    #[error("cannot rebuild the inventory: {0}")]
    Replay(#[from] ReplayError),
    /// The inventory cannot follow the journal.
    #[error("the inventory cannot follow the journal: {0}")]
    Behind(String),
    /// The directory table.
    #[error(transparent)]
    Dirs(#[from] DirsError),
    /// A pattern.
    #[error("root `{root}`: {source}")]
    Pattern {
        /// The root.
        root: String,
        /// What is wrong.
        source: BadPattern,
    },
    /// Two roots overlap.
    #[error("{0}")]
    Overlap(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A service that runs in threads of its own.
pub struct Handle {
    commands: Sender<Command>,
    ready: Receiver<()>,
    thread: JoinHandle<Result<(), ServiceError>>,
    host: String,
    recovery: Recovery,
    tail: Arc<Tail>,
}

impl Handle {
    /// Where to send commands.
    #[must_use]
    pub fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    /// The journal's end, for those who follow it.
    #[must_use]
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Waits until every root that is there is watched. Scans go on.
    pub fn wait_ready(&self) {
        let _ = self.ready.recv();
    }

    /// The host's name, as it was fixed at first start.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What was found at the journal's end.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What ended it, if it was not asked to end.
    ///
    /// # Panics
    /// If the service's thread panicked.
    pub fn join(self) -> Result<(), ServiceError> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Called when the service's thread ends, in whatever way.
pub type OnEnd = Box<dyn FnOnce() + Send>;

/// Starts the service.
///
/// # Errors
/// [`StartError`], with nothing changed.
pub fn start(settings: Settings, mode: Mode, on_end: Option<OnEnd>) -> Result<Handle, StartError> {
    let (commands, heard) = bounded(COMMANDS_MAX);
    begin(settings, mode, None, (commands, heard), on_end)
}

/// Checks settings as far as it can be done without taking the state directory.
///
/// # Errors
/// [`StartError::Pattern`] and [`StartError::Overlap`].
pub fn check(settings: &Settings) -> Result<(), StartError> {
    super::overlap::check(&settings.roots).map_err(StartError::Overlap)?;
    sequenced_roots(settings).map(|_| ())
}

/// Scans one root, or all, mends what differs, and ends. The receiver is told what came of it.
///
/// # Errors
/// [`StartError`], with nothing changed.
pub fn reconcile_once(
    settings: Settings,
    root: Option<RootName>,
) -> Result<(Handle, Receiver<Result<Reconciled, String>>), StartError> {
    let (commands, heard) = bounded(COMMANDS_MAX);
    let (done, result) = bounded(1);
    // The channel is empty and open: this cannot fail.
    let _ = commands.send(Command::Reconcile { root: root.clone(), done });
    Ok((begin(settings, Mode::Reconcile, root, (commands, heard), None)?, result))
}

fn begin(
    settings: Settings,
    mode: Mode,
    only: Option<RootName>,
    (commands, heard): (Sender<Command>, Receiver<Command>),
    on_end: Option<OnEnd>,
) -> Result<Handle, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    super::overlap::check(&settings.roots).map_err(StartError::Overlap)?;
    let roots = sequenced_roots(&settings)?;
    let state = StateDir::take(&settings.state_dir, &settings.host, settings.machine_id.as_deref())?;
    let host = state.identity().host.clone();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options =
        WriterOptions { roll_bytes: settings.roll_bytes, holds: followed(&state), ..WriterOptions::new(&host) };
    let started = clock.now();
    let (writer, recovery) = Writer::open(Arc::clone(&disk), &state.journal(), started, options)
        .map_err(|error| journal_error(&state, error))?;
    let inventory = open_inventory(&state, &writer, &disk)?;
    let view = inventory.reader()?;
    let progress = Arc::new(Progress::default());
    progress.advance(inventory.cursor()?.map_or(keepwatch_journal::Seq::ZERO, |cursor| cursor.seq));
    let follower = Follower {
        disk: Arc::clone(&disk),
        journal: state.journal(),
        tail: writer.tail(),
        inventory,
        progress: Arc::clone(&progress),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let follower = match mode {
        Mode::Look => None,
        Mode::Serve | Mode::Reconcile => {
            Some(std::thread::Builder::new().name("inventory".to_owned()).spawn(|| follower.run())?)
        }
    };
    let index = start_index(&settings, mode, &state, &writer, &disk)?;
    let dirs = Dirs::create(Some(&state.path().join("dirs.db")))?;
    let tail = writer.tail();
    let ledger = Journaled::new(writer, view, Arc::clone(&progress), Arc::clone(&clock), mode == Mode::Look);
    let tree = FsTree::new(settings.roots.iter().map(|root| root.path.clone()));
    let mut sequencer = Sequencer::new(tree, ledger, roots, dirs, Arc::clone(&clock));
    sequencer.set_own_pid(std::process::id());
    if mode == Mode::Serve {
        sequencer.settle_found_at_once();
    }
    let first_gap = match &recovery {
        recovery if recovery.is_new && epoch::has_begun(&state.journal()) => GapReason::Epoch,
        recovery if recovery.torn.is_empty() => GapReason::Restart,
        _ => GapReason::Torn,
    };
    let (ready, is_ready) = bounded(1);
    let service = Service {
        mode,
        roots: settings
            .roots
            .iter()
            .zip(0..)
            .map(|(root, no)| RootRun::new(RootNo(no), root.clone(), started))
            .collect(),
        sources: Sources::new(settings.backlog_max, own_dirs(state.path())),
        mounts: mount_watch(mode),
        scans: Scans::new(state.inventory()),
        replicas: Replicas::new(commands.clone()),
        triggers: Triggers::default(),
        verifiers: Verifiers::default(),
        commands: heard,
        commits: Commits::default(),
        syncs: Vec::new(),
        reconcilers: Vec::new(),
        busy: clock.instant(),
        resting: false,
        absent_due: None,
        started,
        last_at: recovery.last_at,
        first_gap,
        follower,
        index,
        compressor: None,
        compressed_up_to: u64::MAX,
        journal_dir: state.journal(),
        disk,
        ready: Some(ready),
        only,
        state,
        settings,
        clock,
        sequencer,
        progress,
    };
    let thread = std::thread::Builder::new().name("sequencer".to_owned()).spawn(|| {
        let _ended = Ended(on_end);
        service.run()
    })?;
    Ok(Handle { commands, ready: is_ready, thread, host, recovery, tail })
}

/// Tells that a thread ended, by a panic too.
struct Ended(Option<OnEnd>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

fn mount_watch(mode: Mode) -> Option<MountWatch> {
    if mode == Mode::Reconcile {
        return None;
    }
    MountWatch::start()
        .inspect_err(|error| tracing::warn!(error = %error, "mounts are noticed late: they cannot be watched"))
        .ok()
}

/// What the journal has to hold because the inventory followed it there. Whatever is wrong with the inventory is told when
/// it is opened; a journal that was set aside since is not asked for.
pub(in crate::daemon) fn followed(state: &StateDir) -> Option<Cursor> {
    if !state.inventory().exists() {
        return None;
    }
    let cursor = View::open(&state.inventory()).and_then(|view| view.cursor()).ok()??;
    (!is_epoch(&state.journal(), cursor.journal)).then_some(cursor)
}

/// That the journal lacks what the inventory has is told of as a matter between the two.
pub(in crate::daemon) fn journal_error(state: &StateDir, error: OpenError) -> StartError {
    let state = state.path().to_owned();
    match error {
        OpenError::Forked { cursor, .. } => {
            let why = format!("the journal does not hold record {cursor}, which the inventory has");
            StartError::Forked { state, why }
        }
        OpenError::Missing { cursor, .. } => {
            StartError::Forked { state, why: format!("there is no journal, and the inventory has record {cursor}") }
        }
        error => error.into(),
    }
}

/// The inventory, rebuilt if its schema is older or it followed a journal that was set aside.
pub(in crate::daemon) fn open_inventory(
    state: &StateDir,
    writer: &Writer,
    disk: &Arc<dyn Disk>,
) -> Result<Inventory, StartError> {
    let host = Host { id: state.identity().host_id.clone(), name: state.identity().host.clone() };
    let inventory = match Inventory::open(&state.inventory(), &host) {
        Err(InventoryError::Older { .. }) => rebuild_inventory(state, disk)?,
        result => result?,
    };
    match inventory.cursor()? {
        Some(cursor) if cursor.journal != writer.head().journal => {
            drop(inventory);
            Ok(rebuild_inventory(state, disk)?)
        }
        _ => Ok(inventory),
    }
}

/// The shared index follows while the service runs; whatever else it lacks it gets then.
fn start_index(
    settings: &Settings,
    mode: Mode,
    state: &StateDir,
    writer: &Writer,
    disk: &Arc<dyn Disk>,
) -> Result<Option<IndexThread>, StartError> {
    let Some(index) = settings.index.clone().filter(|_| mode == Mode::Serve) else { return Ok(None) };
    let identity = state.identity();
    let follower = IndexFollower {
        disk: Arc::clone(disk),
        journal: state.journal(),
        tail: writer.tail(),
        settings: index,
        writer: crate::index::Writer {
            name: identity.host.clone(),
            identity: identity.host_id.clone(),
            journal: writer.head().journal,
        },
    };
    Ok(Some(follower.start()?))
}

fn sequenced_roots(settings: &Settings) -> Result<Vec<Root>, StartError> {
    settings.roots.iter().map(|root| sequenced_root(root, &settings.state_dir)).collect()
}

fn sequenced_root(root: &RootSettings, state: &Path) -> Result<Root, StartError> {
    use std::os::unix::ffi::OsStrExt;
    let own = std::path::absolute(state).ok().and_then(|state| {
        let rel = state.strip_prefix(&root.path).ok()?.as_os_str().as_bytes().to_vec();
        RelPath::new(rel).ok()
    });
    let rules = Rules::new(&root.ignore, own.into_iter().collect(), &root.unfinished)
        .map_err(|source| StartError::Pattern { root: root.name.to_string(), source })?;
    Ok(Root {
        name: root.name.clone(),
        dir: root.path.clone(),
        via: Via::Scan,
        shared: false,
        patience: Patience {
            settle: root.settle,
            settle_closed: root.settle.min(SETTLE_CLOSED),
            settle_min: root.settle_min,
            open_max: root.open_max,
            lease: root.lease,
        },
        rules,
        left_out: 0,
    })
}

impl Service {
    /// Roots that the inventory has as watched and the settings do not have any more.
    pub(super) fn tell_dropped_roots(&mut self) {
        let known = self.sequencer.ledger.view().roots().unwrap_or_default();
        for row in known.into_iter().filter(|row| row.watched) {
            if self.roots.iter().all(|root| root.settings.name != row.name) {
                let config = Config { root: row.name, dir: None, identity: None, accepted: false };
                self.sequencer.ledger.append(Body::Config(config));
            }
        }
    }

    /// When the journal's last record before this start was made.
    pub(super) fn sure_until(&self) -> Option<Timestamp> {
        self.last_at
    }
}

//! The engine's service behind the control socket: requests become commands, answers become what people see.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use keepwatch_engine::daemon::replicate::{Asked, Reading, Wish};
use keepwatch_engine::daemon::service::{self as engine, Command};
use keepwatch_engine::daemon::triggers;
use keepwatch_engine::model::{ReplicaName, TriggerName};
use keepwatch_journal::{RootName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::server::Handler;
use crate::control::{ReplicaWish, Request};
use crate::error::CommandError;
use crate::show::status::{Follower, Journal, Problem, Replica, Root, RootState, Service, Status, Trigger};
use crate::signals;
use crate::telling;
use crate::verifying;

/// How long a running service may take to say how it is.
const STATUS_MAX: Duration = Duration::from_secs(15);
/// How often it is told how far a scan has come.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// What a reconciliation came to, on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The first record that it may have made.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Objects looked at.
    pub scanned: u64,
    /// Differences found.
    pub found: u64,
    /// What could not be read.
    pub failed: u64,
    /// Roots that are absent.
    pub absent: u64,
}

impl From<engine::Reconciled> for Reconciled {
    fn from(sum: engine::Reconciled) -> Self {
        let engine::Reconciled { from, to, scanned, found, failed, absent } = sum;
        Reconciled { from: from.0, to: to.0, scanned, found, failed, absent }
    }
}

/// How far a scan has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Objects looked at.
    pub looked: u64,
    /// How many there were when the roots were scanned last; 0 where they never were.
    pub known: u64,
}

/// Has the engine reconcile, and tells twice a second how far it has come.
///
/// # Errors
/// If the engine ends first.
pub fn reconcile(
    engine: &crossbeam_channel::Sender<Command>,
    root: Option<&RootName>,
    mut progress: impl FnMut(Scan),
) -> Result<Result<engine::Reconciled, String>, CommandError> {
    let (done, result) = crossbeam_channel::bounded(1);
    engine.send(Command::Reconcile { root: root.cloned(), done }).map_err(|_| gone())?;
    wait_reconciled(engine, root, &result, &mut progress)
}

/// The same for a reconciliation that was asked for already.
///
/// # Errors
/// If the engine ends first.
pub fn wait_reconciled(
    engine: &crossbeam_channel::Sender<Command>,
    root: Option<&RootName>,
    result: &crossbeam_channel::Receiver<Result<engine::Reconciled, String>>,
    progress: &mut dyn FnMut(Scan),
) -> Result<Result<engine::Reconciled, String>, CommandError> {
    loop {
        match result.recv_timeout(PROGRESS_INTERVAL) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let (answer, answered) = crossbeam_channel::bounded(1);
        if engine.try_send(Command::Status(answer)).is_ok()
            && let Ok(status) = answered.recv_timeout(STATUS_MAX)
        {
            let of_it = |status: &&engine::RootStatus| root.is_none_or(|root| root.as_str() == status.name);
            let mut scan = Scan::default();
            for root in status.roots.iter().filter(of_it) {
                scan.looked += root.looked.unwrap_or_default();
                scan.known += root.last_scanned;
            }
            progress(scan);
        }
    }
}

fn gone() -> CommandError {
    CommandError::unreachable("the service is ending")
}

/// The handler of a running service. A reload puts another engine behind it.
pub struct Running {
    engine: Mutex<crossbeam_channel::Sender<Command>>,
    wishes: Mutex<std::sync::mpsc::Sender<signals::Wish>>,
    state_dir: PathBuf,
    started: Instant,
}

impl Running {
    /// Speaks to this engine.
    #[must_use]
    pub fn new(
        engine: crossbeam_channel::Sender<Command>,
        wishes: std::sync::mpsc::Sender<signals::Wish>,
        state_dir: PathBuf,
    ) -> Self {
        Running { engine: Mutex::new(engine), wishes: Mutex::new(wishes), state_dir, started: Instant::now() }
    }

    /// Speaks to another engine from now on.
    pub fn replace(&self, engine: crossbeam_channel::Sender<Command>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    fn engine(&self) -> crossbeam_channel::Sender<Command> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask<A>(
        &self,
        patience: Option<Duration>,
        command: impl FnOnce(crossbeam_channel::Sender<A>) -> Command,
    ) -> Result<A, CommandError> {
        let engine = self.engine();
        let (answer, answered) = crossbeam_channel::bounded(1);
        engine.send(command(answer)).map_err(|_| gone())?;
        match patience {
            Some(patience) => answered
                .recv_timeout(patience)
                .map_err(|_| CommandError::unreachable("the service is too busy to answer; ask again")),
            None => answered.recv().map_err(|_| gone()),
        }
    }

    fn wish(&self, wish: signals::Wish) -> Result<Value, CommandError> {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.send(wish).map_err(|_| CommandError::unreachable("the service is ending"))?;
        Ok(Value::Null)
    }

    fn status(&self) -> Result<Value, CommandError> {
        let status = self.ask(Some(STATUS_MAX), Command::Status)?;
        let shown = shown(*status, &self.state_dir, self.started.elapsed().as_secs());
        serde_json::to_value(shown).map_err(|error| CommandError::failed(error.to_string()))
    }
}

impl Handler for Running {
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Value) -> io::Result<()>,
    ) -> Result<Value, CommandError> {
        match request {
            Request::Status {} => self.status(),
            Request::Sync {} => match self.ask(None, Command::Sync)? {
                Ok(seq) => Ok(Value::from(seq.0)),
                Err(why) => Err(CommandError::failed(why)),
            },
            Request::Reconcile { root } => {
                let root = root.map(RootName::new);
                let engine = self.engine();
                match reconcile(&engine, root.as_ref(), |scan| {
                    // A client that has gone needs no progress; what it asked for is done all the same.
                    let _ = serde_json::to_value(scan).map(&mut *progress);
                })? {
                    Ok(sum) => serde_json::to_value(Reconciled::from(sum))
                        .map_err(|error| CommandError::failed(error.to_string())),
                    Err(why) => Err(CommandError::usage(why)),
                }
            }
            Request::Verify(asked) => verifying::by_engine(&self.engine(), &asked, progress),
            Request::Tell { acts } => {
                let acts = telling::acts(&acts)?;
                self.ask(None, |done| Command::Acts { acts, done }).map(|seq| Value::from(seq.0))
            }
            Request::RootAccept { name } => {
                let root = RootName::new(name);
                match self.ask(None, |done| Command::Accept { root, done })? {
                    Ok(()) => Ok(Value::Null),
                    Err(why) => Err(CommandError::failed(why)),
                }
            }
            Request::Replica { name, wish } => {
                let (name, wish) = (ReplicaName::new(name), Wish::from(wish));
                match self.ask(None, |done| Command::Replica { name, asked: Asked { wish, done } })? {
                    Ok(reading) => Ok(reached(&reading)),
                    Err(why) => Err(CommandError::failed(why)),
                }
            }
            Request::Trigger { name, wish } => {
                let (name, wish) = (TriggerName::new(name), wish.for_engine()?);
                match self.ask(None, |done| Command::Trigger { name, asked: triggers::Asked { wish, done } })? {
                    Ok(count) => Ok(Value::from(count)),
                    Err(why) => Err(CommandError::failed(why)),
                }
            }
            Request::ReplicaForget { name } => {
                let name = ReplicaName::new(name);
                match self.ask(None, |done| Command::Forget { name, done })? {
                    Ok(()) => Ok(Value::Null),
                    Err(why) => Err(CommandError::usage(why)),
                }
            }
            Request::Reload {} => self.wish(signals::Wish::Reload),
            Request::Stop {} => self.wish(signals::Wish::Stop),
        }
    }
}

/// What people see of the engine's status.
fn shown(status: engine::Status, state_dir: &std::path::Path, uptime_s: u64) -> Status {
    let open_long =
        |root: &str| status.held_open.iter().filter(|held| held.root == root).count().try_into().unwrap_or(u64::MAX);
    let roots = status
        .roots
        .iter()
        .map(|root| Root {
            name: root.name.clone(),
            path: root.path.clone(),
            state: match root.state.as_str() {
                "absent" => RootState::Absent,
                "scanning" => RootState::Scanning,
                _ => RootState::Watching,
            },
            method: method(root),
            blind_to: root.blind_spots.clone(),
            files: root.files + root.others,
            dirs: root.dirs,
            bytes: root.bytes,
            open_gaps: u64::from(root.gap.is_some()),
            open_long: open_long(&root.name),
            copies: None,
        })
        .collect();
    let problems = status
        .roots
        .iter()
        .filter_map(|root| {
            Some(Problem { since: root.since.clone()?, root: Some(root.name.clone()), message: root.why.clone()? })
        })
        .collect();
    let replicas = status.replicas.into_iter().map(shown_replica).collect();
    let triggers = status.triggers.into_iter().map(shown_trigger).collect();
    Status {
        host: status.host,
        state_dir: state_dir.display().to_string(),
        service: Some(Service {
            pid: status.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: status.since,
            uptime_s,
            capabilities: capabilities(),
        }),
        roots,
        replicas,
        triggers,
        packs: Vec::new(),
        journal: Journal {
            id: status.journal.id,
            seq: status.journal.seq,
            hash: status.journal.hash,
            bytes: bytes_of(&state_dir.join("journal")),
            pending: status.journal.pending,
        },
        followers: status
            .followers
            .into_iter()
            .map(|follower| Follower {
                name: follower.name,
                seq: follower.seq,
                lag_records: follower.lag_records,
                lag_s: 0,
                stopped: follower.trouble,
            })
            .collect(),
        problems,
        needs: status.attention,
    }
}

fn shown_replica(replica: engine::ReplicaStatus) -> Replica {
    Replica {
        name: replica.name,
        url: replica.url,
        roots: replica.roots,
        on_delete: replica.on_delete,
        state: replica.state,
        files: replica.files,
        bytes: replica.bytes,
        pending: replica.pending,
        failed: replica.failed,
        lag_s: replica.lag_s,
        rate: replica.rate,
        copied: replica.copied,
        copied_bytes: replica.copied_bytes,
        last_error: replica.last_error,
        paused: replica.paused,
        failures: replica.failures,
    }
}

fn shown_trigger(trigger: engine::TriggerStatus) -> Trigger {
    Trigger {
        name: trigger.name,
        roots: trigger.roots,
        command: trigger.command,
        state: trigger.state,
        queued: trigger.queued,
        running: trigger.running,
        done: trigger.done,
        dead: trigger.dead,
        failed: trigger.failed,
        trouble: trigger.trouble,
        last_error: trigger.last_error,
    }
}

/// What became of a wish, on the wire.
fn reached(reading: &Reading) -> Value {
    serde_json::json!({
        "copied": reading.copied,
        "bytes": reading.bytes,
        "adopted": reading.adopted,
        "moved": reading.moved,
        "withdrawn": reading.withdrawn,
        "failed": reading.failed,
        "paused": reading.paused,
    })
}

impl From<ReplicaWish> for Wish {
    fn from(wish: ReplicaWish) -> Self {
        match wish {
            ReplicaWish::Sync => Wish::Sync,
            ReplicaWish::Resume { allow_deletes } => Wish::Resume { allow_deletes },
            ReplicaWish::Accept => Wish::Accept,
        }
    }
}

fn method(root: &engine::RootStatus) -> String {
    let mut text = root.method.clone().unwrap_or_default();
    if let Some(seconds) = root.poll_seconds {
        let every = crate::units::format_duration(Duration::from_secs(seconds));
        text = if text == "poll" { format!("poll every {every}") } else { format!("{text}+poll every {every}") };
    }
    if let Some(kind) = &root.filesystem {
        text = format!("{text} on {kind}");
    }
    text
}

/// What all files of a directory take.
#[must_use]
pub fn bytes_of(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|meta| meta.len())
        .sum()
}

fn capabilities() -> Vec<String> {
    let held = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
    let of_use = [
        caps::Capability::CAP_SYS_ADMIN,
        caps::Capability::CAP_DAC_READ_SEARCH,
        caps::Capability::CAP_LEASE,
        caps::Capability::CAP_SYS_PTRACE,
    ];
    of_use.iter().filter(|capability| held.contains(capability)).map(ToString::to_string).collect()
}

/// The inventory's own word, where no service runs.
///
/// # Errors
/// If it cannot be read.
pub fn without_service(
    view: &keepwatch_engine::inventory::View,
    host: String,
    state_dir: &std::path::Path,
) -> Result<Status, CommandError> {
    let cursor = view.cursor()?;
    let gaps = view.open_gaps()?;
    let roots = view
        .roots()?
        .into_iter()
        .filter(|root| root.watched)
        .map(|root| Root {
            path: root.dir.as_deref().map(|dir| String::from_utf8_lossy(dir).into_owned()).unwrap_or_default(),
            state: RootState::Stopped,
            method: String::new(),
            blind_to: Vec::new(),
            files: root.counts.files + root.counts.others,
            dirs: root.counts.dirs,
            bytes: root.counts.bytes,
            open_gaps: gaps.iter().filter(|gap| gap.root.as_ref() == Some(&root.name)).count() as u64,
            open_long: 0,
            copies: None,
            name: root.name.to_string(),
        })
        .collect();
    let seq = cursor.map_or(0, |cursor| cursor.seq.0);
    let mut replicas = Vec::new();
    for row in view.replicas()?.into_iter().filter(|row| row.url.is_some()) {
        replicas.push(Replica {
            name: row.name.to_string(),
            url: row.url.unwrap_or_default(),
            roots: row.roots.into_keys().collect(),
            state: "stopped".to_owned(),
            files: row.counts.files,
            bytes: row.counts.bytes,
            failed: view.count_failures(row.id)?,
            ..Replica::default()
        });
    }
    let mut triggers = Vec::new();
    for row in view.triggers()?.into_iter().filter(|row| row.since.is_some()) {
        triggers.push(Trigger {
            name: row.name.to_string(),
            state: "stopped".to_owned(),
            done: row.done,
            dead: row.dead,
            ..Trigger::default()
        });
    }
    let problems = view
        .problems()?
        .into_iter()
        .take(PROBLEMS_SHOWN)
        .map(|problem| Problem {
            since: Timestamp::default().to_string(),
            root: None,
            message: format!("record {} was not applied in full: {}", problem.seq, problem.reason),
        })
        .collect();
    Ok(Status {
        host,
        state_dir: state_dir.display().to_string(),
        service: None,
        roots,
        replicas,
        triggers,
        packs: Vec::new(),
        journal: Journal {
            id: cursor.map(|cursor| cursor.journal.to_string()).unwrap_or_default(),
            seq,
            hash: cursor.map(|cursor| cursor.hash.to_string()).unwrap_or_default(),
            bytes: bytes_of(&state_dir.join("journal")),
            pending: 0,
        },
        followers: vec![Follower { name: "inventory".to_owned(), seq, lag_records: 0, lag_s: 0, stopped: None }],
        problems,
        needs: keepwatch_engine::daemon::fixity::attention(view)?,
    })
}

/// Problems listed without being asked for more.
const PROBLEMS_SHOWN: usize = 20;

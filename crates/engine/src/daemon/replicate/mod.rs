//! A replica: a thread that keeps a target true to the inventory.
//!
//! What is due follows from two tables, the originals and the copies, both derived from the journal. So nothing is queued on
//! disk: a start holds all originals against all copies (and, the first time, against what the target lists) in one sorted
//! pass, and from there on the journal's records say at which paths to look again. What was done is journaled as acts by the
//! one sequencer, and applied to the inventory like everything else; a round waits for its own acts before the next begins.

mod deletes;
mod meter;
mod pass;
mod perform;
mod preview;
mod round;
mod streams;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use keepwatch_journal::{Disk, ReadError, Reader, Tail};

use crate::daemon::progress::Progress;
use crate::daemon::service::Command;
use crate::inventory::{DirId, InventoryError, View};
use crate::model::{Body, GapReason, RelPath, Replica, ReplicaName, RootName, Seq, Timestamp};
use crate::sync::copy::Source;
use crate::sync::guards::Limits;
use crate::sync::layout::Placement;
use crate::target::{Claim, Session, TRASH, Target, TargetError};

pub use meter::{Failure, Meter, Phase, Reading};
pub use preview::preview;

use deletes::Pending;
use perform::RootAtWork;
use round::Retries;

/// After trouble with the target it is tried again after this time, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the inventory may take to apply what was journaled.
const APPLY_MAX: Duration = Duration::from_secs(600);
/// Without records it looks this often whether it is to end.
const LOOK_WAIT: Duration = Duration::from_millis(200);
/// How long `once` waits for files that are not complete, since the last that became so.
const UNSETTLED_WAIT: Duration = Duration::from_secs(65);

/// What happens at a replica to a copy whose original is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDelete {
    /// It goes to the trash, and so do versions that are overwritten.
    #[default]
    Trash,
    /// It stays.
    Keep,
    /// It is deleted.
    Delete,
}

/// A replica.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Its name.
    pub name: ReplicaName,
    /// Its URL, without secrets.
    pub url: String,
    /// The place.
    pub target: Arc<dyn Target>,
    /// Which roots, and where each goes.
    pub roots: Vec<(RootName, PathBuf, Placement)>,
    /// What happens when an original is gone.
    pub on_delete: OnDelete,
    /// How long after.
    pub delete_delay: Duration,
    /// What deletes are held to.
    pub limits: Limits,
    /// Files copied at the same time.
    pub transfers: usize,
    /// End when all is there, rather than follow.
    pub once: bool,
    /// Where it says how it gets on.
    pub meter: Arc<Meter>,
}

/// What a replica's thread needs of the service.
pub(super) struct Surroundings {
    pub(super) inventory: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) tail: Arc<Tail>,
    pub(super) progress: Arc<Progress>,
    pub(super) commands: Sender<Command>,
    pub(super) owner: String,
    pub(super) host: String,
    pub(super) stop: Arc<AtomicBool>,
}

/// Why a replica does not get on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("the inventory does not follow the journal")]
    Behind,
    /// It is to end.
    #[error("stopped")]
    Stopped,
}

/// A replica's thread.
pub(super) struct Keeper {
    settings: ReplicaSettings,
    around: Surroundings,
    view: View,
    pending: Pending,
    retries: Retries,
    /// The name under which each file with several names is copied in this pass or round: the others are linked to it.
    leaders: HashMap<(usize, i64), (RelPath, Seq)>,
    /// The last record that has to be applied before the inventory tells what was done.
    own: Seq,
}

/// What a pass or a round works with.
struct AtWork<'k> {
    replica: i64,
    dirs: &'k [DirId],
    roots: &'k [RootAtWork],
    session: &'k dyn Session,
    trash: Option<&'k RelPath>,
}

impl Keeper {
    pub(super) fn new(settings: ReplicaSettings, around: Surroundings) -> Result<Self, InventoryError> {
        let view = View::open(&around.inventory)?;
        let pending = Pending::default();
        Ok(Keeper {
            settings,
            around,
            view,
            pending,
            retries: Retries::default(),
            leaders: HashMap::new(),
            own: Seq::ZERO,
        })
    }

    /// Keeps the replica until it is told to end.
    pub(super) fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            match self.keep() {
                Ok(()) | Err(Trouble::Stopped) => break,
                Err(trouble) => {
                    let is_refused = matches!(&trouble, Trouble::Target(TargetError::Owned { .. }));
                    tracing::error!(replica = %self.settings.name, error = %trouble, "the replica lags");
                    self.settings.meter.change(|reading| {
                        reading.trouble = Some(trouble.to_string());
                        reading.is_refused = is_refused;
                    });
                    if self.settings.once {
                        break;
                    }
                }
            }
            if self.pause(wait) {
                break;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.settings.meter.change(|reading| reading.phase = Phase::Ended);
    }

    fn is_stopped(&self) -> bool {
        self.around.stop.load(Ordering::Acquire) || self.around.tail.is_closed()
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        if self.is_stopped() { Err(Trouble::Stopped) } else { Ok(()) }
    }

    /// Waits; `true` if it is to end.
    fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.is_stopped() {
                return true;
            }
            std::thread::sleep(LOOK_WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        self.is_stopped()
    }

    fn keep(&mut self) -> Result<(), Trouble> {
        self.phase(Phase::Waiting);
        self.wait_for_scans()?;
        let from = self.view.cursor()?;
        self.phase(Phase::Comparing);
        self.at_work(Keeper::pass)?;
        self.settings.meter.change(|reading| reading.trouble = None);
        self.phase(Phase::Following);
        let (disk, tail) = (Arc::clone(&self.around.disk), Arc::clone(&self.around.tail));
        let mut reader = Reader::follow(disk, &self.around.journal, tail, from)?;
        let mut seen = from.map_or(Seq::ZERO, |cursor| cursor.seq);
        let mut settled = Instant::now();
        loop {
            self.check_stop()?;
            let mut records = Vec::new();
            while records.len() < round::RECORDS_MAX
                && let Some(batch) = reader.next_batch()?
            {
                seen = batch.cursor.seq;
                records.extend(batch.records.iter().cloned());
            }
            let dirty = self.dirty(&records);
            if !dirty.is_empty() {
                settled = Instant::now();
                self.applied(seen)?;
                self.at_work(|keeper, work| keeper.round(work, dirty))?;
                continue;
            }
            if !records.is_empty() {
                continue;
            }
            let now = Instant::now();
            if self.settings.once && self.is_all_there(seen, settled)? {
                self.at_work(|keeper, work| keeper.deletes(work, None))?;
                return Ok(());
            }
            let due = self.retries.take_due(now);
            if !due.is_empty() {
                self.at_work(|keeper, work| keeper.round(work, due))?;
                continue;
            }
            if !self.settings.once && self.pending.next_due().is_some_and(|due| due <= now) {
                self.at_work(|keeper, work| keeper.deletes(work, Some(now)))?;
                continue;
            }
            let _ = self.around.tail.wait_past(seen, now + LOOK_WAIT);
        }
    }

    /// Whether a single run has nothing to wait for any more.
    fn is_all_there(&mut self, seen: Seq, since: Instant) -> Result<bool, Trouble> {
        if self.around.tail.head().seq > seen || self.around.progress.applied() < seen || !self.retries.is_empty() {
            return Ok(false);
        }
        let open = self.view.unsettled(Seq::ZERO, 100)?;
        if open.is_empty() {
            return Ok(true);
        }
        if since.elapsed() < UNSETTLED_WAIT {
            return Ok(false);
        }
        for one in open {
            let path = String::from_utf8_lossy(one.path.as_bytes()).escape_debug().to_string();
            self.settings.meter.fail(path, "it is still being written".to_owned());
        }
        Ok(true)
    }

    fn phase(&self, phase: Phase) {
        self.settings.meter.change(|reading| reading.phase = phase);
    }

    /// Waits until no root that is there has an open gap: until then originals may be missing from the inventory.
    fn wait_for_scans(&mut self) -> Result<(), Trouble> {
        loop {
            self.check_stop()?;
            let head = self.around.tail.head().seq;
            if self.around.progress.wait_for(head, LOOK_WAIT) {
                let gaps = self.view.open_gaps()?;
                if gaps.iter().all(|gap| gap.reason == GapReason::Absent) {
                    return Ok(());
                }
            }
            let _ = self.around.tail.wait_past(head, Instant::now() + LOOK_WAIT);
        }
    }

    /// Waits until the inventory has a record, and all that was done here.
    fn applied(&self, seq: Seq) -> Result<(), Trouble> {
        let seq = seq.max(self.own);
        let until = Instant::now() + APPLY_MAX;
        while !self.around.progress.wait_for(seq, LOOK_WAIT) {
            self.check_stop()?;
            if Instant::now() > until {
                return Err(Trouble::Behind);
            }
        }
        Ok(())
    }

    /// Has acts journaled. They take effect when the inventory applies them.
    fn tell(&mut self, acts: Vec<Body>) -> Result<(), Trouble> {
        if acts.is_empty() {
            return Ok(());
        }
        let (answer, answered) = bounded(1);
        self.around.commands.send(Command::Acts { acts, done: answer }).map_err(|_| Trouble::Stopped)?;
        self.own = answered.recv().map_err(|_| Trouble::Stopped)?;
        Ok(())
    }

    /// Opens the target and the roots, does something, and lets go of them.
    fn at_work<T>(&mut self, work: impl FnOnce(&mut Keeper, &AtWork<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let known = self.view.replica(&self.settings.name)?;
        let claim = Claim {
            owner: self.around.owner.clone(),
            host: self.around.host.clone(),
            identity: known.as_ref().and_then(|known| known.identity.clone()),
        };
        let target = Arc::clone(&self.settings.target);
        let (session, identity) = target.open(&claim)?;
        if known.as_ref().and_then(|known| known.identity.as_deref()) != Some(&identity) {
            self.tell_config(&identity, false)?;
            self.applied(Seq::ZERO)?;
        }
        let replica = self.view.replica(&self.settings.name)?.ok_or(Trouble::Behind)?;
        let mut dirs = Vec::new();
        let mut roots = Vec::new();
        for (name, path, placement) in self.settings.roots.clone() {
            let Some(dir) = self.view.root_dir(&name)? else { continue };
            make_base(&*session, &placement)?;
            dirs.push(dir);
            roots.push(RootAtWork { name, placement, source: Source::open(&path).ok() });
        }
        let day = today();
        let trash = RelPath::new(TRASH).ok().map(|trash| trash.join(day.as_bytes()));
        let trash = trash.filter(|_| self.settings.on_delete != OnDelete::Delete);
        let at_work =
            AtWork { replica: replica.id, dirs: &dirs, roots: &roots, session: &*session, trash: trash.as_ref() };
        work(self, &at_work)
    }

    fn tell_config(&mut self, identity: &str, listed: bool) -> Result<(), Trouble> {
        let config = Replica {
            replica: self.settings.name.clone(),
            url: Some(self.settings.url.clone()),
            identity: Some(identity.to_owned()),
            listed,
        };
        self.tell(vec![Body::Replica(Box::new(config))])
    }
}

/// The directories above a root's place belong to no original: others may pass through them.
fn make_base(session: &dyn Session, placement: &Placement) -> Result<(), TargetError> {
    let dir = placement.dir();
    if dir.is_root() || session.look(&dir)?.is_some() {
        return Ok(());
    }
    session.make_dir(&dir)?;
    let mut above = RelPath::ROOT;
    for name in dir.components() {
        above = above.join(name);
        let meta = crate::target::Meta {
            mode: 0o755,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime_ns: session.look(&above)?.map_or(0, |found| found.mtime_ns),
            xattrs: Vec::new(),
        };
        session.set_meta(&above, crate::model::FileType::Dir, &meta)?;
    }
    Ok(())
}

/// A name for what mirrors these sources to this target in this way: of its state directory.
#[must_use]
pub fn state_name(parts: &[&[u8]]) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The UTC day, by which the trash is sorted.
fn today() -> String {
    use crate::clock::Clock as _;
    let now: Timestamp = crate::clock::SystemClock.now();
    now.to_string().get(..10).unwrap_or("unknown").to_owned()
}

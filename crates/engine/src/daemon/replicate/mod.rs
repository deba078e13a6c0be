//! A replica: a thread that keeps a target true to the inventory.
//!
//! What is due follows from two tables, the originals and the copies, both derived from the journal. So nothing is queued on
//! disk: a start holds all originals against all copies (and, the first time, against what the target lists) in one sorted
//! pass, and from there on the journal's records say at which paths to look again. What was done is journaled as acts by the
//! one sequencer, and applied to the inventory like everything else; a round waits for its own acts before the next begins.

mod ahead;
mod deletes;
mod expiry;
mod first;
mod ground;
mod meter;
mod moved;
mod note;
mod pass;
mod perform;
mod preview;
mod retries;
mod round;
mod settings;
mod streams;
mod tally;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use keepwatch_journal::{Batch, Disk, ReadError, Reader, Tail};

use crate::daemon::acting::{ActError, Acting};
use crate::daemon::progress::Progress;
use crate::daemon::service::Command;
use crate::inventory::{DirId, InventoryError, ReplicaRow, View};
use crate::model::{Body, Proof, Record, RelPath, Replica, ReplicaName, RootName, Seq, Timestamp};
use crate::sync::copy::Source;
use crate::sync::filter::Filter;
use crate::sync::layout::{Layout, Placement};
use crate::sync::plan::Seen;
use crate::target::{Claim, Session, TRASH, TargetError};

pub use meter::{Meter, Phase, Reading};
pub use preview::{PreviewError, preview};
pub use settings::{Asked, OnDelete, ReplicaSettings, SettingsError, Wish};

use deletes::Pending;
use expiry::Expiry;
use ground::Standing;
use moved::Moved;
use note::Note;
use perform::{RootAtWork, Work};
use retries::Retries;
use round::Paths;
use tally::Tally;

/// After trouble with the target it is tried again after this time, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Objects in the first batch. A batch that takes less than [`BATCH_SHORT`] is doubled, up to what the target likes best: each
/// is synced as a whole. One that takes more than [`BATCH_LONG`] is halved: what is not published is lost by a crash.
const BATCH_FIRST: usize = 1_024;
const BATCH_MIN: usize = 16;
const BATCH_SHORT: Duration = Duration::from_secs(1);
const BATCH_LONG: Duration = Duration::from_secs(4);
/// Without records it looks this often whether it is to end, or is asked for something.
const LOOK_WAIT: Duration = Duration::from_millis(200);
/// How long `once` waits for files that are not complete, since the last that became so.
const UNSETTLED_WAIT: Duration = Duration::from_secs(65);
/// Where more failed than is remembered, all is held against all again after this time.
const PASS_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What a replica's thread needs of the service.
pub(super) struct Surroundings {
    pub(super) inventory: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) tail: Arc<Tail>,
    pub(super) progress: Arc<Progress>,
    pub(super) commands: Sender<Command>,
    /// What it is asked.
    pub(super) asked: Receiver<Asked>,
    /// The id of the state.
    pub(super) state: String,
    pub(super) host: String,
    /// When the last record was journaled before this start.
    pub(super) last_at: Option<Timestamp>,
    pub(super) stop: Arc<AtomicBool>,
}

/// Why a replica does not get on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Settings(#[from] SettingsError),
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

impl From<ActError> for Trouble {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Behind => Trouble::Behind,
            ActError::Stopped => Trouble::Stopped,
        }
    }
}

/// A root, as this replica keeps it.
pub(super) struct KeptRoot {
    name: RootName,
    path: PathBuf,
    placement: Placement,
    filter: Arc<Filter>,
    /// By which another layout is told, then by which other filters are.
    print: (String, String),
}

impl KeptRoot {
    /// Both prints as they are journaled.
    fn print(&self) -> String {
        format!("{}:{}", self.print.0, self.print.1)
    }

    /// What is journaled before all of it is known.
    fn unlisted(&self) -> String {
        format!("{}:", self.print.0)
    }
}

/// A replica's thread.
pub(super) struct Keeper {
    settings: ReplicaSettings,
    around: Surroundings,
    roots: Vec<KeptRoot>,
    view: View,
    pending: Pending,
    /// Copies that were taken away lately.
    tally: Tally,
    retries: Retries,
    expiry: Expiry,
    /// What was asked and is not answered yet.
    asked: Vec<Asked>,
    /// The name under which each file with several names is copied in this pass or round: the others are linked to it.
    leaders: HashMap<(usize, i64), (RelPath, Seq)>,
    /// Looked up once for all that is put into a directory.
    standing: Standing,
    /// Directories that took the place of others, below which copies of what was in those may be.
    replaced: Paths,
    /// What a listing showed for originals that were not complete then: it may fit when they are.
    unclaimed: HashMap<(usize, RelPath), Seen>,
    /// Size and mtime of files that were copied while the journal was not read to its end: what it tells of them until then
    /// need not be looked at.
    fresh: HashMap<(usize, RelPath), (u64, i64)>,
    /// What is on its way.
    note: Note,
    moved: Moved,
    /// Objects that are copied before they are published, by how long that took lately.
    batch: usize,
    acting: Acting,
    /// Device and inode of the directory of which nobody hears on behalf of this replica.
    ignored: Option<(u64, u64)>,
}

/// Stands for a root that the inventory does not know. No directory has this id.
const NO_DIR: DirId = DirId(i64::MIN);

/// What a pass or a round works with.
struct AtWork<'k> {
    replica: i64,
    dirs: &'k [DirId],
    roots: &'k [RootAtWork],
    session: &'k dyn Session,
    trash: Option<&'k RelPath>,
    proof: Proof,
}

impl<'k> AtWork<'k> {
    /// What does the work.
    fn worker(&self, replica: &'k ReplicaName, transfers: usize) -> Work<'k> {
        Work { replica, session: self.session, roots: self.roots, trash: self.trash, transfers, proof: self.proof }
    }
}

/// Where each root goes at a replica of a host, for whoever looks there besides its keeper; and what is journaled of that before
/// all that is there is known.
///
/// # Errors
/// [`SettingsError`].
pub(in crate::daemon) fn placements(
    settings: &ReplicaSettings,
    host: &str,
) -> Result<Vec<(RootName, Placement, String)>, SettingsError> {
    let kept = kept_roots(settings, &own_layout(settings, host))?;
    let placed = |root: KeptRoot| {
        let unlisted = root.unlisted();
        (root.name, root.placement, unlisted)
    };
    Ok(kept.into_iter().map(placed).collect())
}

/// The layout, with the name that the host had at its first start.
fn own_layout(settings: &ReplicaSettings, host: &str) -> Layout {
    match &settings.layout {
        Layout::Hosts { .. } => Layout::Hosts { host: host.to_owned() },
        layout @ Layout::Mirror { .. } => layout.clone(),
    }
}

/// Where each root goes, and what of it.
fn kept_roots(settings: &ReplicaSettings, layout: &Layout) -> Result<Vec<KeptRoot>, SettingsError> {
    let filter = Arc::new(Filter::new(&settings.filter)?);
    let mut kept: Vec<KeptRoot> = Vec::new();
    for (name, path) in &settings.roots {
        let placement = layout.placement(path.as_os_str().as_bytes())?;
        if let Some(other) = kept.iter().find(|other| other.placement.overlaps(&placement)) {
            return Err(SettingsError::Mixed { one: other.name.clone(), other: name.clone() });
        }
        let path_bytes = path.as_os_str().as_bytes();
        let mut texts: Vec<&[u8]> = vec![path_bytes];
        for part in [&settings.filter.source_filter, &settings.filter.source_exclude, &settings.filter.rules] {
            texts.push(b"\0");
            texts.extend(part.iter().map(String::as_bytes));
        }
        // Rules and expressions that say nothing make no difference wherever the root is.
        let filters = if settings.filter.is_empty() { "all".to_owned() } else { state_name(&texts) };
        let print = (state_name(&[placement.base()]), filters);
        kept.push(KeptRoot { name: name.clone(), path: path.clone(), placement, filter: Arc::clone(&filter), print });
    }
    Ok(kept)
}

impl Keeper {
    pub(super) fn new(settings: ReplicaSettings, around: Surroundings) -> Result<Self, Trouble> {
        let layout = own_layout(&settings, &around.host);
        let Surroundings { commands, progress, tail, stop, .. } = &around;
        let acting = Acting::new(commands.clone(), Arc::clone(progress), Arc::clone(tail), Arc::clone(stop));
        Ok(Keeper {
            roots: kept_roots(&settings, &layout)?,
            view: View::open(&around.inventory)?,
            pending: Pending::default(),
            tally: Tally::of(&settings.name, &around.inventory),
            retries: Retries::new(settings.once),
            expiry: Expiry::new(settings.trash_keep, around.last_at),
            asked: Vec::new(),
            leaders: HashMap::new(),
            standing: Standing::new(),
            replaced: Paths::new(),
            unclaimed: HashMap::new(),
            fresh: HashMap::new(),
            note: Note::of(&settings.name, &around.inventory),
            moved: Moved::of(&settings.name, &around.inventory),
            batch: BATCH_FIRST,
            acting,
            ignored: None,
            settings,
            around,
        })
    }

    /// Keeps the replica until it is told to end.
    pub(super) fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            let begun = Instant::now();
            match self.keep() {
                Ok(()) | Err(Trouble::Stopped) => break,
                Err(trouble) => {
                    let is_refused =
                        matches!(&trouble, Trouble::Target(TargetError::Owned { .. } | TargetError::Unable { .. }));
                    let text = trouble.to_string();
                    self.report(&text, is_refused);
                    for asked in self.asked.drain(..) {
                        let _ = asked.done.send(Err(text.clone()));
                    }
                    if self.settings.once {
                        break;
                    }
                }
            }
            if begun.elapsed() > RETRY_MAX {
                wait = RETRY_MIN;
            }
            if self.pause(wait) {
                break;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.settings.meter.change(|reading| reading.phase = Phase::Ended);
    }

    /// Says what is wrong, once for each thing.
    fn report(&self, text: &str, is_refused: bool) {
        let is_known = self.settings.meter.read().trouble.as_deref() == Some(text);
        if !is_known {
            tracing::error!(replica = %self.settings.name, error = text, "the replica lags");
        }
        self.settings.meter.change(|reading| {
            reading.phase = Phase::Waiting;
            reading.behind_since.get_or_insert_with(meter::now);
            reading.last_error = Some((meter::now(), text.to_owned()));
            reading.trouble = Some(text.to_owned());
            reading.is_refused = is_refused;
        });
    }

    fn is_stopped(&self) -> bool {
        self.acting.is_stopped()
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        Ok(self.acting.check_stop()?)
    }

    /// Waits, unless something is asked; `true` if it is to end.
    fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.is_stopped() {
            let rest = until.saturating_duration_since(Instant::now());
            if let Ok(asked) = self.around.asked.recv_timeout(LOOK_WAIT.min(rest)) {
                self.asked.push(asked);
                break;
            }
        }
        self.is_stopped()
    }

    fn keep(&mut self) -> Result<(), Trouble> {
        self.phase(Phase::Waiting);
        self.settings.target.reach()?;
        let (mut reader, mut seen) = match self.copy_while_found()? {
            Some(begun) => begun,
            None => self.compare()?,
        };
        self.settings.meter.change(|reading| {
            reading.trouble = None;
            reading.behind_since = None;
        });
        self.phase(Phase::Following);
        let mut settled = Instant::now();
        loop {
            self.check_stop()?;
            let batches = next_batches(&mut reader, &mut seen)?;
            if self.follow(&batches, seen)? {
                settled = Instant::now();
                continue;
            }
            if !batches.is_empty() {
                continue;
            }
            self.fresh = HashMap::new();
            if self.settings.once && self.is_all_there(seen, settled)? {
                self.at_work(|keeper, work| keeper.deletes(work, None, false))?;
                self.expire()?;
                return Ok(());
            }
            if self.do_due()? || self.answer()? {
                continue;
            }
            self.settings.meter.change(|reading| {
                let (retries, since) = self.retries.pending();
                reading.due = retries + self.pending.len() as u64;
                reading.behind_since = since;
            });
            let _ = self.around.tail.wait_past(seen, Instant::now() + LOOK_WAIT);
        }
    }

    /// Holds all against all; from where on to follow.
    fn compare(&mut self) -> Result<(Reader, Seq), Trouble> {
        self.acting.wait_for_scans::<Trouble>(&self.view)?;
        let from = self.view.cursor()?;
        self.phase(Phase::Comparing);
        self.at_work(|keeper, work| {
            keeper.moved.read(work);
            keeper.take_back(work)?;
            keeper.pass(work, false)
        })?;
        let (disk, tail) = (Arc::clone(&self.around.disk), Arc::clone(&self.around.tail));
        let reader = Reader::follow(disk, &self.around.journal, tail, from)?;
        Ok((reader, from.map_or(Seq::ZERO, |cursor| cursor.seq)))
    }

    /// Does what records ask for; whether they asked for anything.
    fn follow(&mut self, batches: &[Batch], seen: Seq) -> Result<bool, Trouble> {
        let dirty = self.dirty(records(batches));
        if dirty.is_empty() {
            return Ok(false);
        }
        let (since, due) = (records(batches).next().map(|record| record.at), dirty.paths.len() as u64);
        self.settings.meter.change(|reading| {
            reading.due = due;
            reading.behind_since = reading.behind_since.or(since);
        });
        self.applied(seen)?;
        self.at_work(|keeper, work| keeper.round(work, dirty))?;
        let (_, since) = self.retries.pending();
        self.settings.meter.change(|reading| reading.behind_since = since);
        Ok(true)
    }

    /// Does what the clock asks for; whether it asked for anything.
    fn do_due(&mut self) -> Result<bool, Trouble> {
        let now = Instant::now();
        let due = self.retries.take_due(now);
        if !due.is_empty() {
            self.at_work(|keeper, work| keeper.round(work, due))?;
            return Ok(true);
        }
        if self.settings.once {
            return Ok(false);
        }
        if self.pending.next_due().is_some_and(|due| due <= now) {
            self.at_work(|keeper, work| keeper.deletes(work, Some(now), false))?;
            return Ok(true);
        }
        let overflowed = self.retries.overflowed.is_some_and(|since| now.duration_since(since) > PASS_AGAIN);
        if overflowed || self.pending.wants_pass() {
            self.retries.overflowed = None;
            self.at_work(|keeper, work| keeper.pass(work, false))?;
            return Ok(true);
        }
        if self.expiry.is_due(now) {
            self.expire()?;
        }
        Ok(false)
    }

    /// Does what was asked; whether anything was.
    fn answer(&mut self) -> Result<bool, Trouble> {
        self.asked.extend(self.around.asked.try_iter());
        if self.asked.is_empty() {
            return Ok(false);
        }
        // What fails meanwhile is answered where trouble is.
        for index in 0..self.asked.len() {
            match self.asked[index].wish {
                Wish::Sync => {
                    self.retries.hurry();
                    self.at_work(|keeper, work| keeper.pass(work, true))?;
                    let due = self.retries.take_due(Instant::now());
                    self.at_work(|keeper, work| keeper.round(work, due))?;
                }
                Wish::Resume { allow_deletes } => {
                    self.at_work(|keeper, work| keeper.deletes(work, None, allow_deletes))?;
                }
                // To get here the target was opened.
                Wish::Accept => {}
            }
        }
        for asked in std::mem::take(&mut self.asked) {
            let _ = asked.done.send(Ok(Box::new(self.settings.meter.read())));
        }
        Ok(true)
    }

    /// Whether a single run has nothing to wait for any more.
    fn is_all_there(&mut self, seen: Seq, since: Instant) -> Result<bool, Trouble> {
        if self.around.tail.head().seq > seen || self.around.progress.applied() < seen || !self.retries.is_idle() {
            return Ok(false);
        }
        let mut open = self.view.unsettled(Seq::ZERO, 100)?;
        open.retain(|one| {
            let root = self.roots.iter().find(|root| root.name == one.root);
            root.is_some_and(|root| root.filter.keeps(root.path.as_os_str().as_bytes(), &one.path, false))
        });
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

    /// How many objects a batch has.
    fn batch(&self) -> usize {
        self.batch.min(self.settings.target.nature().batch_max).clamp(1, perform::PIECE)
    }

    /// A batch of so many took so long.
    fn batch_took(&mut self, count: usize, time: Duration) {
        if time > BATCH_LONG {
            self.batch = (count.min(self.batch) / 2).max(BATCH_MIN);
        } else if time < BATCH_SHORT && count >= self.batch() {
            self.batch = (self.batch * 2).min(self.settings.target.nature().batch_max);
        }
    }

    fn phase(&self, phase: Phase) {
        self.settings.meter.change(|reading| reading.phase = phase);
    }

    /// Waits until the inventory has a record, and all that was done here.
    fn applied(&self, seq: Seq) -> Result<(), Trouble> {
        self.view.let_go()?;
        Ok(self.acting.applied(seq)?)
    }

    /// Waits until the inventory has all that was done here.
    fn all_applied(&self) -> Result<(), Trouble> {
        self.applied(Seq::ZERO)
    }

    /// Has acts journaled. They take effect when the inventory applies them.
    fn tell(&mut self, acts: Vec<Body>) -> Result<(), Trouble> {
        self.view.let_go()?;
        Ok(self.acting.tell(acts)?)
    }

    /// Opens the target and the roots, does something, and lets go of them.
    fn at_work<T>(&mut self, work: impl FnOnce(&mut Keeper, &AtWork<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let known = self.view.replica(&self.settings.name)?;
        let accepts = self.asked.iter().any(|asked| matches!(asked.wish, Wish::Accept));
        let identity = known.as_ref().and_then(|known| known.identity.clone());
        let claim = Claim {
            owner: self.settings.owner.clone().unwrap_or_else(|| self.around.state.clone()),
            state: self.around.state.clone(),
            host: self.around.host.clone(),
            identity: identity.clone().filter(|_| !accepts),
        };
        let target = Arc::clone(&self.settings.target);
        let (session, found) = target.open(&claim)?;
        self.settings.meter.change(|reading| reading.was_reached = true);
        self.ignore_staging(&*session);
        let is_new = identity.as_deref() != Some(&found);
        if is_new || known.as_ref().and_then(|known| known.url.as_deref()) != Some(&self.settings.url) {
            let roots = known.filter(|_| !is_new).map(|known| known.roots).unwrap_or_default();
            self.tell_config(&found, roots)?;
            self.all_applied()?;
        }
        let replica = self.replica()?;
        let mut dirs = Vec::new();
        let mut roots = Vec::new();
        for kept in &self.roots {
            // A root that was never there is not in the inventory, and nothing of it is anywhere.
            let dir = self.view.root_dir(&kept.name)?;
            if dir.is_some() {
                make_base(&*session, &kept.placement)?;
            }
            dirs.push(dir.unwrap_or(NO_DIR));
            roots.push(RootAtWork {
                name: kept.name.clone(),
                top: kept.path.as_os_str().as_bytes().to_vec(),
                placement: kept.placement.clone(),
                filter: Arc::clone(&kept.filter),
                source: Source::open(&kept.path).ok().map(|source| match self.settings.hash {
                    true => source,
                    false => source.unhashed(),
                }),
            });
        }
        let mut trash = trash_of(meter::now()).filter(|_| self.settings.on_delete != OnDelete::Delete);
        match session.can_set_aside() {
            Err(error) if self.settings.on_delete == OnDelete::Trash => return Err(error.into()),
            Err(_) => trash = None,
            Ok(()) => {}
        }
        let proof = self.settings.target.nature().proof;
        let at_work = AtWork {
            replica: replica.id,
            dirs: &dirs,
            roots: &roots,
            session: &*session,
            trash: trash.as_ref(),
            proof,
        };
        let done = work(self, &at_work);
        self.view.let_go()?;
        done
    }

    /// What a target of this machine takes in, on a file system that is watched, would be told of several times for each file.
    fn ignore_staging(&mut self, session: &dyn Session) {
        let Some(dir) = session.staging() else { return };
        let Ok(object) = rustix::fs::fstat(dir).map(|stat| (stat.st_dev, stat.st_ino)) else { return };
        if self.ignored != Some(object)
            && let Ok(dir) = dir.try_clone_to_owned()
        {
            self.ignored = Some(object);
            // A service that ends hears of nothing any more.
            let _ = self.around.commands.send(Command::Ignore(dir));
        }
    }

    fn replica(&self) -> Result<ReplicaRow, Trouble> {
        self.view.replica(&self.settings.name)?.ok_or(Trouble::Behind)
    }

    fn tell_config(
        &mut self,
        identity: &str,
        roots: std::collections::BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let config = Replica {
            replica: self.settings.name.clone(),
            url: Some(self.settings.url.clone()),
            identity: Some(identity.to_owned()),
            roots,
        };
        self.tell(vec![Body::Replica(Box::new(config))])
    }
}

/// What is journaled by now, as much as is looked at together; `seen` moves on to its end.
fn next_batches(reader: &mut Reader, seen: &mut Seq) -> Result<Vec<Batch>, Trouble> {
    let (mut batches, mut count) = (Vec::new(), 0);
    while count < round::RECORDS_MAX
        && let Some(batch) = reader.next_batch()?
    {
        *seen = batch.cursor.seq;
        count += batch.records.len();
        batches.push(batch);
    }
    Ok(batches)
}

fn records(batches: &[Batch]) -> impl Iterator<Item = &Record> + Clone {
    batches.iter().flat_map(|batch| batch.records.iter())
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

/// A file of a replica beside the inventory, under a name that any replica's name gives.
fn state_file(replica: &ReplicaName, inventory: &Path, extension: &str) -> PathBuf {
    inventory.with_file_name(format!("replica-{}.{extension}", state_name(&[replica.as_str().as_bytes()])))
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

/// The trash of the UTC day of this moment.
pub(in crate::daemon) fn trash_of(now: Timestamp) -> Option<RelPath> {
    let text = now.to_string();
    Some(RelPath::new(TRASH).ok()?.join(text.get(..10)?.as_bytes()))
}

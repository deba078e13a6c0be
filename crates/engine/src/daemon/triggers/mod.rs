//! A trigger: a thread that has a command run once for every version that its rules are about.
//!
//! What is due follows from the inventory: files whose version is settled, and runs that are recorded. A start looks at all of it,
//! then the journal's records say at which paths to look again. What is due waits in a table of the trigger's own, which may be lost.
//! Before a command starts that is journaled and on disk, and what became of it is journaled behind it; both are
//! applied to the inventory like everything else.

mod answer;
mod claims;
mod launch;
mod look;
mod meter;
mod queue;
mod settings;
mod then;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select, unbounded};
use keepwatch_journal::{Disk, ReadError, Reader, Tail};

use crate::clock::{Clock, SystemClock};
use crate::daemon::acting::{ActError, Acting};
use crate::daemon::progress::Progress;
use crate::daemon::service::Command;
use crate::inventory::{InventoryError, RunState, View};
use crate::model::{Body, Cursor, JournalId, Record, RootName, Seq, Timestamp, Trigger};
use crate::processes;
use crate::trigger::{Group, end_group};
use crate::watch::process::Groups;

pub use answer::acts;
pub use meter::{Meter, Reading};
pub use queue::{Said, queue_of, said};
pub use settings::{Asked, Existing, Pace, RunAs, Then, TriggerError, TriggerSettings, Wish};

use claims::Claims;
use launch::{Busy, Done, Item, Running};
use queue::Queue;
use settings::Understood;

/// After trouble it is tried again after this time, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// While it waits for that it looks this often whether it is to end.
const STOP_LOOK: Duration = Duration::from_millis(5);
/// Without records it looks this often whether it is to end.
const LOOK_WAIT: Duration = Duration::from_millis(200);
/// Records that are looked at together.
const RECORDS_MAX: usize = 4_096;
/// Runs that were cut, looked at together.
const CUT_PAGE: usize = 1_000;

/// What a trigger's thread needs of the service.
pub(super) struct Surroundings {
    pub(super) inventory: PathBuf,
    pub(super) journal: PathBuf,
    /// The state directory.
    pub(super) state: PathBuf,
    /// The id of the state, and the host's name.
    pub(super) identity: (String, String),
    pub(super) disk: Arc<dyn Disk>,
    pub(super) tail: Arc<Tail>,
    pub(super) progress: Arc<Progress>,
    pub(super) commands: Sender<Command>,
    /// What it is asked.
    pub(super) asked: Receiver<Asked>,
    /// In which process groups those are who changed something.
    pub(super) groups: Arc<Groups>,
    pub(super) stop: Arc<AtomicBool>,
}

/// Why a trigger does not get on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] ReadError),
    #[error("the claims in the shared folder cannot be used: {0}")]
    Claims(String),
    #[error("the trigger's queue: {0}")]
    Queue(#[from] rusqlite::Error),
    #[error("the inventory does not follow the journal")]
    Behind,
    #[error("what a command of an earlier start left running cannot be ended: process group {0}")]
    Survivor(u32),
    #[error("no process group can be made for a command: {0}")]
    Group(std::io::Error),
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

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble::Claims(error.to_string())
    }
}

/// A trigger's thread.
pub(super) struct Worker {
    settings: Arc<TriggerSettings>,
    understood: Arc<Understood>,
    around: Surroundings,
    view: View,
    queue: Queue,
    /// Its id in the inventory.
    id: i64,
    journal: JournalId,
    boot: String,
    /// For each root the last record whose version is left alone.
    since: BTreeMap<String, u64>,
    begun: Instant,
    running: HashMap<u64, Running>,
    next_run: u64,
    busy: Busy,
    /// Process groups without a command.
    idle: Vec<Group>,
    /// The process groups in which its commands ran lately.
    own: look::Own,
    finished: (Sender<Done>, Receiver<Done>),
    /// Where other hosts may run for the same files.
    claims: Option<Claims>,
    /// Items whose command was fine, of which other hosts are to be told.
    concluding: Vec<Item>,
    /// Files that are done with, to be moved or deleted once that is on disk.
    leaving: Vec<Item>,
    /// Acts that are to be journaled.
    acts: Vec<Body>,
    acting: Acting,
}

impl Worker {
    pub(super) fn new(settings: TriggerSettings, around: Surroundings) -> Result<Self, String> {
        let understood = settings.understand().map_err(|error| error.to_string())?;
        let view = View::open(&around.inventory).map_err(|error| error.to_string())?;
        let queue = Queue::open(&queue_of(&around.state, settings.name.as_str()), settings.pace.ordered)
            .map_err(|error| format!("its queue cannot be opened: {error}"))?;
        let (state, host) = &around.identity;
        let claims = settings.claim.map(|timeout| Claims::start(&settings, timeout, state, host));
        let Surroundings { commands, progress, tail, stop, .. } = &around;
        let acting = Acting::new(commands.clone(), Arc::clone(progress), Arc::clone(tail), Arc::clone(stop));
        Ok(Worker {
            acting,
            claims,
            concluding: Vec::new(),
            settings: Arc::new(settings),
            understood: Arc::new(understood),
            around,
            view,
            queue,
            id: 0,
            journal: JournalId(uuid::Uuid::nil()),
            boot: processes::boot_id(),
            since: BTreeMap::new(),
            begun: Instant::now(),
            running: HashMap::new(),
            next_run: 0,
            busy: Busy::default(),
            idle: Vec::new(),
            own: look::Own::default(),
            finished: unbounded(),
            leaving: Vec::new(),
            acts: Vec::new(),
        })
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        // What the service may is not for the commands: threads and processes that begin here do not have it.
        let _ = rustix::thread::clear_ambient_capability_set();
        let mut wait = RETRY_MIN;
        loop {
            let begun = Instant::now();
            match self.work() {
                Ok(()) | Err(Trouble::Stopped) => break,
                Err(trouble) => self.report(&trouble.to_string()),
            }
            if begun.elapsed() > RETRY_MAX {
                wait = RETRY_MIN;
            }
            let until = Instant::now() + wait;
            while Instant::now() < until && !self.is_stopped() {
                std::thread::sleep(STOP_LOOK);
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.finish();
    }

    /// Commands that run are ended; those that were fine by then are told of.
    fn finish(&mut self) {
        while !self.running.is_empty() {
            let Ok(done) = self.finished.1.recv() else { break };
            if self.ended(done).is_err() {
                break;
            }
        }
        let _ = self.conclude();
        let _ = self.queue.end();
        let _ = self.tell();
        self.settings.meter.change(|reading| reading.is_following = false);
    }

    /// Says what is wrong, once for each thing.
    fn report(&self, text: &str) {
        if self.settings.meter.read().trouble.as_deref() != Some(text) {
            tracing::error!(trigger = %self.settings.name, error = text, "the trigger does not get on");
        }
        self.settings.meter.change(|reading| {
            reading.is_following = false;
            reading.last_error = Some((now(), text.to_owned()));
            reading.trouble = Some(text.to_owned());
        });
    }

    fn is_stopped(&self) -> bool {
        self.acting.is_stopped()
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        Ok(self.acting.check_stop()?)
    }

    fn work(&mut self) -> Result<(), Trouble> {
        self.queue.clear()?;
        self.busy = Busy::of(self.running.values().flat_map(|running| running.items.iter()).chain(&self.concluding));
        self.acting.wait_for_scans::<Trouble>(&self.view)?;
        self.configure()?;
        self.end_survivors()?;
        let from = self.view.cursor()?;
        self.journal = from.map_or(self.journal, |cursor| cursor.journal);
        self.pass(None)?;
        self.settings.meter.change(|reading| {
            reading.trouble = None;
            reading.is_following = true;
        });
        self.follow(from)
    }

    fn follow(&mut self, from: Option<Cursor>) -> Result<(), Trouble> {
        let (disk, tail) = (Arc::clone(&self.around.disk), Arc::clone(&self.around.tail));
        let mut reader = Reader::follow(disk, &self.around.journal, Arc::clone(&tail), from)?;
        let mut seen = from.map_or(Seq::ZERO, |cursor| cursor.seq);
        let (tick, ticks) = bounded(1);
        let _watcher = Watcher::start(tail, seen, tick, Arc::clone(&self.around.stop));
        loop {
            self.check_stop()?;
            let mut records = Vec::new();
            while records.len() < RECORDS_MAX
                && let Some(batch) = reader.next_batch()?
            {
                seen = batch.cursor.seq;
                records.extend(batch.records.iter().cloned());
            }
            self.hear(&records, seen)?;
            let finished: Vec<Done> = self.finished.1.try_iter().collect();
            let has_finished = !finished.is_empty();
            self.queue.begin()?;
            finished.into_iter().try_for_each(|done| self.ended(done))?;
            self.conclude()?;
            let was_asked = self.answer()?;
            let has_launched = self.launch()?;
            self.leave()?;
            self.queue.end()?;
            self.settings.meter.change(|reading| {
                reading.queued = self.queue.count();
                reading.running = self.running.values().map(|running| running.items.len() as u64).sum();
            });
            if has_finished || has_launched || was_asked || !records.is_empty() {
                continue;
            }
            let wait = self.next_wait()?;
            let (stop_look, finished, asked) = (after(wait), &self.finished.1, &self.around.asked);
            select! {
                recv(ticks) -> _ => {}
                recv(finished) -> done => if let Ok(done) = done { self.ended(done)?; },
                recv(asked) -> asked => if let Ok(asked) = asked { self.answer_one(&asked)?; },
                recv(stop_look) -> _ => {}
            }
        }
    }

    /// Looks where records say to.
    fn hear(&mut self, records: &[Record], seen: Seq) -> Result<(), Trouble> {
        let dirty = self.dirty(records);
        if records.iter().any(|record| matches!(record.body, Body::GapClosed(_))) {
            self.applied(seen)?;
            self.configure()?;
        }
        if dirty.paths.is_empty() && dirty.trees.is_empty() {
            return Ok(());
        }
        self.applied(seen)?;
        self.queue.begin()?;
        let paths = dirty.paths;
        self.at_one_state(|worker| paths.into_iter().try_for_each(|(root, path)| worker.look_at(root, &path)))?;
        for (root, path) in dirty.trees {
            self.pass(Some((root, path)))?;
        }
        self.queue.end()?;
        Ok(())
    }

    /// Does something that asks the inventory much: all of it sees one state, and costs less.
    fn at_one_state<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Trouble>) -> Result<T, Trouble> {
        self.view.hold()?;
        let done = work(self);
        self.view.let_go()?;
        done
    }

    /// For how long nothing is due.
    fn next_wait(&self) -> Result<Duration, Trouble> {
        let has_room = self.running.len() < self.settings.pace.concurrency;
        let due = if has_room { self.queue.next_due_ms()? } else { None };
        let wait = due.map_or(LOOK_WAIT, |due| Duration::from_millis(due.saturating_sub(self.now_ms())));
        Ok(wait.clamp(Duration::from_millis(1), LOOK_WAIT))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Has it journaled from where on the trigger runs, where that is not known yet: for a root whose content is known.
    fn configure(&mut self) -> Result<(), Trouble> {
        let known = self.view.trigger(&self.settings.name)?;
        let before = known.as_ref().and_then(|known| known.since.clone());
        let unknown: BTreeSet<RootName> = self.view.open_gaps()?.into_iter().filter_map(|gap| gap.root).collect();
        let head = self.view.cursor()?.map_or(0, |cursor| cursor.seq.0);
        let mut since = BTreeMap::new();
        for (root, _) in &self.settings.roots {
            let known = before.as_ref().and_then(|before| before.get(root.as_str()));
            let from = match (self.settings.existing, known) {
                (Existing::Run, _) => Some(0),
                (Existing::Skip, Some(since)) if *since > 0 => Some(*since),
                (Existing::Skip, _) => (!unknown.contains(root)).then_some(head),
            };
            since.extend(from.map(|from| (root.to_string(), from)));
        }
        self.since.clone_from(&since);
        if before.as_ref() != Some(&since) {
            let trigger = Trigger { trigger: self.settings.name.clone(), roots: Some(since) };
            self.acts.push(Body::Trigger(Box::new(trigger)));
            self.tell()?;
            self.applied(Seq::ZERO)?;
        }
        self.id = self.view.trigger(&self.settings.name)?.ok_or(Trouble::Behind)?.id;
        Ok(())
    }

    /// Ends what commands of an earlier start left running.
    fn end_survivors(&mut self) -> Result<(), Trouble> {
        if !self.running.is_empty() {
            return Ok(());
        }
        self.journal = self.view.cursor()?.map_or(self.journal, |cursor| cursor.journal);
        let mut after = crate::inventory::FileId(i64::MIN);
        let mut ended = BTreeSet::new();
        loop {
            let cut = self.view.runs_after(self.id, RunState::Started, after, CUT_PAGE)?;
            for row in &cut {
                after = row.file_id;
                let Some(process) = &row.process else { continue };
                if !ended.insert((process.group, process.born)) {
                    continue;
                }
                self.own.add_group(process.group);
                if !end_group(process) {
                    return Err(Trouble::Survivor(process.group));
                }
            }
            if cut.len() < CUT_PAGE {
                return Ok(());
            }
        }
    }

    /// Waits until the inventory has a record, and all that was done here.
    fn applied(&self, seq: Seq) -> Result<(), Trouble> {
        Ok(self.acting.applied(seq)?)
    }

    /// Has acts journaled. They take effect when the inventory applies them.
    fn tell(&mut self) -> Result<(), Trouble> {
        Ok(self.acting.tell(std::mem::take(&mut self.acts))?)
    }

    /// Waits until all acts are on disk.
    fn durable(&self) -> Result<(), Trouble> {
        Ok(self.acting.durable()?)
    }
}

/// Tells when there is something new in the journal.
struct Watcher(Arc<AtomicBool>);

impl Watcher {
    fn start(tail: Arc<Tail>, mut seen: Seq, tick: Sender<()>, stop: Arc<AtomicBool>) -> Watcher {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        // Without it news is heard at the next look, which is soon.
        let _ = std::thread::Builder::new().name("trigger-news".to_owned()).spawn(move || {
            while !ended.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) && !tail.is_closed() {
                let head = tail.wait_past(seen, Instant::now() + LOOK_WAIT).seq;
                if head > seen {
                    seen = head;
                    let _ = tick.try_send(());
                }
            }
        });
        Watcher(end)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// By the wall clock.
fn now() -> Timestamp {
    SystemClock.now()
}

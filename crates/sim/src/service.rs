//! A service around the sequencer, as the daemon's own, but one that does each thing when a test says so.

use std::collections::VecDeque;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepwatch_engine::clock::Clock;
use keepwatch_engine::daemon::dirs::Dirs;
use keepwatch_engine::daemon::ledger::Ledger;
use keepwatch_engine::daemon::rules::Rules;
use keepwatch_engine::daemon::sequencer::{Found, Root, ScanWanted, Sequencer};
use keepwatch_engine::watch::Notice;
use keepwatch_engine::watch::settle::Patience;
use keepwatch_journal::{Body, Config, Gap, GapClosed, GapReason, RelPath, RootName, Seq, Via};

use crate::clock::SimClock;
use crate::kernel::Flavour;
use crate::ledger::SimLedger;
use crate::scan::{Job, Scan};
use crate::tree::{Op, Shared, SimTree, root_no};

/// Rounds after which a tree that nobody touches any more must have come to rest.
const ROUNDS_MAX: usize = 2_000;

/// A scan waits at most this long for all events to be heard.
const CALM_WAIT: Duration = Duration::from_secs(1);

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A process does this.
    Do(u32, Op),
    /// A process does this when the tree was looked at so many times more.
    Arm(u8, u32, Op),
    /// Time passes, in milliseconds.
    Pass(u32),
    /// The reader takes at most so many events from the kernel.
    Drain(u8),
    /// The service hears a batch.
    Hear,
    /// What is due is done.
    KeepUp,
    /// Everything is done, due or not, as before an answer to who asked for it.
    Flush,
    /// The journal is synced.
    Commit,
    /// The inventory takes in so many records more.
    Apply(u8),
    /// The inventory is late so many times when it is waited for.
    Refuse(u8),
    /// The scan goes on by so many system calls.
    Scan(u8),
    /// The service hears what the scan said.
    HearScan,
    /// Somebody asks for a scan of a root.
    Rescan(u8),
    /// The kernel's queue runs over.
    Overflow,
    /// The service ends, cleanly or not, and another one starts.
    Restart(bool),
    /// A root's file system goes or comes back.
    Away(u8, bool),
}

enum Message {
    Found(Box<Found>),
    Done,
}

/// What a root is in.
#[derive(Clone, Debug, Default)]
struct RootState {
    present: bool,
    gap: Option<Seq>,
    witnessed: bool,
    scan_wanted: bool,
    closing: bool,
}

/// The service.
pub struct Service {
    /// The time.
    pub clock: SimClock,
    /// The files.
    pub world: Shared,
    /// Who decides.
    pub sequencer: Sequencer<SimTree, SimLedger>,
    dir: PathBuf,
    roots: Vec<RootState>,
    batches: VecDeque<Vec<Notice>>,
    messages: VecDeque<Message>,
    scan: Option<Scan>,
    waiting: VecDeque<ScanWanted>,
    patience: Patience,
    /// Since when scans wait for all events to be heard.
    held: Option<Instant>,
}

/// A root's name.
#[must_use]
pub fn root_name(root: usize) -> RootName {
    RootName::new(format!("t{root}"))
}

impl Service {
    /// A service for the first so many top directories of the world, with its inventory in `dir`. It has not heard of
    /// anything yet.
    ///
    /// # Panics
    /// If the inventory cannot be made.
    #[must_use]
    pub fn new(clock: &SimClock, world: &Shared, roots: usize, patience: Patience, dir: &FsPath) -> Self {
        let ledger = SimLedger::new(clock.clone(), world.clone(), dir).expect("an inventory can be made");
        let sequencer = sequencer(clock, world, roots, &patience, ledger);
        let mut service = Service {
            clock: clock.clone(),
            world: world.clone(),
            sequencer,
            dir: dir.to_owned(),
            roots: vec![RootState::default(); roots],
            batches: VecDeque::new(),
            messages: VecDeque::new(),
            scan: None,
            waiting: VecDeque::new(),
            patience,
            held: None,
        };
        for root in 0..roots {
            let config = Config { root: root_name(root), dir: None, identity: None, accepted: false };
            service.sequencer.ledger.append(Body::Config(config));
        }
        service.arrive_all(GapReason::New);
        service
    }

    fn flavour(&self) -> Flavour {
        self.world.borrow().kernel.flavour()
    }

    fn arrive_all(&mut self, reason: GapReason) {
        for root in 0..self.roots.len() {
            if !self.world.borrow().is_away(root) {
                self.arrive(root, reason);
            }
        }
    }

    fn arrive(&mut self, root: usize, reason: GapReason) {
        let key = {
            let world = self.world.borrow();
            world.key(world.top(root))
        };
        self.sequencer.dirs.set_root(&key, root_no(root)).expect("the directory table works");
        self.roots[root].present = true;
        self.roots[root].scan_wanted = true;
        self.open_gap(root, reason);
    }

    fn open_gap(&mut self, root: usize, reason: GapReason) {
        self.roots[root].witnessed |= reason == GapReason::Overflow;
        if self.roots[root].gap.is_some() {
            return;
        }
        let gap = Gap { root: Some(root_name(root)), path: RelPath::ROOT, reason, since: None, note: None };
        let seq = self.sequencer.ledger.append(Body::Gap(gap));
        self.roots[root].gap = Some(seq);
        self.roots[root].closing = false;
    }

    /// Does one thing.
    ///
    /// # Panics
    /// If the sequencer fails.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Do(pid, op) => {
                self.world.borrow_mut().perform(*pid, op);
            }
            Step::Arm(looks, pid, op) => self.world.borrow_mut().arm(*looks, *pid, op.clone()),
            Step::Pass(ms) => self.clock.pass(Duration::from_millis(u64::from(*ms))),
            Step::Drain(max) => self.drain(usize::from(*max)),
            Step::Hear => self.hear(),
            Step::KeepUp => self.keep_up(),
            Step::Flush if self.batches.is_empty() => self.sequencer.flush().expect("the sequencer works"),
            Step::Flush => {}
            Step::Commit => {
                if self.sequencer.ledger.pending() > 0 && self.sequencer.ledger.commit().is_ok() {
                    self.sequencer.committed();
                }
            }
            Step::Apply(count) => self.sequencer.ledger.apply(usize::from(*count)),
            Step::Refuse(times) => self.sequencer.ledger.refuse(*times),
            Step::Scan(count) => self.go_on(usize::from(*count)),
            Step::HearScan => self.hear_scan(),
            Step::Rescan(root) => {
                let root = usize::from(*root) % self.roots.len();
                if self.roots[root].present {
                    self.roots[root].scan_wanted = true;
                }
            }
            Step::Overflow => self.world.borrow_mut().kernel.overflow(),
            Step::Restart(clean) => self.restart(*clean),
            Step::Away(root, away) => {
                let root = usize::from(*root) % self.roots.len();
                self.world.borrow_mut().set_away(root, *away);
                self.check_roots();
            }
        }
    }

    fn drain(&mut self, max: usize) {
        let notices = self.world.borrow_mut().kernel.drain(max.max(1));
        if !notices.is_empty() {
            self.batches.push_back(notices);
        }
    }

    fn hear(&mut self) {
        if self.flavour() == Flavour::Inotify {
            // Where a directory is was told before the watch on it was set.
            while !self.messages.is_empty() {
                self.hear_message();
            }
        }
        let Some(notices) = self.batches.pop_front() else { return };
        for (index, notice) in notices.iter().enumerate() {
            match notice {
                Notice::Event(event) => {
                    self.sequencer.on_event(event, &notices[index + 1..]).expect("the sequencer works");
                }
                Notice::Reached(_) => {}
                Notice::Lost(_) => {
                    for root in 0..self.roots.len() {
                        if self.roots[root].present {
                            self.open_gap(root, GapReason::Overflow);
                            self.roots[root].scan_wanted = true;
                        }
                    }
                }
            }
        }
        self.keep_up();
    }

    fn keep_up(&mut self) {
        if self.sequencer.next_due().is_some_and(|due| due <= self.clock.instant()) {
            let quiet = self.batches.is_empty();
            self.sequencer.upkeep(quiet).expect("the sequencer works");
        }
        self.heed();
        self.close_gaps();
    }

    /// Takes up what the sequencer asks for.
    fn heed(&mut self) {
        let asked = self.sequencer.take_asked();
        for wanted in asked.scans {
            let covered = self.waiting.iter().any(|other| other.covers(&wanted));
            if !covered {
                self.waiting.push_back(wanted);
            }
        }
        if asked.check_roots {
            self.check_roots();
        }
    }

    fn check_roots(&mut self) {
        for root in 0..self.roots.len() {
            let away = self.world.borrow().is_away(root);
            if away && self.roots[root].present {
                self.roots[root].present = false;
                self.roots[root].scan_wanted = false;
                self.open_gap(root, GapReason::Absent);
                self.waiting.retain(|wanted| wanted.root != root_no(root));
                if self.scan.take_if(|scan| scan.root() == root_no(root)).is_some() {
                    // What it said is heard still; that it ended early proves nothing.
                    self.sequencer.forget_absences();
                }
            } else if !away && !self.roots[root].present {
                self.arrive(root, GapReason::Absent);
            }
        }
    }

    fn start_scan(&mut self) {
        if !self.is_calm() {
            return;
        }
        let full = self.roots.iter().position(|root| root.scan_wanted && root.present);
        let (root, at) = match full {
            Some(root) => (root, RelPath::ROOT),
            None => loop {
                let Some(wanted) = self.waiting.pop_front() else {
                    self.sequencer.ask_for_unentered().expect("the sequencer works");
                    return;
                };
                let (root, path) = self.sequencer.place_wanted(wanted).expect("the directory table works");
                let root = usize::from(root.0);
                if self.roots[root].present {
                    break (root, path);
                }
            },
        };
        if !self.sequencer.ledger.catch_up() {
            if full.is_none() {
                self.waiting.push_front(ScanWanted { root: root_no(root), path: at, dir: None });
            }
            return;
        }
        self.sequencer.committed();
        let state = &mut self.roots[root];
        if at.is_root() {
            state.scan_wanted = false;
        }
        let via = if at.is_root() && state.gap.is_none() { Via::Poll } else { Via::Scan };
        let doubt_empty = state.gap.is_none() || !state.witnessed;
        let job = Job { root: root_no(root), name: root_name(root), at, via, doubt_empty };
        let view = self.sequencer.ledger.reader().expect("the inventory can be read");
        self.scan = Scan::start(job, &self.world.borrow(), view);
        if self.scan.is_none() {
            self.sequencer.forget_absences();
        }
    }

    /// All events have been heard, or that was waited for long enough.
    fn is_calm(&mut self) -> bool {
        let now = self.clock.instant();
        if self.batches.is_empty() {
            self.held = None;
            return true;
        }
        now.duration_since(*self.held.get_or_insert(now)) >= CALM_WAIT
    }

    fn go_on(&mut self, count: usize) {
        if self.scan.is_none() && self.messages.is_empty() {
            self.start_scan();
        }
        for _ in 0..count {
            let Some(scan) = &mut self.scan else { return };
            if scan.is_over() {
                if !self.messages.iter().any(|message| matches!(message, Message::Done)) {
                    self.messages.push_back(Message::Done);
                }
                return;
            }
            let base = self.sequencer.ledger.applied();
            let found = scan.step(&mut self.world.borrow_mut(), base);
            self.messages.extend(found.map(|found| Message::Found(Box::new(found))));
        }
    }

    fn hear_scan(&mut self) {
        self.hear_message();
        self.keep_up();
    }

    fn hear_message(&mut self) {
        match self.messages.pop_front() {
            Some(Message::Found(found)) => self.sequencer.on_found(*found).expect("the sequencer works"),
            Some(Message::Done) => {
                let Some(scan) = self.scan.take() else { return };
                let root = &mut self.roots[usize::from(scan.root().0)];
                if scan.empty {
                    // A real one is absent from here on until somebody accepts it; here that is done at once.
                    self.sequencer.forget_absences();
                    root.witnessed = true;
                    root.scan_wanted = true;
                    self.open_gap(usize::from(scan.root().0), GapReason::Overflow);
                    return;
                }
                root.closing |= scan.at.is_root();
                if scan.at.is_root() {
                    self.sequencer.follow_unsettled();
                }
                self.sequencer.resolve_absences().expect("the sequencer works");
                self.heed();
            }
            None => {}
        }
    }

    fn close_gaps(&mut self) {
        for index in 0..self.roots.len() {
            let concerned = self.waiting.iter().any(|wanted| wanted.root == root_no(index))
                || self.scan.as_ref().is_some_and(|scan| scan.root() == root_no(index));
            let root = &mut self.roots[index];
            if !root.closing || root.scan_wanted || concerned || self.sequencer.has_doubts() {
                continue;
            }
            root.closing = false;
            root.witnessed = false;
            if let Some(gap) = root.gap.take() {
                for older in self.sequencer.ledger.view().open_gaps().expect("the inventory can be read") {
                    if older.seq < gap && older.root == Some(root_name(index)) {
                        let closed = GapClosed { gap: older.seq, root: older.root, scanned: 0, found: 0 };
                        self.sequencer.ledger.append(Body::GapClosed(closed));
                    }
                }
                let closed = GapClosed { gap, root: Some(root_name(index)), scanned: 0, found: 0 };
                self.sequencer.ledger.append(Body::GapClosed(closed));
            }
        }
    }

    fn restart(&mut self, clean: bool) {
        if clean {
            self.drain(usize::MAX);
            self.scan = None;
            self.messages.clear();
            while !self.batches.is_empty() {
                self.hear();
            }
            self.sequencer.flush().expect("the sequencer works");
            let _ = self.sequencer.ledger.commit();
        } else {
            self.sequencer.ledger.discard();
        }
        self.world.borrow_mut().kernel.reset();
        self.scan = None;
        self.messages.clear();
        self.batches.clear();
        self.waiting.clear();
        let count = self.roots.len();
        self.roots = vec![RootState::default(); count];
        // The old ledger goes over to a new sequencer, which has told nothing.
        let ledger = SimLedger::new(self.clock.clone(), self.world.clone(), &spare(&self.dir));
        let fresh =
            sequencer(&self.clock, &self.world, count, &self.patience, ledger.expect("an inventory can be made"));
        let old = std::mem::replace(&mut self.sequencer, fresh);
        self.sequencer.ledger = old.ledger;
        while !self.sequencer.ledger.catch_up() {}
        self.arrive_all(GapReason::Restart);
    }

    /// Nobody does anything any more: everything is heard, scanned and done until nothing is left to do.
    ///
    /// # Errors
    /// If it never comes to rest.
    ///
    /// # Panics
    /// If the sequencer fails.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        for root in 0..self.roots.len() {
            self.world.borrow_mut().set_away(root, false);
        }
        self.world.borrow_mut().disarm();
        while self.world.borrow().open_files() > 0 {
            self.world.borrow_mut().perform(1, &Op::Close(0));
        }
        self.sequencer.ledger.refuse(0);
        self.check_roots();
        if self.flavour() == Flavour::Silent {
            for root in &mut self.roots {
                root.scan_wanted = true;
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.drain(usize::MAX);
            self.hear();
            self.go_on(1_000);
            while !self.messages.is_empty() {
                self.hear_scan();
            }
            self.keep_up();
            let busy = !self.batches.is_empty()
                || self.scan.is_some()
                || !self.waiting.is_empty()
                || self.roots.iter().any(|root| root.scan_wanted)
                || self.sequencer.has_unentered()
                || !self.world.borrow().kernel.is_empty();
            if busy {
                continue;
            }
            if self.sequencer.ledger.commit().is_ok() {
                self.sequencer.committed();
                // What follows the journal does so while nothing else happens.
                self.sequencer.ledger.apply(usize::MAX / 2);
            }
            match self.sequencer.next_due() {
                Some(due) => self.clock.pass_until(due),
                None => {
                    self.sequencer.ledger.catch_up();
                    return Ok(());
                }
            }
        }
        Err(format!("it does not come to rest: {} in doubt", self.sequencer.doubtful()))
    }
}

fn spare(dir: &FsPath) -> PathBuf {
    let spare = dir.join("spare");
    let _ = std::fs::remove_dir_all(&spare);
    let _ = std::fs::create_dir_all(&spare);
    spare
}

fn sequencer(
    clock: &SimClock,
    world: &Shared,
    roots: usize,
    patience: &Patience,
    ledger: SimLedger,
) -> Sequencer<SimTree, SimLedger> {
    let via = match world.borrow().kernel.flavour() {
        Flavour::Fanotify => Via::Fanotify,
        Flavour::Inotify => Via::Inotify,
        Flavour::Silent => Via::Poll,
    };
    let roots = (0..roots).map(|root| Root {
        name: root_name(root),
        dir: PathBuf::from(format!("/{}", root_name(root))),
        via,
        shared: false,
        patience: patience.clone(),
        rules: Rules::new(&[], Vec::new(), &[]).expect("no pattern is a sound pattern"),
        left_out: 0,
    });
    let dirs = Dirs::create(None).expect("a directory table can be made");
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let mut sequencer = Sequencer::new(SimTree(world.clone()), ledger, roots.collect(), dirs, clock);
    sequencer.settle_found_at_once();
    sequencer
}

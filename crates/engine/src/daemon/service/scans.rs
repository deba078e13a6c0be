//! Which scan runs, which wait, and what happens when one is over. One runs at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use keepwatch_journal::{Body, GapClosed, RelPath, RootName, Seq, Via};

use super::command::Reconciled;
use super::root::LastScan;
use super::{Mode, Result, Service};
use crate::daemon::dirs::RootNo;
use crate::daemon::ledger::Ledger;
use crate::daemon::scanner::{self, Job, Message, Report, ScanError};
use crate::daemon::sequencer::ScanWanted;
use crate::inventory::View;
use crate::watch::probe::Method;

/// Messages of a scan that may wait; each holds at most a few thousand differences.
const MESSAGES_MAX: usize = 8;
/// Directories that may wait to be scanned; beyond it the whole root is.
const WAITING_MAX: usize = 10_000;
/// A scan waits at most this long for all events to be heard.
const CALM_WAIT: Duration = Duration::from_secs(1);
/// A scan that failed is tried again after this time.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A root is scanned for contradictions at most this often.
const MEND_WAIT: Duration = Duration::from_millis(500);
/// And no more of the time than this share, so that a large tree that never rests is not scanned without end.
const MEND_SHARE: u32 = 10;

/// The scans.
pub(super) struct Scans {
    waiting: VecDeque<ScanWanted>,
    running: Option<Running>,
    pub(super) heard: Receiver<Message>,
    tell: Sender<Message>,
    no: u64,
    retry: Option<Instant>,
    /// Since when scans wait for all events to be heard.
    held: Option<Instant>,
    inventory: PathBuf,
}

struct Running {
    no: u64,
    root: RootNo,
    at: RelPath,
    cancel: Arc<AtomicBool>,
    /// The root's scan as a whole, not of a directory below it.
    full: bool,
    began: Instant,
    looked: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Scans {
    pub(super) fn new(inventory: PathBuf) -> Self {
        let (tell, heard) = bounded(MESSAGES_MAX);
        Scans { waiting: VecDeque::new(), running: None, heard, tell, no: 0, retry: None, held: None, inventory }
    }

    /// A directory is to be scanned.
    pub(super) fn want(&mut self, wanted: ScanWanted) {
        let covered = self.waiting.iter().rev().take(64).any(|other| other.covers(&wanted));
        if covered {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|other| other.root != wanted.root);
            self.waiting.push_back(ScanWanted { root: wanted.root, path: RelPath::ROOT, dir: None });
            return;
        }
        self.waiting.push_back(wanted);
    }

    /// Whether anything of a root is to be scanned still.
    pub(super) fn concerns(&self, root: RootNo) -> bool {
        self.waiting.iter().any(|wanted| wanted.root == root)
            || self.running.as_ref().is_some_and(|running| running.root == root)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How many objects the running scan of this root has looked at.
    pub(super) fn looked(&self, root: RootNo) -> Option<u64> {
        let running = self.running.as_ref().filter(|running| running.root == root)?;
        Some(running.looked.load(Ordering::Relaxed))
    }

    pub(super) fn is_scanning(&self, root: RootNo) -> bool {
        self.running.as_ref().is_some_and(|running| running.root == root)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    pub(super) fn retry_due(&self) -> Option<Instant> {
        self.retry
    }

    /// Ends what runs in a root, and forgets what waits.
    pub(super) fn cancel_root(&mut self, root: RootNo) {
        self.waiting.retain(|wanted| wanted.root != root);
        if let Some(running) = &self.running
            && running.root == root
        {
            running.cancel.store(true, Ordering::Release);
        }
    }

    pub(super) fn cancel(&mut self) {
        self.waiting.clear();
        if let Some(running) = &self.running {
            running.cancel.store(true, Ordering::Release);
        }
    }

    /// Waits for the running scan's thread, hearing it out.
    pub(super) fn finish(&mut self) {
        if let Some(running) = self.running.take() {
            while !running.thread.is_finished() {
                let _ = self.heard.recv_timeout(Duration::from_millis(10));
            }
            let _ = running.thread.join();
        }
    }
}

impl Service {
    /// Starts the next scan if none runs.
    pub(super) fn scan_next(&mut self) -> Result<()> {
        if self.scans.running.is_some() || self.commits.trouble.is_some() {
            return Ok(());
        }
        let now = self.clock.instant();
        if self.scans.retry.is_some_and(|retry| retry > now) {
            return Ok(());
        }
        self.scans.retry = None;
        if !self.is_calm(now) {
            return Ok(());
        }
        if self.mode == Mode::Look {
            self.forgo_scans();
        }
        let full = self.roots.iter().position(|root| root.scan_wanted && root.present().is_some());
        let (index, at) = match full {
            Some(index) => (index, RelPath::ROOT),
            None => loop {
                let Some(wanted) = self.scans.waiting.pop_front() else {
                    // Directories that no scan entered, because they moved meanwhile, are asked for again.
                    self.sequencer.ask_for_unentered()?;
                    return Ok(());
                };
                let (root, path) = self.sequencer.place_wanted(wanted)?;
                let index = usize::from(root.0);
                if self.roots[index].present().is_some() {
                    break (index, path);
                }
            },
        };
        // What the scan compares with must hold all that was journaled before.
        if !self.sequencer.ledger.catch_up() {
            self.scans.retry = Some(now + RETRY_WAIT);
            if full.is_none() {
                self.scans.waiting.push_front(ScanWanted { root: self.roots[index].no, path: at, dir: None });
            }
            return Ok(());
        }
        self.sequencer.committed();
        self.start_scan(index, at);
        Ok(())
    }

    /// Whether a scan should start: what it sees says most when all events have been heard. A tree that never rests is
    /// scanned all the same.
    fn is_calm(&mut self, now: Instant) -> bool {
        let wanted = !self.scans.waiting.is_empty() || self.roots.iter().any(|root| root.scan_wanted);
        if !wanted || self.sources.outstanding() == 0 {
            self.scans.held = None;
            return wanted || self.sequencer.has_unentered();
        }
        now.duration_since(*self.scans.held.get_or_insert(now)) >= CALM_WAIT
    }

    /// Where nothing is kept a scan has only to set watches, where those are set on directories.
    fn forgo_scans(&mut self) {
        for root in &mut self.roots {
            let watches = root.present().is_some_and(|present| present.choice.method == Method::Inotify);
            if root.scan_wanted && !watches {
                root.scan_wanted = false;
                root.gap = None;
            }
        }
    }

    fn start_scan(&mut self, index: usize, at: RelPath) {
        let full = at.is_root();
        let root = &mut self.roots[index];
        let Some(present) = root.present() else { return };
        let (object, method) = (present.object, present.choice.method);
        let polling = root.gap.is_none() && full;
        let via = if polling { Via::Poll } else { Via::Scan };
        let doubt_empty = root.doubts_empty();
        if full {
            root.scan_wanted = false;
        }
        self.scans.no += 1;
        let job = Job {
            no: self.scans.no,
            root: root.no,
            name: root.settings.name.clone(),
            top: root.settings.path.clone(),
            object,
            at: at.clone(),
            via,
            rules: self.sequencer.roots[index].rules.clone(),
            inotify: if method == Method::Inotify { self.sources.inotify() } else { None },
            doubt_empty,
            silent: full && self.mode == Mode::Look,
            threads: self.settings.scan_threads,
            looked: Arc::default(),
        };
        let looked = Arc::clone(&job.looked);
        let cancel = Arc::new(AtomicBool::new(false));
        let (flag, tell, progress) = (Arc::clone(&cancel), self.scans.tell.clone(), Arc::clone(&self.progress));
        let inventory = self.scans.inventory.clone();
        let (no, root) = (job.no, job.root);
        let thread = std::thread::Builder::new().name("scan".to_owned()).spawn(move || {
            scanner::run(&job, &move || View::open(&inventory), progress.counter(), &flag, &tell);
        });
        match thread {
            Ok(thread) => {
                self.sequencer.set_scanning(true);
                self.scans.running =
                    Some(Running { no, root, at, cancel, full, began: self.clock.instant(), looked, thread });
            }
            Err(error) => {
                tracing::error!(error = %error, "no thread to scan with; trying again");
                self.scans.retry = Some(self.clock.instant() + RETRY_WAIT);
                if full {
                    self.roots[index].scan_wanted = true;
                } else {
                    self.scans.want(ScanWanted { root, path: at, dir: None });
                }
            }
        }
    }

    pub(super) fn on_scan(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Found(found) => self.sequencer.on_found(*found)?,
            Message::Done { no, result } => {
                let Some(running) = self.scans.running.take_if(|running| running.no == no) else { return Ok(()) };
                let _ = running.thread.join();
                self.sequencer.set_scanning(false);
                let index = usize::from(running.root.0);
                if running.full {
                    self.roots[index].scan_took = self.clock.instant().duration_since(running.began);
                }
                match result {
                    Ok(report) => {
                        self.scanned(index, running.full, &running.at, report)?;
                    }
                    Err(error) => self.scan_failed(index, running.full, running.at, &error)?,
                }
            }
        }
        Ok(())
    }

    fn scanned(&mut self, index: usize, full: bool, at: &RelPath, report: Report) -> Result<()> {
        if report.cancelled {
            self.sequencer.forget_absences();
            return Ok(());
        }
        if report.empty {
            self.sequencer.forget_absences();
            self.roots[index].hollow = true;
            return self.check_hollow(index);
        }
        self.sequencer.resolve_absences()?;
        if let Some(failure) = &report.first_failure {
            tracing::warn!(count = report.failed, first = failure, "the scan could not read all");
        }
        let now = self.clock.now();
        let root = &mut self.roots[index];
        if full {
            root.last_scan = Some(LastScan {
                at: now,
                scanned: report.scanned,
                found: report.found,
                failed: report.failed,
                first_failure: report.first_failure,
            });
            root.trust_empty = false;
            self.sequencer.follow_unsettled();
            if root.gap.is_some() {
                root.closing = Some((report.scanned, report.found));
            }
            if let Some(every) = root.present().and_then(|present| present.poll) {
                root.poll_due = Some(self.clock.instant() + every);
            }
        } else {
            self.close_nested(index, at, report.scanned, report.found);
        }
        Ok(())
    }

    fn scan_failed(&mut self, index: usize, full: bool, at: RelPath, error: &ScanError) -> Result<()> {
        self.sequencer.forget_absences();
        match error {
            ScanError::Open { .. } if !full => return Ok(()),
            ScanError::Open { .. } | ScanError::Replaced { .. } => self.check_roots()?,
            ScanError::Inventory(_) => tracing::warn!(error = %error, "trying the scan again"),
        }
        self.scans.retry = Some(self.clock.instant() + RETRY_WAIT);
        if self.roots[index].present().is_some() {
            if full {
                self.roots[index].scan_wanted = true;
            } else {
                self.scans.want(ScanWanted { root: self.roots[index].no, path: at, dir: None });
            }
        }
        Ok(())
    }

    fn close_nested(&mut self, index: usize, at: &RelPath, scanned: u64, found: u64) {
        let root = &mut self.roots[index];
        let name = root.settings.name.clone();
        for nested in root.nested.values_mut().filter(|nested| nested.present && nested.path.is_within(at)) {
            if let Some(gap) = nested.gap.take() {
                let closed = GapClosed { gap, root: Some(name.clone()), scanned, found };
                self.sequencer.ledger.append(Body::GapClosed(closed));
            }
        }
    }

    /// Scans a root once more if its scan and events contradicted each other, when what is known of it has settled. Only a
    /// scan that nothing contradicted shows that all is known: the gap stays open until then.
    pub(super) fn mend_contradicted(&mut self, now: Instant) {
        if self.mode != Mode::Serve || self.sequencer.has_doubts() {
            return;
        }
        for root in &mut self.roots {
            let busy = root.scan_wanted || self.scans.concerns(root.no);
            if root.contradicted && !busy && root.present().is_some() && root.mend_due.is_none_or(|due| due <= now) {
                root.contradicted = false;
                root.scan_wanted = true;
                root.mend_due = Some(now + MEND_WAIT.max(root.scan_took * MEND_SHARE));
            }
        }
    }

    /// Closes gaps whose scans are over, with all that came of them.
    pub(super) fn close_gaps(&mut self) {
        for index in 0..self.roots.len() {
            let root = &self.roots[index];
            let Some((scanned, found)) = root.closing else { continue };
            let nested_away = root.nested.values().any(|nested| !nested.present);
            if root.contradicted || root.scan_wanted || self.scans.concerns(root.no) || self.sequencer.has_doubts() {
                continue;
            }
            let root = &mut self.roots[index];
            root.closing = None;
            let name = root.settings.name.clone();
            let last = root.last_scan.as_ref().map_or((0, 0), |scan| (scan.scanned, scan.failed));
            if let Some(gap) = root.gap.take() {
                let closed = GapClosed { gap: gap.seq, root: Some(name.clone()), scanned, found };
                let to = self.sequencer.ledger.append(Body::GapClosed(closed));
                tracing::info!(root = %name, scanned, found, nested_away, "the root was scanned and its gap is closed");
                self.reconciled(index, gap.seq, to, found, last);
                self.close_earlier(index, gap.seq, (scanned, found));
            }
            self.close_nested(index, &RelPath::ROOT, scanned, found);
        }
    }

    /// Closes gaps that were open when an earlier run ended; but not those of file systems that are still away.
    fn close_earlier(&mut self, index: usize, before: Seq, (scanned, found): (u64, u64)) {
        let root = &self.roots[index];
        let name = root.settings.name.clone();
        let open = self.sequencer.ledger.view().open_gaps().unwrap_or_default();
        for gap in open.into_iter().filter(|gap| gap.seq < before && gap.root.as_ref() == Some(&name)) {
            if root.nested.values().all(|nested| nested.gap != Some(gap.seq)) {
                let closed = GapClosed { gap: gap.seq, root: Some(name.clone()), scanned, found };
                self.sequencer.ledger.append(Body::GapClosed(closed));
            }
        }
    }

    fn reconciled(&mut self, index: usize, from: Seq, to: Seq, found: u64, (scanned, failed): (u64, u64)) {
        for reconciler in &mut self.reconcilers {
            if !reconciler.roots.contains(&index) {
                continue;
            }
            reconciler.roots.retain(|other| *other != index);
            let sum = &mut reconciler.sum;
            sum.from = if sum.from == Seq::ZERO { from } else { sum.from.min(from) };
            sum.to = sum.to.max(to);
            sum.scanned += scanned;
            sum.found += found;
            sum.failed += failed;
        }
        // The records have to be readable for whoever is told.
        if self.reconcilers.iter().any(|reconciler| reconciler.roots.is_empty()) && self.sequencer.ledger.catch_up() {
            self.reconcilers.retain(|reconciler| {
                if reconciler.roots.is_empty() {
                    let _ = reconciler.done.send(Ok(reconciler.sum));
                }
                !reconciler.roots.is_empty()
            });
        }
    }

    pub(super) fn poll_due(&mut self, now: Instant) {
        for root in &mut self.roots {
            if root.poll_due.is_some_and(|due| due <= now) {
                root.poll_due = None;
                root.scan_wanted = true;
            }
        }
    }

    /// Whether every root that is there was scanned, and all that came of it is journaled.
    pub(super) fn all_reconciled(&self) -> bool {
        debug_assert!(self.mode == Mode::Reconcile);
        self.commands.is_empty()
            && self.reconcilers.is_empty()
            && self.scans.is_idle()
            && !self.sequencer.has_doubts()
            && self.roots.iter().all(|root| root.present().is_none() || (root.gap.is_none() && !root.scan_wanted))
    }

    /// Which roots somebody means; an error names what there is.
    pub(super) fn roots_named(&self, name: Option<&RootName>) -> std::result::Result<Vec<usize>, String> {
        let Some(name) = name else { return Ok((0..self.roots.len()).collect()) };
        match self.roots.iter().position(|root| root.settings.name == *name) {
            Some(index) => Ok(vec![index]),
            None => {
                let names: Vec<&str> = self.roots.iter().map(|root| root.settings.name.as_str()).collect();
                Err(format!("there is no root called `{name}`; there are: {}", names.join(", ")))
            }
        }
    }

    /// Starts a reconciliation that somebody waits for.
    pub(super) fn reconcile(&mut self, name: Option<&RootName>, done: Sender<std::result::Result<Reconciled, String>>) {
        let named = match self.roots_named(name) {
            Ok(named) => named,
            Err(error) => {
                let _ = done.send(Err(error));
                return;
            }
        };
        let (present, absent): (Vec<usize>, Vec<usize>) =
            named.into_iter().partition(|index| self.roots[*index].present().is_some());
        for index in &present {
            // A scan of all of it that runs already will do: what changes behind it is watched.
            if !self.scans.is_scanning(self.roots[*index].no) || self.roots[*index].gap.is_none() {
                self.roots[*index].scan_wanted = true;
            }
            self.open_gap(*index, keepwatch_journal::GapReason::Asked, None);
        }
        let sum = Reconciled { absent: absent.len() as u64, ..Reconciled::default() };
        if present.is_empty() {
            let _ = done.send(Ok(sum));
        } else {
            self.reconcilers.push(super::Reconciler { roots: present, sum, done });
        }
    }
}

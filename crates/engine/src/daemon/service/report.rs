//! Answers to those who ask.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use keepwatch_journal::{RootName, Seq};

use super::command::Command;
use super::root::{Presence, look_at_top};
use super::sources::Sources;
use super::status::{FollowerStatus, HeldOpen, JournalStatus, RootStatus, Status};
use super::{Result, Service};
use crate::daemon::fixity;
use crate::daemon::index::IndexThread;
use crate::daemon::ledger::Ledger;
use crate::daemon::sequencer::ScanWanted;
use crate::inventory::RootRow;
use crate::watch::probe::Method;

/// Whoever waits for a scan, in a tree that never rests, is answered after this time.
const SYNC_MAX: Duration = Duration::from_secs(2);
/// Whoever waits for what was asked for to be heard: the sources take no longer, unless one of them has died.
const HEARD_MAX: Duration = Duration::from_secs(30);

/// Somebody who waits until all that happened before is journaled and applied.
pub(super) struct Sync {
    since: Instant,
    /// Marks behind what happened, that were not heard yet.
    marks: Vec<u64>,
    answer: Sender<std::result::Result<Seq, String>>,
}

impl Service {
    pub(super) fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Status(answer) => {
                let _ = answer.send(Box::new(self.status()));
            }
            Command::Sync(answer) => {
                let marks = self.sources.mark_now();
                self.syncs.push(Sync { since: self.clock.instant(), marks, answer });
            }
            Command::Reconcile { root, done } => self.reconcile(root.as_ref(), done),
            Command::Accept { root, done } => {
                let answer = self.accept(&root)?;
                let _ = done.send(answer);
            }
            Command::Forget { name, done } => {
                let _ = done.send(self.forget_replica(&name));
            }
            Command::Replica { name, asked } => self.ask_replica(&name, asked),
            Command::Trigger { name, asked } => self.ask_trigger(&name, asked),
            Command::Acts { acts, done } => self.tell_acts(acts, &done),
            Command::Verify { job, events, done } => self.verify(*job, events, done),
            Command::Rescan { root, dir } => {
                if let Some(index) = self.roots.iter().position(|known| known.settings.name == root) {
                    self.scans.want(ScanWanted { root: self.roots[index].no, path: dir, dir: None });
                }
            }
            Command::Ignore(dir) => self.sources.ignore(dir.as_fd()),
            Command::Stop => {}
        }
        Ok(())
    }

    /// Takes what is at a root's path now for the root, an empty directory included.
    fn accept(&mut self, name: &RootName) -> Result<std::result::Result<(), String>> {
        let index = match self.roots_named(Some(name)) {
            Ok(named) => named[0],
            Err(error) => return Ok(Err(error)),
        };
        let top = match look_at_top(&self.roots[index].settings.path) {
            Ok(top) => top,
            Err(why) => return Ok(Err(why)),
        };
        self.tell_config(index, &top, true);
        let root = &mut self.roots[index];
        root.identity = Some(top.identity);
        root.trust_empty = true;
        root.hollow = false;
        self.check_roots()?;
        let root = &mut self.roots[index];
        root.scan_wanted = root.present().is_some();
        Ok(match &root.presence {
            Presence::Present(_) => Ok(()),
            Presence::Absent { why, .. } => Err(why.clone()),
        })
    }

    /// Answers those who wait until all is journaled and applied, once it is.
    pub(super) fn answer_syncs(&mut self, now: Instant) -> Result<()> {
        let scanning = !self.scans.is_idle() || self.roots.iter().any(|root| root.scan_wanted);
        let is_due = |sync: &Sync| {
            let waited = now.duration_since(sync.since);
            (sync.marks.is_empty() || waited >= HEARD_MAX) && (!scanning || waited >= SYNC_MAX)
        };
        let (due, waiting) = std::mem::take(&mut self.syncs).into_iter().partition(is_due);
        self.syncs = waiting;
        let due: Vec<Sync> = due;
        if due.is_empty() {
            return Ok(());
        }
        self.sequencer.flush()?;
        let done = self.sequencer.ledger.catch_up();
        let answer = match (&self.commits.trouble, self.progress.trouble()) {
            _ if done => Ok(self.sequencer.ledger.writer().head().seq),
            (Some(trouble), _) => Err(trouble.clone()),
            (None, Some(trouble)) => Err(trouble),
            (None, None) => Err("the inventory did not catch up in time".to_owned()),
        };
        for sync in due {
            let _ = sync.answer.send(answer.clone());
        }
        Ok(())
    }

    /// All that had happened when this mark was asked for was heard.
    pub(super) fn reached(&mut self, mark: u64) {
        for sync in &mut self.syncs {
            sync.marks.retain(|waited_for| !Sources::is_reached(*waited_for, mark));
        }
    }

    fn status(&mut self) -> Status {
        let rows = self.sequencer.ledger.view().roots().unwrap_or_default();
        let head = self.sequencer.ledger.writer().head();
        let applied = self.progress.applied();
        let held_open: Vec<HeldOpen> = self
            .sequencer
            .held_open()
            .into_iter()
            .map(|(root, path)| HeldOpen {
                root: root.to_string(),
                path: String::from_utf8_lossy(path.as_bytes()).into_owned(),
            })
            .collect();
        let mut followers = vec![FollowerStatus {
            name: "inventory".to_owned(),
            seq: applied.0,
            lag_records: head.seq.0.saturating_sub(applied.0),
            trouble: self.progress.trouble(),
            problems: 0,
        }];
        if let Some(index) = self.index.as_ref().map(IndexThread::state) {
            let applied = index.applied();
            followers.push(FollowerStatus {
                name: "index".to_owned(),
                seq: applied.0,
                lag_records: head.seq.0.saturating_sub(applied.0),
                trouble: index.trouble(),
                problems: index.problems(),
            });
        }
        let roots: Vec<RootStatus> = (0..self.roots.len()).map(|index| self.root_status(index, &rows)).collect();
        let mut status = Status {
            host: self.state.identity().host.clone(),
            pid: std::process::id(),
            since: self.started.to_string(),
            journal: JournalStatus {
                id: head.journal.to_string(),
                seq: head.seq.0,
                hash: head.hash.to_string(),
                pending: self.sequencer.ledger.pending() as u64,
                trouble: self.commits.trouble.clone(),
            },
            followers,
            backlog: self.sources.outstanding() as u64,
            settling: self.sequencer.settling() as u64,
            held_open,
            roots,
            replicas: self.replica_status(),
            triggers: self.trigger_status(),
            attention: Vec::new(),
        };
        status.attention = attention(&status);
        status.attention.extend(fixity::attention(self.sequencer.ledger.view()).unwrap_or_default());
        if let Ok(problems) = self.sequencer.ledger.view().problems()
            && !problems.is_empty()
        {
            status.attention.push(format!("{} records could not be applied to the inventory in full", problems.len()));
        }
        status
    }

    fn root_status(&self, index: usize, rows: &[RootRow]) -> RootStatus {
        let root = &self.roots[index];
        let counts = rows.iter().find(|row| row.name == root.settings.name).map(|row| row.counts).unwrap_or_default();
        let scan = root.last_scan.as_ref();
        let mut status = RootStatus {
            name: root.settings.name.to_string(),
            path: root.settings.path.display().to_string(),
            state: "watching".to_owned(),
            files: counts.files,
            dirs: counts.dirs,
            others: counts.others,
            bytes: counts.bytes,
            left_out: self.sequencer.roots[index].left_out,
            gap: root.gap.as_ref().map(|gap| gap.seq.0),
            gap_reason: root.gap.as_ref().map(|gap| gap.reason.as_str().to_owned()),
            looked: self.scans.looked(root.no),
            last_scan: scan.map(|scan| scan.at.to_string()),
            last_scanned: scan.map_or(0, |scan| scan.scanned),
            last_found: scan.map_or(0, |scan| scan.found),
            last_failed: scan.map_or(0, |scan| scan.failed),
            ..RootStatus::default()
        };
        match &root.presence {
            Presence::Absent { why, since } => {
                status.state = "absent".to_owned();
                status.why = Some(why.clone());
                status.since = Some(since.to_string());
            }
            Presence::Present(present) => {
                if self.scans.is_scanning(root.no) || root.scan_wanted {
                    status.state = "scanning".to_owned();
                }
                status.method = Some(method_name(present.choice.method).to_owned());
                status.filesystem = Some(present.choice.filesystem.to_string());
                status.poll_seconds = present.poll.map(|every| every.as_secs());
                status.blind_spots = present.choice.reasons.clone();
                for (path, nested) in &root.nested {
                    status.blind_spots.extend(nested.blind.clone());
                    if !nested.present {
                        let path = path.display();
                        status.blind_spots.push(format!("{path} is not mounted: what was in it is kept as it was"));
                    }
                }
            }
        }
        if let Some(failure) = scan.and_then(|scan| scan.first_failure.clone()) {
            status.blind_spots.push(format!("{} places could not be read, the first: {failure}", status.last_failed));
        }
        status
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Fanotify => "fanotify",
        Method::Inotify => "inotify",
        Method::Poll => "poll",
    }
}

/// What a person should look at, in sentences.
fn attention(status: &Status) -> Vec<String> {
    let mut sentences = Vec::new();
    for root in &status.roots {
        if let Some(why) = &root.why {
            sentences.push(format!("root `{}` is absent: {why}", root.name));
        }
    }
    if let Some(trouble) = &status.journal.trouble {
        sentences.push(format!("the journal cannot be written, changes wait in memory: {trouble}"));
    }
    for follower in &status.followers {
        if let Some(trouble) = &follower.trouble {
            sentences.push(format!("`{}` cannot follow the journal: {trouble}", follower.name));
        }
    }
    for follower in status.followers.iter().filter(|follower| follower.problems > 0) {
        let (name, count) = (&follower.name, follower.problems);
        sentences
            .push(format!("{count} records could not be applied to `{name}` in full; its table `problems` says why"));
    }
    for replica in &status.replicas {
        if let Some(why) = &replica.paused {
            sentences.push(match replica.state.as_str() {
                "paused" => format!(
                    "replica `{0}` deletes nothing: {why}; if that is meant: keepwatch replica resume {0} --allow-deletes",
                    replica.name
                ),
                _ => format!("replica `{}`: {why}", replica.name),
            });
        }
        if replica.failed > 0 {
            let (name, failed) = (&replica.name, replica.failed);
            sentences
                .push(format!("{failed} files could not be copied to replica `{name}`: keepwatch replica show {name}"));
        }
    }
    for trigger in &status.triggers {
        let name = &trigger.name;
        if let Some(why) = &trigger.trouble {
            sentences.push(format!("trigger `{name}` does not get on: {why}"));
        }
        if trigger.dead > 0 {
            let dead = trigger.dead;
            sentences.push(format!("{dead} files were given up by trigger `{name}`: keepwatch trigger show {name}"));
        }
    }
    for held in &status.held_open {
        sentences.push(format!("`{}` in `{}` has been held open for long", held.path.escape_debug(), held.root));
    }
    sentences
}

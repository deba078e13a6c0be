//! What is due at a path: decided from the inventory alone, the same at a start and for a record.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::launch::Item;
use super::queue::Waiting;
use super::{Trouble, Worker, now};
use crate::inventory::{DirId, FileId, Known, Offered, RunState, copy_key};
use crate::model::{Body, FileType, Proof, Record, RelPath, RootName, Run, RunStep, Seq};
use crate::trigger::{Kind, key};

/// Files that are looked at together.
const PAGE: usize = 2_048;
/// Own process groups that are remembered.
const OWN_MAX: usize = 4_096;
/// Versions by own commands that are remembered until they are settled.
const WRITTEN_MAX: usize = 100_000;

/// What the trigger's own commands are, and have written.
#[derive(Debug, Default)]
pub(super) struct Own {
    groups: VecDeque<u32>,
    /// Records of what they wrote.
    written: BTreeSet<Seq>,
}

impl Own {
    pub(super) fn add_group(&mut self, group: u32) {
        if self.groups.contains(&group) {
            return;
        }
        if self.groups.len() >= OWN_MAX {
            self.groups.pop_front();
        }
        self.groups.push_back(group);
    }
}

/// Where to look.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) paths: BTreeSet<(usize, RelPath)>,
    /// At all below these: directories that were renamed.
    pub(super) trees: BTreeSet<(usize, RelPath)>,
}

impl Worker {
    pub(super) fn root_index(&self, name: &RootName) -> Option<usize> {
        self.settings.roots.iter().position(|(root, _)| root == name)
    }

    pub(super) fn key(&self, file: i64, version: Seq) -> String {
        key(self.journal, &self.settings.name, file, version)
    }

    /// At which paths records say to look.
    pub(super) fn dirty(&mut self, records: &[Record]) -> Dirty {
        let mut dirty = Dirty::default();
        for record in records {
            let (root, path) = match &record.body {
                Body::Change(change) => {
                    if self.settings.ignore_own
                        && let Some(by) = &change.by
                        && self.around.groups.of(by.pid).is_some_and(|group| self.own.groups.contains(&group))
                    {
                        self.own.written.insert(record.seq);
                        if self.own.written.len() > WRITTEN_MAX {
                            self.own.written.pop_first();
                        }
                    }
                    let is_dir = change.facts.as_ref().is_none_or(|facts| facts.kind == FileType::Dir);
                    if change.old.is_some()
                        && is_dir
                        && let Some(root) = self.root_index(&change.root)
                    {
                        dirty.trees.insert((root, change.path.clone()));
                    }
                    // Content that was only just written is looked at when it is settled.
                    let may_be_settled =
                        change.old.is_some() || change.facts.as_ref().is_some_and(|facts| facts.nlink > 1);
                    if !may_be_settled {
                        continue;
                    }
                    (&change.root, &change.path)
                }
                Body::Settled(settled) => (&settled.root, &settled.path),
                Body::Copied(copied) if self.settings.after.as_ref() == Some(&copied.replica) => {
                    (&copied.root, &copied.path)
                }
                _ => continue,
            };
            if let Some(root) = self.root_index(root) {
                dirty.paths.insert((root, path.clone()));
            }
        }
        dirty
    }

    /// Looks at a path, and at all other names of what has it.
    pub(super) fn look_at(&mut self, root: usize, path: &RelPath) -> Result<(), Trouble> {
        let name = self.settings.roots[root].0.clone();
        let Some(known) = self.view.at_path(&name, path)? else { return Ok(()) };
        let links = known.facts.as_ref().filter(|facts| facts.nlink > 1 && facts.kind == FileType::File);
        let names = match links {
            Some(facts) => self.view.paths_of(&name, known.file_id, facts.inode)?,
            None => vec![path.clone()],
        };
        // One name is enough: the first that the trigger is about.
        match names.into_iter().find(|path| self.understood.rules.match_path(path)) {
            Some(path) => self.consider(root, path, &known),
            None => Ok(()),
        }
    }

    /// Looks at all files, or at those below a directory of a root.
    pub(super) fn pass(&mut self, below: Option<(usize, RelPath)>) -> Result<(), Trouble> {
        let mut place = (DirId(i64::MIN), Vec::new());
        let own_begin = self.queue.begin();
        own_begin?;
        let below = below.map(|(root, path)| (self.settings.roots[root].0.clone(), path));
        loop {
            self.check_stop()?;
            let about = below.as_ref().map(|(root, path)| (root, path));
            let next = self.at_one_state(|worker| {
                let (page, next) = worker.view.settled_after(about, (place.0, &place.1), PAGE)?;
                for Offered { root, path, known, .. } in page {
                    if let Some(root) = worker.root_index(&root)
                        && worker.understood.rules.match_path(&path)
                    {
                        worker.consider(root, path, &known)?;
                    }
                }
                Ok(next)
            })?;
            self.settings.meter.change(|reading| reading.queued = self.queue.count());
            match next {
                Some(next) => place = next,
                None => break,
            }
        }
        Ok(self.queue.end()?)
    }

    /// Puts a file into the queue whose name the trigger is about, if a run is due for its version.
    fn consider(&mut self, root: usize, path: RelPath, known: &Known) -> Result<(), Trouble> {
        let Some(facts) = known.facts.as_ref().filter(|facts| facts.kind == FileType::File) else { return Ok(()) };
        let (name, file, version) = (self.settings.roots[root].0.clone(), known.file_id.0, known.version_seq);
        let is_new = self.since.get(name.as_str()).is_some_and(|since| version.0 > *since);
        // A file that was written before it was first complete is new all the same.
        let is_first = version.0.cast_signed() == file || !self.view.had_settled_before(known.file_id, version)?;
        let kind = if is_first { Kind::Create } else { Kind::Modify };
        if !known.is_settled() || !is_new || !self.understood.rules.match_version(facts.size, kind) {
            return Ok(());
        }
        if self.is_running(file, version) {
            return Ok(());
        }
        let before = self.view.run_of(self.id, FileId(file))?.filter(|row| row.version == version);
        let attempts = match &before {
            Some(row) if row.state == RunState::Done && row.why.is_none() && self.settings.then.is_some() => {
                // It was done with when something kept it from being moved or deleted.
                let (order, key) = (known.settled_seq, self.key(file, version));
                let waiting = Waiting { file, version, root, path, attempts: 0, order, due_ms: 0 };
                self.leaving.push(Item::new(waiting, key, facts, known.sha256));
                return Ok(());
            }
            Some(row) if matches!(row.state, RunState::Done | RunState::Dead) => return Ok(()),
            Some(row) => row.attempts,
            None => 0,
        };
        if before.is_none() && self.own.written.remove(&version) {
            self.acts.push(self.step(RunStep::Ran, root, &path, (file, version), Some("its own")));
            return self.tell();
        }
        if !self.is_copied(root, &path, known)? {
            return Ok(());
        }
        let age = u64::try_from(now().0.saturating_sub(facts.mtime_ns)).unwrap_or(0);
        let Some(wait) = self.understood.rules.ripens_in(Duration::from_nanos(age)) else { return Ok(()) };
        let due_ms = if wait.is_zero() {
            0
        } else {
            self.now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 4))
        };
        let waiting = Waiting { file, version, root, path, attempts, order: known.settled_seq, due_ms };
        Ok(self.queue.put(&waiting)?)
    }

    /// Whether the replica that is to come first holds this version, by bytes that were read or written there.
    fn is_copied(&self, root: usize, path: &RelPath, known: &Known) -> Result<bool, Trouble> {
        let Some(replica) = &self.settings.after else { return Ok(true) };
        let Some(replica) = self.view.replica(replica)? else { return Ok(false) };
        let Some(dir) = self.view.root_dir(&self.settings.roots[root].0)? else { return Ok(false) };
        let copy = self.view.copy_at(replica.id, dir, &copy_key(path, FileType::File))?;
        Ok(copy.is_some_and(|copy| {
            copy.file_id == known.file_id && copy.of >= known.version_seq && copy.proof >= Proof::Written
        }))
    }

    /// An act about a version.
    pub(super) fn step(
        &self,
        step: RunStep,
        root: usize,
        path: &RelPath,
        (file, version): (i64, Seq),
        why: Option<&str>,
    ) -> Body {
        Body::Run(Box::new(Run {
            step,
            trigger: self.settings.name.clone(),
            root: self.settings.roots[root].0.clone(),
            path: path.clone(),
            file,
            version,
            more: Vec::new(),
            process: None,
            why: why.map(str::to_owned),
        }))
    }
}

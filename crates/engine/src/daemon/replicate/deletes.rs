//! Copies whose originals are gone: they wait, are judged as a set, and go to the trash. What waits here is derived: a start
//! finds it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::perform::Work;
use super::streams::path_of;
use super::{AtWork, Keeper, OnDelete, Trouble};
use crate::model::{FileType, RelPath, Withdrawal};
use crate::sync::guards::{Asked, Deletes, Refusal};
use crate::target::TargetError;

/// Deletes that may wait; of more the rest is found by the next start.
const PENDING_MAX: usize = 200_000;
/// Copies taken away between two acts.
const AT_ONCE: usize = 512;
/// Deletes that may not happen now are looked at again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// Copies whose originals were not there, by root and key, and when each is due.
#[derive(Default)]
pub(super) struct Pending {
    waiting: BTreeMap<(usize, Vec<u8>), Instant>,
    done: Deletes,
}

impl Pending {
    pub(super) fn add(&mut self, root: usize, key: Vec<u8>, delay: Duration) {
        if self.waiting.len() < PENDING_MAX {
            self.waiting.entry((root, key)).or_insert_with(|| Instant::now() + delay);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }
}

impl Keeper {
    /// Takes away what is due (`None`: all that waits), if the guards let it.
    pub(super) fn deletes(&mut self, work: &AtWork<'_>, due: Option<Instant>) -> Result<(), Trouble> {
        if work.roots.len() != self.settings.roots.len() {
            return Ok(());
        }
        for root in 0..work.roots.len() {
            let keys: Vec<Vec<u8>> = self
                .pending
                .waiting
                .iter()
                .filter(|((of, _), at)| *of == root && due.is_none_or(|now| **at <= now))
                .map(|((_, key), _)| key.clone())
                .collect();
            if !keys.is_empty() {
                self.deletes_of(work, root, keys)?;
            }
        }
        Ok(())
    }

    fn deletes_of(&mut self, work: &AtWork<'_>, root: usize, keys: Vec<Vec<u8>>) -> Result<(), Trouble> {
        let mut sure = Vec::new();
        let mut count = 0;
        let mut last_dir: Option<Vec<u8>> = None;
        for key in keys {
            // What stands in a directory that goes is counted and taken with it.
            if last_dir.as_ref().is_some_and(|dir| key.starts_with(dir)) {
                self.pending.waiting.remove(&(root, key));
                continue;
            }
            if !self.is_gone(work, root, &key)? {
                self.pending.waiting.remove(&(root, key));
                continue;
            }
            if key.ends_with(b"/") {
                count += self.view.count_copies_within(work.replica, work.dirs[root], &key)?;
                last_dir = Some(key.clone());
            } else {
                count += 1;
            }
            sure.push(key);
        }
        if sure.is_empty() {
            return Ok(());
        }
        let name = &work.roots[root].name;
        let row = self.view.roots()?.into_iter().find(|row| row.name == *name);
        let gaps = self.view.open_gaps()?;
        let asked = Asked {
            deletes: count,
            held: self.view.copy_counts(work.replica, Some(work.dirs[root]))?.files,
            originals: row.map_or(0, |row| row.counts.files + row.counts.others),
            is_root_sure: work.roots[root].source.is_some()
                && gaps.iter().all(|gap| gap.root.as_ref().is_some_and(|of| of != name)),
        };
        match self.pending.done.judge(asked, self.settings.limits, Instant::now()) {
            Ok(()) => self.settings.meter.change(|reading| reading.paused = None),
            Err(refusal) => {
                if let Refusal::Paused(why) = refusal {
                    tracing::error!(replica = %self.settings.name, why, "deletes wait for a person");
                    self.settings.meter.change(|reading| reading.paused = Some(why));
                }
                for key in sure {
                    self.pending.waiting.insert((root, key), Instant::now() + AGAIN);
                }
                return Ok(());
            }
        }
        for key in &sure {
            self.withdraw(work, root, key)?;
            self.pending.waiting.remove(&(root, key.clone()));
        }
        self.pending.done.done(count, Instant::now());
        Ok(())
    }

    /// Whether there is a copy under a key and no original.
    fn is_gone(&self, work: &AtWork<'_>, root: usize, key: &[u8]) -> Result<bool, Trouble> {
        let Some(copy) = self.view.copy_at(work.replica, work.dirs[root], key)? else { return Ok(false) };
        let Some(path) = path_of(key) else { return Ok(false) };
        let Some((above, name)) = path.split() else { return Ok(false) };
        let above = RelPath::new(above).unwrap_or_default();
        let dir = match above.is_root() {
            true => Some(work.dirs[root]),
            false => self.view.dir_by_path(&work.roots[root].name, &above)?,
        };
        let Some(dir) = dir else { return Ok(true) };
        let known = self.view.child(dir, name)?;
        Ok(known.is_none_or(|known| (known.kind == Some(FileType::Dir)) != (copy.kind == FileType::Dir)))
    }

    /// Takes a copy away, of a directory with all that is held below it. What is not ours stays.
    fn withdraw(&mut self, work: &AtWork<'_>, root: usize, key: &[u8]) -> Result<(), Trouble> {
        if self.settings.on_delete == OnDelete::Keep {
            return Ok(());
        }
        let path = path_of(key);
        if !key.ends_with(b"/") {
            let kind = self.view.copy_at(work.replica, work.dirs[root], key)?.map(|row| row.kind);
            if let (Some(path), Some(kind)) = (path, kind) {
                self.take_away(work, root, &[(path, kind)])?;
            }
            return Ok(());
        }
        loop {
            self.check_stop()?;
            let rows = self.view.copies_within(work.replica, work.dirs[root], key, AT_ONCE)?;
            if rows.is_empty() {
                return Ok(());
            }
            let all: Vec<_> = rows.iter().filter_map(|row| Some((path_of(&row.key)?, row.kind))).collect();
            self.take_away(work, root, &all)?;
        }
    }

    fn take_away(&mut self, work: &AtWork<'_>, root: usize, all: &[(RelPath, FileType)]) -> Result<(), Trouble> {
        let name = self.settings.name.clone();
        let worker = Work { replica: &name, session: work.session, roots: work.roots, trash: work.trash, transfers: 1 };
        let mut acts = Vec::new();
        let mut trouble = None;
        for (path, kind) in all {
            let place = work.roots[root].placement.place(path);
            let gone = match kind {
                FileType::Dir => work.session.remove(&place),
                _ => worker.set_aside(&place),
            };
            let how = match (gone, work.trash, kind) {
                (Ok(true), Some(_), kind) if *kind != FileType::Dir => Withdrawal::Trashed,
                // A directory that holds what is not ours stays; it is not ours any more either.
                (Ok(_) | Err(TargetError::Refused { .. }), ..) => Withdrawal::Removed,
                (Err(error), ..) => {
                    trouble = Some(error);
                    break;
                }
            };
            acts.push(worker.gone(root, path, *kind, how));
        }
        let parents: std::collections::BTreeSet<RelPath> =
            all.iter().filter_map(|(path, _)| RelPath::new(path.split()?.0).ok()).collect();
        work.session.sync()?;
        for dir in parents.iter().rev() {
            worker.dir_meta(root, dir);
        }
        let count = acts.len() as u64;
        self.tell(acts)?;
        self.applied(self.own)?;
        for dir in parents {
            self.sweep(work, root, dir)?;
        }
        self.settings.meter.change(|reading| reading.withdrawn += count);
        match trouble {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

//! Copies whose originals are gone: they wait, are judged as a set, and go to the trash. What waits here is derived: a start
//! finds it again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::perform::{Touched, Work};
use super::round::dir_of;
use super::streams::path_of;
use super::{AtWork, Keeper, Trouble};
use crate::model::{Body, FileType, RelPath, Withdrawal};
use crate::sync::guards::{Asked, Limits, Refusal};
use crate::target::TargetError;

/// Deletes that may wait; of more the rest is found by a pass when these are done.
const PENDING_MAX: usize = 200_000;
/// Copies taken away between two acts.
const AT_ONCE: usize = 512;
/// Deletes that may not happen now are looked at again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// Copies whose originals were not there, by root and key, and when each is due.
#[derive(Default)]
pub(super) struct Pending {
    waiting: BTreeMap<(usize, Vec<u8>), Instant>,
    /// More waited than is remembered.
    overflowed: bool,
}

impl Pending {
    pub(super) fn add(&mut self, root: usize, key: Vec<u8>, delay: Duration) {
        if self.waiting.len() < PENDING_MAX {
            self.waiting.entry((root, key)).or_insert_with(|| Instant::now() + delay);
        } else {
            self.overflowed = true;
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all that was remembered is done, but there was more.
    pub(super) fn wants_pass(&mut self) -> bool {
        self.waiting.is_empty() && std::mem::take(&mut self.overflowed)
    }
}

impl Keeper {
    /// Takes away what is due (`None`: all that waits), if the guards let it. `is_meant`: a person says so.
    pub(super) fn deletes(&mut self, work: &AtWork<'_>, due: Option<Instant>, is_meant: bool) -> Result<(), Trouble> {
        let mut paused = None;
        for root in 0..work.roots.len() {
            let of_root = || self.pending.waiting.iter().filter(|((of, _), _)| *of == root);
            if of_root().any(|(_, at)| due.is_none_or(|now| *at <= now)) {
                // They are judged as a set, those that still wait for their time among them.
                let all: Vec<(Vec<u8>, Instant)> = of_root().map(|((_, key), at)| (key.clone(), *at)).collect();
                paused = self.deletes_of(work, root, all, due, is_meant)?.or(paused);
            } else if of_root().next().is_some() {
                paused = self.settings.meter.read().paused.or(paused);
            }
        }
        let before = self.settings.meter.read().paused;
        if let Some(why) = &paused
            && before.as_ref() != Some(why)
        {
            tracing::error!(replica = %self.settings.name, why, "deletes wait for a person");
        }
        self.settings.meter.change(|reading| reading.paused = paused);
        Ok(())
    }

    /// The same for one root; why they wait for a person, if they do.
    fn deletes_of(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        all: Vec<(Vec<u8>, Instant)>,
        due: Option<Instant>,
        is_meant: bool,
    ) -> Result<Option<String>, Trouble> {
        let mut sure = Vec::new();
        let mut count = 0;
        let mut last_dir: Option<Vec<u8>> = None;
        for (key, at) in all {
            // What stands in a directory that goes is counted and taken with it.
            let is_due = due.is_none_or(|now| at <= now);
            let is_held = last_dir.as_ref().is_some_and(|dir| key.starts_with(dir));
            if is_due && (is_held || !self.is_gone(work, root, &key)?) {
                self.pending.waiting.remove(&(root, key));
                continue;
            }
            let objects = match key.ends_with(b"/") {
                _ if is_held => 0,
                true => self.view.count_copies_within(work.replica, work.dirs[root], &key)?,
                false => 1,
            };
            count += objects;
            if is_due {
                if key.ends_with(b"/") {
                    last_dir = Some(key.clone());
                }
                sure.push((key, objects));
            }
        }
        if sure.is_empty() {
            return Ok(None);
        }
        let name = &work.roots[root].name;
        let row = self.view.roots()?.into_iter().find(|row| row.name == *name);
        let gaps = self.view.open_gaps()?;
        let originals = row.map_or(0, |row| row.counts.files + row.counts.others);
        // To count is to read all of it.
        let held = match originals > 0 && self.tally.deletes.are_few(count) {
            true => u64::from(self.view.has_copies(work.replica, work.dirs[root])?),
            false => self.view.count_copies(work.replica, work.dirs[root])?,
        };
        let asked = Asked {
            deletes: count,
            held,
            originals,
            is_root_sure: work.roots[root].source.is_some()
                && gaps.iter().all(|gap| gap.root.as_ref().is_some_and(|of| of != name)),
        };
        let limits = Limits { allow_deletes: self.settings.limits.allow_deletes || is_meant, ..self.settings.limits };
        if let Err(refusal) = self.tally.deletes.judge(asked, limits, Instant::now()) {
            for (key, _) in sure {
                self.pending.waiting.insert((root, key), Instant::now() + AGAIN);
            }
            return Ok(match refusal {
                Refusal::Paused(why) => Some(format!("{why} (in `{name}`)")),
                Refusal::NotNow => None,
            });
        }
        for part in sure.chunks(AT_ONCE) {
            self.withdraw_files(work, root, part)?;
            for (key, _) in part {
                if key.ends_with(b"/") {
                    self.withdraw_dir(work, root, key)?;
                }
                self.pending.waiting.remove(&(root, key.clone()));
            }
            if !is_meant {
                self.tally.done(part.iter().map(|(_, objects)| objects).sum());
            }
        }
        Ok(None)
    }

    /// Whether there is a copy under a key and no original.
    fn is_gone(&self, work: &AtWork<'_>, root: usize, key: &[u8]) -> Result<bool, Trouble> {
        let Some(copy) = self.view.copy_at(work.replica, work.dirs[root], key)? else { return Ok(false) };
        let Some(path) = path_of(key) else { return Ok(false) };
        let Some((above, name)) = path.split() else { return Ok(false) };
        if !work.roots[root].keeps(&path, copy.kind == FileType::Dir) {
            return Ok(false);
        }
        let above = RelPath::new(above).unwrap_or_default();
        let dir = match above.is_root() {
            true => Some(work.dirs[root]),
            false => self.view.dir_by_path(&work.roots[root].name, &above)?,
        };
        let Some(dir) = dir else { return Ok(true) };
        let known = self.view.child(dir, name)?;
        Ok(known.is_none_or(|known| (known.kind == Some(FileType::Dir)) != (copy.kind == FileType::Dir)))
    }

    /// Takes copies away that are no directories'.
    fn withdraw_files(&mut self, work: &AtWork<'_>, root: usize, keys: &[(Vec<u8>, u64)]) -> Result<(), Trouble> {
        let mut files = Vec::new();
        for (key, _) in keys.iter().filter(|(key, _)| !key.ends_with(b"/")) {
            let row = self.view.copy_at(work.replica, work.dirs[root], key)?;
            files.extend(path_of(key).zip(row.map(|row| row.kind)));
        }
        if files.is_empty() { Ok(()) } else { self.take_away(work, root, &files) }
    }

    /// Takes a directory's copy away with all that is held below it. What is not ours stays.
    pub(super) fn withdraw_dir(&mut self, work: &AtWork<'_>, root: usize, key: &[u8]) -> Result<(), Trouble> {
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
        let worker = work.worker(&name, self.settings.transfers);
        let (acts, trouble) = take_all_away(work, &worker, root, all);
        work.session.sync()?;
        let parents: Touched = all.iter().flat_map(|(path, _)| dir_of(root, path)).collect();
        // Told of when all is done: after a crash in between it is done again.
        self.taken_from(work, parents.clone())?;
        for (root, dir) in parents {
            self.sweep(work, root, &dir)?;
        }
        self.settings.meter.change(|reading| reading.withdrawn += acts.len() as u64);
        self.tell(acts)?;
        self.all_applied()?;
        trouble.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Takes copies away; what is to be told, and what stopped it.
fn take_all_away(
    work: &AtWork<'_>,
    worker: &Work<'_>,
    root: usize,
    all: &[(RelPath, FileType)],
) -> (Vec<Body>, Option<TargetError>) {
    let mut acts = Vec::new();
    let mut trouble = None;
    let files: Vec<RelPath> = all
        .iter()
        .filter(|(path, kind)| *kind != FileType::Dir && may_go_with_others(path))
        .map(|one| one.0.clone())
        .collect();
    let places: Vec<_> = files.iter().map(|path| work.roots[root].placement.place(path)).collect();
    let mut went: HashMap<RelPath, Result<bool, TargetError>> =
        files.into_iter().zip(worker.set_all_aside(&places, worker.transfers)).collect();
    for (path, kind) in all {
        if trouble.is_some() && !went.contains_key(path) {
            continue;
        }
        let place = work.roots[root].placement.place(path);
        let gone = match (went.remove(path), kind) {
            (Some(gone), _) => gone,
            (None, FileType::Dir) => work.session.remove(&place),
            (None, _) => worker.set_aside(&place),
        };
        let how = match (gone, work.trash, kind) {
            (Ok(true), Some(_), kind) if *kind != FileType::Dir => Withdrawal::Trashed,
            // A directory that holds what is not ours stays; it is not ours any more either.
            (Ok(_) | Err(TargetError::Refused { .. }), ..) => Withdrawal::Removed,
            // What went with others has gone all the same.
            (Err(error), ..) => {
                trouble = Some(error);
                continue;
            }
        };
        acts.push(worker.gone(root, path, *kind, how));
    }
    (acts, trouble)
}

/// Whether a file can go to the trash while others do: the place of none of them there can be another's that is taken already,
/// for that one gets a `~` and a number behind its name.
fn may_go_with_others(path: &RelPath) -> bool {
    !path.as_bytes().contains(&b'~')
}

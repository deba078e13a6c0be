//! One pass over everything: originals, copies and, the first time, what the target lists, merged by key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::bounded;

use super::ahead::Ahead;
use super::perform::{Done, Job, Touched, What};
use super::round::{as_held, shown};
use super::streams::{Copies, Fault, Listing, Originals, Patience, held, path_of};
use super::{AtWork, Keeper, NO_DIR, Trouble};
use crate::inventory::{DirId, View, copy_key};
use crate::model::{Body, FileType, RelPath, Seq, Withdrawal};
use crate::sync::plan::{Held, Merge, Need, Original, Seen, need};
use crate::target::{Found, TargetError};

/// Failures from before that are looked through.
const FAILURES_MAX: usize = 100_000;
/// Found things that are remembered until their originals are complete; what is beyond is copied again.
const UNCLAIMED_MAX: usize = 100_000;
/// Files that are remembered as copied until the journal was read to its end; what is beyond is looked at again.
const FRESH_MAX: usize = 100_000;
/// Found things that may wait for the merge.
const FOUND_MAX: usize = 4_096;
/// Bytes that are copied before they are published.
pub(super) const BATCH_BYTES_MAX: u64 = 256 << 20;

impl Keeper {
    /// Holds every original against its copy, and does what is due. Deletes are only noted. A root of which it is not known
    /// what is at the target, or all if `list`, is listed there, too.
    pub(super) fn pass(&mut self, work: &AtWork<'_>, list: bool) -> Result<(), Trouble> {
        let known = self.replica()?;
        let identity = known.identity.unwrap_or_default();
        let mut prints = known.roots;
        self.standing.clear();
        self.settings.meter.change(|reading| (reading.passed, reading.passed_bytes) = (0, 0));
        self.expect_to_pass(work)?;
        // A view of its own: the keeper's is used while the streams are open.
        let view = View::open(&self.around.inventory)?;
        for root in 0..work.roots.len() {
            if work.dirs[root] == NO_DIR {
                continue;
            }
            let kept = &self.roots[root];
            let (name, now, unlisted) = (kept.name.to_string(), kept.print(), kept.unlisted());
            let before = prints.get(&name);
            let is_listed = before == Some(&now);
            if !before.is_some_and(|before| before.starts_with(&unlisted)) {
                // By another layout all of it lies elsewhere, and is no copy of ours any more.
                if self.view.has_copies(work.replica, work.dirs[root])? {
                    self.tell_gone(work, root, &RelPath::ROOT, FileType::Dir, Withdrawal::Foreign)?;
                }
                prints.insert(name.clone(), unlisted);
                self.tell_config(&identity, prints.clone())?;
                self.all_applied()?;
            }
            self.place_dirs(work, root)?;
            self.leaders.clear();
            self.pass_below(work, &view, (root, work.dirs[root], Vec::new()), list || !is_listed)?;
            self.leaders.clear();
            if !is_listed {
                prints.insert(name, now);
                self.tell_config(&identity, prints.clone())?;
            }
        }
        self.all_applied()?;
        // All below them was passed, too.
        self.replaced.clear();
        self.moved.clear();
        self.mend_failures(work)
    }

    /// How much there is to pass, for those who watch.
    pub(super) fn expect_to_pass(&self, work: &AtWork<'_>) -> Result<(), Trouble> {
        let (mut objects, mut bytes, mut files) = (0, 0, 0);
        for row in self.view.roots()?.iter().filter(|row| work.roots.iter().any(|root| root.name == row.name)) {
            objects += row.counts.files + row.counts.others + row.counts.dirs;
            bytes += row.counts.bytes;
            files += row.counts.files;
        }
        self.settings.meter.change(|reading| {
            (reading.to_pass, reading.to_pass_bytes, reading.to_pass_files) = (objects, bytes, files);
        });
        Ok(())
    }

    /// What failed once and is no original any more, or none that is held, failed no more.
    fn mend_failures(&mut self, work: &AtWork<'_>) -> Result<(), Trouble> {
        for row in self.view.failures(work.replica, FAILURES_MAX)? {
            let Some(root) = work.roots.iter().position(|root| root.name.as_str() == row.root) else { continue };
            let is_kept = work.roots[root].keeps(&row.path, false);
            if !is_kept || self.original_at(work, root, &row.path)?.is_none() {
                self.tell_gone(work, root, &row.path, FileType::File, Withdrawal::Removed)?;
            }
        }
        Ok(())
    }

    /// The same for all below a directory, given by its root, its id and its key. The target is listed only as a whole.
    pub(super) fn pass_below(
        &mut self,
        work: &AtWork<'_>,
        view: &View,
        (root, dir, prefix): (usize, DirId, Vec<u8>),
        list: bool,
    ) -> Result<(), Trouble> {
        let (replica, was_moved) = (work.replica, !prefix.is_empty());
        let placement = work.roots[root].placement.clone();
        let step_ns = self.settings.target.nature().mtime_step_ns;
        let fault: Fault = Rc::new(RefCell::new(None));
        let has_copies = view.has_copies(replica, work.dirs[root])?;
        let mut listed: Result<(), TargetError> = Ok(());
        let progress = Arc::clone(&self.around.progress);
        let name = self.settings.name.clone();
        let worker = work.worker(&name, self.settings.transfers);
        let outcome = std::thread::scope(|scope| {
            let (tell, heard) = bounded(FOUND_MAX);
            let lister = list.then(|| {
                let session = work.session;
                scope.spawn(move || {
                    session.list(&placement.dir(), &mut |place, found: Found| {
                        let Some(path) = placement.path_of(place) else { return ControlFlow::Continue(()) };
                        let Found { kind, size, mtime_ns, target } = found;
                        match tell.send((copy_key(&path, kind), Seen { kind, size, mtime_ns, target })) {
                            Ok(()) => ControlFlow::Continue(()),
                            Err(_) => ControlFlow::Break(()),
                        }
                    })
                })
            });
            let patience = Patience::new(&progress, !has_copies);
            let originals = Originals::new(view, patience, dir, prefix.clone(), Rc::clone(&fault));
            let copies = Copies::new(view, replica, work.dirs[root], prefix, Rc::clone(&fault));
            let mut merge = Merge::new(originals, copies, Listing(list.then_some(heard)));
            let mut jobs: Vec<Job> = Vec::new();
            // Where something is held already, what is looked at next may depend on what was done before.
            let mut ahead = (!has_copies).then(|| Ahead::start(scope, &worker));
            let mut bytes = 0;
            let merged = (|| {
                for side in merge.by_ref() {
                    let seen = list.then_some(side.seen.as_ref());
                    let Some(path) = path_of(&side.key) else { continue };
                    self.count_passed(side.original.as_ref());
                    if !work.roots[root].keeps(&path, side.key.ends_with(b"/")) {
                        if let Some(held) = &side.held {
                            self.tell_gone(work, root, &path, held.kind, Withdrawal::Foreign)?;
                        }
                        continue;
                    }
                    let mut what = need(side.original.as_ref(), side.held.as_ref(), seen, step_ns);
                    if what == Need::Wait
                        && let (Some(seen), None) = (&side.seen, &side.held)
                        && self.unclaimed.len() < UNCLAIMED_MAX
                    {
                        self.unclaimed.insert((root, path.clone()), seen.clone());
                    }
                    // While a directory above was on its way its attributes may have been out of reach.
                    let is_dir = side.original.as_ref().is_some_and(|original| original.kind == FileType::Dir);
                    if is_dir && what == Need::Nothing && (was_moved || self.moved.holds(root, &path)) {
                        what = Need::Attributes;
                    }
                    let job = self.job(work, root, path, what, side.original, side.held, has_copies)?;
                    let Some(job) = job else { continue };
                    bytes += job.original.size;
                    jobs.push(job);
                    if jobs.len() >= self.batch() || bytes >= BATCH_BYTES_MAX {
                        bytes = 0;
                        self.perform_on(work, std::mem::take(&mut jobs), ahead.as_mut(), true)?;
                    }
                }
                // What is under way is told while the last is taken in.
                self.perform_on(work, std::mem::take(&mut jobs), ahead.as_mut(), true)?;
                self.perform_on(work, Vec::new(), ahead.as_mut(), false)
            })();
            // It was to end, or the target is in trouble.
            let left = ahead.map_or(Ok(()), |ahead| self.account_for(work, ahead));
            let merged = merged.and(left);
            // The lister ends when nobody hears it any more.
            drop(merge);
            if let Some(lister) = lister {
                listed = lister.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            merged
        });
        outcome?;
        listed?;
        match fault.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Does a batch, tells what was done, and notes what failed.
    pub(super) fn perform(&mut self, work: &AtWork<'_>, jobs: Vec<Job>) -> Result<(), Trouble> {
        self.perform_on(work, jobs, None, false)
    }

    /// The same with what is under way, and may be so still afterwards where it `goes_on`.
    pub(super) fn perform_on(
        &mut self,
        work: &AtWork<'_>,
        jobs: Vec<Job>,
        mut ahead: Option<&mut Ahead<'_, '_>>,
        goes_on: bool,
    ) -> Result<(), Trouble> {
        if jobs.is_empty() && ahead.as_ref().is_none_or(|ahead| ahead.is_empty()) {
            return Ok(());
        }
        self.check_stop()?;
        self.view.let_go()?;
        let name = self.settings.name.clone();
        let transfers = self.settings.transfers;
        self.note(work, ahead.iter().flat_map(|ahead| ahead.jobs()).chain(&jobs))?;
        let (count, begun) = (jobs.len(), Instant::now());
        let done = work.worker(&name, transfers).perform(jobs, ahead.as_deref_mut(), goes_on);
        self.batch_took(count, begun.elapsed());
        let is_all = done.trouble.is_none() && ahead.is_none_or(|ahead| ahead.is_empty());
        self.account(work, done)?;
        // What a target did and did not answer is looked at before the next begins.
        if is_all { self.noted() } else { Ok(()) }
    }

    /// Gives up what is under way, and tells what was done of it nevertheless.
    pub(super) fn account_for(&mut self, work: &AtWork<'_>, ahead: Ahead<'_, '_>) -> Result<(), Trouble> {
        ahead.give_up().try_for_each(|done| self.account(work, done))
    }

    /// Tells what was done, and notes what failed.
    fn account(&mut self, work: &AtWork<'_>, done: Done) -> Result<(), Trouble> {
        self.settings.meter.change(|reading| {
            reading.copied += done.copied;
            reading.bytes += done.bytes;
            reading.moved += done.moved;
            reading.adopted += done.adopted;
        });
        let left = left_dirs(work, &done.acts);
        self.note_done(work, &done.acts);
        self.tell(done.acts)?;
        for (root, path, time) in done.took {
            self.retries.took(root, path, time);
        }
        for (root, dir) in left {
            self.sweep(work, root, &dir)?;
        }
        self.tell_bare(work, &done.bare)?;
        for (root, path, error) in done.failed {
            self.failed(work, root, path, &error)?;
        }
        match done.trouble {
            Some(trouble) => Err(trouble.into()),
            None => Ok(()),
        }
    }

    /// What was put into these directories changed their times, and what they are to be could not be read: they get it when they are
    /// found again.
    pub(super) fn tell_bare(&mut self, work: &AtWork<'_>, dirs: &Touched) -> Result<(), Trouble> {
        if dirs.is_empty() {
            return Ok(());
        }
        self.all_applied()?;
        let name = self.settings.name.clone();
        let worker = work.worker(&name, 1);
        let mut acts = Vec::new();
        for (root, path) in dirs {
            let key = copy_key(path, FileType::Dir);
            let Some(row) = self.view.copy_at(work.replica, work.dirs[*root], &key)? else { continue };
            // One that is gone among the originals goes here, too.
            if !self.view.is_live_dir(work.dirs[*root], row.file_id)? {
                continue;
            }
            let original = as_held(&Held { of: Seq::ZERO, ..held(&row) });
            let job = Job { root: *root, path: path.clone(), original, what: What::Adopt };
            acts.push(worker.copied(&job, None, None, row.proof));
        }
        self.tell(acts)
    }

    /// What was done failed no more, and need not be looked at for what was told of it before.
    fn note_done(&mut self, work: &AtWork<'_>, acts: &[Body]) {
        for act in acts {
            let Body::Copied(copied) = act else { continue };
            let Some(root) = work.roots.iter().position(|root| root.name == copied.root) else { continue };
            if !self.retries.is_empty() && self.retries.forget(root, &copied.path) {
                self.settings.meter.mend(&shown(&copied.path));
            }
            // Of several names another may have been passed before it settled.
            let has_one_name = copied.sha256.is_some() && !self.leaders.contains_key(&(root, copied.file));
            if has_one_name && copied.old_path.is_none() && self.fresh.len() < FRESH_MAX {
                self.fresh.insert((root, copied.path.clone()), (copied.size, copied.mtime_ns));
            }
        }
    }

    /// An original was passed, for those who watch.
    pub(super) fn count_passed(&self, original: Option<&Original>) {
        if let Some(original) = original {
            let bytes = if original.kind == FileType::File { original.size } else { 0 };
            self.settings.meter.change(|reading| {
                reading.passed += 1;
                reading.passed_bytes += bytes;
            });
        }
    }

    /// Something was taken out of these directories, which changed their times: they get those of their originals again.
    pub(super) fn taken_from(&mut self, work: &AtWork<'_>, dirs: Touched) -> Result<(), Trouble> {
        let name = self.settings.name.clone();
        let bare = work.worker(&name, self.settings.transfers).dir_metas(dirs);
        self.tell_bare(work, &bare)
    }

    /// Removes a directory that was made only for what has left it, if it is empty, and those above it that are like it.
    pub(super) fn sweep(&mut self, work: &AtWork<'_>, root: usize, dir: &RelPath) -> Result<(), Trouble> {
        let mut at = dir.clone();
        while let Some((above, _)) = at.split() {
            let is_original = self.view.dir_by_path(&work.roots[root].name, &at)?.is_some();
            let key = copy_key(&at, FileType::Dir);
            if is_original
                || self.view.copy_at(work.replica, work.dirs[root], &key)?.is_some()
                || work.session.remove(&work.roots[root].placement.place(&at)).is_err()
            {
                break;
            }
            at = RelPath::new(above).unwrap_or_default();
        }
        if at == *dir { Ok(()) } else { self.taken_from(work, Touched::from([(root, at)])) }
    }

    /// Whether something is missing at the target: only a `Need` that says so leads to work.
    pub(super) fn is_work(what: Need) -> bool {
        matches!(what, Need::Content | Need::Attributes | Need::Adopt)
    }
}

/// The directories that something was renamed out of.
fn left_dirs(work: &AtWork<'_>, acts: &[Body]) -> BTreeSet<(usize, RelPath)> {
    let left = acts.iter().filter_map(|act| {
        let Body::Copied(copied) = act else { return None };
        let (above, _) = copied.old_path.as_ref()?.split()?;
        let root = work.roots.iter().position(|root| root.name == copied.root)?;
        Some((root, RelPath::new(above).ok()?))
    });
    left.collect()
}

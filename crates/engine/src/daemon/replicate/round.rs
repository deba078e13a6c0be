//! Following: the journal's records say at which paths to look; what is due there is decided as in a pass.

use std::collections::BTreeSet;

use super::ground::Ground;
use super::perform::{Job, Touched, What};
use super::streams::{held, original};
use super::{AtWork, Keeper, OnDelete, Trouble};
use crate::inventory::{FileId, View, copy_key};
use crate::model::{Body, Failed, FileType, Op, Record, RelPath, RootName, Settled, Withdrawal};
use crate::sync::copy::CopyError;
use crate::sync::plan::{Held, Need, Original, need};

/// Records that are looked at together.
pub(super) const RECORDS_MAX: usize = 4_096;
/// Paths to look at, by root.
pub(super) type Paths = BTreeSet<(usize, RelPath)>;

/// Where to look.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// At these paths.
    pub(super) paths: Paths,
    /// And at all below these: directories that were renamed. What records told of by the old path is there.
    pub(super) trees: Paths,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.trees.is_empty()
    }
}

impl Keeper {
    /// At which paths records say to look.
    pub(super) fn dirty<'r>(&mut self, records: impl Iterator<Item = &'r Record> + Clone) -> Dirty {
        let mut dirty = Dirty::default();
        self.forget_fresh(records.clone());
        let add = |paths: &mut Paths, root: &RootName, path: &RelPath| {
            if let Some(index) = self.roots.iter().position(|kept| kept.name == *root)
                && !path.is_root()
            {
                paths.insert((index, path.clone()));
            }
        };
        for record in records {
            match &record.body {
                Body::Change(change) => {
                    // Content that is not complete is not looked at before it is.
                    let is_early = change.op == Op::Create
                        && matches!(&change.facts, Some(facts) if facts.kind == FileType::File && facts.nlink == 1);
                    if !is_early {
                        add(&mut dirty.paths, &change.root, &change.path);
                    }
                    let Some(old) = &change.old else { continue };
                    let old_root = old.root.as_ref().unwrap_or(&change.root);
                    add(&mut dirty.paths, old_root, &old.path);
                    if change.facts.as_ref().is_none_or(|facts| facts.kind == FileType::Dir) {
                        add(&mut dirty.trees, &change.root, &change.path);
                        if let Some(root) = self.roots.iter().position(|kept| kept.name == *old_root) {
                            self.retries.hurry_below(root, &old.path);
                        }
                    }
                }
                Body::Settled(settled) if !self.is_fresh(settled) => {
                    add(&mut dirty.paths, &settled.root, &settled.path);
                }
                _ => {}
            }
        }
        dirty
    }

    /// What was copied before its path changed says nothing of what is there now.
    fn forget_fresh<'r>(&mut self, records: impl Iterator<Item = &'r Record>) {
        for record in records {
            let Body::Change(change) = &record.body else { continue };
            if self.fresh.is_empty() {
                return;
            }
            if change.old.is_some() {
                self.fresh.clear();
            } else if let Some(root) = self.roots.iter().position(|kept| kept.name == change.root) {
                self.fresh.remove(&(root, change.path.clone()));
            }
        }
    }

    /// Whether the version that settled was copied meanwhile.
    fn is_fresh(&self, settled: &Settled) -> bool {
        if self.fresh.is_empty() {
            return false;
        }
        let Some(root) = self.roots.iter().position(|kept| kept.name == settled.root) else { return false };
        self.fresh.get(&(root, settled.path.clone())) == Some(&(settled.size, settled.mtime_ns))
    }

    /// Looks at paths and does what is due there.
    pub(super) fn round(&mut self, work: &AtWork<'_>, dirty: Dirty) -> Result<(), Trouble> {
        self.standing.clear();
        for root in 0..work.roots.len() {
            // All directories are looked through for it: only where one was renamed.
            if dirty.trees.iter().any(|(of, _)| *of == root) {
                self.place_dirs(work, root)?;
            }
        }
        let trees = dirty.trees.union(self.moved.trees()).cloned().collect();
        self.pass_trees(work, trees)?;
        self.moved.clear();
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        for (root, path) in dirty.paths {
            for path in self.names(work, root, path)? {
                self.view.hold()?;
                let Some(job) = self.look(work, root, path)? else { continue };
                bytes += job.original.size;
                jobs.push(job);
                let is_much = bytes >= super::pass::BATCH_BYTES_MAX && jobs.len() >= self.settings.transfers;
                if jobs.len() >= self.batch() || is_much {
                    bytes = 0;
                    self.perform(work, std::mem::take(&mut jobs))?;
                    self.all_applied()?;
                }
            }
        }
        self.perform(work, jobs)?;
        self.leaders.clear();
        self.all_applied()?;
        let replaced = std::mem::take(&mut self.replaced);
        self.pass_trees(work, replaced)?;
        self.replaced.clear();
        Ok(())
    }

    fn pass_trees(&mut self, work: &AtWork<'_>, trees: Paths) -> Result<(), Trouble> {
        if trees.is_empty() {
            return Ok(());
        }
        let view = View::open(&self.around.inventory)?;
        for (root, path) in trees {
            if let Some(dir) = self.view.dir_by_path(&work.roots[root].name, &path)? {
                self.pass_below(work, &view, (root, dir, copy_key(&path, FileType::Dir)), false)?;
                self.all_applied()?;
            }
        }
        Ok(())
    }

    /// All names of what has this one: what was written through one is in all.
    fn names(&self, work: &AtWork<'_>, root: usize, path: RelPath) -> Result<Vec<RelPath>, Trouble> {
        let Some(original) = self.original_at(work, root, &path)? else { return Ok(vec![path]) };
        if !original.has_names() {
            return Ok(vec![path]);
        }
        let mut names = vec![path];
        for (dir, name, known) in self.view.by_inode(&work.roots[root].name, original.inode)? {
            if known.file_id.0 == original.file
                && let Some((_, dir)) = self.view.dir_path(dir)?
            {
                names.push(dir.join(&name));
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    pub(super) fn original_at(
        &self,
        work: &AtWork<'_>,
        root: usize,
        path: &RelPath,
    ) -> Result<Option<Original>, Trouble> {
        let Some((above, name)) = path.split() else { return Ok(None) };
        let above = RelPath::new(above).unwrap_or_default();
        let dir = match above.is_root() {
            true => Some(work.dirs[root]),
            false => self.view.dir_by_path(&work.roots[root].name, &above)?,
        };
        let Some(dir) = dir else { return Ok(None) };
        Ok(self.view.child(dir, name)?.as_ref().and_then(original))
    }

    fn look(&mut self, work: &AtWork<'_>, root: usize, path: RelPath) -> Result<Option<Job>, Trouble> {
        let original = self.original_at(work, root, &path)?;
        let mut copy = None;
        for kind in [FileType::File, FileType::Dir] {
            let Some(row) = self.view.copy_at(work.replica, work.dirs[root], &copy_key(&path, kind))? else { continue };
            let is_dir = kind == FileType::Dir;
            match &original {
                Some(original) if (original.kind == FileType::Dir) != is_dir => {
                    // Another kind of thing stands there now; the old one must not be in its way.
                    self.clear(work, root, &path, kind)?;
                }
                _ => copy = Some(held(&row)),
            }
        }
        let is_dir = original.as_ref().map_or(FileType::File, |original| original.kind) == FileType::Dir;
        if !work.roots[root].keeps(&path, is_dir) {
            if let (Some(copy), true) = (&copy, original.is_some()) {
                self.tell_gone(work, root, &path, copy.kind, Withdrawal::Foreign)?;
            }
            self.let_go(work, root, &path)?;
            return Ok(None);
        }
        let unclaimed = if self.unclaimed.is_empty() { None } else { self.unclaimed.get(&(root, path.clone())) };
        let step_ns = self.settings.target.nature().mtime_step_ns;
        let what = need(original.as_ref(), copy.as_ref(), unclaimed.map(Some), step_ns);
        if what != Need::Wait && unclaimed.is_some() {
            self.unclaimed.remove(&(root, path.clone()));
        }
        if matches!(what, Need::Nothing | Need::Withdraw | Need::Wait) {
            self.let_go(work, root, &path)?;
        }
        if what == Need::Content && self.retries.puts_off(root, &path) {
            return Ok(None);
        }
        self.job(work, root, path, what, original, copy, true)
    }

    /// What follows from a need. A withdrawal is noted, and done when it is due.
    #[expect(clippy::too_many_arguments, reason = "what is known of one path")]
    pub(super) fn job(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        path: RelPath,
        what: Need,
        original: Option<Original>,
        copy: Option<Held>,
        has_copies: bool,
    ) -> Result<Option<Job>, Trouble> {
        if matches!(what, Need::Withdraw | Need::Lost)
            && self.settings.on_delete != OnDelete::Keep
            && let Some(copy) = &copy
        {
            self.pending.add(root, copy_key(&path, copy.kind), self.settings.delete_delay);
        }
        let Some(original) = original.filter(|_| Self::is_work(what)) else { return Ok(None) };
        let what = match (what, copy) {
            (Need::Adopt, _) => What::Adopt,
            (Need::Attributes, Some(copy)) => What::Attributes(copy),
            (_, copy) => {
                if has_copies {
                    let ground = self.ground(work, root, &path, &original)?;
                    if !self.make_firm(work, ground)? {
                        return Ok(None);
                    }
                }
                if has_copies && copy.is_none() {
                    self.clear_other(work, root, &path, original.kind)?;
                }
                let fits = copy.is_some_and(|copy| copy.file == original.file && copy.of >= original.version);
                let may_be_elsewhere = !fits && (has_copies || original.has_names());
                let elsewhere = if may_be_elsewhere { self.elsewhere(work, root, &path, &original)? } else { None };
                if elsewhere.is_none() && original.has_names() {
                    self.leaders.insert((root, original.file), (path.clone(), original.version));
                }
                elsewhere.unwrap_or(What::Put)
            }
        };
        Ok(Some(Job { root, path, original, what }))
    }

    /// Makes the directories that are missing. `false`: it has to wait.
    fn make_firm(&mut self, work: &AtWork<'_>, ground: Ground) -> Result<bool, Trouble> {
        if let Ground::Missing(dirs) = ground {
            self.perform(work, dirs)?;
            self.all_applied()?;
            return Ok(true);
        }
        Ok(matches!(ground, Ground::Firm))
    }

    /// Whether the replica holds this version for another path: it is renamed, or linked, and nothing is sent.
    fn elsewhere(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        path: &RelPath,
        original: &Original,
    ) -> Result<Option<What>, Trouble> {
        if original.kind == FileType::Dir {
            return Ok(None);
        }
        let is_linked = original.has_names();
        if is_linked
            && let Some((leader, version)) = self.leaders.get(&(root, original.file))
            && *version == original.version
            && leader != path
        {
            return Ok(Some(What::Link(leader.clone())));
        }
        for row in self.view.copies_of(work.replica, work.dirs[root], FileId(original.file))? {
            if row.of < original.version || row.kind != original.kind {
                continue;
            }
            let Some(from) = super::streams::path_of(&row.key).filter(|from| from != path) else { continue };
            let still = self.original_at(work, root, &from)?.is_some_and(|other| other.file == original.file);
            if still {
                return Ok(is_linked.then_some(What::Link(from)));
            }
            // Renamed at once: another name of the same original must not find the same copy.
            let job = Job { root, path: path.clone(), original: original.clone(), what: What::Move(from, held(&row)) };
            self.make_way(work, root, path)?;
            self.perform(work, vec![job])?;
            self.all_applied()?;
            let now =
                self.view.copy_at(work.replica, work.dirs[root], &copy_key(path, original.kind))?.as_ref().map(held);
            return Ok(now.map(What::Attributes));
        }
        Ok(None)
    }

    /// Directories that were renamed are renamed at the target, one rename each, parents first.
    pub(super) fn place_dirs(&mut self, work: &AtWork<'_>, root: usize) -> Result<(), Trouble> {
        while let Some(dir) = self.view.misplaced_dir(work.replica, work.dirs[root])? {
            self.check_stop()?;
            self.standing.clear();
            self.view.hold()?;
            let Some(original) = self.original_at(work, root, &dir.path)? else { return Ok(()) };
            let key = copy_key(&dir.held, FileType::Dir);
            let Some(row) = self.view.copy_at(work.replica, work.dirs[root], &key)? else { return Ok(()) };
            if original.file != dir.file_id.0 {
                return Ok(());
            }
            if !work.roots[root].keeps(&dir.path, true) {
                self.forget_dir(work, root, &dir.held)?;
                continue;
            }
            let ground = self.ground_above(work, root, &dir.path)?;
            if !self.make_firm(work, ground)? {
                return Ok(());
            }
            self.make_way(work, root, &dir.path)?;
            let what = What::Move(dir.held.clone(), held(&row));
            let before = self.settings.meter.read().moved;
            self.moved.add(work, root, &dir.path);
            self.perform(work, vec![Job { root, path: dir.path.clone(), original, what }])?;
            self.all_applied()?;
            if self.settings.meter.read().moved == before {
                // It could not be renamed: what it holds is copied to where it belongs, and the old copies go as deletes.
                self.forget_dir(work, root, &dir.held)?;
            }
        }
        Ok(())
    }

    /// A copy whose directory cannot be renamed is not known of any more.
    fn forget_dir(&mut self, work: &AtWork<'_>, root: usize, held: &RelPath) -> Result<(), Trouble> {
        match work.trash {
            Some(_) => self.set_aside(work, root, held)?,
            None if self.settings.on_delete == OnDelete::Delete => {
                self.withdraw_dir(work, root, &copy_key(held, FileType::Dir))?;
            }
            None => {}
        }
        self.tell_gone(work, root, held, FileType::Dir, Withdrawal::Trashed)
    }

    /// What the replica holds for a path makes way for something that moves there: if its own original lives elsewhere it is
    /// parked beside, and finds its place later; else it goes to the trash.
    fn make_way(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath) -> Result<(), Trouble> {
        for kind in [FileType::File, FileType::Dir] {
            let key = copy_key(path, kind);
            let Some(row) = self.view.copy_at(work.replica, work.dirs[root], &key)? else { continue };
            let lives_elsewhere = kind == FileType::Dir && self.view.is_live_dir(work.dirs[root], row.file_id)?;
            let Some((above, _)) = path.split() else { continue };
            if !lives_elsewhere {
                self.clear(work, root, path, row.kind)?;
                continue;
            }
            let name = format!(".keepwatch-parked-{}", row.file_id.0);
            let parked = RelPath::new(above).unwrap_or_default().join(name.as_bytes());
            let copy = held(&row);
            let original = as_held(&copy);
            let what = What::Move(path.clone(), copy);
            self.perform(work, vec![Job { root, path: parked, original, what }])?;
            self.all_applied()?;
        }
        Ok(())
    }

    /// A copy of another kind of thing must not be in the way: a directory where a file belongs, or a file where a
    /// directory does.
    fn clear_other(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath, kind: FileType) -> Result<(), Trouble> {
        let other = if kind == FileType::Dir { FileType::File } else { FileType::Dir };
        match self.view.copy_at(work.replica, work.dirs[root], &copy_key(path, other))? {
            Some(row) => self.clear(work, root, path, row.kind),
            None => Ok(()),
        }
    }

    /// Takes what the replica holds for a path away at once, because something else belongs there.
    fn clear(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath, kind: FileType) -> Result<(), Trouble> {
        if kind == FileType::Dir && work.trash.is_none() {
            return Ok(());
        }
        self.set_aside(work, root, path)?;
        self.standing.clear();
        self.tell_gone(work, root, path, kind, Withdrawal::Trashed)
    }

    fn set_aside(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath) -> Result<(), Trouble> {
        let name = self.settings.name.clone();
        work.worker(&name, 1).set_aside(&work.roots[root].placement.place(path))?;
        self.taken_from(work, dir_of(root, path))
    }

    pub(super) fn tell_gone(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        path: &RelPath,
        kind: FileType,
        how: Withdrawal,
    ) -> Result<(), Trouble> {
        let name = self.settings.name.clone();
        let worker = work.worker(&name, 1);
        let act = worker.gone(root, path, kind, how);
        self.tell(vec![act])?;
        self.all_applied()
    }

    /// One path failed for itself.
    pub(super) fn failed(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        path: RelPath,
        error: &CopyError,
    ) -> Result<(), Trouble> {
        let text = shown(&path);
        self.leaders.retain(|_, (leader, _)| *leader != path);
        // What changed meanwhile has a record of its own, which comes.
        let is_final = matches!(error, CopyError::Target(crate::target::TargetError::Refused { .. }));
        if self.retries.failed(root, &path, is_final) {
            tracing::warn!(replica = %self.settings.name, path = text, error = %error, "not copied");
            let why = error.to_string();
            self.settings.meter.fail(text, why.clone());
            let (replica, root) = (self.settings.name.clone(), work.roots[root].name.clone());
            self.tell(vec![Body::Failed(Box::new(Failed { replica, root, path, why }))])?;
        }
        Ok(())
    }

    /// What failed at a path is not to be tried again.
    fn let_go(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath) -> Result<(), Trouble> {
        if self.retries.forget(root, path) {
            self.settings.meter.mend(&shown(path));
            if self.original_at(work, root, path)?.is_none() {
                self.tell_gone(work, root, path, FileType::File, Withdrawal::Removed)?;
            }
        }
        Ok(())
    }
}

/// An original of which nothing is known but its copy.
pub(super) fn as_held(copy: &Held) -> Original {
    Original {
        file: copy.file,
        kind: copy.kind,
        size: copy.size,
        mtime_ns: copy.mtime_ns,
        inode: 0,
        nlink: 1,
        target: None,
        version: copy.of,
        last: copy.of,
        is_settled: true,
    }
}

/// The directory that holds a path.
pub(super) fn dir_of(root: usize, path: &RelPath) -> Touched {
    path.split().map(|(above, _)| (root, RelPath::new(above).unwrap_or_default())).into_iter().collect()
}

/// A path for people.
pub(super) fn shown(path: &RelPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).escape_debug().to_string()
}

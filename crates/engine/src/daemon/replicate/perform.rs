//! Doing what was planned, many things at a time: content in threads, then one publication, then attributes. What was done is
//! told as acts; the caller journals them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use crate::model::{Body, Copied, Digest, FileType, Proof, RelPath, ReplicaName, RootName, Seq, Withdrawal, Withdrawn};
use crate::sync::copy::{CopyError, Source, Taken};
use crate::sync::filter::Filter;
use crate::sync::layout::Placement;
use crate::sync::plan::{Held, Original};
use crate::target::{self, Meta, Session, TargetError};

/// So many are taken in while those before them are published, and those before them told. Fewer cost more syncs, more keep the disk idle for longer before
/// the first is published, and the inventory after the last.
pub(super) const PIECE: usize = 4_096;

/// A root, as a replica sees it at work.
pub(super) struct RootAtWork {
    pub(super) name: RootName,
    /// Its absolute path.
    pub(super) top: Vec<u8>,
    pub(super) placement: Placement,
    pub(super) filter: Arc<Filter>,
    /// `None`: it cannot be opened now.
    pub(super) source: Option<Source>,
}

impl RootAtWork {
    /// Whether an object is to be held. A filter may choose files alone: then directories are no copies of their own.
    pub(super) fn keeps(&self, path: &RelPath, is_dir: bool) -> bool {
        self.filter.keeps(&self.top, path, is_dir)
    }
}

/// Something to be done.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) root: usize,
    pub(super) path: RelPath,
    pub(super) original: Original,
    pub(super) what: What,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum What {
    /// The content, or the directory itself.
    Put,
    /// Another name of what is at this path already.
    Link(RelPath),
    /// Attributes only; the copy as it is known.
    Attributes(Held),
    /// What is there is the copy.
    Adopt,
    /// The copy stands at this path.
    Move(RelPath, Held),
}

/// What came of letting the target take one in, and how long that took; `None`: it was not tried, because the target is in
/// trouble.
pub(super) type Tried = Option<(Result<Taken, CopyError>, Duration)>;

/// Directories, by their roots, whose times change by what is done.
pub(super) type Touched = BTreeSet<(usize, RelPath)>;

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    /// To be journaled.
    pub(super) acts: Vec<Body>,
    /// What failed for itself.
    pub(super) failed: Vec<(usize, RelPath, CopyError)>,
    /// Copied objects and their bytes.
    pub(super) copied: u64,
    pub(super) bytes: u64,
    pub(super) moved: u64,
    pub(super) adopted: u64,
    /// Directories that may not have their attributes.
    pub(super) bare: Touched,
    /// How long it took to let the target take them in.
    pub(super) took: Vec<(usize, RelPath, Duration)>,
    /// What stopped all of it.
    pub(super) trouble: Option<TargetError>,
}

impl Done {
    fn join(&mut self, other: Done) {
        let Done { acts, failed, copied, bytes, moved, adopted, bare, took, trouble } = other;
        self.acts.extend(acts);
        self.failed.extend(failed);
        self.took.extend(took);
        self.bare.extend(bare);
        self.copied += copied;
        self.bytes += bytes;
        self.moved += moved;
        self.adopted += adopted;
        self.trouble = self.trouble.take().or(trouble);
    }
}

/// A replica at work.
pub(super) struct Work<'w> {
    pub(super) replica: &'w ReplicaName,
    pub(super) session: &'w dyn Session,
    pub(super) roots: &'w [RootAtWork],
    /// Where overwritten and deleted things go; `None`: nowhere.
    pub(super) trash: Option<&'w RelPath>,
    pub(super) transfers: usize,
    /// How far a file's copy is proved when the target has taken it.
    pub(super) proof: Proof,
}

impl Work<'_> {
    /// Does it all, and what is under way, in an order in which nothing stands in another's way. If more comes (`goes_on`),
    /// what is to be taken in last may be under way still when this returns.
    pub(super) fn perform(&self, jobs: Vec<Job>, ahead: Option<&mut Ahead<'_, '_>>, goes_on: bool) -> Done {
        let mut done = Done::default();
        let mut touched = Touched::new();
        let (mut to_make, mut puts, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match &job.what {
                What::Move(from, held) => {
                    if !self.rename(&job, from, held, &mut done, &mut touched) && job.original.kind != FileType::Dir {
                        puts.push(job);
                    }
                }
                What::Put if job.original.kind == FileType::Dir => to_make.push(job),
                What::Put => puts.push(job),
                What::Link(_) | What::Attributes(_) | What::Adopt => later.push(job),
            }
        }
        let dirs = self.make_dirs(to_make, &mut done, &mut touched);
        if done.trouble.is_none() {
            self.put(puts, ahead, goes_on && later.is_empty(), &mut done, &mut touched);
        }
        let mut instead = Vec::new();
        for job in later {
            if done.trouble.is_some() {
                break;
            }
            if !self.do_later(&job, &mut done, &mut touched) {
                instead.push(job);
            }
        }
        if done.trouble.is_none() {
            self.put(instead, None, false, &mut done, &mut touched);
        }
        done.bare.extend(self.dir_metas(touched));
        for mut job in dirs {
            // Without its attributes it is not yet what any record told of.
            if done.bare.remove(&(job.root, job.path.clone())) {
                job.original.last = Seq::ZERO;
            }
            done.acts.push(self.copied(&job, None, None, Proof::Written));
        }
        done
    }

    fn place(&self, root: usize, path: &RelPath) -> RelPath {
        self.roots[root].placement.place(path)
    }

    /// Makes directories; those that are there now.
    fn make_dirs(&self, jobs: Vec<Job>, done: &mut Done, touched: &mut Touched) -> Vec<Job> {
        let made = side_by_side(&jobs, self.transfers, |job| {
            let made = self.session.make_dir(&self.place(job.root, &job.path));
            let goes_on = !matches!(&made, Err(error) if error.is_of_the_place());
            (made, goes_on)
        });
        let mut dirs = Vec::with_capacity(jobs.len());
        for (job, made) in jobs.into_iter().zip(made) {
            match made {
                Some(Ok(())) => {
                    self.touch(&job, touched);
                    touched.insert((job.root, job.path.clone()));
                    dirs.push(job);
                }
                Some(Err(error)) => self.note(&job, error, done),
                None => {}
            }
        }
        dirs
    }

    /// `false`: the target cannot rename.
    fn rename(&self, job: &Job, from: &RelPath, held: &Held, done: &mut Done, touched: &mut Touched) -> bool {
        let (from_place, to_place) = (self.place(job.root, from), self.place(job.root, &job.path));
        let moved = match self.session.rename(&from_place, &to_place) {
            Err(TargetError::Refused { .. }) => {
                // What stood there is not there any more among the originals, or its own move has parked it.
                self.set_aside(&to_place).and_then(|_| self.session.rename(&from_place, &to_place))
            }
            moved => moved,
        };
        match moved {
            Ok(()) => {
                done.moved += 1;
                self.touch(job, touched);
                if let Some((above, _)) = from.split() {
                    touched.insert((job.root, RelPath::new(above).unwrap_or_default()));
                }
                let original = Original { last: held.of, ..job.original.clone() };
                let moved = Job { root: job.root, path: job.path.clone(), original, what: What::Adopt };
                done.acts.push(self.copied(&moved, Some(from), held.sha256.map(Digest), held.proof));
            }
            Err(TargetError::Unable { .. }) => return false,
            Err(error) => self.note(job, error, done),
        }
        true
    }

    /// What is in the way goes to the trash, or away.
    pub(super) fn set_aside(&self, place: &RelPath) -> Result<bool, TargetError> {
        match self.trash {
            Some(trash) => target::set_aside(self.session, place, trash),
            None => self.session.remove(place),
        }
    }

    /// The same for several that do not stand in each other's way, so many at a time; what came of each, in their order. After
    /// trouble with the target the rest is left.
    pub(super) fn set_all_aside(&self, places: &[RelPath], at_once: usize) -> Vec<Result<bool, TargetError>> {
        let gone = side_by_side(places, at_once, |place| {
            let result = self.set_aside(place);
            let goes_on = !matches!(&result, Err(error) if error.is_of_the_place());
            (result, goes_on)
        });
        gone.into_iter().map_while(|result| result).collect()
    }

    /// Puts files and nodes: while some are published, the next are taken in.
    fn put(
        &self,
        jobs: Vec<Job>,
        ahead: Option<&mut Ahead<'_, '_>>,
        goes_on: bool,
        done: &mut Done,
        touched: &mut Touched,
    ) {
        let Some(ahead) = ahead else {
            let tried = side_by_side(&jobs, self.transfers, |job| {
                let (result, is_in_trouble) = self.take(job);
                (result, !is_in_trouble)
            });
            return self.publish(&jobs, tried, done, touched);
        };
        if !jobs.is_empty() {
            ahead.begin(jobs);
        }
        while done.trouble.is_none()
            && let Some((published, dirs)) = ahead.next(goes_on)
        {
            done.join(published);
            touched.extend(dirs);
        }
    }

    /// Publishes what was taken in.
    pub(super) fn publish(&self, jobs: &[Job], tried: Vec<Tried>, done: &mut Done, touched: &mut Touched) {
        let (mut staged, mut published) = (Vec::new(), Vec::new());
        for (job, tried) in jobs.iter().zip(tried) {
            let (taken, took) = tried.unzip();
            done.took.extend(took.map(|took| (job.root, job.path.clone(), took)));
            match taken {
                Some(Ok(Taken { staged: one, sha256 })) => {
                    staged.push(one);
                    published.push((job, sha256));
                }
                Some(Err(CopyError::Target(error))) => self.note(job, error, done),
                Some(Err(error)) => done.failed.push((job.root, job.path.clone(), error)),
                None => {}
            }
        }
        if staged.is_empty() {
            return;
        }
        let results = self.session.publish(staged, self.trash);
        for ((job, digest), result) in published.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    done.copied += 1;
                    done.bytes += job.original.size;
                    self.touch(job, touched);
                    let proof = match (digest, job.original.kind) {
                        (Some(_), _) => self.proof,
                        // Nobody read it.
                        (None, FileType::File) => Proof::Presumed,
                        // Of a link there is no hash to prove.
                        (None, _) => Proof::Written,
                    };
                    done.acts.push(self.copied(job, None, digest, proof));
                }
                Err(error) => self.note(job, error, done),
            }
        }
    }

    /// Gives up what was taken in.
    pub(super) fn discard(&self, tried: Vec<Tried>) {
        for (taken, _) in tried.into_iter().flatten() {
            if let Ok(taken) = taken {
                self.session.discard(taken.staged);
            }
        }
    }

    /// Lets the target take one in; how long that took, and whether the target is in trouble.
    pub(super) fn take(&self, job: &Job) -> ((Result<Taken, CopyError>, Duration), bool) {
        let begun = Instant::now();
        let result = match &self.roots[job.root].source {
            Some(source) => source.take(&job.path, &job.original, self.session, &self.place(job.root, &job.path)),
            None => Err(CopyError::Changed),
        };
        let is_in_trouble = matches!(&result, Err(CopyError::Target(error)) if error.is_of_the_place());
        ((result, begun.elapsed()), is_in_trouble)
    }

    /// `false`: the target cannot do that; it takes the content again.
    fn do_later(&self, job: &Job, done: &mut Done, touched: &mut Touched) -> bool {
        let place = self.place(job.root, &job.path);
        match &job.what {
            // The name that was to be copied was not: this one has to wait, too.
            What::Link(from) if done.failed.iter().any(|(root, path, _)| *root == job.root && path == from) => {
                done.failed.push((job.root, job.path.clone(), CopyError::Changed));
            }
            What::Link(from) => match self.session.link(&self.place(job.root, from), &place) {
                Ok(()) => {
                    self.touch(job, touched);
                    done.acts.push(self.copied(job, None, None, Proof::Written));
                }
                Err(TargetError::Unable { .. }) => return false,
                Err(error) => self.note(job, error, done),
            },
            What::Attributes(held) => {
                let Some(source) = &self.roots[job.root].source else { return true };
                let set = source.meta(&job.path, &job.original).and_then(|meta: Meta| {
                    self.session.set_meta(&place, job.original.kind, &meta).map_err(CopyError::from)
                });
                match set {
                    Ok(()) => done.acts.push(self.copied(job, None, held.sha256.map(Digest), held.proof)),
                    Err(CopyError::Target(TargetError::Unable { .. })) => return false,
                    Err(CopyError::Target(error)) => self.note(job, error, done),
                    Err(error) => done.failed.push((job.root, job.path.clone(), error)),
                }
            }
            What::Adopt => {
                done.adopted += 1;
                if job.original.kind == FileType::Dir {
                    touched.insert((job.root, job.path.clone()));
                }
                done.acts.push(self.copied(job, None, None, Proof::Presumed));
            }
            What::Put | What::Move(..) => {}
        }
        true
    }

    /// Gives directories the attributes that their originals have now, those of a depth at the same time, deepest first: one that
    /// got its attributes may let nobody in. Those for which it could not be done.
    pub(super) fn dir_metas(&self, dirs: Touched) -> Touched {
        let depth = |dir: &(usize, RelPath)| dir.1.components().count();
        let mut dirs: Vec<_> = dirs.into_iter().collect();
        dirs.sort_by_key(|dir| Reverse(depth(dir)));
        let mut bare = Touched::new();
        for level in dirs.chunk_by(|one, other| depth(one) == depth(other)) {
            let set = side_by_side(level, self.transfers, |(root, dir)| (self.dir_meta(*root, dir), true));
            bare.extend(level.iter().zip(set).filter(|(_, set)| *set != Some(true)).map(|(dir, _)| dir.clone()));
        }
        bare
    }

    /// Gives a directory the attributes that its original has now. `false`: it could not be done.
    pub(super) fn dir_meta(&self, root: usize, dir: &RelPath) -> bool {
        let set = self.set_dir(root, dir);
        set.inspect_err(|error| tracing::debug!(%error, "a directory's attributes were not set")).is_ok()
    }

    /// The same; why it could not be done.
    pub(super) fn set_dir(&self, root: usize, dir: &RelPath) -> Result<(), CopyError> {
        let Some(source) = &self.roots[root].source else { return Err(CopyError::Changed) };
        let meta = source.dir_meta(dir)?;
        Ok(self.session.set_meta(&self.place(root, dir), FileType::Dir, &meta)?)
    }

    fn note(&self, job: &Job, error: TargetError, done: &mut Done) {
        if error.is_of_the_place() {
            done.trouble.get_or_insert(error);
        } else {
            done.failed.push((job.root, job.path.clone(), error.into()));
        }
    }

    pub(super) fn copied(&self, job: &Job, old_path: Option<&RelPath>, sha256: Option<Digest>, proof: Proof) -> Body {
        Body::Copied(Box::new(Copied {
            replica: self.replica.clone(),
            root: self.roots[job.root].name.clone(),
            path: job.path.clone(),
            old_path: old_path.cloned(),
            file: job.original.file,
            of: job.original.last,
            kind: job.original.kind,
            size: if job.original.kind == FileType::Dir { 0 } else { job.original.size },
            mtime_ns: job.original.mtime_ns,
            sha256,
            proof,
        }))
    }

    /// The act that a copy went.
    pub(super) fn gone(&self, root: usize, path: &RelPath, kind: FileType, how: Withdrawal) -> Body {
        Body::Withdrawn(Box::new(Withdrawn {
            how,
            replica: self.replica.clone(),
            root: self.roots[root].name.clone(),
            path: path.clone(),
            kind,
        }))
    }

    /// The directory that holds it gets other times by what is done. Where a filter chooses files alone, those above it may
    /// have been made just now.
    fn touch(&self, job: &Job, touched: &mut Touched) {
        let mut at = &job.path;
        let mut above;
        while let Some((dir, _)) = at.split() {
            above = RelPath::new(dir).unwrap_or_default();
            let is_new = touched.insert((job.root, above.clone()));
            if !is_new || !self.roots[job.root].filter.is_selective() {
                return;
            }
            at = &above;
        }
    }
}

/// Does something with each, in so many threads; what came of it, in their order. After one that says `false` no other is begun:
/// of those that were not there is `None`, behind all that were.
fn side_by_side<T: Sync, R: Send>(all: &[T], at_once: usize, work: impl Fn(&T) -> (R, bool) + Sync) -> Vec<Option<R>> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = all.iter().map(|_| Mutex::new(None)).collect();
    let turn = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(index) else { return };
            let (result, goes_on) = work(one);
            if !goes_on {
                next.store(all.len(), Ordering::Relaxed);
            }
            *done[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(all.len()) {
            scope.spawn(turn);
        }
        turn();
    });
    done.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

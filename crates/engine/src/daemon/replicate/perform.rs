//! Doing what was planned, many things at a time: content in threads, then one publication, then attributes. What was done is
//! told as acts; the caller journals them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Body, Copied, Digest, FileType, Proof, RelPath, ReplicaName, RootName, Seq, Withdrawal, Withdrawn};
use crate::sync::copy::{CopyError, Source, Taken};
use crate::sync::filter::Filter;
use crate::sync::layout::Placement;
use crate::sync::plan::{Held, Original};
use crate::target::{self, Meta, Session, TargetError};

/// So many are taken in while those before them are published. Fewer cost more syncs, more keep the disk idle for longer before
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
type Tried = Option<(Result<Taken, CopyError>, Duration)>;

/// What a target has taken in of one batch, to be published while it takes in the next.
#[derive(Default)]
pub(super) struct Carried(Vec<(Job, Tried)>);

impl Carried {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives it up.
    pub(super) fn discard(self, session: &dyn Session) {
        for (_, tried) in self.0 {
            if let Some((Ok(taken), _)) = tried {
                session.discard(taken.staged);
            }
        }
    }

    /// What is not published yet.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.0.iter().map(|(job, _)| job)
    }
}

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
    /// How long it took to let the target take them in.
    pub(super) took: Vec<(usize, RelPath, Duration)>,
    /// What stopped all of it.
    pub(super) trouble: Option<TargetError>,
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
    /// Does it all, and what was carried over, in an order in which nothing stands in another's way. If more comes
    /// (`goes_on`), what was taken in last may be carried over.
    pub(super) fn perform(&self, jobs: Vec<Job>, carried: &mut Carried, goes_on: bool) -> Done {
        let mut done = Done::default();
        let mut touched = BTreeSet::new();
        let (mut dirs, mut puts, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match &job.what {
                What::Move(from, held) => {
                    if !self.rename(&job, from, held, &mut done, &mut touched) && job.original.kind != FileType::Dir {
                        puts.push(job);
                    }
                }
                What::Put if job.original.kind == FileType::Dir => {
                    if self.make_dir(&job, &mut done, &mut touched) {
                        dirs.push(job);
                    }
                }
                What::Put => puts.push(job),
                What::Link(_) | What::Attributes(_) | What::Adopt => later.push(job),
            }
        }
        if done.trouble.is_none() {
            self.put(puts, carried, goes_on && later.is_empty(), &mut done, &mut touched);
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
            self.put(instead, &mut Carried::default(), false, &mut done, &mut touched);
        }
        // Deepest first: to put something into a directory changes its times.
        let mut bare = BTreeSet::new();
        for (root, dir) in touched.into_iter().rev() {
            if !self.dir_meta(root, &dir) {
                bare.insert((root, dir));
            }
        }
        for mut job in dirs {
            // Without its attributes it is not yet what any record told of.
            if bare.contains(&(job.root, job.path.clone())) {
                job.original.last = Seq::ZERO;
            }
            done.acts.push(self.copied(&job, None, None, Proof::Written));
        }
        done
    }

    fn place(&self, root: usize, path: &RelPath) -> RelPath {
        self.roots[root].placement.place(path)
    }

    /// Whether it is there now.
    fn make_dir(&self, job: &Job, done: &mut Done, touched: &mut BTreeSet<(usize, RelPath)>) -> bool {
        match self.session.make_dir(&self.place(job.root, &job.path)) {
            Ok(()) => {
                self.touch(job, touched);
                touched.insert((job.root, job.path.clone()));
                true
            }
            Err(error) => {
                self.note(job, error, done);
                false
            }
        }
    }

    /// `false`: the target cannot rename.
    fn rename(
        &self,
        job: &Job,
        from: &RelPath,
        held: &Held,
        done: &mut Done,
        touched: &mut BTreeSet<(usize, RelPath)>,
    ) -> bool {
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

    /// Puts files and nodes: while some are published, the next are taken in. The last may be carried over.
    fn put(
        &self,
        mut jobs: Vec<Job>,
        carried: &mut Carried,
        goes_on: bool,
        done: &mut Done,
        touched: &mut BTreeSet<(usize, RelPath)>,
    ) {
        let mut taken = Some(std::mem::take(&mut carried.0)).filter(|taken| !taken.is_empty());
        while !jobs.is_empty() || taken.is_some() {
            if jobs.is_empty() && goes_on {
                carried.0 = taken.unwrap_or_default();
                return;
            }
            let rest = jobs.split_off(jobs.len().min(PIECE));
            let piece = std::mem::replace(&mut jobs, rest);
            taken = match taken {
                None => Some(self.take_all(piece)),
                Some(taken) => std::thread::scope(|scope| {
                    let next = (!piece.is_empty()).then(|| scope.spawn(|| self.take_all(piece)));
                    self.publish(taken, done, touched);
                    next.map(|next| next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                }),
            };
            if done.trouble.is_some() {
                Carried(taken.unwrap_or_default()).discard(self.session);
                return;
            }
        }
    }

    /// Publishes what was taken in.
    fn publish(&self, tried: Vec<(Job, Tried)>, done: &mut Done, touched: &mut BTreeSet<(usize, RelPath)>) {
        let (mut staged, mut digests, mut published) = (Vec::new(), Vec::new(), Vec::new());
        for (job, tried) in tried {
            let (taken, took) = tried.unzip();
            done.took.extend(took.map(|took| (job.root, job.path.clone(), took)));
            match taken {
                Some(Ok(Taken { staged: one, sha256 })) => {
                    staged.push(one);
                    digests.push(sha256);
                    published.push(job);
                }
                Some(Err(CopyError::Target(error))) => self.note(&job, error, done),
                Some(Err(error)) => done.failed.push((job.root, job.path, error)),
                None => {}
            }
        }
        if staged.is_empty() {
            return;
        }
        let results = self.session.publish(staged, self.trash);
        for ((job, digest), result) in published.into_iter().zip(digests).zip(results) {
            match result {
                Ok(()) => {
                    done.copied += 1;
                    done.bytes += job.original.size;
                    self.touch(&job, touched);
                    // Of a link there is no hash to prove.
                    let proof = digest.map_or(Proof::Written, |_| self.proof);
                    done.acts.push(self.copied(&job, None, digest, proof));
                }
                Err(error) => self.note(&job, error, done),
            }
        }
    }

    /// Lets the target take each in, in threads.
    fn take_all(&self, jobs: Vec<Job>) -> Vec<(Job, Tried)> {
        let taken = side_by_side(&jobs, self.transfers, |job| {
            let begun = Instant::now();
            let result = match &self.roots[job.root].source {
                Some(source) => source.take(&job.path, &job.original, self.session, &self.place(job.root, &job.path)),
                None => Err(CopyError::Changed),
            };
            let goes_on = !matches!(&result, Err(CopyError::Target(error)) if error.is_of_the_place());
            ((result, begun.elapsed()), goes_on)
        });
        jobs.into_iter().zip(taken).collect()
    }

    /// `false`: the target cannot do that; it takes the content again.
    fn do_later(&self, job: &Job, done: &mut Done, touched: &mut BTreeSet<(usize, RelPath)>) -> bool {
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

    fn copied(&self, job: &Job, old_path: Option<&RelPath>, sha256: Option<Digest>, proof: Proof) -> Body {
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
    fn touch(&self, job: &Job, touched: &mut BTreeSet<(usize, RelPath)>) {
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

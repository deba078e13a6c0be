//! Taking in and publishing beside the thread that plans and tells.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::LOOK_WAIT;
use super::perform::{Done, Job, Touched, Tried, Work};

/// Pieces that may be under way while more is planned: one is taken in, one is published. More only where they are of so few files
/// that threads had nothing to do.
const AHEAD_MAX: usize = 2;

/// Pieces that a target takes in, so many files at a time, and publishes as they are whole, beside the thread that plans and
/// tells. A large file holds up none but the piece that it is in.
pub(super) struct Ahead<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    work: &'s Work<'s>,
    /// Threads that take in.
    takers: Vec<ScopedJoinHandle<'s, ()>>,
    wanted: (Sender<Wanted>, Receiver<Wanted>),
    whole: Sender<Arc<Piece>>,
    published: Receiver<(Arc<Piece>, Done, Touched)>,
    under_way: Vec<Arc<Piece>>,
    state: Arc<AheadState>,
}

/// One job of a piece, by its number.
type Wanted = (Arc<Piece>, usize);

/// What is published together.
struct Piece {
    jobs: Vec<Job>,
    tried: Mutex<Vec<Tried>>,
    /// Jobs that were not yet tried.
    left: AtomicUsize,
}

#[derive(Default)]
struct AheadState {
    /// Nothing else is taken in.
    is_in_trouble: AtomicBool,
    /// Nothing else is published.
    is_given_up: AtomicBool,
}

impl<'s, 'e> Ahead<'s, 'e> {
    /// Begins to take in and publish what comes.
    pub(super) fn start(scope: &'s Scope<'s, 'e>, work: &'s Work<'_>) -> Self {
        let (whole, to_publish) = unbounded::<Arc<Piece>>();
        let (publish, published) = unbounded();
        let state = Arc::<AheadState>::default();
        let ahead = Arc::clone(&state);
        scope.spawn(move || {
            for piece in to_publish {
                let (mut done, mut touched) = (Done::default(), Touched::new());
                let tried = std::mem::take(&mut *piece.tried());
                if ahead.is_given_up.load(Ordering::Relaxed) {
                    work.discard(tried);
                } else {
                    work.publish(&piece.jobs, tried, &mut done, &mut touched);
                }
                // After trouble with the target nothing else is begun.
                ahead.is_given_up.fetch_or(done.trouble.is_some(), Ordering::Relaxed);
                let _ = publish.send((piece, done, touched));
            }
        });
        Ahead { scope, work, takers: Vec::new(), wanted: unbounded(), whole, published, under_way: Vec::new(), state }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What may be at the target by now, and was not told of.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.under_way.iter().flat_map(|piece| piece.jobs.iter())
    }

    /// Whether nothing else need be planned to keep all at work.
    fn has_enough(&self) -> bool {
        self.under_way.len() > AHEAD_MAX && self.jobs_under_way() > 2 * self.work.transfers
    }

    fn jobs_under_way(&self) -> usize {
        self.under_way.iter().map(|piece| piece.jobs.len()).sum()
    }

    /// Has a piece taken in and published.
    pub(super) fn begin(&mut self, jobs: Vec<Job>) {
        let count = jobs.len();
        let tried = Mutex::new((0..count).map(|_| None).collect());
        let piece = Arc::new(Piece { jobs, tried, left: AtomicUsize::new(count) });
        for number in 0..count {
            let _ = self.wanted.0.send((Arc::clone(&piece), number));
        }
        self.under_way.push(piece);
        while self.takers.len() < self.work.transfers.min(self.jobs_under_way()) {
            let (work, wanted, whole, state) =
                (self.work, self.wanted.1.clone(), self.whole.clone(), Arc::clone(&self.state));
            self.takers.push(self.scope.spawn(move || {
                for (piece, number) in wanted {
                    let turn = Turn { piece, whole: &whole };
                    turn.piece.take(number, work, &state);
                }
            }));
        }
    }

    /// One that ended. Waits for it, unless it `goes_on` and more is to be planned first. `None`: none did, or none is under way.
    pub(super) fn next(&mut self, goes_on: bool) -> Option<(Done, Touched)> {
        let (piece, done, touched) = match goes_on && !self.has_enough() {
            true => self.published.try_recv().ok(),
            false if self.is_empty() => None,
            false => self.wait(),
        }?;
        self.under_way.retain(|other| !Arc::ptr_eq(other, &piece));
        Some((done, touched))
    }

    fn wait(&self) -> Option<(Arc<Piece>, Done, Touched)> {
        loop {
            match self.published.recv_timeout(LOOK_WAIT) {
                // Nobody takes anything in any more: all panicked, which whoever started them is told when they are joined.
                Err(RecvTimeoutError::Timeout) if self.takers.iter().all(ScopedJoinHandle::is_finished) => return None,
                Err(RecvTimeoutError::Timeout) => {}
                published => return published.ok(),
            }
        }
    }

    /// Gives up what is under way; what was published nevertheless.
    pub(super) fn give_up(mut self) -> impl Iterator<Item = Done> {
        self.state.is_in_trouble.store(true, Ordering::Relaxed);
        self.state.is_given_up.store(true, Ordering::Relaxed);
        std::iter::from_fn(move || self.next(false)).map(|(done, _)| done)
    }
}

/// One job's turn. When the last of a piece is over, however it ended, the piece goes on.
struct Turn<'a> {
    piece: Arc<Piece>,
    whole: &'a Sender<Arc<Piece>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.piece.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.whole.send(Arc::clone(&self.piece));
        }
    }
}

impl Piece {
    fn tried(&self) -> MutexGuard<'_, Vec<Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the target take one in, unless it is in trouble.
    fn take(&self, number: usize, work: &Work<'_>, state: &AheadState) {
        if state.is_in_trouble.load(Ordering::Relaxed) {
            return;
        }
        let (result, is_in_trouble) = work.take(&self.jobs[number]);
        state.is_in_trouble.fetch_or(is_in_trouble, Ordering::Relaxed);
        self.tried()[number] = Some(result);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::{self, Read};
    use std::ops::ControlFlow;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::Condvar;
    use std::time::Duration;

    use super::*;
    use crate::daemon::replicate::perform::{RootAtWork, What};
    use crate::model::{FileType, Proof, RelPath, ReplicaName, RootName, Seq};
    use crate::sync::copy::Source;
    use crate::sync::filter::{Filter, FilterText};
    use crate::sync::layout::Placement;
    use crate::sync::plan::Original;
    use crate::target::{Content, Found, Meta, Result, Session, Staged, TargetError, shown};

    /// What happened at the target: names that were tried and, behind `!`, that were published.
    #[derive(Default)]
    struct Slow {
        happened: Mutex<Vec<String>>,
        is_more: Condvar,
    }

    impl Slow {
        fn note(&self, what: String) {
            self.happened.lock().unwrap().push(what);
            self.is_more.notify_all();
        }

        fn wait_for(&self, what: &str) {
            let not_yet = |happened: &mut Vec<String>| !happened.iter().any(|one| one == what);
            let long = Duration::from_secs(20);
            let happened = self.happened.lock().unwrap();
            assert!(!self.is_more.wait_timeout_while(happened, long, not_yet).unwrap().1.timed_out(), "no {what}");
        }
    }

    /// Takes `large` only when `small` is published, and is gone when it is to take `bad`, which all `after…` wait for.
    impl Session for Slow {
        fn stage(&self, path: &RelPath, _: &Meta, content: Content<'_>) -> Result<Staged> {
            let Content::File { bytes, .. } = content else { unreachable!("there are only files") };
            io::copy(bytes, &mut io::sink()).unwrap();
            let name = shown(path);
            self.note(name.clone());
            match name.as_str() {
                "large" => self.wait_for("!small"),
                "bad" => return Err(TargetError::Away { place: "there".to_owned(), why: "it is gone".to_owned() }),
                after if after.starts_with("after") => self.wait_for("bad"),
                _ => {}
            }
            Ok(Staged { path: path.clone(), number: 0 })
        }
        fn publish(&self, staged: Vec<Staged>, _: Option<&RelPath>) -> Vec<Result<()>> {
            staged.iter().for_each(|staged| self.note(format!("!{}", shown(&staged.path))));
            staged.iter().map(|_| Ok(())).collect()
        }
        fn discard(&self, _: Staged) {}
        fn list(&self, _: &RelPath, _: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
            unreachable!()
        }
        fn look(&self, _: &RelPath) -> Result<Option<Found>> {
            unreachable!()
        }
        fn read(&self, _: &RelPath) -> Result<Box<dyn Read + Send>> {
            unreachable!()
        }
        fn make_dir(&self, _: &RelPath) -> Result<()> {
            unreachable!()
        }
        fn set_meta(&self, _: &RelPath, _: FileType, _: &Meta) -> Result<()> {
            unreachable!()
        }
        fn link(&self, _: &RelPath, _: &RelPath) -> Result<()> {
            unreachable!()
        }
        fn rename(&self, _: &RelPath, _: &RelPath) -> Result<()> {
            unreachable!()
        }
        fn remove(&self, _: &RelPath) -> Result<bool> {
            unreachable!()
        }
        fn sync(&self) -> Result<()> {
            unreachable!()
        }
    }

    fn job(top: &Path, name: &str) -> Job {
        fs::write(top.join(name), name).unwrap();
        let facts = fs::metadata(top.join(name)).unwrap();
        let original = Original {
            file: 1,
            kind: FileType::File,
            size: facts.size(),
            mtime_ns: facts.mtime() * 1_000_000_000 + facts.mtime_nsec(),
            inode: facts.ino(),
            nlink: 1,
            target: None,
            version: Seq::ZERO,
            last: Seq::ZERO,
            is_settled: true,
        };
        Job { root: 0, path: RelPath::new(name).unwrap(), original, what: What::Put }
    }

    /// What happened, and what came of these pieces.
    fn take(pieces: &[&[&str]]) -> (Vec<String>, Vec<Done>) {
        let (dir, session) = (tempfile::tempdir().unwrap(), Slow::default());
        let roots = [RootAtWork {
            name: RootName::new("records"),
            top: Vec::new(),
            placement: Placement::behind(b""),
            filter: Arc::new(Filter::new(&FilterText::default()).unwrap()),
            source: Source::open(dir.path()).ok(),
        }];
        let replica = ReplicaName::new("there");
        let work = Work {
            replica: &replica,
            session: &session,
            roots: &roots,
            trash: None,
            transfers: 2,
            proof: Proof::Written,
        };
        let done = std::thread::scope(|scope| {
            let mut ahead = Ahead::start(scope, &work);
            for names in pieces {
                ahead.begin(names.iter().map(|name| job(dir.path(), name)).collect());
            }
            assert_eq!(ahead.jobs().count(), pieces.iter().map(|names| names.len()).sum::<usize>());
            let mut done = Vec::new();
            done.extend(std::iter::from_fn(|| ahead.next(false).map(|(done, _)| done)));
            assert!(ahead.is_empty());
            done
        });
        let happened = session.happened.lock().unwrap().clone();
        (happened, done)
    }

    #[test]
    fn a_large_file_holds_up_only_the_piece_that_it_is_in() {
        let (happened, done) = take(&[&["large", "beside"], &["small"], &["last"]]);
        assert_eq!(done.iter().map(|done| done.copied).sum::<u64>(), 4);
        assert_eq!(happened.iter().filter(|what| what.starts_with('!')).count(), 4);
    }

    #[test]
    fn after_trouble_nothing_else_is_begun_and_all_of_it_ends() {
        let many: Vec<String> = (0..500).map(|number| format!("after {number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (happened, done) = take(&[&["bad"], &many]);
        assert_eq!(done.len(), 2);
        assert_eq!(done.iter().filter(|done| done.trouble.is_some()).count(), 1);
        assert!(happened.iter().filter(|what| what.starts_with("after")).count() < 500);
    }
}

//! Taking in and publishing beside the thread that plans and tells.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, unbounded};

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
    takers: usize,
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
        Ahead { scope, work, takers: 0, wanted: unbounded(), whole, published, under_way: Vec::new(), state }
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
        while self.takers < self.work.transfers.min(self.jobs_under_way()) {
            self.takers += 1;
            let (work, wanted, whole, state) =
                (self.work, self.wanted.1.clone(), self.whole.clone(), Arc::clone(&self.state));
            self.scope.spawn(move || {
                for (piece, number) in wanted {
                    let turn = Turn { piece, whole: &whole };
                    turn.piece.take(number, work, &state);
                }
            });
        }
    }

    /// One that ended. Waits for it, unless it `goes_on` and more is to be planned first. `None`: none did, or none is under way.
    pub(super) fn next(&mut self, goes_on: bool) -> Option<(Done, Touched)> {
        let (piece, done, touched) = match goes_on && !self.has_enough() {
            true => self.published.try_recv().ok(),
            false if self.is_empty() => None,
            false => self.published.recv().ok(),
        }?;
        self.under_way.retain(|other| !Arc::ptr_eq(other, &piece));
        Some((done, touched))
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

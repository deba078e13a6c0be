//! The work that is still to be done: one stack for all threads.
//!
//! A stack, not a queue: going down before going on keeps few directories waiting. What waits is one [`Batch`] for
//! each directory that has sub-directories left, with its descriptor as long as the budget allows.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::vec;

use keepwatch_journal::RelPath;

use super::Options;
use super::look::Stat;
use super::visit::Descend;

/// A directory's place in the tree. Paths are put together when they are needed: whole paths of waiting directories
/// would take the square of the depth.
#[derive(Debug)]
pub(super) struct Node {
    parent: Option<Arc<Node>>,
    /// Its name; of the walk's start the whole path from the root.
    name: Box<[u8]>,
    /// Levels below the walk's start.
    pub(super) depth: usize,
}

impl Node {
    /// Its path below the root.
    pub(super) fn path(&self) -> RelPath {
        let mut pieces = Vec::with_capacity(self.depth + 1);
        let mut node = Some(self);
        while let Some(one) = node {
            pieces.push(&*one.name);
            node = one.parent.as_deref();
        }
        if pieces.last().is_some_and(|start| start.is_empty()) {
            pieces.pop();
        }
        pieces.reverse();
        RelPath::new(pieces.join(&b'/')).expect("the kernel lists no name with a slash or NUL, and dots are left out")
    }
}

impl Drop for Node {
    /// In a loop: the chain may be longer than a thread's stack is deep.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.parent.take();
        }
    }
}

/// An open directory that counts against the budget.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    count: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory to be visited.
pub(super) struct Visit<T> {
    pub(super) node: Arc<Node>,
    /// Its parent, if that is still open; else it is opened by its path.
    pub(super) parent: Option<Arc<Held>>,
    pub(super) token: T,
}

/// A directory that is half read, while its sub-directories found so far go first.
pub(super) struct Reading<T> {
    pub(super) node: Arc<Node>,
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    pub(super) token: T,
    /// Chunks delivered.
    pub(super) chunks: u64,
}

/// What a thread does next.
pub(super) enum Job<T> {
    Visit(Visit<T>),
    Resume(Reading<T>),
}

enum Waiting<T> {
    Batch(Batch<T>),
    One(Job<T>),
}

/// Sub-directories of one directory.
struct Batch<T> {
    dir: Arc<Node>,
    held: Option<Arc<Held>>,
    names: Vec<u8>,
    start: usize,
    tokens: vec::IntoIter<(u16, T)>,
}

impl<T> Batch<T> {
    fn next(&mut self) -> Option<Visit<T>> {
        let (len, token) = self.tokens.next()?;
        let name = self.names[self.start..][..usize::from(len)].into();
        self.start += usize::from(len);
        let node = Node { parent: Some(Arc::clone(&self.dir)), name, depth: self.dir.depth + 1 };
        Some(Visit { node: Arc::new(node), parent: self.held.clone(), token })
    }
}

struct Stack<T> {
    waiting: Vec<Waiting<T>>,
    /// Threads at work: while there is one, more may come.
    busy: usize,
    idle: usize,
    stopped: bool,
}

/// The stack, shared by all threads of a walk.
pub(super) struct Pending<'a, T> {
    stack: Mutex<Stack<T>>,
    more: Condvar,
    held: Arc<AtomicUsize>,
    held_max: usize,
    cancel: Option<&'a AtomicBool>,
}

impl<'a, T> Pending<'a, T> {
    /// With the start of the walk in it.
    pub(super) fn new(at: &RelPath, token: T, options: &Options<'a>) -> Self {
        let node = Arc::new(Node { parent: None, name: at.as_bytes().into(), depth: 0 });
        let start = Waiting::One(Job::Visit(Visit { node, parent: None, token }));
        Pending {
            stack: Mutex::new(Stack { waiting: vec![start], busy: 0, idle: 0, stopped: false }),
            more: Condvar::new(),
            held: Arc::default(),
            held_max: options.descriptors_max,
            cancel: options.cancel,
        }
    }

    /// Whether the walk is to end early.
    pub(super) fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// The next thing to do; waits while others may yet bring some; `None` when all is done or the walk was stopped.
    pub(super) fn claim(&self) -> Option<(Job<T>, Claim<'_, 'a, T>)> {
        let mut stack = self.lock();
        loop {
            if stack.stopped || self.cancelled() {
                self.stop(&mut stack);
                return None;
            }
            if let Some(job) = stack.next() {
                stack.busy += 1;
                return Some((job, Claim { pending: self }));
            }
            if stack.busy == 0 {
                return None;
            }
            stack.idle += 1;
            stack = self.more.wait(stack).unwrap_or_else(PoisonError::into_inner);
            stack.idle -= 1;
        }
    }

    /// Puts the sub-directories of a directory on the stack, and below them what is left of itself.
    pub(super) fn push(&self, dir: Dir<T>, descend: Descend<T>) {
        if descend.tokens.is_empty() && matches!(dir, Dir::Done(..)) {
            return;
        }
        let (node, held, rest) = match dir {
            Dir::Done(node, fd) => (node, self.hold(fd), None),
            Dir::Half(reading) => (Arc::clone(&reading.node), None, Some(reading)),
        };
        let count = descend.tokens.len();
        let batch = Batch { dir: node, held, names: descend.names, start: 0, tokens: descend.tokens.into_iter() };
        let mut stack = self.lock();
        let count = count + usize::from(rest.is_some());
        stack.waiting.extend(rest.map(|reading| Waiting::One(Job::Resume(reading))));
        stack.waiting.push(Waiting::Batch(batch));
        // This thread takes one of them itself.
        for _ in 0..stack.idle.min(count.saturating_sub(1)) {
            self.more.notify_one();
        }
    }

    /// Keeps a directory open if the budget allows it.
    fn hold(&self, fd: OwnedFd) -> Option<Arc<Held>> {
        let held = Held { fd, count: Arc::clone(&self.held) };
        (self.held.fetch_add(1, Ordering::Relaxed) < self.held_max).then(|| Arc::new(held))
    }

    fn stop(&self, stack: &mut Stack<T>) {
        stack.stopped = true;
        stack.waiting.clear();
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Stack<T>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Stack<T> {
    fn next(&mut self) -> Option<Job<T>> {
        loop {
            match self.waiting.pop()? {
                Waiting::One(job) => return Some(job),
                Waiting::Batch(mut batch) => {
                    let visit = batch.next();
                    if batch.tokens.len() > 0 {
                        self.waiting.push(Waiting::Batch(batch));
                    }
                    if let Some(visit) = visit {
                        return Some(Job::Visit(visit));
                    }
                }
            }
        }
    }
}

/// The directory whose sub-directories are pushed.
pub(super) enum Dir<T> {
    /// All of it was read.
    Done(Arc<Node>, OwnedFd),
    /// There is more to read.
    Half(Reading<T>),
}

/// That a thread is at work. Its end tells the others, also if the visitor panics.
pub(super) struct Claim<'p, 'a, T> {
    pending: &'p Pending<'a, T>,
}

impl<T> Drop for Claim<'_, '_, T> {
    fn drop(&mut self) {
        let mut stack = self.pending.lock();
        stack.busy -= 1;
        if std::thread::panicking() {
            self.pending.stop(&mut stack);
        } else if stack.busy == 0 && stack.waiting.is_empty() {
            self.pending.more.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_nodes_of_any_depth_gives_its_path_and_goes() {
        let mut node = Arc::new(Node { parent: None, name: (*b"start").into(), depth: 0 });
        for depth in 1..=1_000_000 {
            node = Arc::new(Node { parent: Some(node), name: (*b"n").into(), depth });
        }
        assert_eq!(node.path().as_bytes().len(), b"start".len() + 2_000_000);
        assert!(node.path().as_bytes().starts_with(b"start/n/n/"));
    }
    #[test]
    fn a_thread_that_panics_leaves_nothing_to_be_done() {
        let pending = Pending::new(&RelPath::ROOT, (), &Options::default());
        let working = std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let (job, _claim) = pending.claim().expect("the start");
                let Job::Visit(visit) = job else { panic!("the start is a visit") };
                let descend = Descend { names: b"ab".to_vec(), tokens: vec![(1, ()), (1, ())] };
                pending.push(Dir::Done(visit.node, std::fs::File::open("/").expect("/").into()), descend);
                assert_eq!(pending.held.load(Ordering::Relaxed), 1);
                panic!("by intent");
            });
            working.join()
        });
        assert!(working.is_err());
        assert!(pending.claim().is_none());
        assert_eq!(pending.held.load(Ordering::Relaxed), 0, "what waited is closed");
    }
}

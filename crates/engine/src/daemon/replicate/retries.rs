//! What failed for itself, when it is tried again, and what is put off because it changes too often.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use super::meter;
use super::round::{Dirty, Paths};
use crate::model::{RelPath, Timestamp};

/// How often something that failed is tried before it is given up for a day.
const TRIES_MAX: u32 = 10;
/// The first wait before another try; doubled each time, up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The same where somebody waits for the end.
const WAIT_FIRST_ONCE: Duration = Duration::from_millis(50);
const WAIT_MAX_ONCE: Duration = Duration::from_secs(1);
/// What was given up is tried again after this time.
const GIVEN_UP: Duration = Duration::from_secs(24 * 3600);
/// Files that wait; beyond, a pass over everything finds them after [`GIVEN_UP`].
const WAITING_MAX: usize = 100_000;
/// A file that changes while or soon after it is copied is copied again after so many times the time of the last copy.
const SPACE: u32 = 10;
/// Copies that took less are not spaced.
const SHORT: Duration = Duration::from_millis(100);
/// Copies whose time is remembered.
const LONG_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug)]
struct Waiting {
    tries: u32,
    /// Its turn has come. Until it has, a record may have it looked at as often as it changes, and that is no other try.
    is_trying: bool,
    due: Instant,
    since: Timestamp,
}

/// What waits, and for how long copies took that were not short.
pub(super) struct Retries {
    once: bool,
    waiting: HashMap<(usize, RelPath), Waiting>,
    /// When the copy was done, and how long it took.
    long: HashMap<(usize, RelPath), (Instant, Duration)>,
    jitter: std::hash::RandomState,
    /// More failed than is remembered: since when.
    pub(super) overflowed: Option<Instant>,
}

impl Retries {
    pub(super) fn new(once: bool) -> Self {
        Retries {
            once,
            waiting: HashMap::new(),
            long: HashMap::new(),
            jitter: std::hash::RandomState::new(),
            overflowed: None,
        }
    }

    /// Whether nothing is tried again soon.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.values().all(|one| one.tries >= TRIES_MAX)
    }

    /// Whether nothing waits at all.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many are tried again soon, and since when the first of them has been waiting.
    pub(super) fn pending(&self) -> (u64, Option<Timestamp>) {
        let soon = || self.waiting.values().filter(|one| one.tries < TRIES_MAX);
        (soon().count() as u64, soon().map(|one| one.since).min())
    }

    /// What is to be tried now. It waits no more until it fails again.
    pub(super) fn take_due(&mut self, now: Instant) -> Dirty {
        let due = self.waiting.iter_mut().filter(|(_, one)| one.due <= now);
        let paths = due.map(|(key, one)| {
            // Unless it is told of before, it would be tried again and again.
            (one.is_trying, one.due) = (true, now + GIVEN_UP);
            key.clone()
        });
        Dirty { paths: paths.collect(), trees: Paths::new() }
    }

    /// All that failed is to be tried now.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        self.waiting.values_mut().for_each(|one| (one.tries, one.due) = (one.tries.min(TRIES_MAX), now));
    }

    /// What failed below a directory that is not there any more is to be looked at now.
    pub(super) fn hurry_below(&mut self, root: usize, dir: &RelPath) {
        let now = Instant::now();
        let below = self.waiting.iter_mut().filter(|((of, path), _)| *of == root && path.is_within(dir));
        below.for_each(|(_, one)| one.due = now);
    }

    /// It failed once more; `true` if it is given up now and was not before.
    pub(super) fn failed(&mut self, root: usize, path: &RelPath, is_final: bool) -> bool {
        let key = (root, path.clone());
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&key) {
            self.overflowed.get_or_insert_with(Instant::now);
            return true;
        }
        let (first, most) = if self.once { (WAIT_FIRST_ONCE, WAIT_MAX_ONCE) } else { (WAIT_FIRST, WAIT_MAX) };
        let now = Instant::now();
        let jitter = (self.jitter.hash_one((&key, now)) % 512) as u32;
        let one =
            self.waiting.entry(key).or_insert(Waiting { tries: 0, is_trying: true, due: now, since: meter::now() });
        if !std::mem::take(&mut one.is_trying) && !is_final {
            return false;
        }
        let was_given_up = one.tries >= TRIES_MAX;
        one.tries = if is_final { TRIES_MAX } else { (one.tries + 1).min(TRIES_MAX) };
        let wait = (first * 2_u32.pow(one.tries.saturating_sub(1).min(16))).min(most);
        // Up to half as long again, so that what failed together is not tried together.
        one.due = now + if one.tries >= TRIES_MAX { GIVEN_UP } else { wait + wait / 1024 * jitter };
        one.tries >= TRIES_MAX && !was_given_up
    }

    /// It is there, or not to be there any more; `true` if it had been given up.
    pub(super) fn forget(&mut self, root: usize, path: &RelPath) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        self.waiting.remove(&(root, path.clone())).is_some_and(|one| one.tries >= TRIES_MAX)
    }

    /// A copy took so long.
    pub(super) fn took(&mut self, root: usize, path: RelPath, time: Duration) {
        if time < SHORT {
            return;
        }
        let now = Instant::now();
        if self.long.len() >= LONG_MAX {
            self.long.retain(|_, (done, took)| now.duration_since(*done) < *took * SPACE);
        }
        if self.long.len() < LONG_MAX {
            self.long.insert((root, path), (now, time));
        }
    }

    /// Whether its last copy is too short a time ago; then it is looked at again when it is not.
    pub(super) fn puts_off(&mut self, root: usize, path: &RelPath) -> bool {
        if self.long.is_empty() {
            return false;
        }
        let key = (root, path.clone());
        let Some((done, took)) = self.long.get(&key) else { return false };
        let due = *done + *took * SPACE;
        if due <= Instant::now() {
            self.long.remove(&key);
            return false;
        }
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        let since = meter::now();
        let one = self.waiting.entry(key).or_insert(Waiting { tries: 0, is_trying: false, due, since });
        one.due = due;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_given_up_once_and_tried_again_after_a_day() {
        let (mut retries, path) = (Retries::new(false), RelPath::new("a").unwrap());
        let later = Instant::now() + WAIT_MAX * 2;
        let given_up = (0..TRIES_MAX + 3).filter(|_| {
            let is_given_up = retries.failed(0, &path, false);
            // Before its time it is not tried, only looked at.
            assert!(!retries.failed(0, &path, false));
            retries.take_due(later);
            is_given_up
        });
        assert_eq!(given_up.count(), 1);
        assert!(retries.is_idle() && retries.take_due(Instant::now() + WAIT_MAX * 2).is_empty());
        assert!(!retries.take_due(Instant::now() + GIVEN_UP).is_empty());
        retries.hurry();
        assert!(!retries.take_due(Instant::now()).is_empty());
        retries.hurry_below(0, &RelPath::new("b").unwrap());
        assert!(retries.take_due(Instant::now()).is_empty());
        retries.hurry_below(0, &RelPath::ROOT);
        assert!(!retries.take_due(Instant::now()).is_empty());
        assert!(retries.forget(0, &path) && !retries.forget(0, &path));
        assert!(retries.failed(0, &path, true), "what cannot be is given up at once");
    }

    #[test]
    fn a_long_copy_is_not_repeated_at_once() {
        let (mut retries, path) = (Retries::new(false), RelPath::new("a").unwrap());
        retries.took(0, path.clone(), Duration::from_millis(1));
        assert!(!retries.puts_off(0, &path));
        retries.took(0, path.clone(), Duration::from_secs(1));
        assert!(retries.puts_off(0, &path) && !retries.is_idle());
        assert!(retries.take_due(Instant::now() + Duration::from_secs(9)).is_empty());
        assert!(!retries.take_due(Instant::now() + Duration::from_secs(11)).is_empty());
    }
}

//! When is a version complete? A pure machine: it is told of touches, closes and verdicts, and says what to look at when.
//!
//! It holds at most [`TRACKED_MAX`] files. What it cannot take is not lost: the inventory knows which versions have
//! not settled, and they are offered again when there is room.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Files tracked at once.
pub const TRACKED_MAX: usize = 20_000;
/// How soon a file is looked at again whose version changed under the look.
pub const AGAIN: Duration = Duration::from_millis(200);
/// A file that somebody holds open is looked at again after this time, and then each time after as long as it has been held, up
/// to [`HELD_MAX`]: its close may be told of under a name that it has no more, or by nobody.
const HELD_MIN: Duration = Duration::from_secs(1);
const HELD_MAX: Duration = Duration::from_secs(60);

/// How long to wait for what.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Size and mtime must stay the same this long where nothing better can be known.
    pub settle: Duration,
    /// The same after a writer was seen to close it: shorter where all writers are on this machine.
    pub settle_closed: Duration,
    /// A file is never settled sooner after its last close.
    pub settle_min: Duration,
    /// A file that somebody holds open for longer than this is shown.
    pub open_max: Duration,
    /// Whether a lease may be asked for.
    pub lease: bool,
}

/// What makes one version unlike another of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes.
    pub size: u64,
    /// Modification time.
    pub mtime_ns: i64,
}

/// What a look at a due file showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A lease was granted: no writer on this machine.
    NoWriter(Shape),
    /// Somebody has it open for writing.
    Writer,
    /// A lease says nothing here.
    NoLease(Shape),
    /// It is gone, or its name says that it is not finished.
    Leave,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Complete, by lease.
    ByLease,
    /// Complete, because it stayed the same.
    ByQuiet,
    /// Not yet.
    Wait,
    /// Not followed any more.
    Dropped,
}

#[derive(Clone, Debug)]
struct Item<P> {
    place: P,
    due: Instant,
    /// Since when it has had this shape, where that has to be waited for.
    quiet: Option<(Shape, Instant)>,
    /// Since when somebody has held it open.
    held: Option<Instant>,
    /// A writer was seen to close it, and nobody wrote since.
    closed: bool,
}

/// The machine: `O` names a file across renames, `P` is where it is.
#[derive(Debug)]
pub struct Settle<O, P> {
    items: HashMap<O, Item<P>, foldhash::fast::RandomState>,
    by_due: BTreeSet<(Instant, O)>,
    refused: bool,
}

impl<O: Copy + Ord + Hash, P: Clone> Default for Settle<O, P> {
    fn default() -> Self {
        Settle { items: HashMap::default(), by_due: BTreeSet::new(), refused: false }
    }
}

impl<O: Copy + Ord + Hash, P: Clone> Settle<O, P> {
    /// The file was written, created or renamed, and nothing says that its writer is done: look after `wait`.
    pub fn touched(&mut self, object: O, place: P, now: Instant, wait: Duration) {
        match self.items.get_mut(&object) {
            Some(item) => {
                item.place = place;
                item.quiet = None;
                item.closed = false;
                if item.held.is_none() {
                    self.set_due(object, now + wait);
                }
            }
            None => self.add(object, place, now + wait, false),
        }
    }

    /// A writer closed it: look after `wait`.
    pub fn closed(&mut self, object: O, place: P, now: Instant, wait: Duration) {
        match self.items.get_mut(&object) {
            Some(item) => {
                item.place = place;
                item.quiet = None;
                item.held = None;
                item.closed = true;
                self.set_due(object, now + wait);
            }
            None => self.add(object, place, now + wait, true),
        }
    }

    /// A writer closed it under a name that it has no more: look after `wait`, where it is followed.
    pub fn released(&mut self, object: O, now: Instant, wait: Duration) {
        if let Some(place) = self.items.get(&object).map(|item| item.place.clone()) {
            self.closed(object, place, now, wait);
        }
    }

    /// It is followed under another name from now on. What its writer has closed is looked at after `wait` at the latest: the
    /// former name may have been one to wait longer for.
    pub fn renamed(&mut self, object: O, place: P, now: Instant, wait: Duration) {
        let Some(item) = self.items.get_mut(&object) else { return };
        item.place = place;
        if item.closed && item.held.is_none() {
            let due = item.due.min(now + wait);
            self.set_due(object, due);
        }
    }

    /// Whether it is followed.
    #[must_use]
    pub fn follows(&self, object: O) -> bool {
        self.items.contains_key(&object)
    }

    /// It is gone.
    pub fn gone(&mut self, object: O) {
        if let Some(item) = self.items.remove(&object) {
            self.by_due.remove(&(item.due, object));
        }
    }

    /// When something is to be looked at next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// A file that is due, and where it is. The look's result is told by [`Settle::seen`].
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<(O, P)> {
        let (due, object) = self.by_due.first()?;
        if *due > now {
            return None;
        }
        self.items.get(object).map(|item| (*object, item.place.clone()))
    }

    /// What a look at it showed.
    pub fn seen(&mut self, object: O, seen: Seen, now: Instant, patience: &Patience) -> Verdict {
        let Some(item) = self.items.get_mut(&object) else { return Verdict::Dropped };
        match seen {
            Seen::Leave => {
                self.gone(object);
                Verdict::Dropped
            }
            Seen::NoWriter(_) => {
                self.gone(object);
                Verdict::ByLease
            }
            Seen::Writer => {
                let since = *item.held.get_or_insert(now);
                item.quiet = None;
                self.set_due(object, now + now.duration_since(since).clamp(HELD_MIN, HELD_MAX));
                Verdict::Wait
            }
            Seen::NoLease(shape) => {
                let since = match item.quiet {
                    Some((before, since)) if before == shape => since,
                    _ => now,
                };
                item.quiet = Some((shape, since));
                item.held = None;
                let patience = if item.closed { patience.settle_closed } else { patience.settle };
                if now.duration_since(since) >= patience {
                    self.gone(object);
                    return Verdict::ByQuiet;
                }
                self.set_due(object, since + patience);
                Verdict::Wait
            }
        }
    }

    /// Its version changed under the look: again, soon.
    pub fn again(&mut self, object: O, now: Instant) {
        if let Some(item) = self.items.get_mut(&object) {
            item.quiet = None;
            self.set_due(object, now + AGAIN);
        }
    }

    /// Files that have been held open for longer than `open_max`.
    pub fn held(&self, now: Instant, open_max: Duration) -> impl Iterator<Item = &P> {
        self.items
            .values()
            .filter(move |item| item.held.is_some_and(|since| now.duration_since(since) >= open_max))
            .map(|item| &item.place)
    }

    /// How many files are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A file is not followed for now.
    pub fn refuse(&mut self) {
        self.refused = true;
    }

    /// Whether a file was refused since this was last asked; the inventory then knows more unsettled ones.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn add(&mut self, object: O, place: P, due: Instant, closed: bool) {
        if self.items.len() >= TRACKED_MAX {
            self.refuse();
            return;
        }
        self.items.insert(object, Item { place, due, quiet: None, held: None, closed });
        self.by_due.insert((due, object));
    }

    fn set_due(&mut self, object: O, due: Instant) {
        if let Some(item) = self.items.get_mut(&object) {
            self.by_due.remove(&(item.due, object));
            item.due = due;
            self.by_due.insert((due, object));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        settle: Duration::from_secs(60),
        settle_closed: Duration::from_secs(2),
        settle_min: Duration::ZERO,
        open_max: Duration::from_secs(3600),
        lease: true,
    };
    const SHAPE: Shape = Shape { size: 5, mtime_ns: 7 };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_close_is_looked_at_at_once_and_a_lease_settles_it() {
        let start = Instant::now();
        let mut settle: Settle<u64, &str> = Settle::default();
        settle.touched(1, "a", start, seconds(2));
        assert_eq!(settle.due(start), None);
        settle.closed(1, "a", start, Duration::ZERO);
        assert_eq!(settle.due(start), Some((1, "a")));
        assert_eq!(settle.seen(1, Seen::NoWriter(SHAPE), start, &PATIENCE), Verdict::ByLease);
        assert!(settle.is_empty() && settle.next_due().is_none());
    }

    #[test]
    fn a_writer_is_waited_for_and_its_writes_do_not_bring_the_look_forward() {
        let start = Instant::now();
        let mut settle: Settle<u64, &str> = Settle::default();
        settle.closed(1, "a", start, Duration::ZERO);
        assert_eq!(settle.seen(1, Seen::Writer, start, &PATIENCE), Verdict::Wait);
        assert_eq!(settle.next_due(), Some(start + HELD_MIN), "its close may go unheard");
        assert_eq!(settle.seen(1, Seen::Writer, start + seconds(100), &PATIENCE), Verdict::Wait);
        settle.touched(1, "a", start + seconds(101), seconds(2));
        assert_eq!(settle.next_due(), Some(start + seconds(100) + HELD_MAX));
        settle.released(1, start + seconds(110), seconds(3));
        assert_eq!(settle.next_due(), Some(start + seconds(113)), "closed under a name that it has no more");
        settle.released(2, start, seconds(3));
        assert!(!settle.follows(2));
        assert_eq!(settle.seen(1, Seen::Writer, start, &PATIENCE), Verdict::Wait);
        assert_eq!(settle.held(start + seconds(3600), PATIENCE.open_max).count(), 1);
        settle.closed(1, "a", start + seconds(200), Duration::ZERO);
        assert_eq!(settle.due(start + seconds(200)), Some((1, "a")));
    }

    #[test]
    fn where_a_lease_says_nothing_the_shape_must_stay() {
        let start = Instant::now();
        let mut settle: Settle<u64, &str> = Settle::default();
        settle.closed(2, "closed", start, Duration::ZERO);
        assert_eq!(settle.seen(2, Seen::NoLease(SHAPE), start, &PATIENCE), Verdict::Wait);
        assert_eq!(settle.seen(2, Seen::NoLease(SHAPE), start + seconds(2), &PATIENCE), Verdict::ByQuiet);
        settle.touched(1, "a", start, Duration::ZERO);
        assert_eq!(settle.seen(1, Seen::NoLease(SHAPE), start, &PATIENCE), Verdict::Wait);
        assert_eq!(settle.next_due(), Some(start + seconds(60)));
        let grown = Shape { size: 6, ..SHAPE };
        assert_eq!(settle.seen(1, Seen::NoLease(grown), start + seconds(60), &PATIENCE), Verdict::Wait);
        assert_eq!(settle.seen(1, Seen::NoLease(grown), start + seconds(119), &PATIENCE), Verdict::Wait);
        assert_eq!(settle.seen(1, Seen::NoLease(grown), start + seconds(120), &PATIENCE), Verdict::ByQuiet);
    }

    #[test]
    fn what_was_closed_under_a_name_to_wait_for_is_looked_at_once_it_has_a_better_one() {
        let start = Instant::now();
        let mut settle: Settle<u64, &str> = Settle::default();
        settle.closed(1, ".a.Xy12zz", start, seconds(2));
        settle.renamed(1, "a", start + seconds(1), Duration::ZERO);
        assert_eq!(settle.due(start + seconds(1)), Some((1, "a")));
        settle.renamed(1, ".a", start + seconds(1), seconds(2));
        assert_eq!(settle.next_due(), Some(start + seconds(1)), "no name is waited for twice");
        settle.touched(2, "b", start, seconds(2));
        settle.renamed(2, "c", start, Duration::ZERO);
        assert_eq!(settle.seen(1, Seen::NoWriter(SHAPE), start, &PATIENCE), Verdict::ByLease);
        assert_eq!(settle.next_due(), Some(start + seconds(2)), "its writer has it open");
    }

    #[test]
    fn it_takes_no_more_than_its_bound_and_says_so() {
        let start = Instant::now();
        let mut settle: Settle<usize, ()> = Settle::default();
        for object in 0..=TRACKED_MAX {
            settle.touched(object, (), start, Duration::ZERO);
        }
        assert_eq!(settle.len(), TRACKED_MAX);
        assert!(settle.take_refused());
        assert!(!settle.take_refused());
    }
}

//! What is to be done when: a bounded set of keyed appointments.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Appointments by key; a key has one at most.
#[derive(Debug)]
pub struct Due<K, V> {
    items: HashMap<K, (Instant, V), foldhash::fast::RandomState>,
    order: BTreeSet<(Instant, K)>,
    max: usize,
}

impl<K: Clone + Ord + Hash, V> Due<K, V> {
    /// No appointments; at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Due { items: HashMap::default(), order: BTreeSet::new(), max }
    }

    /// Makes one, unless the key has one that is not later.
    pub fn add(&mut self, key: K, value: V, at: Instant) {
        if let Some((before, _)) = self.items.get(&key) {
            if *before <= at {
                return;
            }
            self.order.remove(&(*before, key.clone()));
        }
        self.order.insert((at, key.clone()));
        self.items.insert(key, (at, value));
    }

    /// Whether the key has one.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.items.contains_key(key)
    }

    /// Cancels the key's.
    pub fn cancel(&mut self, key: &K) {
        if let Some((at, _)) = self.items.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// The first one that is due; or, when there are too many, the first one.
    pub fn pop(&mut self, now: Instant) -> Option<(K, V)> {
        let (at, _) = self.order.first()?;
        if *at > now && self.items.len() <= self.max {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        let (_, value) = self.items.remove(&key)?;
        Some((key, value))
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earlier_appointment_stays_and_a_full_book_is_emptied_early() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut due = Due::new(2);
        due.add("a", 1, later);
        due.add("a", 2, later + Duration::from_secs(1));
        assert_eq!(due.pop(start), None);
        assert_eq!(due.next(), Some(later));
        due.add("b", 3, later);
        due.add("c", 4, later);
        assert_eq!(due.pop(start), Some(("a", 1)));
        assert_eq!(due.pop(start), None);
        due.cancel(&"b");
        assert_eq!(due.pop(later), Some(("c", 4)));
        assert!(due.is_empty());
    }
}

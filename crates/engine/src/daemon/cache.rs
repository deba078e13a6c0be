//! A bounded map that forgets what was not used lately.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Two generations: when the young one is full it becomes the old one, and the former old one is dropped.
/// What is looked up moves to the young one, so an entry survives as long as it is used. Holds at most
/// `2 × capacity` entries; every operation is O(1).
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// An empty cache of two generations of `capacity` entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Cache { young: HashMap::default(), old: HashMap::default(), capacity }
    }

    /// The value, which counts as a use.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts a value in, in place of the one that was there.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            // Their tables are kept: to grow a new one each time costs more than all else here.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Takes a value out.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn keeps_what_is_used_and_stays_within_its_bound() {
        let mut cache = Cache::new(10);
        cache.insert(0, "kept");
        for key in 1..1000 {
            cache.insert(key, "other");
            assert!(cache.get(&0).is_some(), "lost after {key}");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert!(cache.get(&1).is_none());
    }
}

//! Counts the most frequent keys in bounded memory (the Space-Saving algorithm).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Counts how often keys occur, for a bounded number of keys.
///
/// Counts are exact up to `capacity` different keys. Beyond that, a new key replaces the one with the lowest count and
/// starts from that count (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
/// Streams", 2005). A count may then be too high by up to [`KeyFrequency::max_overcount`], but never too low. A key
/// with more than 1/`capacity` of all occurrences is never missed.
#[derive(Clone, Debug)]
pub(super) struct FrequentKeys<K> {
    capacity: usize,
    counts: HashMap<K, KeyFrequency>,
    /// The same counts, lowest first. Empty until a key is replaced.
    by_count: BTreeSet<(u64, K)>,
}

/// The frequency of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyFrequency {
    pub(super) count: u64,
    /// The maximal difference between the count and the true number of occurrences. The count is never too low.
    pub(super) max_overcount: u64,
}

impl<K: Clone + Eq + Hash + Ord> FrequentKeys<K> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { capacity, counts: HashMap::new(), by_count: BTreeSet::new() }
    }

    /// Counts one occurrence of a key.
    pub(super) fn count(&mut self, key: &K) {
        if let Some(counted) = self.counts.get_mut(key) {
            counted.count += 1;
            if !self.by_count.is_empty() {
                self.by_count.remove(&(counted.count - 1, key.clone()));
                self.by_count.insert((counted.count, key.clone()));
            }
            return;
        }
        let lowest = if self.counts.len() < self.capacity { 0 } else { self.evict_lowest() };
        self.counts.insert(key.clone(), KeyFrequency { count: lowest + 1, max_overcount: lowest });
        if !self.by_count.is_empty() {
            self.by_count.insert((lowest + 1, key.clone()));
        }
    }

    /// Removes the key with the lowest count, and returns that count.
    fn evict_lowest(&mut self) -> u64 {
        if self.by_count.is_empty() {
            self.by_count = self.counts.iter().map(|(key, counted)| (counted.count, key.clone())).collect();
        }
        let Some((lowest, key)) = self.by_count.pop_first() else { return 0 };
        self.counts.remove(&key);
        lowest
    }

    /// Returns at most `limit` keys, the most frequent first, and the number of counted keys beyond those.
    pub(super) fn most_frequent(self, limit: usize) -> (Vec<(K, KeyFrequency)>, usize) {
        let mut keys: Vec<(K, KeyFrequency)> = self.counts.into_iter().collect();
        keys.sort_by(|(key_a, a), (key_b, b)| b.count.cmp(&a.count).then_with(|| key_a.cmp(key_b)));
        let others = keys.len().saturating_sub(limit);
        keys.truncate(limit);
        (keys, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_up_to_the_capacity() {
        let mut keys = FrequentKeys::with_capacity(3);
        for key in ["a", "b", "a", "c", "a", "b"] {
            keys.count(&key);
        }
        let (most, rest) = keys.most_frequent(2);
        let exact = |count| KeyFrequency { count, max_overcount: 0 };
        assert_eq!((most, rest), (vec![("a", exact(3)), ("b", exact(2))], 1));
    }

    #[test]
    fn counts_are_approximate_beyond_the_capacity() {
        let mut keys = FrequentKeys::with_capacity(8);
        for number in 0..1_000_u32 {
            keys.count(&number);
            if number % 2 == 0 {
                keys.count(&1_000_000);
            }
        }
        let (most, rest) = keys.most_frequent(1);
        let [(key, counted)] = most[..] else { panic!("expected one key: {most:?}") };
        assert_eq!((key, rest), (1_000_000, 7));
        assert!(counted.count >= 500 && counted.count - counted.max_overcount <= 500, "{counted:?}");
    }
}

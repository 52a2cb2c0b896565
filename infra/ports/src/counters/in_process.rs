//! Counters in this process's memory: the embedded default.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use quick_cache::unsync::Cache;

use super::{CounterKey, Counters, CountersError, ReservationRequest};

/// Counters in memory. They hold a bounded number of keys: one that was dropped starts again from the floor of its
/// next reservation, that is, from the log.
pub struct InProcessCounters {
    last_numbers: Mutex<Cache<CounterKey, u64>>,
}

impl InProcessCounters {
    /// Keys that [`InProcessCounters::default`] keeps: some 10 MB.
    const DEFAULT_CAPACITY: usize = 100_000;

    /// Counters that keep `keys` keys.
    pub fn with_capacity(keys: usize) -> Self {
        Self { last_numbers: Mutex::new(Cache::new(keys)) }
    }

    fn with_lock<T>(&self, work: impl FnOnce(&mut Cache<CounterKey, u64>) -> T) -> T {
        work(&mut self.last_numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for InProcessCounters {
    fn default() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }
}

#[async_trait]
impl Counters for InProcessCounters {
    async fn reserve(&self, reservations: &[ReservationRequest]) -> Result<Vec<u64>, CountersError> {
        Ok(self.with_lock(|counters| {
            let mut reserve = |wish: &ReservationRequest| {
                let last = counters.get(&wish.key).copied().unwrap_or(0).max(wish.floor);
                counters.insert(wish.key, last + wish.count);
                last + 1
            };
            reservations.iter().map(&mut reserve).collect()
        }))
    }

    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError> {
        self.with_lock(|counters| {
            if counters.get(&key) == Some(&from) {
                counters.insert(key, to);
            }
        });
        Ok(())
    }
}

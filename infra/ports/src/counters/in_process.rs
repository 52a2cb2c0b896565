//! Counters in the memory of this process: the embedded default.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use quick_cache::unsync::Cache;

use super::{CounterKey, Counters, CountersError, ReservationRequest};

/// Counters in memory. The number of keys is bounded: an evicted counter restarts from the floor of its next request,
/// that is, from the log.
pub struct InProcessCounters {
    last_numbers: Mutex<Cache<CounterKey, u64>>,
}

impl InProcessCounters {
    /// The capacity of [`InProcessCounters::default`] in keys: about 10 MB.
    const DEFAULT_CAPACITY: usize = 100_000;

    /// Creates counters for up to `keys` keys.
    pub fn with_capacity(keys: usize) -> Self {
        Self { last_numbers: Mutex::new(Cache::new(keys)) }
    }

    fn with_lock<T>(&self, operation: impl FnOnce(&mut Cache<CounterKey, u64>) -> T) -> T {
        operation(&mut self.last_numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for InProcessCounters {
    fn default() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }
}

#[async_trait]
impl Counters for InProcessCounters {
    async fn reserve(&self, requests: &[ReservationRequest]) -> Result<Vec<u64>, CountersError> {
        Ok(self.with_lock(|counters| {
            let mut reserve = |request: &ReservationRequest| {
                let last = counters.get(&request.key).copied().unwrap_or(0).max(request.floor);
                counters.insert(request.key, last + request.count);
                last + 1
            };
            requests.iter().map(&mut reserve).collect()
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

//! A limit on reads that run directly on async workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A read that runs longer than this may be waiting for the disk.
const RECENT_READ: Duration = Duration::from_micros(200);

/// Keeps one worker free while the disk does not respond, so that health checks and error responses still work.
///
/// Reads usually take microseconds, and then all workers may run them. The last free worker runs a read only if one
/// of the reads in progress began at most [`RECENT_READ`] ago; otherwise all other workers may be blocked. One case
/// remains in which no worker is free: the disk stops responding while the last two free workers begin uncached
/// reads.
#[derive(Debug)]
pub(super) struct WorkerReadLimiter {
    epoch: Instant,
    /// As many slots as workers; a read takes any free one. A slot holds the start of its read, in microseconds after
    /// `epoch`, or [`NO_READ`].
    started_at: Box<[AtomicU64]>,
}

const NO_READ: u64 = u64::MAX;

/// A read in progress on a worker. The read ends when the guard is dropped.
#[derive(Debug)]
pub(super) struct WorkerReadGuard<'a>(&'a AtomicU64);

impl WorkerReadLimiter {
    pub(super) fn new(workers: usize) -> Self {
        Self { epoch: Instant::now(), started_at: (0..workers).map(|_| AtomicU64::new(NO_READ)).collect() }
    }

    /// Begins a read, or returns `None` if it has to run on a thread for blocking work.
    pub(super) fn try_begin(&self) -> Option<WorkerReadGuard<'_>> {
        self.try_begin_at(self.epoch.elapsed())
    }

    fn try_begin_at(&self, now: Duration) -> Option<WorkerReadGuard<'_>> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(NO_READ - 1);
        let now = micros(now);
        let (mut free, mut has_recent_read) = (0, false);
        for slot in &self.started_at {
            match slot.load(Ordering::Relaxed) {
                NO_READ => free += 1,
                began => has_recent_read |= now.saturating_sub(began) <= micros(RECENT_READ),
            }
        }
        if free == 0 || (free == 1 && !has_recent_read) {
            return None;
        }
        let slot = self
            .started_at
            .iter()
            .find(|slot| slot.compare_exchange(NO_READ, now, Ordering::Relaxed, Ordering::Relaxed).is_ok())?;
        Some(WorkerReadGuard(slot))
    }
}

impl Drop for WorkerReadGuard<'_> {
    fn drop(&mut self) {
        self.0.store(NO_READ, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn all_workers_may_read_while_reads_are_fast() {
        let limiter = WorkerReadLimiter::new(2);
        let first = limiter.try_begin_at(after_micros(1_000));
        let second = limiter.try_begin_at(after_micros(1_100));
        assert!(first.is_some() && second.is_some());
        assert!(limiter.try_begin_at(after_micros(1_101)).is_none());
        drop(first);
        assert!(limiter.try_begin_at(after_micros(1_102)).is_some());
    }

    #[test]
    fn the_last_worker_stays_free_while_the_others_may_be_blocked() {
        let limiter = WorkerReadLimiter::new(3);
        let _blocked = [limiter.try_begin_at(after_micros(1_000)), limiter.try_begin_at(after_micros(1_000))];
        for later in [1_201, 5_000, 1_000_000] {
            assert!(limiter.try_begin_at(after_micros(later)).is_none(), "a read began after {later} µs");
        }
    }

    #[test]
    fn finished_reads_do_not_hide_a_blocked_one() {
        let limiter = WorkerReadLimiter::new(2);
        let _blocked = limiter.try_begin_at(after_micros(0));
        assert!(limiter.try_begin_at(after_micros(100)).is_some());
        assert!(limiter.try_begin_at(after_micros(250)).is_none());
    }

    #[test]
    fn a_single_worker_runs_no_reads() {
        assert!(WorkerReadLimiter::new(1).try_begin_at(after_micros(1_000)).is_none());
    }

    #[test]
    fn a_refused_read_is_not_counted() {
        let limiter = WorkerReadLimiter::new(2);
        let blocked = limiter.try_begin_at(after_micros(0));
        assert!((0..10).all(|_| limiter.try_begin_at(after_micros(10_000)).is_none()));
        drop(blocked);
        assert!(limiter.try_begin_at(after_micros(10_001)).is_some());
    }
}

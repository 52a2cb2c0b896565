//! How many reads run on the workers that ask for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A read that has run for longer may be waiting for the disk.
const RECENT_READ: Duration = Duration::from_micros(200);

/// Sees to it that one worker stays free where the disk stands still, for health checks and for telling clients that it
/// does.
///
/// Reads are over in some microseconds, and then all workers may make them. The last free worker takes one only beside
/// another that began just now: where none did, the others may all be waiting. What is left to chance is a disk that stops
/// just as two reads of what is not in memory begin.
#[derive(Debug)]
pub(super) struct WorkerReadLimiter {
    epoch: Instant,
    /// For each worker, when the read that it may be making began, in microseconds after `since`; [`FREE`] if it makes
    /// none.
    started_at: Box<[AtomicU64]>,
}

const NO_READ: u64 = u64::MAX;

/// A read that runs on a worker, until dropped.
#[derive(Debug)]
pub(super) struct WorkerReadGuard<'a>(&'a AtomicU64);

impl WorkerReadLimiter {
    pub(super) fn new(workers: usize) -> Self {
        Self { epoch: Instant::now(), started_at: (0..workers).map(|_| AtomicU64::new(NO_READ)).collect() }
    }

    /// Lets a read begin, or refuses it: then it is for a thread that may be held up.
    pub(super) fn try_begin(&self) -> Option<WorkerReadGuard<'_>> {
        self.try_begin_at(self.epoch.elapsed())
    }

    fn try_begin_at(&self, now: Duration) -> Option<WorkerReadGuard<'_>> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(NO_READ - 1);
        let now = micros(now);
        let (mut free, mut has_recent_read) = (0, false);
        for began in &self.started_at {
            match began.load(Ordering::Relaxed) {
                NO_READ => free += 1,
                began => has_recent_read |= now.saturating_sub(began) <= micros(RECENT_READ),
            }
        }
        if free == 0 || (free == 1 && !has_recent_read) {
            return None;
        }
        let place = self.started_at.iter().find(|began| {
            began.compare_exchange(NO_READ, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })?;
        Some(WorkerReadGuard(place))
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
        let at_once = WorkerReadLimiter::new(2);
        let first = at_once.try_begin_at(after_micros(1_000));
        let second = at_once.try_begin_at(after_micros(1_100));
        assert!(first.is_some() && second.is_some());
        assert!(at_once.try_begin_at(after_micros(1_101)).is_none());
        drop(first);
        assert!(at_once.try_begin_at(after_micros(1_102)).is_some());
    }

    #[test]
    fn the_last_worker_stays_free_while_the_others_may_be_blocked() {
        let at_once = WorkerReadLimiter::new(3);
        let _waiting = [at_once.try_begin_at(after_micros(1_000)), at_once.try_begin_at(after_micros(1_000))];
        for later in [1_201, 5_000, 1_000_000] {
            assert!(at_once.try_begin_at(after_micros(later)).is_none(), "{later}");
        }
    }

    #[test]
    fn finished_reads_do_not_hide_a_blocked_one() {
        let at_once = WorkerReadLimiter::new(2);
        let _waiting = at_once.try_begin_at(after_micros(0));
        assert!(at_once.try_begin_at(after_micros(100)).is_some());
        assert!(at_once.try_begin_at(after_micros(250)).is_none());
    }

    #[test]
    fn a_lone_worker_makes_no_reads() {
        assert!(WorkerReadLimiter::new(1).try_begin_at(after_micros(1_000)).is_none());
    }

    #[test]
    fn a_refused_read_is_not_counted() {
        let at_once = WorkerReadLimiter::new(2);
        let waiting = at_once.try_begin_at(after_micros(0));
        assert!((0..10).all(|_| at_once.try_begin_at(after_micros(10_000)).is_none()));
        drop(waiting);
        assert!(at_once.try_begin_at(after_micros(10_001)).is_some());
    }
}

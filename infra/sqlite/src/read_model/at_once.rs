//! How many reads run on the workers that ask for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A read that has run for longer may be waiting for the disk.
const YOUNG: Duration = Duration::from_micros(200);

/// Sees to it that one worker stays free where the disk stands still, for health checks and for telling clients that it
/// does.
///
/// Reads are over in some microseconds, and then all workers may make them. The last free worker takes one only beside
/// another that began just now: where none did, the others may all be waiting. What is left to chance is a disk that stops
/// just as two reads of what is not in memory begin.
#[derive(Debug)]
pub(super) struct AtOnce {
    since: Instant,
    /// For each worker, when the read that it may be making began, in microseconds after `since`; [`FREE`] if it makes
    /// none.
    began: Box<[AtomicU64]>,
}

const FREE: u64 = u64::MAX;

/// A read that runs on a worker, until dropped.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a AtomicU64);

impl AtOnce {
    pub(super) fn new(workers: usize) -> Self {
        Self { since: Instant::now(), began: (0..workers).map(|_| AtomicU64::new(FREE)).collect() }
    }

    /// Lets a read begin, or refuses it: then it is for a thread that may be held up.
    pub(super) fn begin(&self) -> Option<Running<'_>> {
        self.begin_at(self.since.elapsed())
    }

    fn begin_at(&self, now: Duration) -> Option<Running<'_>> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(FREE - 1);
        let now = micros(now);
        let (mut free, mut young) = (0, false);
        for began in &self.began {
            match began.load(Ordering::Relaxed) {
                FREE => free += 1,
                began => young |= now.saturating_sub(began) <= micros(YOUNG),
            }
        }
        if free == 0 || (free == 1 && !young) {
            return None;
        }
        let place = self
            .began
            .iter()
            .find(|began| began.compare_exchange(FREE, now, Ordering::Relaxed, Ordering::Relaxed).is_ok())?;
        Some(Running(place))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(FREE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn all_workers_read_while_reads_are_quick_and_no_more_than_there_are() {
        let at_once = AtOnce::new(2);
        let first = at_once.begin_at(at(1_000));
        let second = at_once.begin_at(at(1_100));
        assert!(first.is_some() && second.is_some());
        assert!(at_once.begin_at(at(1_101)).is_none());
        drop(first);
        assert!(at_once.begin_at(at(1_102)).is_some());
    }

    #[test]
    fn the_last_worker_stays_free_while_the_others_may_wait() {
        let at_once = AtOnce::new(3);
        let _waiting = [at_once.begin_at(at(1_000)), at_once.begin_at(at(1_000))];
        for later in [1_201, 5_000, 1_000_000] {
            assert!(at_once.begin_at(at(later)).is_none(), "{later}");
        }
    }

    #[test]
    fn reads_that_are_over_do_not_hide_one_that_waits() {
        let at_once = AtOnce::new(2);
        let _waiting = at_once.begin_at(at(0));
        assert!(at_once.begin_at(at(100)).is_some());
        assert!(at_once.begin_at(at(250)).is_none());
    }

    #[test]
    fn a_lone_worker_makes_no_reads() {
        assert!(AtOnce::new(1).begin_at(at(1_000)).is_none());
    }

    #[test]
    fn a_read_that_was_refused_counts_no_more() {
        let at_once = AtOnce::new(2);
        let waiting = at_once.begin_at(at(0));
        assert!((0..10).all(|_| at_once.begin_at(at(10_000)).is_none()));
        drop(waiting);
        assert!(at_once.begin_at(at(10_001)).is_some());
    }
}

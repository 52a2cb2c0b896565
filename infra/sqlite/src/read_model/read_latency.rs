//! Whether reads are held up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A read that takes longer is held up: by the disk, or because its thread has to wait for a processor.
const SLOW_READ: Duration = Duration::from_millis(1);

/// From here on reads are taken to come from the disk: three on workers that were held up, and none between them that was
/// not.
const SLOW_THRESHOLD: u32 = 12;

/// The most that is kept in mind, so that it is made up for before long.
const MAX_SLOW_SCORE: u32 = 64;

/// Where a read was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadThread {
    /// On the worker that asked.
    Worker,
    /// On a thread for blocking work.
    Blocking,
}

impl ReadThread {
    /// What a read that was held up here counts for, where one that was not counts for one.
    fn weight(self) -> u32 {
        match self {
            Self::Worker => 4,
            Self::Blocking => 1,
        }
    }
}

/// Tells from how long reads took whether the next one will be over in no time.
///
/// One read that was held up tells little: on a busy machine every hundredth or so loses its processor for some
/// milliseconds. Where it is one in five and more of those on workers, the file is not in memory, and reads had better be
/// made by threads that may be held up, until fewer than half of them are. Of threads there are more than processors,
/// and they hold up each other.
#[derive(Debug, Default)]
pub(super) struct ReadLatency {
    slow_score: AtomicU32,
}

impl ReadLatency {
    /// Whether a read will most likely be over in no time.
    pub(super) fn is_quick(&self) -> bool {
        self.slow_score.load(Ordering::Relaxed) < SLOW_THRESHOLD
    }

    /// Learns from a read. Of two at the same moment one may be lost, which makes no difference.
    pub(super) fn record(&self, time: Duration, place: ReadThread) {
        let held_up = self.slow_score.load(Ordering::Relaxed);
        let now = match held_up + place.weight() {
            _ if time <= SLOW_READ => held_up.saturating_sub(1),
            // Now that it is known, it takes as many reads to the contrary as can be kept in mind.
            more if place == ReadThread::Worker && more >= SLOW_THRESHOLD => MAX_SLOW_SCORE,
            more => more.min(MAX_SLOW_SCORE),
        };
        if now != held_up {
            self.slow_score.store(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_MEMORY: Duration = Duration::from_micros(20);
    const FROM_DISK: Duration = Duration::from_millis(5);

    fn record_reads(pace: &ReadLatency, reads: usize, nth_from_disk: usize) {
        for read in 1..=reads {
            let took = if read % nth_from_disk == 0 { FROM_DISK } else { FROM_MEMORY };
            pace.record(took, if pace.is_quick() { ReadThread::Worker } else { ReadThread::Blocking });
        }
    }

    #[test]
    fn ignores_an_occasional_slow_read() {
        let pace = ReadLatency::default();
        assert!(pace.is_quick());
        for _ in 0..1_000 {
            record_reads(&pace, 10, 10);
            assert!(pace.is_quick());
        }
    }

    #[test]
    fn detects_an_uncached_file_after_a_few_reads() {
        for nth_from_disk in [1, 2] {
            let pace = ReadLatency::default();
            record_reads(&pace, 50, nth_from_disk);
            assert!(!pace.is_quick(), "one in {nth_from_disk}");
        }
    }

    #[test]
    fn workers_make_few_reads_of_a_partly_cached_file() {
        let (pace, mut held_up) = (ReadLatency::default(), 0);
        for read in 0..1_000 {
            let at = if pace.is_quick() { ReadThread::Worker } else { ReadThread::Blocking };
            let took = if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY };
            held_up += usize::from(at == ReadThread::Worker && took == FROM_DISK);
            pace.record(took, at);
        }
        assert!(held_up < 50, "{held_up}");
    }

    #[test]
    fn slow_blocking_threads_alone_do_not_keep_reads_off_the_workers() {
        let pace = ReadLatency::default();
        (0..20).for_each(|_| pace.record(FROM_DISK, ReadThread::Worker));
        assert!(!pace.is_quick());
        let reads = (0..400).take_while(|read| {
            pace.record(if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY }, ReadThread::Blocking);
            !pace.is_quick()
        });
        assert!(reads.count() < 200);
    }

    #[test]
    fn workers_read_again_once_the_file_is_cached() {
        let pace = ReadLatency::default();
        record_reads(&pace, 1_000, 1);
        record_reads(&pace, 100, usize::MAX);
        assert!(pace.is_quick());
    }
}

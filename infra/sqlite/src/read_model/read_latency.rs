//! Detects from slow reads that the file is not in memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A read that takes longer than this is slow: it waits for the disk, or its thread waits for a processor.
const SLOW_READ: Duration = Duration::from_millis(1);

/// The score from which reads are assumed to come from the disk: three slow reads on workers without a quick one
/// between them.
const SLOW_THRESHOLD: u32 = 12;

/// The largest score, which limits the number of quick reads until recovery.
const MAX_SLOW_SCORE: u32 = 64;

/// The kind of thread that ran a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadThread {
    /// The async worker that handles the request.
    Worker,
    /// A thread for blocking work.
    Blocking,
}

impl ReadThread {
    /// The number that a slow read on this kind of thread adds to the score. A quick read subtracts one.
    fn weight(self) -> u32 {
        match self {
            Self::Worker => 4,
            Self::Blocking => 1,
        }
    }
}

/// Predicts from the durations of past reads whether the next one will be quick.
///
/// A single slow read is no evidence: on a busy machine, about one read in a hundred is preempted for some
/// milliseconds. If more than one in five reads on workers is slow, the file is not in memory, and reads move to
/// threads for blocking work until fewer than half of the reads are slow. A slow read there counts less, because these
/// threads outnumber the processors and delay each other.
#[derive(Debug, Default)]
pub(super) struct ReadLatency {
    slow_score: AtomicU32,
}

impl ReadLatency {
    /// Whether the next read will most likely be quick.
    pub(super) fn is_quick(&self) -> bool {
        self.slow_score.load(Ordering::Relaxed) < SLOW_THRESHOLD
    }

    /// Records the duration of a read. Of two concurrent updates one may be lost, which is harmless.
    pub(super) fn record(&self, time: Duration, thread: ReadThread) {
        let slow_score = self.slow_score.load(Ordering::Relaxed);
        let new_score = match slow_score + thread.weight() {
            _ if time <= SLOW_READ => slow_score.saturating_sub(1),
            // At the threshold, the score jumps to the maximum, so that recovery takes many quick reads.
            raised if thread == ReadThread::Worker && raised >= SLOW_THRESHOLD => MAX_SLOW_SCORE,
            raised => raised.min(MAX_SLOW_SCORE),
        };
        if new_score != slow_score {
            self.slow_score.store(new_score, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_MEMORY: Duration = Duration::from_micros(20);
    const FROM_DISK: Duration = Duration::from_millis(5);

    fn record_reads(latency: &ReadLatency, reads: usize, nth_from_disk: usize) {
        for read in 1..=reads {
            let duration = if read % nth_from_disk == 0 { FROM_DISK } else { FROM_MEMORY };
            let thread = if latency.is_quick() { ReadThread::Worker } else { ReadThread::Blocking };
            latency.record(duration, thread);
        }
    }

    #[test]
    fn ignores_an_occasional_slow_read() {
        let latency = ReadLatency::default();
        assert!(latency.is_quick());
        for _ in 0..1_000 {
            record_reads(&latency, 10, 10);
            assert!(latency.is_quick());
        }
    }

    #[test]
    fn detects_that_all_or_half_of_the_reads_are_slow() {
        for nth_from_disk in [1, 2] {
            let latency = ReadLatency::default();
            record_reads(&latency, 50, nth_from_disk);
            assert!(!latency.is_quick(), "one read in {nth_from_disk} is slow");
        }
    }

    #[test]
    fn workers_make_few_slow_reads_of_a_partly_cached_file() {
        let (latency, mut slow_worker_reads) = (ReadLatency::default(), 0);
        for read in 0..1_000 {
            let thread = if latency.is_quick() { ReadThread::Worker } else { ReadThread::Blocking };
            let duration = if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY };
            slow_worker_reads += usize::from(thread == ReadThread::Worker && duration == FROM_DISK);
            latency.record(duration, thread);
        }
        assert!(slow_worker_reads < 50, "workers made {slow_worker_reads} slow reads");
    }

    #[test]
    fn occasional_slow_reads_on_blocking_threads_do_not_prevent_recovery() {
        let latency = ReadLatency::default();
        (0..20).for_each(|_| latency.record(FROM_DISK, ReadThread::Worker));
        assert!(!latency.is_quick());
        let reads = (0..400).take_while(|read| {
            latency.record(if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY }, ReadThread::Blocking);
            !latency.is_quick()
        });
        assert!(reads.count() < 200);
    }

    #[test]
    fn workers_read_again_once_the_file_is_cached() {
        let latency = ReadLatency::default();
        record_reads(&latency, 1_000, 1);
        record_reads(&latency, 100, usize::MAX);
        assert!(latency.is_quick());
    }
}

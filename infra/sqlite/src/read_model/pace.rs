//! Whether reads are held up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A read that takes longer is held up: by the disk, or because its thread has to wait for a processor.
const LONG: Duration = Duration::from_millis(1);

/// From here on reads are taken to come from the disk: three on workers that were held up, and none between them that was
/// not.
const HELD_UP: u32 = 12;

/// The most that is kept in mind, so that it is made up for before long.
const MOST: u32 = 64;

/// Where a read was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the worker that asked.
    Worker,
    /// On a thread for blocking work.
    Thread,
}

impl Place {
    /// What a read that was held up here counts for, where one that was not counts for one.
    fn weight(self) -> u32 {
        match self {
            Self::Worker => 4,
            Self::Thread => 1,
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
pub(super) struct Pace {
    held_up: AtomicU32,
}

impl Pace {
    /// Whether a read will most likely be over in no time.
    pub(super) fn is_quick(&self) -> bool {
        self.held_up.load(Ordering::Relaxed) < HELD_UP
    }

    /// Learns from a read. Of two at the same moment one may be lost, which makes no difference.
    pub(super) fn took(&self, time: Duration, place: Place) {
        let held_up = self.held_up.load(Ordering::Relaxed);
        let now = match held_up + place.weight() {
            _ if time <= LONG => held_up.saturating_sub(1),
            // Now that it is known, it takes as many reads to the contrary as can be kept in mind.
            more if place == Place::Worker && more >= HELD_UP => MOST,
            more => more.min(MOST),
        };
        if now != held_up {
            self.held_up.store(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_MEMORY: Duration = Duration::from_micros(20);
    const FROM_DISK: Duration = Duration::from_millis(5);

    fn learn(pace: &Pace, reads: usize, nth_from_disk: usize) {
        for read in 1..=reads {
            let took = if read % nth_from_disk == 0 { FROM_DISK } else { FROM_MEMORY };
            pace.took(took, if pace.is_quick() { Place::Worker } else { Place::Thread });
        }
    }

    #[test]
    fn a_read_that_is_held_up_now_and_then_makes_no_difference() {
        let pace = Pace::default();
        assert!(pace.is_quick());
        for _ in 0..1_000 {
            learn(&pace, 10, 10);
            assert!(pace.is_quick());
        }
    }

    #[test]
    fn a_file_that_is_not_in_memory_is_told_after_a_few_reads() {
        for nth_from_disk in [1, 2] {
            let pace = Pace::default();
            learn(&pace, 50, nth_from_disk);
            assert!(!pace.is_quick(), "one in {nth_from_disk}");
        }
    }

    #[test]
    fn workers_make_few_reads_of_a_file_that_is_partly_in_memory() {
        let (pace, mut held_up) = (Pace::default(), 0);
        for read in 0..1_000 {
            let at = if pace.is_quick() { Place::Worker } else { Place::Thread };
            let took = if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY };
            held_up += usize::from(at == Place::Worker && took == FROM_DISK);
            pace.took(took, at);
        }
        assert!(held_up < 50, "{held_up}");
    }

    #[test]
    fn threads_that_hold_up_each_other_do_not_keep_reads_on_threads() {
        let pace = Pace::default();
        (0..20).for_each(|_| pace.took(FROM_DISK, Place::Worker));
        assert!(!pace.is_quick());
        let reads = (0..400).take_while(|read| {
            pace.took(if read % 3 == 0 { FROM_DISK } else { FROM_MEMORY }, Place::Thread);
            !pace.is_quick()
        });
        assert!(reads.count() < 200);
    }

    #[test]
    fn a_file_that_is_in_memory_again_is_read_quickly_again() {
        let pace = Pace::default();
        learn(&pace, 1_000, 1);
        learn(&pace, 100, usize::MAX);
        assert!(pace.is_quick());
    }
}

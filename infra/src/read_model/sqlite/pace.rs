//! Whether reads are held up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A read that takes longer is held up: by the disk, or because its thread has to wait for a processor.
const LONG: Duration = Duration::from_millis(1);

/// What a read that was held up counts for, where one that was not counts for one.
const WEIGHT: u32 = 4;

/// From here on reads are taken to come from the disk: three that were held up, and none between them that was not.
const HELD_UP: u32 = 3 * WEIGHT;

/// The most that is kept in mind, so that it is made up for before long.
const MOST: u32 = 16 * WEIGHT;

/// Tells from how long reads took, wherever they were made, whether the next one will be over in no time.
///
/// One read that was held up tells little: on a busy machine every hundredth or so loses its processor for some
/// milliseconds. Where it is one in five and more, the file is not in memory, and reads had better be made by threads
/// that may be held up, until they no longer are.
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
    pub(super) fn took(&self, time: Duration) {
        let held_up = self.held_up.load(Ordering::Relaxed);
        let now = if time > LONG { (held_up + WEIGHT).min(MOST) } else { held_up.saturating_sub(1) };
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
            pace.took(if read % nth_from_disk == 0 { FROM_DISK } else { FROM_MEMORY });
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
    fn a_file_that_is_not_in_memory_is_told_after_a_few_reads_whatever_is_read_between() {
        for nth_from_disk in [1, 2, 3] {
            let pace = Pace::default();
            learn(&pace, 50, nth_from_disk);
            assert!(!pace.is_quick(), "one in {nth_from_disk}");
        }
    }

    #[test]
    fn a_file_that_is_in_memory_again_is_read_quickly_again() {
        let pace = Pace::default();
        learn(&pace, 1_000, 1);
        learn(&pace, 100, usize::MAX);
        assert!(pace.is_quick());
    }
}

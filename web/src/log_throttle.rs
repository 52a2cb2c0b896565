//! Limits repeated log lines to a few per second.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Admits a few log lines per second and counts the others.
pub struct LogThrottle {
    /// Upper 32 bits: the current second, counted from the first use of any throttle. Lower 32 bits: the lines in that
    /// second so far, also the suppressed ones.
    window: AtomicU64,
    suppressed: AtomicU64,
    max_lines_per_second: u64,
}

impl LogThrottle {
    /// Creates a throttle that admits this many lines per second.
    pub const fn new(max_lines_per_second: u64) -> Self {
        Self { window: AtomicU64::new(0), suppressed: AtomicU64::new(0), max_lines_per_second }
    }

    /// Returns the number of lines suppressed since the last admitted one, or `None` if this line must not be written.
    pub fn admit(&self) -> Option<u64> {
        static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_in_second(STARTED.elapsed().as_secs())
    }

    fn admit_in_second(&self, second: u64) -> Option<u64> {
        let empty_window = second << 32;
        let count = |window: u64| Some(window.max(empty_window) + 1);
        let before = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .unwrap_or_default()
            .max(empty_window);
        let earlier_lines = before & u64::from(u32::MAX);
        if earlier_lines < self.max_lines_per_second {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_a_few_lines_per_second_and_counts_the_others() {
        let throttle = LogThrottle::new(5);
        let written = (0..100).filter(|_| throttle.admit_in_second(7).is_some()).count();
        assert_eq!(written, 5);
        assert_eq!(throttle.admit_in_second(8), Some(95));
        assert_eq!(throttle.admit_in_second(8), Some(0));
    }
}

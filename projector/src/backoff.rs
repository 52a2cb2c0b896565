//! Waiting between attempts.

use std::time::Duration;

/// Pauses that double from 50 ms up to 5 s, each between half of that and all of it, so that processes that failed
/// together do not return together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

const INITIAL_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

impl Backoff {
    /// The next pause.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let full = INITIAL_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It went well again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let first = backoff.next_pause();
        assert!(first >= INITIAL_PAUSE / 2 && first <= INITIAL_PAUSE, "{first:?}");
        for _ in 0..100 {
            assert!(backoff.next_pause() <= MAX_PAUSE);
        }
        assert!(backoff.next_pause() >= MAX_PAUSE / 2);
        backoff.reset();
        assert!(backoff.next_pause() <= INITIAL_PAUSE);
    }
}

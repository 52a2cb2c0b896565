//! Exponential back-off with jitter.

use std::time::Duration;

/// Computes the pauses between attempts. The full length of a pause is `initial` after the first failure, and doubles
/// with each further failure up to `max`.
///
/// The actual pause is random, between half of the full length and the full length, so that processes that failed
/// together do not retry together.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a back-off without failures.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, failures: 0 }
    }

    /// Returns the pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.initial.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_grow_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        let first = backoff.next_pause();
        assert!(first >= INITIAL / 2 && first <= INITIAL, "the first pause is {first:?}");
        for _ in 0..100 {
            assert!(backoff.next_pause() <= MAX);
        }
        assert!(backoff.next_pause() >= MAX / 2);
        backoff.reset();
        assert!(backoff.next_pause() <= INITIAL);
    }
}

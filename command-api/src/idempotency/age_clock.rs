//! The clock that measures how old the event of an idempotency key is.

use std::time::Instant;

use chat_domain::Timestamp;

/// A clock that returns the earlier of two times: the system time, and the system time at the start of this clock plus
/// the monotonic time since then. So a system time that is set forward by a day does not expire the keys of the last
/// minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgeClock {
    system_time: fn() -> Timestamp,
    start_instant: Instant,
    start_time: Timestamp,
}

impl AgeClock {
    pub(crate) fn start(system_time: fn() -> Timestamp) -> Self {
        Self { system_time, start_instant: Instant::now(), start_time: system_time() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start_instant.elapsed().as_millis()).unwrap_or(i64::MAX);
        let monotonic = self.start_time.millis().saturating_add(elapsed);
        (self.system_time)().min(Timestamp::from_millis(monotonic))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn returns_the_earlier_of_the_two_times() {
        static TIME: AtomicI64 = AtomicI64::new(1_790_000_000_000);
        const DAY: i64 = 86_400_000;
        let clock = AgeClock::start(|| Timestamp::from_millis(TIME.load(Ordering::Relaxed)));
        let start = TIME.fetch_add(DAY, Ordering::Relaxed);
        assert!(clock.now().millis() < start + DAY);
        TIME.store(start - DAY, Ordering::Relaxed);
        assert_eq!(clock.now().millis(), start - DAY);
    }
}

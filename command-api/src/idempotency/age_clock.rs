//! The clock that measures how old the event of an idempotency key is.

use std::time::Instant;

use chat_domain::Timestamp;

/// Reads the earlier of two clocks: the system time, and the system time at the start of this clock plus the time since
/// then. A key is expired only if both say so: if the system time is set forward by a day, the keys of the last minutes
/// are not a day old.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgeClock {
    system_time: fn() -> Timestamp,
    started: Instant,
    started_at: Timestamp,
}

impl AgeClock {
    pub(crate) fn start(system_time: fn() -> Timestamp) -> Self {
        Self { system_time, started: Instant::now(), started_at: system_time() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let steady = self.started_at.millis().saturating_add(elapsed);
        (self.system_time)().min(Timestamp::from_millis(steady))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn reads_the_earlier_of_its_two_clocks() {
        static TIME: AtomicI64 = AtomicI64::new(1_790_000_000_000);
        const DAY: i64 = 86_400_000;
        let clock = AgeClock::start(|| Timestamp::from_millis(TIME.load(Ordering::Relaxed)));
        let start = TIME.fetch_add(DAY, Ordering::Relaxed);
        assert!(clock.now().millis() < start + DAY);
        TIME.store(start - DAY, Ordering::Relaxed);
        assert_eq!(clock.now().millis(), start - DAY);
    }
}

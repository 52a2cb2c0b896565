//! The time left of a lease on an idempotency key, as its owner measures it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Measures how long a lease is valid. Shared between the task that renews the lease and the writer that relies on it.
///
/// The store's clock and the owner's may run at slightly different rates, and the monotonic clock of a suspended
/// machine may stop. So the owner gives up the last eighth of the lease, and relies on it only while the monotonic
/// clock and the time of day agree that it is valid.
#[derive(Clone, Debug)]
pub(crate) struct LeaseTimer {
    validity: Duration,
    /// When the call that started or renewed the lease was sent; `None` once the lease is lost.
    started: Arc<Mutex<Option<ClockReading>>>,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    monotonic: Instant,
    time_of_day: SystemTime,
}

impl ClockReading {
    /// Reads both clocks. Must be called before the request is sent to the store: otherwise the owner would expect the
    /// lease to end later than the store does.
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), time_of_day: SystemTime::now() }
    }
}

impl LeaseTimer {
    pub(crate) fn new(started: ClockReading, lease: Duration) -> Self {
        Self { validity: lease * 7 / 8, started: Arc::new(Mutex::new(Some(started))) }
    }

    /// Whether it is certain that this owner still has the key.
    pub(crate) fn is_valid(&self) -> bool {
        let started = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.is_some_and(|started| self.is_unexpired(started))
    }

    fn is_unexpired(&self, started: ClockReading) -> bool {
        let time_of_day_elapsed = started.time_of_day.elapsed();
        started.monotonic.elapsed() < self.validity
            && time_of_day_elapsed.is_ok_and(|elapsed| elapsed < self.validity)
    }

    /// Restarts the timer after a renewal that was sent at `started`. An expired lease stays lost: another owner may
    /// have had the key in between, and the renewal may have succeeded only because the store lost its record of that
    /// owner.
    pub(crate) fn record_renewal(&self, started: ClockReading) {
        let mut current = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *current = current.filter(|current| self.is_unexpired(*current)).and(Some(started));
    }

    /// Marks the lease as lost; a later renewal does not bring it back.
    pub(crate) fn record_loss(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading_ago(monotonic_age: Duration, time_of_day_age: Duration) -> Option<ClockReading> {
        let (instant, time) = (Instant::now(), SystemTime::now());
        instant
            .checked_sub(monotonic_age)
            .zip(time.checked_sub(time_of_day_age))
            .map(|(monotonic, time_of_day)| ClockReading { monotonic, time_of_day })
    }

    const MINUTE: Duration = Duration::from_mins(1);

    fn lease_is_valid(monotonic_age: Duration, time_of_day_age: Duration) -> bool {
        reading_ago(monotonic_age, time_of_day_age)
            .is_some_and(|started| LeaseTimer::new(started, MINUTE).is_valid())
    }

    #[test]
    fn is_valid_while_both_clocks_agree() {
        let (short, long) = (Duration::from_secs(40), Duration::from_secs(55));
        assert!(lease_is_valid(short, short));
        assert!(!lease_is_valid(long, short), "the last eighth of the lease counts as expired");
        assert!(
            !lease_is_valid(short, long),
            "a lease is invalid if the monotonic clock stopped while the machine was suspended"
        );
    }

    #[test]
    fn is_invalid_after_the_time_of_day_was_set_back() {
        let lease = LeaseTimer::new(
            ClockReading { monotonic: Instant::now(), time_of_day: SystemTime::now() + MINUTE },
            MINUTE,
        );
        assert!(!lease.is_valid());
    }

    #[test]
    fn a_renewal_does_not_revive_an_expired_lease() {
        let expired = Duration::from_secs(55);
        // On some platforms, the monotonic clock can't represent a time before the start of the machine.
        let Some(started) = reading_ago(expired, expired) else { return };
        let lease = LeaseTimer::new(started, MINUTE);
        lease.record_renewal(ClockReading::now());
        assert!(!lease.is_valid());
        let lease = LeaseTimer::new(ClockReading::now(), MINUTE);
        lease.record_renewal(ClockReading::now());
        assert!(lease.is_valid());
    }

    #[test]
    fn a_renewal_does_not_revive_a_lost_lease() {
        let lease = LeaseTimer::new(ClockReading::now(), MINUTE);
        assert!(lease.is_valid());
        lease.record_loss();
        lease.record_renewal(ClockReading::now());
        assert!(!lease.is_valid());
    }
}

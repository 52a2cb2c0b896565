//! A lease on an idempotency key, as its owner sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a key is one's own. Shared between who renews it and who relies on it.
///
/// The store's clock and the owner's may run at somewhat different rates, and a machine that was suspended may not know
/// that time passed: the owner gives up an eighth of the lease early, and believes in it only while the monotonic clock and
/// the time of day agree that it runs.
#[derive(Clone, Debug)]
pub(crate) struct LeaseTimer {
    validity: Duration,
    /// When the call that began it was sent; `None` once it is lost.
    started: Arc<Mutex<Option<ClockReading>>>,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    monotonic: Instant,
    time_of_day: SystemTime,
}

impl ClockReading {
    /// This moment. To be taken before the store is asked.
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), time_of_day: SystemTime::now() }
    }
}

impl LeaseTimer {
    /// A lease of this length, by the store's terms.
    pub(crate) fn new(began: ClockReading, length: Duration) -> Self {
        Self { validity: length * 7 / 8, started: Arc::new(Mutex::new(Some(began))) }
    }

    /// Whether nobody else can have the key at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        let began = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
        began.is_some_and(|began| self.is_unexpired(began))
    }

    fn is_unexpired(&self, began: ClockReading) -> bool {
        let time_of_day_elapsed = began.time_of_day.elapsed();
        began.monotonic.elapsed() < self.validity
            && time_of_day_elapsed.is_ok_and(|elapsed| elapsed < self.validity)
    }

    /// It was renewed by a call that began then. One that had run out stays lost: somebody else may have had the key
    /// meanwhile, in a store that has forgotten it since.
    pub(crate) fn record_renewal(&self, began: ClockReading) {
        let mut current = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *current = current.filter(|current| self.is_unexpired(*current)).and(Some(began));
    }

    /// It is somebody else's, for good.
    pub(crate) fn record_loss(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading_ago(monotonic: Duration, time_of_day: Duration) -> Option<ClockReading> {
        let (instant, time) = (Instant::now(), SystemTime::now());
        instant
            .checked_sub(monotonic)
            .zip(time.checked_sub(time_of_day))
            .map(|(monotonic, time_of_day)| ClockReading { monotonic, time_of_day })
    }

    const MINUTE: Duration = Duration::from_mins(1);

    fn lease_is_valid(monotonic: Duration, time_of_day: Duration) -> bool {
        reading_ago(monotonic, time_of_day).is_some_and(|began| LeaseTimer::new(began, MINUTE).is_valid())
    }

    #[test]
    fn a_lease_holds_while_both_clocks_say_so() {
        let (short, long) = (Duration::from_secs(40), Duration::from_secs(55));
        assert!(lease_is_valid(short, short));
        assert!(!lease_is_valid(long, short), "an eighth of it is not relied on");
        assert!(!lease_is_valid(short, long), "the machine slept");
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_belief_in_a_lease() {
        let lease = LeaseTimer::new(
            ClockReading {
                monotonic: Instant::now(),
                time_of_day: SystemTime::now() + Duration::from_secs(5),
            },
            MINUTE,
        );
        assert!(!lease.is_valid());
    }

    #[test]
    fn a_lease_that_ran_out_is_not_revived() {
        let over = Duration::from_secs(55);
        // A machine that has just started has no moment so long ago.
        let Some(began) = reading_ago(over, over) else { return };
        let lease = LeaseTimer::new(began, MINUTE);
        lease.record_renewal(ClockReading::now());
        assert!(!lease.is_valid());
        let lease = LeaseTimer::new(ClockReading::now(), MINUTE);
        lease.record_renewal(ClockReading::now());
        assert!(lease.is_valid());
    }

    #[test]
    fn a_lost_lease_stays_lost() {
        let lease = LeaseTimer::new(ClockReading::now(), MINUTE);
        assert!(lease.is_valid());
        lease.record_loss();
        lease.record_renewal(ClockReading::now());
        assert!(!lease.is_valid());
    }
}

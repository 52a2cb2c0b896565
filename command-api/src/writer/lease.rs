//! A lease on an idempotency key, as its owner sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a key is one's own. Shared between who renews it and who relies on it.
///
/// The store's clock and the owner's may run at somewhat different rates, and a machine that was suspended may not know
/// that time passed: the owner gives up an eighth of the lease early, and believes in it only while the monotonic clock and
/// the time of day agree that it runs.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    lasts: Duration,
    /// When the call that began it was sent; `None` once it is lost.
    began: Arc<Mutex<Option<Began>>>,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    monotonic: Instant,
    time_of_day: SystemTime,
}

impl Began {
    /// This moment. To be taken before the store is asked.
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), time_of_day: SystemTime::now() }
    }
}

impl Lease {
    /// A lease of this length, by the store's terms.
    pub(crate) fn new(began: Began, length: Duration) -> Self {
        Self { lasts: length * 7 / 8, began: Arc::new(Mutex::new(Some(began))) }
    }

    /// Whether nobody else can have the key at this moment.
    pub(crate) fn holds(&self) -> bool {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.is_some_and(|began| self.runs(began))
    }

    fn runs(&self, began: Began) -> bool {
        let by_day = began.time_of_day.elapsed();
        began.monotonic.elapsed() < self.lasts && by_day.is_ok_and(|elapsed| elapsed < self.lasts)
    }

    /// It was renewed by a call that began then. One that had run out stays lost: somebody else may have had the key
    /// meanwhile, in a store that has forgotten it since.
    pub(crate) fn renewed(&self, began: Began) {
        let mut current = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        *current = current.filter(|current| self.runs(*current)).and(Some(began));
    }

    /// It is somebody else's, for good.
    pub(crate) fn lost(&self) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(monotonic: Duration, time_of_day: Duration) -> Option<Began> {
        let (instant, time) = (Instant::now(), SystemTime::now());
        instant
            .checked_sub(monotonic)
            .zip(time.checked_sub(time_of_day))
            .map(|(monotonic, time_of_day)| Began { monotonic, time_of_day })
    }

    const MINUTE: Duration = Duration::from_mins(1);

    fn holds(monotonic: Duration, time_of_day: Duration) -> bool {
        ago(monotonic, time_of_day).is_some_and(|began| Lease::new(began, MINUTE).holds())
    }

    #[test]
    fn a_lease_holds_while_both_clocks_say_so() {
        let (short, long) = (Duration::from_secs(40), Duration::from_secs(55));
        assert!(holds(short, short));
        assert!(!holds(long, short), "an eighth of it is not relied on");
        assert!(!holds(short, long), "the machine slept");
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_belief_in_a_lease() {
        let lease = Lease::new(
            Began { monotonic: Instant::now(), time_of_day: SystemTime::now() + Duration::from_secs(5) },
            MINUTE,
        );
        assert!(!lease.holds());
    }

    #[test]
    fn a_lease_that_ran_out_is_not_revived() {
        let over = Duration::from_secs(55);
        // A machine that has just started has no moment so long ago.
        let Some(began) = ago(over, over) else { return };
        let lease = Lease::new(began, MINUTE);
        lease.renewed(Began::now());
        assert!(!lease.holds());
        let lease = Lease::new(Began::now(), MINUTE);
        lease.renewed(Began::now());
        assert!(lease.holds());
    }

    #[test]
    fn a_lost_lease_stays_lost() {
        let lease = Lease::new(Began::now(), MINUTE);
        assert!(lease.holds());
        lease.lost();
        lease.renewed(Began::now());
        assert!(!lease.holds());
    }
}

//! The rate limit of a replay.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until};

/// Events per second, minute or hour, written `100/s`, `600/m`, `10000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    events: u32,
    per: Duration,
}

/// The error for text that is not a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a rate is written like 100/s, 600/m or 10000/h")]
pub struct InvalidRate;

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (events, unit) = text.split_once('/').ok_or(InvalidRate)?;
        let events = events.parse().ok().filter(|events| *events > 0).ok_or(InvalidRate)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(InvalidRate),
        };
        Ok(Self { events, per: Duration::from_secs(seconds) })
    }
}

impl Rate {
    /// Returns the maximal size of a batch that is not a burst: the events of a quarter of a second, but at least one.
    pub(super) fn max_batch_events(self) -> u64 {
        (u64::from(self.events) / self.per.as_secs() / 4).max(1)
    }

    /// Returns the time that a number of events takes at this rate.
    fn duration_of(self, events: u64) -> Duration {
        self.per * u32::try_from(events).unwrap_or(u32::MAX) / self.events
    }
}

/// Delays deliveries so that they do not exceed a rate.
pub(super) struct RateLimiter {
    rate: Option<Rate>,
    /// The time at which the next event may be delivered.
    next: Instant,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until `events` more events may be delivered.
    pub(super) async fn acquire(&mut self, events: u64) {
        let Some(rate) = self.rate else { return };
        sleep_until(self.next).await;
        // Unused time is not saved for later deliveries, because that would allow a burst.
        self.next = self.next.max(Instant::now()) + rate.duration_of(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_events_per_second_minute_or_hour() {
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.max_batch_events(), rate.duration_of(5)), (2, Duration::from_millis(500)));
        let rate: Rate = "100/s".parse().unwrap();
        assert_eq!((rate.max_batch_events(), rate.duration_of(5)), (25, Duration::from_millis(50)));
        let rate: Rate = "10000/h".parse().unwrap();
        assert_eq!((rate.max_batch_events(), rate.duration_of(5)), (1, Duration::from_millis(1_800)));
        for wrong in ["", "5", "0/s", "-1/s", "5/d", "fast"] {
            assert_eq!(wrong.parse::<Rate>(), Err(InvalidRate), "{wrong}");
        }
    }
}

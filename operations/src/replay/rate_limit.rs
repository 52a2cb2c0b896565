//! Not faster than so many events in a second.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until};

/// How many events may go out in which time: `100/s`, `600/m`, `10000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    events: u32,
    per: Duration,
}

/// A text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a rate is as 100/s, 600/m or 10000/h")]
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
    /// How many events may go out together so that it is no burst: those of a quarter of a second, and one at least.
    pub(super) fn max_batch_events(self) -> u64 {
        (u64::from(self.events) / self.per.as_secs() / 4).max(1)
    }

    /// How long so many events take.
    fn duration_of(self, events: u64) -> Duration {
        self.per * u32::try_from(events).unwrap_or(u32::MAX) / self.events
    }
}

/// Keeps to a rate, counted from when it started or last fell behind.
pub(super) struct RateLimiter {
    rate: Option<Rate>,
    /// When the next event may go out.
    next: Instant,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until so many events more may go out.
    pub(super) async fn acquire(&mut self, events: u64) {
        let Some(rate) = self.rate else { return };
        sleep_until(self.next).await;
        // Time in which nothing went out is not made up for.
        self.next = self.next.max(Instant::now()) + rate.duration_of(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_events_in_a_second_a_minute_or_an_hour() {
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.max_batch_events(), rate.duration_of(5)), (2, Duration::from_millis(500)));
        for wrong in ["", "5", "0/s", "-1/s", "5/d", "fast"] {
            assert_eq!(wrong.parse::<Rate>(), Err(InvalidRate), "{wrong}");
        }
    }
}

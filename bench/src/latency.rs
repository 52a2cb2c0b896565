//! Latencies, with and without correction for coordinated omission.
//!
//! A generator that waits for a response before it sends the next request sends fewer requests while the server stalls,
//! so that its latencies hardly show the stall ("coordinated omission", Gil Tene). If a rate is set, each request has a
//! time at which it is due. Latencies from that time include the wait that a stall caused.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is recorded, in microseconds: one hour. Longer latencies are recorded as one hour.
const MAX_MICROS: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The times at which a request was due, sent and answered, on one clock.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimes {
    /// The time at which it was due. Without a rate, the time at which it was sent.
    pub due: Duration,
    /// The time at which it was sent.
    pub sent: Duration,
    /// The time at which its response was complete.
    pub answered: Duration,
}

/// Histograms of the latencies of many requests.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the time at which a request was due to its response.
    latency: Histogram<u64>,
    /// From the time at which a request was sent to its response.
    service_time: Histogram<u64>,
}

impl Latencies {
    /// Creates empty histograms.
    pub fn new() -> Self {
        Self { latency: histogram(), service_time: histogram() }
    }

    /// Adds a request.
    pub fn record(&mut self, times: RequestTimes) {
        self.latency.saturating_record(micros(times.answered.saturating_sub(times.due)));
        self.service_time.saturating_record(micros(times.answered.saturating_sub(times.sent)));
    }

    /// Adds one latency, which counts as a service time too.
    pub fn record_latency(&mut self, latency: Duration) {
        self.record(RequestTimes { due: Duration::ZERO, sent: Duration::ZERO, answered: latency });
    }

    /// Adds all requests of `other`.
    pub fn add(&mut self, other: &Self) {
        // All histograms have the same bounds, so that no value is out of range.
        let _ = self.latency.add(&other.latency);
        let _ = self.service_time.add(&other.service_time);
    }

    /// Returns the percentiles of the time from when a request was due to its response.
    pub fn latency_percentiles(&self) -> Percentiles {
        Percentiles::from_histogram(&self.latency)
    }

    /// Returns the percentiles of the time from when a request was sent to its response.
    pub fn service_time_percentiles(&self) -> Percentiles {
        Percentiles::from_histogram(&self.service_time)
    }
}

/// Percentiles of latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p99_9: u64,
    /// The maximum.
    pub max: u64,
}

impl Percentiles {
    fn from_histogram(histogram: &Histogram<u64>) -> Self {
        let value_at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: value_at(0.5),
            p90: value_at(0.9),
            p99: value_at(0.99),
            p99_9: value_at(0.999),
            max: histogram.max(),
        }
    }
}

/// Returns microseconds, at least 1: the lowest value of the histograms.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[expect(clippy::expect_used, reason = "the bounds are valid constants")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_MICROS, SIGNIFICANT_DIGITS).expect("valid bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Asserts equality within two in a thousand, which is twice the resolution of the histogram.
    #[track_caller]
    fn assert_near(micros: u64, expected: Duration) {
        let expected = super::micros(expected);
        assert!(micros.abs_diff(expected) * 500 <= expected, "{micros} µs instead of {expected} µs");
    }

    #[test]
    fn computes_the_percentiles_of_the_values() {
        let mut latencies = Latencies::new();
        for latency in 1..=1_000 {
            let sent = millis(latency * 7);
            latencies.record(RequestTimes { due: sent, sent, answered: sent + millis(latency) });
        }
        let percentiles = latencies.latency_percentiles();
        assert_near(percentiles.p50, millis(500));
        assert_near(percentiles.p90, millis(900));
        assert_near(percentiles.p99, millis(990));
        assert_near(percentiles.p99_9, millis(999));
        assert_near(percentiles.max, millis(1_000));
        assert_eq!(latencies.service_time_percentiles(), percentiles);
    }

    #[test]
    fn a_stall_counts_in_every_request_that_was_due_during_it() {
        // 100 requests a second for 10 s, each answered in 1 ms, but the server stalls from 2 s to 4 s. One
        // connection: requests that were due during the stall are sent after it, back to back.
        let mut latencies = Latencies::new();
        let mut connection_free_at = Duration::ZERO;
        for request in 0..1_000 {
            let due = millis(request * 10);
            let sent = due.max(connection_free_at);
            let processed = if (millis(2_000)..millis(4_000)).contains(&sent) { millis(4_000) } else { sent };
            let answered = processed + millis(1);
            connection_free_at = answered;
            latencies.record(RequestTimes { due, sent, answered });
        }
        // The service times hardly show the stall: one request in a thousand was in flight during it.
        assert_near(latencies.service_time_percentiles().p99, millis(1));
        assert_near(latencies.service_time_percentiles().max, millis(2_001));
        // The latencies show it: a fifth of all requests were due during the stall, and later requests waited for the
        // backlog.
        assert_near(latencies.latency_percentiles().p50, millis(1));
        assert!(latencies.latency_percentiles().p90 > 800_000, "{:?}", latencies.latency_percentiles());
        assert!(latencies.latency_percentiles().p99 > 1_800_000, "{:?}", latencies.latency_percentiles());
    }

    #[test]
    fn adding_histograms_equals_recording_into_one() {
        let (mut all, mut parts) = (Latencies::new(), [Latencies::new(), Latencies::new()]);
        for request in 0..100_u64 {
            let times = RequestTimes {
                due: millis(request),
                sent: millis(request + 1),
                answered: millis(request * 3 + 2),
            };
            all.record(times);
            parts[usize::from(request % 3 == 0)].record(times);
        }
        let [mut sum, other] = parts;
        sum.add(&other);
        assert_eq!(
            (sum.latency_percentiles(), sum.service_time_percentiles()),
            (all.latency_percentiles(), all.service_time_percentiles())
        );
    }

    #[test]
    fn records_a_latency_beyond_the_maximum_as_the_maximum() {
        let mut latencies = Latencies::new();
        let answered = Duration::from_secs(100_000);
        latencies.record(RequestTimes { due: Duration::ZERO, sent: Duration::ZERO, answered });
        assert!(latencies.latency_percentiles().max >= MAX_MICROS);
    }
}

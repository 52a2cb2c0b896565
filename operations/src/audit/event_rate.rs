//! The number of events in equal spans of time.

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError};

/// Counts the events of `spans` spans of `span_ms` milliseconds each, which end at `end`, oldest first. Reads single
/// events: for each span, a number that grows with the logarithm of the number of events in the log. `None` if
/// positions do not count events.
///
/// The position of an event decides in which span it counts. If the clocks of writers differ, that may not be the span
/// of its time.
pub async fn event_rate(
    log: &dyn EventStore,
    end: Timestamp,
    span_ms: i64,
    spans: usize,
) -> Result<Option<Vec<u64>>, EventStoreError> {
    if !log.has_contiguous_positions() {
        return Ok(None);
    }
    let head = log.head().await?.get();
    let whole_ms = span_ms.saturating_mul(i64::try_from(spans).unwrap_or(i64::MAX));
    let start = end.millis().saturating_sub(whole_ms);
    // The number of events before each bound.
    let mut before = count_events_before(log, start, 0, head).await?;
    let mut counts = Vec::with_capacity(spans);
    for span in 1..=spans {
        let offset = span_ms.saturating_mul(i64::try_from(span).unwrap_or(i64::MAX));
        let bound = count_events_before(log, start.saturating_add(offset), before, head).await?;
        counts.push(bound - before);
        before = bound;
    }
    Ok(Some(counts))
}

/// Counts the events before the first one that was recorded at `time` or later. The count is at least `low` and at most
/// `high`. Searches in growing steps from `low`, because the next bound is often near.
async fn count_events_before(
    log: &dyn EventStore,
    time: i64,
    mut low: u64,
    high: u64,
) -> Result<u64, EventStoreError> {
    let is_before = async |after: u64| {
        let event = log.read_all(Position::new(after), 1).await?.into_iter().next();
        Ok::<_, EventStoreError>(event.is_some_and(|event| event.recorded_at.millis() < time))
    };
    let mut step = 1;
    let mut bound = high;
    // Events up to `low` are before the time; the one after `bound` is not, or does not exist.
    while low < bound {
        let probed = low.saturating_add(step - 1).min(bound - 1);
        if is_before(probed).await? {
            low = probed + 1;
            step = step.saturating_mul(2);
        } else {
            bound = probed;
            break;
        }
    }
    while low < bound {
        let middle = low + (bound - low) / 2;
        if is_before(middle).await? {
            low = middle + 1;
        } else {
            bound = middle;
        }
    }
    Ok(low)
}

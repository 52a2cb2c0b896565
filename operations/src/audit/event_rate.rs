//! The number of events in equal spans of time.

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError};

/// Counts the events in each of the last `spans` spans of time before `end`, the oldest span first. A span is `span_ms`
/// milliseconds long. `None` if the positions of the log are not contiguous.
///
/// Reads single events. The number of reads for a span grows with the logarithm of the number of events in the log.
///
/// Searches for the position at which each span begins, and counts the positions between. If the clocks of writers
/// differ, an event may be counted in another span than that of its time.
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
    let total_ms = span_ms.saturating_mul(i64::try_from(spans).unwrap_or(i64::MAX));
    let start = end.millis().saturating_sub(total_ms);
    let mut before_span = count_events_before(log, start, 0, head).await?;
    let mut counts = Vec::with_capacity(spans);
    for span in 1..=spans {
        let offset = span_ms.saturating_mul(i64::try_from(span).unwrap_or(i64::MAX));
        let before_next_span =
            count_events_before(log, start.saturating_add(offset), before_span, head).await?;
        counts.push(before_next_span - before_span);
        before_span = before_next_span;
    }
    Ok(Some(counts))
}

/// Counts the events before the first one that was recorded at `time_ms` or later. The count is at least `low` and at
/// most `high`. Searches in growing steps from `low`, because the result is often near it.
async fn count_events_before(
    log: &dyn EventStore,
    time_ms: i64,
    mut low: u64,
    high: u64,
) -> Result<u64, EventStoreError> {
    // Whether the event after the position `after` exists and was recorded before the time.
    let is_next_before = async |after: u64| {
        let event = log.read_all(Position::new(after), 1).await?.into_iter().next();
        Ok::<_, EventStoreError>(event.is_some_and(|event| event.recorded_at.millis() < time_ms))
    };
    let mut step = 1;
    let mut bound = high;
    // Events up to `low` are before the time; the one after `bound` is not, or does not exist.
    while low < bound {
        let probed = low.saturating_add(step - 1).min(bound - 1);
        if is_next_before(probed).await? {
            low = probed + 1;
            step = step.saturating_mul(2);
        } else {
            bound = probed;
            break;
        }
    }
    while low < bound {
        let middle = low + (bound - low) / 2;
        if is_next_before(middle).await? {
            low = middle + 1;
        } else {
            bound = middle;
        }
    }
    Ok(low)
}

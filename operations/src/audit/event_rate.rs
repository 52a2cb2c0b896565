//! The number of events in equal spans of time.

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError};

/// Counts the events of `spans` spans of `span_ms` milliseconds each, which end at `end`, oldest first. Reads single events, a
/// number that grows with the logarithm of the events in a span. `None` if positions do not count events.
///
/// Each event counts where the log has it: if clocks of writers differ, an event may count in the span beside that of its own
/// time.
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
    let mut before = first_at_or_after(log, start, 0, head).await?;
    let mut counts = Vec::with_capacity(spans);
    for span in 1..=spans {
        let offset = span_ms.saturating_mul(i64::try_from(span).unwrap_or(i64::MAX));
        let bound = first_at_or_after(log, start.saturating_add(offset), before, head).await?;
        counts.push(bound - before);
        before = bound;
    }
    Ok(Some(counts))
}

/// The number of events, at least `low` and at most `high`, before the first one that was recorded at a time or later. Searches
/// in growing steps from `low`, because the next bound is often near.
async fn first_at_or_after(
    log: &dyn EventStore,
    time: i64,
    mut low: u64,
    high: u64,
) -> Result<u64, EventStoreError> {
    let is_before = async |position: u64| {
        let event = log.read_all(Position::new(position), 1).await?.into_iter().next();
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

//! Searches for the revision of a stream at a position, and for the position at a time.

use std::sync::Arc;

use chat_domain::{Position, Revision, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead};

use super::time::MAX_CLOCK_SKEW_MS;

/// The number of events per read of a search that reads event by event.
const BATCH_EVENTS: usize = 256;

/// Finds the first revision of a stream after a position, by binary search, because positions rise with revisions.
/// `None` if there is none yet.
pub(super) async fn first_revision_after(
    log: &dyn EventStore,
    stream: &Arc<str>,
    position: Position,
) -> Result<Option<Revision>, EventStoreError> {
    let Some(last) = read_one(log, stream, ReadStart::End).await? else { return Ok(None) };
    if last.position <= position {
        return Ok(None);
    }
    let (mut low, mut high) = (Revision::FIRST.get(), last.revision.get());
    while low < high {
        let middle = low + (high - low) / 2;
        match read_one(log, stream, ReadStart::Forwards(Revision::new(middle))).await? {
            Some(event) if event.position <= position => low = event.revision.get() + 1,
            _ => high = middle,
        }
    }
    Ok(Some(Revision::new(low)))
}

/// Finds the last revision of a stream at or before a position. `None` if there is none.
pub(super) async fn last_revision_up_to(
    log: &dyn EventStore,
    stream: &Arc<str>,
    position: Position,
) -> Result<Option<Revision>, EventStoreError> {
    match first_revision_after(log, stream, position).await? {
        Some(revision) => Ok(revision.get().checked_sub(1).map(Revision::new)),
        None => Ok(read_one(log, stream, ReadStart::End).await?.map(|event| event.revision)),
    }
}

async fn read_one(
    log: &dyn EventStore,
    stream: &Arc<str>,
    start: ReadStart,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    Ok(log.read_stream(StreamRead::all(Arc::clone(stream), start, 1)).await?.pop())
}

/// Finds the position of the last event recorded at or before a time; [`Position::START`] if there is none. May miss
/// events of a clock that jumped: see [`MAX_CLOCK_SKEW_MS`].
pub(super) async fn last_position_recorded_by(
    log: &dyn EventStore,
    time: Timestamp,
) -> Result<Position, EventStoreError> {
    // Clocks differ by at most MAX_CLOCK_SKEW_MS. If the time of an event exceeds `time` by more, all events after it
    // in the log are later than `time`, so the search needs to read only the events before it, unless a clock jumped.
    let late = time.millis().saturating_add(MAX_CLOCK_SKEW_MS);
    let mut before = first_position_later_than(log, Timestamp::from_millis(late)).await?;
    if let Some(later) = before
        && probe_finds_event_after(log, later, |event| event.recorded_at <= time).await?
    {
        // A clock jumped, so the search reads backwards from the end of the log.
        before = None;
    }
    loop {
        let events = log.read_all_backwards(before, BATCH_EVENTS).await?;
        let Some(last) = events.last() else { return Ok(Position::START) };
        before = Some(last.position);
        if let Some(event) = events.iter().find(|event| event.recorded_at <= time) {
            return Ok(event.position);
        }
    }
}

/// Finds a position that is before all events recorded at or after a time. May miss events of a clock that jumped: see
/// [`MAX_CLOCK_SKEW_MS`].
pub(super) async fn position_before_events_since(
    log: &dyn EventStore,
    time: Timestamp,
) -> Result<Position, EventStoreError> {
    // Clocks differ by at most MAX_CLOCK_SKEW_MS. If an event is earlier than `time` by more, all events before it in
    // the log are earlier than `time`.
    let early = Timestamp::from_millis(time.millis().saturating_sub(MAX_CLOCK_SKEW_MS));
    let position = if log.has_contiguous_positions() {
        let start =
            first_position_later_than(log, Timestamp::from_millis(early.millis().saturating_sub(1))).await?;
        let head = log.head().await?;
        start.map_or(head, |start| Position::new(start.get().saturating_sub(1)))
    } else {
        last_position_recorded_before(log, early).await?
    };
    // If a clock jumped, an event before the position may have been recorded at or after `time`.
    let has_jumped = probe_finds_event_up_to(log, position, |event| event.recorded_at >= time).await?;
    Ok(if has_jumped { Position::START } else { position })
}

/// Finds the position of the last event recorded before a time, reading backwards; [`Position::START`] if there is
/// none.
async fn last_position_recorded_before(
    log: &dyn EventStore,
    time: Timestamp,
) -> Result<Position, EventStoreError> {
    let mut before = None;
    loop {
        let events = log.read_all_backwards(before, BATCH_EVENTS).await?;
        let Some(last) = events.last() else { return Ok(Position::START) };
        before = Some(last.position);
        if let Some(event) = events.iter().find(|event| event.recorded_at < time) {
            return Ok(event.position);
        }
    }
}

/// Whether one of the probed events up to a position fulfills the condition. Probes the event at the position, and
/// single events before it at distances 1, 2, 4 and so on.
///
/// Events recorded by a wrong clock usually form one run. If positions are contiguous, a probe hits the run if the
/// run has at least as many events as lie between the run and the position. If positions are not contiguous, a read can
/// only start at the position of an event: `position` must be one, and the [`BATCH_EVENTS`] events before it are probed
/// instead.
pub(super) async fn probe_finds_event_up_to(
    log: &dyn EventStore,
    position: Position,
    condition: impl Fn(&RecordedEvent) -> bool,
) -> Result<bool, EventStoreError> {
    if !log.has_contiguous_positions() {
        return Ok(log.read_all_backwards(Some(position), BATCH_EVENTS).await?.iter().any(condition));
    }
    let mut distance: u64 = 0;
    loop {
        let Some(probed) = position.get().checked_sub(distance) else { return Ok(false) };
        let before = Position::new(probed.saturating_add(1));
        let Some(event) = log.read_all_backwards(Some(before), 1).await?.pop() else { return Ok(false) };
        if condition(&event) {
            return Ok(true);
        }
        distance = distance.saturating_mul(2).max(1);
    }
}

/// Whether one of the probed events after a position fulfills the condition. Probes like [`probe_finds_event_up_to`].
pub(super) async fn probe_finds_event_after(
    log: &dyn EventStore,
    position: Position,
    condition: impl Fn(&RecordedEvent) -> bool,
) -> Result<bool, EventStoreError> {
    if !log.has_contiguous_positions() {
        return Ok(log.read_all(position, BATCH_EVENTS).await?.iter().any(condition));
    }
    let mut distance: u64 = 0;
    loop {
        let after = Position::new(position.get().saturating_add(distance));
        let Some(event) = log.read_all(after, 1).await?.pop() else { return Ok(false) };
        if condition(&event) {
            return Ok(true);
        }
        distance = distance.saturating_mul(2).max(1);
    }
}

/// Finds, by binary search, an event that is later than `time` and whose predecessor, if any, is not. If times rise
/// with positions, this is the first event later than `time`. `None` if the log has no events, if its last one is not
/// later than `time`, or if positions are not contiguous.
async fn first_position_later_than(
    log: &dyn EventStore,
    time: Timestamp,
) -> Result<Option<Position>, EventStoreError> {
    if !log.has_contiguous_positions() {
        return Ok(None);
    }
    let Some(last) = log.read_all_backwards(None, 1).await?.into_iter().next() else { return Ok(None) };
    if last.recorded_at <= time {
        return Ok(None);
    }
    // The event at `high` is later than the time; the one at `low`, if any, is not.
    let (mut low, mut high) = (0, last.position.get());
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        match log.read_all(Position::new(middle - 1), 1).await?.first() {
            Some(event) if event.recorded_at <= time => low = event.position.get(),
            Some(event) if event.position.get() < high => high = event.position.get(),
            // No event is between the middle and `high`.
            _ => high = middle,
        }
    }
    Ok(Some(Position::new(high)))
}

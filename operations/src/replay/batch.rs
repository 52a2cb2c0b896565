//! Batches: events that are delivered together, serialized as lines of JSON.

use chat_domain::Position;
use chat_ports::event_store::RecordedEvent;

use crate::audit::json_line;

/// Size limits of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The maximal number of events.
    pub max_events: u64,
    /// The size in bytes at which a batch is complete. A batch may exceed this size by its last event.
    pub max_bytes: usize,
}

impl BatchLimits {
    /// Lowers the limit of events to `events`, but not below one.
    pub(super) fn cap_events(self, events: u64) -> Self {
        Self { max_events: self.max_events.min(events).max(1), ..self }
    }
}

/// Consecutive events of the log, filtered and serialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The events as lines of JSON, each with its line break.
    pub lines: Vec<u8>,
    /// The number of events.
    pub events: u64,
    /// The first event's position. In an empty batch, the position after which the batch begins.
    pub first: Position,
    /// The last event's position. In an empty batch, the same as `first`.
    pub last: Position,
    /// Every event of the replay up to this position is in this batch, in an earlier batch, or excluded by the filter.
    pub up_to: Position,
}

impl ReplayBatch {
    /// Creates an empty batch that begins after a position.
    pub(super) fn empty_after(position: Position) -> Self {
        Self { lines: Vec::new(), events: 0, first: position, last: position, up_to: position }
    }

    pub(super) fn push(&mut self, event: &RecordedEvent) {
        if self.events == 0 {
            self.first = event.position;
        }
        self.last = event.position;
        self.events += 1;
        // An event always serializes, and writing to a vector does not fail.
        let _ = json_line::write(&mut self.lines, event);
    }

    pub(super) fn is_full(&self, limits: BatchLimits) -> bool {
        self.events >= limits.max_events || self.lines.len() >= limits.max_bytes
    }
}

//! Events that go out together.

use chat_domain::Position;
use chat_ports::event_store::RecordedEvent;

use crate::audit::json_line;

/// How large a batch gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// In events.
    pub max_events: u64,
    /// In bytes; one event may be more.
    pub max_bytes: usize,
}

impl BatchLimits {
    /// No more events than this, and one at least.
    pub(super) fn with_max_events(self, events: u64) -> Self {
        Self { max_events: self.max_events.min(events).max(1), ..self }
    }
}

/// Events as lines, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The lines, each with its line break.
    pub lines: Vec<u8>,
    /// How many there are.
    pub events: u64,
    /// The first event's position.
    pub first: Position,
    /// The last event's position.
    pub last: Position,
    /// What is up to here is in this batch, in one before it, or not wanted.
    pub up_to: Position,
}

impl ReplayBatch {
    /// An empty one.
    pub(super) fn empty_after(position: Position) -> Self {
        Self { lines: Vec::new(), events: 0, first: position, last: position, up_to: position }
    }

    pub(super) fn push(&mut self, event: &RecordedEvent) {
        if self.events == 0 {
            self.first = event.position;
        }
        self.last = event.position;
        self.events += 1;
        // Texts, numbers and JSON always serialize, and a vector takes everything.
        let _ = json_line::write(&mut self.lines, event);
    }

    pub(super) fn is_full(&self, size: BatchLimits) -> bool {
        self.events >= size.max_events || self.lines.len() >= size.max_bytes
    }
}

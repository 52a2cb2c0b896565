//! Events that go out together.

use chat_domain::Position;
use chat_ports::event_store::RecordedEvent;

use crate::audit::line;

/// How large a batch gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// In events.
    pub events: u64,
    /// In bytes; one event may be more.
    pub bytes: usize,
}

impl Size {
    /// No more events than this, and one at least.
    pub(super) fn at_most(self, events: u64) -> Self {
        Self { events: self.events.min(events).max(1), ..self }
    }
}

/// Events as lines, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
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

impl Batch {
    /// An empty one.
    pub(super) fn after(position: Position) -> Self {
        Self { lines: Vec::new(), events: 0, first: position, last: position, up_to: position }
    }

    pub(super) fn push(&mut self, event: &RecordedEvent) {
        if self.events == 0 {
            self.first = event.position;
        }
        self.last = event.position;
        self.events += 1;
        // Texts, numbers and JSON always serialize, and a vector takes everything.
        let _ = line::write(&mut self.lines, event);
    }

    pub(super) fn is_full(&self, size: Size) -> bool {
        self.events >= size.events || self.lines.len() >= size.bytes
    }
}

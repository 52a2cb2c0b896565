//! The configuration of a writer.

use std::sync::Arc;

use chat_domain::{Position, Timestamp};
use chat_ports::counters::Counters;
use chat_ports::event_store::EventStore;

/// The ports and limits of a writer.
#[derive(Clone)]
pub struct WriterConfig {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// The counters that propose the numbers of new chats and messages.
    pub counters: Arc<dyn Counters>,
    /// The clock that stamps events and measures their age.
    pub clock: fn() -> Timestamp,
    /// The maximal number of unanswered commands. A further command fails with
    /// [`CommandError::Overloaded`](crate::command::CommandError::Overloaded).
    pub queue_capacity: usize,
    /// The size of the cache of stream states, in bytes.
    pub cache_bytes: u64,
    /// The last position of the log when the writer starts.
    pub head: Position,
}

impl WriterConfig {
    /// The default size of the cache of stream states: at most about 168,000 streams.
    pub const DEFAULT_CACHE_BYTES: u64 = 32 << 20;
}

//! The counters port: reserves the numbers of new chats and messages.
//!
//! A counter is fast and shared between processes, but it may lose its state in a restart, a failover, or the restore
//! of an old copy. So the log decides: an event is appended only if its number follows the last number in the log. Each
//! request carries the last number that the writer has read from the log ([`ReservationRequest::floor`]), and the
//! counter never reserves a number at or below this floor.
//!
//! Promises of every adapter:
//!
//! - **No overlap.** Ranges of one key do not overlap unless the counter was rewound or lost its state in between.
//! - **No gaps.** Ranges of one key follow each other without a gap unless a floor raised the counter or a connection
//!   to the store broke.
//! - **One round trip.** As a rule, a call takes one round trip, and a second one if a counter is below its floor.
//! - **Not durable.** A counter may lose its state at any time. Every [`CountersError`] is worth a retry.

mod in_process;

use std::error::Error as StdError;

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber};
use thiserror::Error;

pub use in_process::InProcessCounters;

/// A set of counters, shared by all processes that use the same store.
#[async_trait]
pub trait Counters: Send + Sync + 'static {
    /// Reserves a range for each request and returns the first number of each, in the same order.
    async fn reserve(&self, requests: &[ReservationRequest]) -> Result<Vec<u64>, CountersError>;

    /// Sets the counter of `key` from `from` back to `to`, so that unused numbers are reserved again. Does nothing if
    /// the counter is no longer at `from`.
    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError>;
}

/// The key of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterKey {
    /// The chats of an app.
    Chats(AppToken),
    /// The messages of a chat.
    Messages(AppToken, ChatNumber),
}

/// A request for a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationRequest {
    /// The counter.
    pub key: CounterKey,
    /// The length of the range, at least one.
    pub count: u64,
    /// The last number in the log, as far as the requester has read it. The range starts after this number.
    pub floor: u64,
}

/// The counters are unavailable. The call may have reserved ranges, which does no harm. Worth a retry.
#[derive(Debug, Error)]
#[error("the counters can't be reached now")]
pub struct CountersError(#[source] pub Box<dyn StdError + Send + Sync>);

//! The counters port: who gets which number next.
//!
//! A counter is fast and shared between processes, but it may forget: it restarts, fails over, is restored from an old
//! copy. So it never decides. The log does, by refusing a number that does not follow from the one before; the writer
//! tells the counter the last number it saw in the log ([`Reservation::floor`]) and the counter never hands out a
//! number at or below it.
//!
//! Promises of every adapter: ranges handed out for one key do not overlap as long as the counter keeps its memory,
//! and follow each other without a gap unless a floor raised it; one call is one round trip, and a second one only
//! where a counter has lost its memory.

mod in_process;

use std::error::Error as StdError;

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber};
use thiserror::Error;

pub use in_process::InProcessCounters;

/// The counters.
#[async_trait]
pub trait Counters: Send + Sync + 'static {
    /// Hands out a range for each reservation, in order: the first number of each.
    async fn reserve(&self, reservations: &[ReservationRequest]) -> Result<Vec<u64>, CountersError>;

    /// Sets the counter of `key` back from `from` to `to`, unless it has moved on from `from` meanwhile: numbers that
    /// were handed out and will not be used are handed out again.
    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError>;
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterKey {
    /// The chats of an app.
    Chats(AppToken),
    /// The messages of a chat.
    Messages(AppToken, ChatNumber),
}

/// A wish for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationRequest {
    /// Which counter.
    pub key: CounterKey,
    /// How many numbers, at least one.
    pub count: u64,
    /// The last number that the log is known to hold: the range starts after it, and after everything handed out.
    pub floor: u64,
}

/// The counters can't be reached; nothing was handed out that matters. Worth a retry.
#[derive(Debug, Error)]
#[error("the counters can't be reached now")]
pub struct CountersError(#[source] pub Box<dyn StdError + Send + Sync>);

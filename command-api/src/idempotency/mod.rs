//! Commands with idempotency keys: the log gets one event for each use of a key, even if a client sends the command
//! repeatedly and to several processes.
//!
//! The event's id is derived from the key. `ReservedKey` decides when the event may be appended without searching for it
//! first, `ExistingEventQuery` searches for it, `LeaseTimer` measures how long the reservation is valid, and `AgeClock`
//! how old the event is.

mod age_clock;
mod existing_event;
mod lease_timer;
mod reserved_key;

use chat_domain::metadata::PayloadFingerprint;
use chat_ports::idempotency::fingerprint;

pub(crate) use age_clock::AgeClock;
pub(crate) use existing_event::{ExistingEvent, ExistingEventQuery, find_existing_events};
pub(crate) use lease_timer::{ClockReading, LeaseTimer};
pub(crate) use reserved_key::{ReservedKey, replayed_outcome};

/// A client's idempotency key, and the fingerprint of the payload that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintedKey {
    pub(crate) key: String,
    pub(crate) fingerprint: PayloadFingerprint,
}

impl FingerprintedKey {
    /// Takes a client's key and computes the fingerprint of the payload that came with it.
    pub fn new(key: impl Into<String>, payload: impl AsRef<[u8]>) -> Self {
        Self { key: key.into(), fingerprint: fingerprint(payload.as_ref()) }
    }
}

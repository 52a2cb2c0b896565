//! The idempotency port: reservations of idempotency keys, and the stored answers of executed commands.
//!
//! A client sends a command and its repetitions with the same key. The process that executes the command *reserves* the
//! key first, in a store that all processes share, and *completes* it with the answer. A reservation is a lease: its
//! owner renews it while the command runs, so that a crashed owner blocks the key for [`IdempotencyTerms::lease`] at
//! most.
//!
//! The store may lose its state, so the log decides: the event of a command with a key has an id that derives from the
//! key ([`IdempotencyKeyId::event_id`]), and an owner whose claim is doubtful searches for that event before it
//! appends. The store only determines when the owner can skip the search. Promises of every adapter:
//!
//! - **One owner at a time.** While a lease runs, the key is granted to no other owner. An owner that counts the lease
//!   from *before* its call never assumes a longer lease than the store does.
//! - **First or doubtful.** A grant is [`Claim::First`] only if no reservation of the key in the last
//!   [`IdempotencyTerms::retention`] can have led to an event: there was no reservation, or its owner released it. A
//!   store that lost its state in that time, or may have lost it by a restart or failover, grants [`Claim::Doubtful`].
//! - **Leases outlive a loss of state.** After a store was initialized with [`LogContent::HasEvents`], it grants only
//!   keys that it has a record of, until [`IdempotencyTerms::lease`] has passed: an owner from before the loss may
//!   still execute its command.
//! - **Bounded.** Answers are kept for [`IdempotencyTerms::retention`] and then removed.
//! - **Retryable.** Every [`IdempotencyStoreError`] is worth a retry: all calls are idempotent for one owner.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::metadata::{EventId, PayloadFingerprint};
use chat_domain::{AppToken, Position, Timestamp};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// The reservations and answers of one log.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + 'static {
    /// Returns the durations of leases and answers in this store.
    fn terms(&self) -> IdempotencyTerms;

    /// Initializes an empty store; does nothing if the store has state. Called when a process starts, and after
    /// [`IdempotencyStore::reserve`] returned [`ReserveOutcome::NotInitialized`].
    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError>;

    /// Reserves a key, or returns why it can't be reserved. A repeated request of the same owner is granted the same
    /// lease, which runs again from now.
    async fn reserve(&self, request: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError>;

    /// Restarts the lease from now, if the owner still holds the key. An expired lease can be renewed until another
    /// owner takes the key over.
    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError>;

    /// Stores the answer of an executed command. Any process that has found the event may call this, including
    /// a former owner.
    async fn complete(&self, command: &CompletedCommand) -> Result<(), IdempotencyStoreError>;

    /// Releases a key, if the owner still holds it: the command was not executed, and will not be. If this owner had
    /// taken the key over, the former owner may have executed its command, so the next claim is doubtful.
    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError>;
}

/// The durations of leases and stored answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyTerms {
    /// The duration of a reservation that is not renewed.
    pub lease: Duration,
    /// The duration for which the store keeps answers, and reservations that were neither completed nor released.
    pub retention: Duration,
}

impl Default for IdempotencyTerms {
    /// A day for answers, and a lease short enough that a crashed process delays a retry by less than a second.
    fn default() -> Self {
        Self { lease: Duration::from_millis(800), retention: Duration::from_hours(24) }
    }
}

/// Whether the log has events. This determines the state that [`IdempotencyStore::initialize`] gives to an empty store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// The log has no event yet, so no command was executed.
    Empty,
    /// The log has events, possibly under keys that the store has no record of.
    HasEvents,
}

/// The hash of an idempotency key and its scope: the command and the stream. Does not reveal what was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKeyId(pub [u8; 16]);

impl IdempotencyKeyId {
    /// Derives the id from the command, the stream (empty for a new one) and the client's key.
    pub fn derive(command: &str, stream: &str, key: &str) -> Self {
        Self(half_sha256(&[command.as_bytes(), stream.as_bytes(), key.as_bytes()]))
    }

    /// Returns the id of the event of a command with this key. Event ids are permanent, but a key expires and may then
    /// be used again. So the id derives from the key and from the number of the key's use, counted from 0.
    pub fn event_id(self, key_use: u32) -> EventId {
        EventId::new(Uuid::new_v5(&Uuid::from_bytes(self.0), &key_use.to_be_bytes()))
    }
}

/// Returns the fingerprint of a payload.
pub fn fingerprint(payload: &[u8]) -> PayloadFingerprint {
    PayloadFingerprint::from_bytes(half_sha256(&[payload]))
}

/// The first half of the SHA-256 over the parts, each preceded by its length.
fn half_sha256(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// The owner of a reservation: one HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOwner(pub Uuid);

impl LeaseOwner {
    /// Generates a new owner.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// A request to reserve a key for one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// The key.
    pub key: IdempotencyKeyId,
    /// The fingerprint of the payload.
    pub fingerprint: PayloadFingerprint,
    /// The owner of the reservation.
    pub owner: LeaseOwner,
    /// The token generated for a new app. It is stored before the append, so that an owner that takes the key over
    /// searches for the same app instead of creating another one.
    pub app: Option<AppToken>,
}

/// The outcome of a reservation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The owner holds the key until the lease expires.
    Granted(KeyLease),
    /// The lease of another owner runs, or may still run.
    InFlight(ExistingEventHint),
    /// The command was executed before.
    Completed(StoredAnswer),
    /// The key was used with another payload.
    PayloadMismatch,
    /// The store has no state and reserved nothing: call [`IdempotencyStore::initialize`] and retry.
    NotInitialized,
}

/// A granted reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLease {
    /// Whether the key's event may be in the log already.
    pub claim: Claim,
    /// Where to search for the command's event.
    pub hint: ExistingEventHint,
}

/// Whether an earlier owner may have executed the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No earlier owner can have executed the command.
    First,
    /// An earlier owner may have executed the command. Search for the event before appending it.
    Doubtful,
}

/// Where to search for the event of a command that may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingEventHint {
    /// The token that the first owner generated for a new app, if known.
    pub app: Option<AppToken>,
    /// The earliest time at which an owner may have executed the command.
    pub since: Timestamp,
}

/// An executed command with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedCommand {
    /// The key.
    pub key: IdempotencyKeyId,
    /// The fingerprint of the payload.
    pub fingerprint: PayloadFingerprint,
    /// The answer.
    pub answer: StoredAnswer,
}

/// The part of an answer that does not follow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The position of the event, or a position shortly after it.
    pub position: Position,
    /// The created app, chat or message.
    pub created: CreatedId,
}

/// The identity of the app, chat or message that a command created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatedId {
    /// An app with this token.
    App(AppToken),
    /// A chat or a message with this number.
    Number(u64),
}

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewOutcome {
    /// The lease runs again from now.
    Held,
    /// The owner no longer holds the key.
    Lost,
}

/// The store is unavailable. The call may have taken effect; an unused lease expires. Worth a retry.
#[derive(Debug, Error)]
#[error("the idempotency store is unavailable")]
pub struct IdempotencyStoreError(#[source] pub Box<dyn StdError + Send + Sync>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_differ_by_command_stream_and_key() {
        let ids = [
            IdempotencyKeyId::derive("CreateChat", "app-a", "k"),
            IdempotencyKeyId::derive("CreateMessage", "app-a", "k"),
            IdempotencyKeyId::derive("CreateChat", "app-b", "k"),
            IdempotencyKeyId::derive("CreateChat", "app-a", "k2"),
            IdempotencyKeyId::derive("CreateChat", "app-", "ak"),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "the key id {index} is a duplicate");
        }
    }

    #[test]
    fn event_ids_never_change_and_differ_by_use() {
        let key = IdempotencyKeyId::derive("CreateMessage", "chat-k-1", "a");
        // Stored events are found by these ids, so the derivation must never change.
        assert_eq!(key.event_id(0).uuid().to_string(), "df0a6ab7-b4d8-54ba-8279-522a912994f1");
        assert_ne!(key.event_id(0), key.event_id(1));
    }
}

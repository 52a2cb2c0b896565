//! The idempotency port: who is at work on which key, and what was answered under it.
//!
//! A client that sends a command again says so with a key. Whoever carries the command out *reserves* the key first, in a
//! place that every process sees, and *completes* it with the answer. A reservation is a lease: its owner renews it while
//! the command runs, so that the death of an owner blocks nobody for longer than [`TermTokenizer::lease`].
//!
//! A store of reservations may forget, and it does not decide. The log does: the event of a command with a key has an id
//! that derives from the key ([`KeyId::event_id`]), and whoever can't be sure to be the first looks for it before
//! appending. What a store owes is to say when one can be sure:
//!
//! - **One at a time.** While a lease runs, nobody else is granted the key. An owner that counts the lease from *before*
//!   its call never believes in it for longer than the store does.
//! - **First, or not sure.** A grant is [`Claim::First`] only where no reservation of the key in the last
//!   [`TermTokenizer::kept`] can have led to an event: there was none, or its owner released it. A store that can't tell, because
//!   it lost its memory in that time (or may have: it was restarted, or failed over), grants [`Claim::Doubtful`].
//! - **Leases outlive the memory of them.** For [`TermTokenizer::lease`] after its memory began, a store grants nothing that it
//!   does not know: an owner from before may still be at work.
//! - **Bounded.** What was answered is kept for [`TermTokenizer::kept`] and then removed.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::metadata::{EventId, PayloadFingerprint};
use chat_domain::{AppToken, Position, Timestamp};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// The reservations of one log.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + 'static {
    /// How long leases and answers last here.
    fn terms(&self) -> IdempotencyTerms;

    /// Tells a store what there is to remember; one that remembers already ignores it. To be called when a process
    /// starts, and where [`Reservations::reserve`] answered [`Reserved::NoMemory`].
    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError>;

    /// Reserves a key, or tells why that can't be. An owner that asks again, because the answer was lost, is granted the
    /// same again.
    async fn reserve(&self, wish: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError>;

    /// Lets the lease run anew from now, if it is still this owner's: also one that has run out, if nobody has taken it.
    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError>;

    /// Keeps what was answered. Whoever knows of the event may call this, also one that lost the key to somebody else.
    async fn complete(&self, done: &CompletedCommand) -> Result<(), IdempotencyStoreError>;

    /// Gives a key back, if it is still this owner's: the command was not carried out, and will not be. Where the key had
    /// been taken over, what its first owner did stays in doubt, and so does the next grant.
    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError>;
}

/// How long what is stored lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyTerms {
    /// How long a reservation holds without being renewed.
    pub lease: Duration,
    /// How long answers are kept, and reservations that nobody completed or released.
    pub retention: Duration,
}

impl Default for IdempotencyTerms {
    /// A day for answers; and a lease with which nobody waits longer than a second for a dead process.
    fn default() -> Self {
        Self { lease: Duration::from_millis(800), retention: Duration::from_hours(24) }
    }
}

/// What a store without memory has to know of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// No event yet, so there is nothing to remember.
    Empty,
    /// Events, under keys that the store does not know.
    HasEvents,
}

/// A key in its scope, hashed: it gives away neither the key nor the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKeyId(pub [u8; 16]);

impl IdempotencyKeyId {
    /// The id of a client's key for a command on a stream or on nothing yet.
    pub fn derive(command: &str, stream: &str, key: &str) -> Self {
        Self(half_sha256(&[command.as_bytes(), stream.as_bytes(), key.as_bytes()]))
    }

    /// The id of the event of a command with this key. Keys are forgotten and may be used again, event ids stay: so each
    /// use of the key counts as a generation, from 0.
    pub fn event_id(self, generation: u32) -> EventId {
        EventId::new(Uuid::new_v5(&Uuid::from_bytes(self.0), &generation.to_be_bytes()))
    }
}

/// The fingerprint of a payload.
pub fn fingerprint(payload: &[u8]) -> PayloadFingerprint {
    PayloadFingerprint::from_bytes(half_sha256(&[payload]))
}

/// Half a SHA-256 over the parts, each with its length before it.
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

/// Who holds a reservation: one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOwner(pub Uuid);

impl LeaseOwner {
    /// Somebody new.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// A wish to carry a command out under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// The key.
    pub key: IdempotencyKeyId,
    /// Of the payload.
    pub fingerprint: PayloadFingerprint,
    /// Who wishes.
    pub owner: LeaseOwner,
    /// The token drawn for a new app. It is kept before the append, so that whoever takes the key over looks for the
    /// same app and does not create another.
    pub app: Option<AppToken>,
}

/// What became of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The key is the owner's, until the lease runs out.
    Granted(KeyLease),
    /// Somebody else's lease runs, or may run.
    InFlight(LookupHint),
    /// It was carried out before.
    Completed(StoredAnswer),
    /// The key came with another payload.
    PayloadMismatch,
    /// Nothing is remembered and nothing was reserved: call [`Reservations::begin`], and try again.
    NotInitialized,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLease {
    /// Whether the key's event may be in the log already.
    pub claim: Claim,
    /// What is known of the command.
    pub hint: LookupHint,
}

/// Whether there can have been another before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No: this is the first.
    First,
    /// Yes: look for the event before appending it.
    Doubtful,
}

/// Where to look for the event of a command that may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupHint {
    /// The token that the first owner drew for a new app, where that is known.
    pub app: Option<AppToken>,
    /// By the store's clock, nobody was at work on the command before.
    pub since: Timestamp,
}

/// A command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedCommand {
    /// Its key.
    pub key: IdempotencyKeyId,
    /// Of its payload.
    pub fingerprint: PayloadFingerprint,
    /// What was answered.
    pub answer: StoredAnswer,
}

/// As much of an answer as does not follow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// A position of the log at or shortly after the event's.
    pub position: Position,
    /// What was created.
    pub created: CreatedId,
}

/// What a command created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatedId {
    /// An app with this token.
    App(AppToken),
    /// A chat or a message with this number.
    Number(u64),
}

/// Whether a lease was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewOutcome {
    /// It runs anew.
    Held,
    /// The key is somebody else's, or nobody's, or done.
    Lost,
}

/// The store can't be reached; the key may have been reserved or not, and a lease that nobody knows of runs out. Worth a
/// retry.
#[derive(Debug, Error)]
#[error("the store of idempotency keys can't be reached now")]
pub struct IdempotencyStoreError(#[source] pub Box<dyn StdError + Send + Sync>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_command_stream_and_key() {
        let ids = [
            IdempotencyKeyId::derive("CreateChat", "app-a", "k"),
            IdempotencyKeyId::derive("CreateMessage", "app-a", "k"),
            IdempotencyKeyId::derive("CreateChat", "app-b", "k"),
            IdempotencyKeyId::derive("CreateChat", "app-a", "k2"),
            IdempotencyKeyId::derive("CreateChat", "app-", "ak"),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "{index}");
        }
    }

    #[test]
    fn event_ids_derive_from_the_key_alone_and_stay_as_they_are() {
        let key = IdempotencyKeyId::derive("CreateMessage", "chat-k-1", "a");
        // Events of the past are found by these ids: what they derive from must not change.
        assert_eq!(key.event_id(0).uuid().to_string(), "df0a6ab7-b4d8-54ba-8279-522a912994f1");
        assert_ne!(key.event_id(0), key.event_id(1));
    }
}

//! Event metadata: the actor, the command, and the request that caused an event.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The actor who caused an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The kind of actor.
    pub kind: ActorKind,
    /// The operator's name; `None` for actors who are not operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The client's network address; `None` if it is not known, as for operator actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The client's `User-Agent`, truncated to [`Actor::MAX_USER_AGENT_CHARS`] characters. For an operator action, the
    /// program that the operator used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Actor {
    /// The maximal length of a stored `User-Agent`, in characters.
    pub const MAX_USER_AGENT_CHARS: usize = 256;
}

/// The kind of actor on whose behalf a command was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A client without a credential, who created an app on a server where anyone may create apps.
    Anonymous,
    /// A holder of the app's token.
    App,
    /// An operator who created an app on a server where only operators may create apps.
    Admin,
    /// An operator who took an [operator action](crate::OperatorAction), at the command line or through the admin API.
    Operator,
    /// The system itself.
    #[default]
    System,
}

/// The metadata of an event. The event's id, schema version and time are stored separately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The command's name, such as `CreateMessage`.
    pub command: String,
    /// The actor who sent the command.
    pub actor: Actor,
    /// The trace that the command belongs to: the trace id of `traceparent`, or the request's id if the request has no
    /// valid `traceparent`. For an operator action, the same as `causation_id`.
    pub correlation_id: String,
    /// The direct cause of the event: the id of the request that carried the command. For an operator action, the id of
    /// the `JobRequested` event of its job, or of the action's own event if it is not part of a job.
    pub causation_id: String,
    /// The data by which a repetition of the command is recognized; `None` without an idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencyMetadata>,
}

/// The idempotency metadata of a command that came with a key. The event's id derives from the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyMetadata {
    /// The fingerprint of the payload. Another payload under the same key is an error.
    pub fingerprint: PayloadFingerprint,
}

/// A digest of a command's payload. Displayed and stored as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PayloadFingerprint([u8; 16]);

/// The error for text that is not a fingerprint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a fingerprint is 32 hexadecimal digits")]
pub struct InvalidFingerprint;

impl PayloadFingerprint {
    /// Creates a fingerprint from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the fingerprint.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for PayloadFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl From<PayloadFingerprint> for String {
    fn from(fingerprint: PayloadFingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for PayloadFingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        // `from_str_radix` would also accept a sign.
        let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex).ok_or(InvalidFingerprint)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The id of an event. It is assigned before the append, so that the event store recognizes a repeated append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// Creates an event id from a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_metadata_without_an_idempotency_key() -> Result<(), serde_json::Error> {
        let stored =
            r#"{"command":"CreateMessage","actor":{"kind":"app"},"correlation_id":"c","causation_id":"r"}"#;
        let read: Metadata = serde_json::from_str(stored)?;
        assert_eq!(read.idempotency, None);
        assert_eq!(serde_json::to_string(&read)?, stored);
        Ok(())
    }

    #[test]
    fn a_fingerprint_is_stored_as_hexadecimal_digits() -> Result<(), serde_json::Error> {
        let mut bytes = [0; 16];
        bytes[15] = 0xfe;
        let idempotency = IdempotencyMetadata { fingerprint: PayloadFingerprint::from_bytes(bytes) };
        let stored = r#"{"fingerprint":"000000000000000000000000000000fe"}"#;
        assert_eq!(serde_json::to_string(&idempotency)?, stored);
        assert_eq!(serde_json::from_str::<IdempotencyMetadata>(stored)?, idempotency);
        for wrong in ["", "fe", &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(PayloadFingerprint::try_from(wrong.to_owned()), Err(InvalidFingerprint), "{wrong}");
        }
        Ok(())
    }
}

//! What is recorded about an event beside its payload: who, from where, why.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who caused an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// On whose behalf.
    pub kind: ActorKind,
    /// The client's network address, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The client's `User-Agent`, cut to [`Actor::MAX_USER_AGENT`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Actor {
    /// How much of a `User-Agent` is kept, in characters.
    pub const MAX_USER_AGENT: usize = 256;
}

/// On whose behalf a command was carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A client without a credential: creating an app needs none.
    Anonymous,
    /// Whoever holds the app's token.
    App,
    /// An operator with the admin token.
    Admin,
    /// The system itself.
    #[default]
    System,
}

/// The circumstances of an event. Its id, schema version and time are recorded beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The command's name, such as `CreateMessage`.
    pub command: String,
    /// Who sent the command.
    pub actor: Actor,
    /// What the command belongs to: the trace id of `traceparent`, or else the request's id.
    pub correlation_id: String,
    /// What caused the event directly: the id of the request that carried the command.
    pub causation_id: String,
}

/// An event's identity, given by its writer, so that an append sent twice is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// The event id with these bits.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

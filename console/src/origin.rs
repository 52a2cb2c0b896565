//! The origin of an event: actor, address, client and request.

use chat_domain::Metadata;
use chat_ports::event_store::RecordedEvent;

use crate::text;

/// The origin of an event, as its metadata names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// The actor; empty if the metadata can't be read.
    pub(crate) actor: String,
    /// The network address of the client.
    pub(crate) address: Option<String>,
    /// The `User-Agent` of the client.
    pub(crate) client: Option<String>,
    /// The correlation id: that of the trace or of the request.
    pub(crate) correlation: Option<String>,
}

impl Origin {
    pub(crate) fn from_event(event: &RecordedEvent) -> Self {
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else {
            return Self::default();
        };
        let actor = text::actor(&metadata.actor);
        Self {
            actor,
            address: metadata.actor.address,
            client: metadata.actor.user_agent,
            correlation: Some(metadata.correlation_id).filter(|id| !id.is_empty()),
        }
    }
}

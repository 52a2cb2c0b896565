//! Events in audit reports: complete, even if they can't be decoded.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Actor, Event, Metadata, OperatorAction, Position, Revision, Timestamp, operator_action};
use chat_ports::error_chain;
use chat_ports::event_store::RecordedEvent;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::time::rfc3339;

/// A stored event in full.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditedEvent {
    /// Its position in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// Its stream's name.
    pub stream: String,
    /// Its revision in the stream, from 0.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its type's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The schema version of the payload.
    #[schema(value_type = u32)]
    pub schema_version: SchemaVersion,
    /// When it was recorded, by the clock of its writer.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// The payload as stored, but on one line; `null` if it is not JSON.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// The payload's bytes in base64, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// The metadata as stored, but on one line: `command`, `actor`, `correlation_id`, `causation_id` and, if the
    /// command had an idempotency key, `idempotency`. `null` if it is not JSON.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The metadata's bytes in base64, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
    /// Why the event can't be decoded, if it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A reference to an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventReference {
    /// Its position in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// Its stream's name.
    pub stream: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was recorded, by the clock of its writer.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// The actor who caused it; `null` if the metadata can't be read.
    #[schema(value_type = Option<Object>)]
    pub actor: Option<Actor>,
}

impl From<&RecordedEvent> for AuditedEvent {
    fn from(event: &RecordedEvent) -> Self {
        let (data, data_base64) = json_or_base64(&event.data);
        let (metadata, metadata_base64) = json_or_base64(&event.metadata);
        Self {
            position: event.position,
            id: event.id,
            stream: event.stream.to_string(),
            revision: event.revision,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            recorded_at: event.recorded_at,
            data,
            data_base64,
            metadata,
            metadata_base64,
            problem: decoding_problem(event),
        }
    }
}

impl AuditedEvent {
    /// The metadata, if it can be parsed.
    pub fn parsed_metadata(&self) -> Option<Metadata> {
        serde_json::from_str(self.metadata.as_ref()?.get()).ok()
    }
}

impl From<&RecordedEvent> for EventReference {
    fn from(event: &RecordedEvent) -> Self {
        let metadata: Option<Metadata> = serde_json::from_slice(&event.metadata).ok();
        Self {
            position: event.position,
            id: event.id,
            stream: event.stream.to_string(),
            event_type: event.event_type.clone(),
            recorded_at: event.recorded_at,
            actor: metadata.map(|metadata| metadata.actor),
        }
    }
}

/// Returns the bytes as JSON if they are JSON, or else in base64.
fn json_or_base64(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(json) => (Some(on_one_line(json)), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// Puts JSON on one line. Line breaks between tokens are whitespace; inside strings they are escaped.
fn on_one_line(json: &RawValue) -> Box<RawValue> {
    if json.get().contains(['\n', '\r']) {
        let line = json.get().replace(['\n', '\r'], " ");
        if let Ok(json) = RawValue::from_string(line) {
            return json;
        }
    }
    json.to_owned()
}

/// The reason why an event can't be decoded.
fn decoding_problem(event: &RecordedEvent) -> Option<String> {
    let decoded = if &*event.stream == operator_action::STREAM {
        OperatorAction::decode(&event.event_type, event.schema_version, &event.data).map(drop)
    } else {
        Event::decode(&event.event_type, event.schema_version, &event.data).map(drop)
    };
    decoded.err().map(|error| error_chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn event(data: &[u8]) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(7),
            stream: "app-x".into(),
            revision: Revision::FIRST,
            id: EventId::new(Uuid::nil()),
            event_type: "AppCreated".to_owned(),
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(0),
            data: data.to_vec(),
            metadata: b"{}".to_vec(),
        }
    }

    #[test]
    fn keeps_json_except_for_line_breaks_between_tokens() {
        let audited = AuditedEvent::from(&event(b"{\"name\":\"a\\nb\",\r\n\"n\":1e400}"));
        assert_eq!(audited.data.unwrap().get(), "{\"name\":\"a\\nb\",  \"n\":1e400}");
        assert_eq!(audited.problem, None);
    }

    #[test]
    fn encodes_invalid_json_as_base64() {
        let audited = AuditedEvent::from(&event(b"{\"name\":\"\xff"));
        assert!(audited.data.is_none());
        assert_eq!(BASE64_STANDARD.decode(audited.data_base64.unwrap()).unwrap(), b"{\"name\":\"\xff");
        assert!(audited.problem.unwrap().starts_with("broken payload: "));
    }
}

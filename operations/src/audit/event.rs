//! Events as operators see them: nothing is left out, also of what can't be read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Actor, Event, Metadata, OperatorAction, Position, Revision, Timestamp, operator_action};
use chat_ports::event_store::RecordedEvent;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::time::rfc3339;

/// A stored event, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditedEvent {
    /// Its place in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its identity.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// Its stream's name.
    pub stream: String,
    /// Its place in the stream, from 0.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its type's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version of the payload's shape.
    #[schema(value_type = u32)]
    pub schema_version: SchemaVersion,
    /// When its writer decided it.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// The payload, as stored; `null` where it is no JSON.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// The payload's bytes in base64, where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// Who, from where and why, as stored: `command`, `actor`, `correlation_id`, `causation_id`. `null` where it is no
    /// JSON.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The metadata's bytes in base64, where they are no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
    /// Why the event can't be read, if it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An event, named by those who refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventReference {
    /// Its place in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its identity.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// Its stream's name.
    pub stream: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When its writer decided it.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// Who caused it; `null` where that can't be read.
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
    /// The circumstances, where they can be read.
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

/// JSON as it is, or else its bytes.
fn json_or_base64(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(json) => (Some(on_one_line(json)), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// The same JSON on one line: between its parts line breaks mean nothing, and inside of texts there are none.
fn on_one_line(json: &RawValue) -> Box<RawValue> {
    if json.get().contains(['\n', '\r']) {
        let line = json.get().replace(['\n', '\r'], " ");
        if let Ok(json) = RawValue::from_string(line) {
            return json;
        }
    }
    json.to_owned()
}

/// Why an event can't be read.
fn decoding_problem(event: &RecordedEvent) -> Option<String> {
    let decoded = if &*event.stream == operator_action::STREAM {
        OperatorAction::decode(&event.event_type, event.schema_version, &event.data).map(drop)
    } else {
        Event::decode(&event.event_type, event.schema_version, &event.data).map(drop)
    };
    let error = decoded.err()?;
    let source = std::error::Error::source(&error);
    Some(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
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
            schema_version: SchemaVersion::CURRENT,
            recorded_at: Timestamp::from_millis(0),
            data: data.to_vec(),
            metadata: b"{}".to_vec(),
        }
    }

    #[test]
    fn json_stays_as_it_is_but_for_line_breaks_between_its_parts() {
        let audited = AuditedEvent::from(&event(b"{\"name\":\"a\\nb\",\r\n\"n\":1e400}"));
        assert_eq!(audited.data.unwrap().get(), "{\"name\":\"a\\nb\",  \"n\":1e400}");
        assert_eq!(audited.problem, None);
    }

    #[test]
    fn what_is_no_json_is_kept_byte_for_byte() {
        let audited = AuditedEvent::from(&event(b"{\"name\":\"\xff"));
        assert!(audited.data.is_none());
        assert_eq!(BASE64_STANDARD.decode(audited.data_base64.unwrap()).unwrap(), b"{\"name\":\"\xff");
        assert!(audited.problem.unwrap().starts_with("broken payload: "));
    }
}
